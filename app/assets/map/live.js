// The map while the slider moves. `props.data` is what app/map/live.py gives: maps at each stop, as JSON.

const W = 220, H = 150, LEFT = 8, RIGHT = W - 6, TOP = 8, BOTTOM = H - 20;
const POINTS = 160, CELLS = 55;
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const number = (n) => Math.round(n).toLocaleString("en");
const short = (n) => (n >= 1024 ? `${(n / 1024).toFixed(n < 10240 && n % 1024 ? 1 : 0)}k` : String(n));
const slider = () => document.querySelector("#map-slider input[type=range]");
let data = null; // the maps under the settings that the figures below have
let stop = 0;
let exact = true; // the length of the figures below, which may lie between two stops
let span = 0; // tokens along the axes: they stay while one drags, so that squeezing is seen
let moving = false;

const nearest = (length) => data.stops.reduce((a, b, n) => (Math.abs(Math.log(b / length)) < Math.abs(Math.log(data.stops[a] / length)) ? n : a), 0);
const text = (x, y, words, anchor = "start") => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
const path = (points, name) => `<path class="${name}" d="M${points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}"/>`;

function runs(map, last) {
  // The last token's row as runs of one region: for each the distances and positions along it.
  const found = [];
  for (let n = 0; n <= POINTS; n++) {
    const key = last - Math.round((n / POINTS) * last);
    const region = regionOf(map, last, key);
    if (!region) continue;
    const point = [last - key, positionOf(map, last, key)];
    if (found.length && found.at(-1).region === region) found.at(-1).points.push(point);
    else found.push({ region, role: region[0], points: [...(found.length ? [found.at(-1).points.at(-1)] : []), point] });
  }
  return found;
}

function draw() {
  if (!data) return;
  const length = exact ? data.length : data.stops[stop], map = exact ? data.own : data.maps[stop];
  const last = length - 1, window_ = data.window;
  if (!moving) span = Math.max(2 * window_, 1.2 * length);
  span = Math.max(span, 1.05 * length);
  element.classList.toggle("moving", moving);
  if (!map) {
    part("said").textContent = `${number(length)} tokens: these settings allow no map of so few.`;
    return;
  }
  const row = runs(map, last);
  const far = row.at(-1).points.at(-1)[1];
  const squeezed = row.filter(({ role }) => role === "compressed").map(({ points }) => points.at(-1)[0] - points[0][0]).reduce((a, b) => a + b, 0);
  const said = `${number(length)} tokens: the first is given distance ${number(far)}` +
    (squeezed ? `, ${number(squeezed)} tokens are squeezed.` : ", nothing is squeezed.") + (far >= window_ ? ` Beyond ${number(window_ - 1)} the model has seen none.` : "");
  part("said").textContent = said;
  distance(row, window_, said);
  plane(map, length, said);
  curve(length, map[0], window_, said);
  strip(row, length, window_, said);
}

function distance(row, window_, said) {
  const x = (d) => LEFT + (d / span) * (RIGHT - LEFT);
  const y = (p) => BOTTOM - (Math.min(p, span) / span) * (BOTTOM - TOP);
  part("distance").setAttribute("aria-label", said);
  part("distance").innerHTML = `<rect class="unseen" x="${LEFT}" y="${TOP}" width="${RIGHT - LEFT}" height="${y(window_) - TOP}"/>` +
    path([[x(0), y(0)], [x(span), y(span)]], "plain") + path([[LEFT, y(window_)], [RIGHT, y(window_)]], "window") +
    row.map(({ role, points }) => path(points.map(([d, p]) => [x(d), y(p)]), `line ${role}`)).join("") +
    text(LEFT + 3, TOP + 11, "never seen in training") + text(LEFT, H - 6, "0") + text(RIGHT, H - 6, `${short(Math.round(span))} tokens back`, "end");
}

function plane(map, length, said) {
  const canvas = part("plane"), ratio = devicePixelRatio || 1;
  canvas.setAttribute("aria-label", said);
  if (canvas.width !== W * ratio) [canvas.width, canvas.height] = [W * ratio, H * ratio];
  const pen = canvas.getContext("2d"), style = getComputedStyle(element);
  const colours = Object.fromEntries(["near", "compressed", "far", "end", "soft"].map((role) => [role, style.getPropertyValue(`--${role}`).trim()]));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, W, H);
  const side = BOTTOM - TOP, cell = side / CELLS, left = (W - side) / 2;
  for (let i = 0; i < CELLS; i++) {
    const query = Math.round(((i + 0.5) / CELLS) * span);
    if (query >= length) break;
    for (let j = 0; j <= i; j++) {
      const key = Math.min(query, Math.round(((j + 0.5) / CELLS) * span));
      const region = regionOf(map, query, key);
      if (!region) continue;
      pen.fillStyle = colours[region[0]];
      pen.globalAlpha = region[0] === "compressed" ? 0.75 : 1;
      pen.fillRect(left + j * cell, TOP + i * cell, cell + 0.3, cell + 0.3);
    }
  }
  pen.globalAlpha = 1;
  pen.fillStyle = colours.soft;
  pen.font = `${document.body.classList.contains("presenting") ? 14 : 11}px system-ui, sans-serif`;
  pen.fillText("key →", left, H - 6);
  pen.textAlign = "right";
  pen.fillText("query ↓", left + side, TOP + 10);
  pen.textAlign = "left";
}

function curve(length, m, window_, said) {
  const first = Math.log(data.stops[0]), wide = Math.log(data.stops.at(-1)) - first;
  const greatest = Math.max(window_, ...data.maps.filter(Boolean).map(([m]) => Math.min(m, 4 * window_))) * 1.1;
  const x = (l) => LEFT + ((Math.log(l) - first) / wide) * (RIGHT - LEFT);
  const y = (m) => BOTTOM - (Math.min(m, greatest) / greatest) * (BOTTOM - TOP);
  const points = data.stops.map((l, n) => [l, data.maps[n]]).filter(([, map]) => map).map(([l, map]) => [x(l), y(map[0])]);
  part("curve").setAttribute("aria-label", said);
  part("curve").innerHTML = path([[LEFT, y(window_)], [RIGHT, y(window_)]], "window") + text(LEFT + 2, y(window_) - 4, `window ${short(window_)}`) +
    path(points, "line") + `<circle cx="${x(length)}" cy="${y(m)}" r="6"/>` +
    text(x(length) > W / 2 ? RIGHT : x(length), Math.min(BOTTOM - 4, y(m) + 22), `m = ${number(m)}`, x(length) > W / 2 ? "end" : "start") +
    text(LEFT, H - 6, short(data.stops[0])) + text(RIGHT, H - 6, short(data.stops.at(-1)), "end");
}

function strip(row, length, window_, said) {
  // The text as a strip, the question at its right end, and under it the positions that its distances take.
  const x = (d) => RIGHT - (d / span) * (RIGHT - LEFT);
  part("row").setAttribute("aria-label", said);
  part("row").innerHTML = `<rect class="unseen" x="${LEFT}" y="88" width="${Math.max(0, x(window_) - LEFT)}" height="26"/><rect class="seen" x="${x(window_)}" y="88" width="${RIGHT - x(window_)}" height="26"/>` +
    row.map(({ role, points }) => {
      const [[from, p], [to, q]] = [points[0], points.at(-1)];
      return `<polygon class="fold ${role}" points="${x(to)},48 ${x(from)},48 ${x(p)},88 ${x(q)},88"/><rect class="${role}" x="${x(to)}" y="22" width="${x(from) - x(to)}" height="26"/><rect class="${role}" x="${x(q)}" y="94" width="${Math.max(0, x(p) - x(q))}" height="14"/>`;
    }).join("") + text(LEFT, 15, `${number(length)} tokens`) + text(RIGHT, 15, "question", "end") + text(x(window_), H - 18, `← seen up to ${short(window_)}`, x(window_) > W / 2 ? "end" : "start");
}

function follow() {
  const control = slider();
  if (!control || !data) return;
  const length = Math.round(2 ** Number(control.value));
  control.setAttribute("aria-valuetext", `${number(length)} tokens`);
  stop = nearest(length);
  exact = false;
  draw();
}

document.addEventListener("input", (event) => {
  if (!element.isConnected || event.target !== slider()) return;
  moving = true;
  follow();
});
for (const ended of ["pointerup", "change"]) {
  document.addEventListener(ended, (event) => {
    if (!moving || event.target !== slider()) return;
    moving = false;
    // The page hears of a slider's end by the pointer alone; by keys it is a change.
    if (ended === "change") event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
    draw();
  }, true);
}

function given() {
  if (!props.data) return;
  data = JSON.parse(props.data);
  stop = nearest(data.length);
  exact = true;
  slider()?.setAttribute("aria-valuetext", `${number(data.length)} tokens`);
  draw();
}

watch("data", given);
given();
new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
element.live = { positionOf }; // for the tests
