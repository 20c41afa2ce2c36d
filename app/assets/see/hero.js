// The squeezed ruler: a text's tokens as threads, down to the distances that a method gives them.
// `props.data` is what app/see/page.py gives. Positions are computed here from the regions, as PositionMap does.

const data = JSON.parse(props.data);
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const language = (navigator.languages || [navigator.language]).some((one) => one.startsWith("zh")) &&
  !(navigator.language || "").startsWith("en") ? "zh" : "en";
const strings = data.strings[new URLSearchParams(location.search).get("lang")] || data.strings[language];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const number = (n) => n.toLocaleString("en");

function say(key, values = {}) {
  return strings[key].replace(/\{(\w+)\}/g, (all, name) => (name in values ? values[name] : all));
}

// What is shown

const THREADS = 240;
const shown = new Float64Array(THREADS + 1); // where each thread ends now, in positions
const state = { stop: 0, length: 0, depth: 0.5, method: data.methods[0], map: null };
let moving = 0;

const nearest = (values, wanted) => values.reduce((a, b, n) => (Math.abs(b - wanted) < Math.abs(values[a] - wanted) ? n : a), 0);
const keyAt = (share) => Math.round(share * (state.length - 1));
const given = (key) => positionOf(state.map, state.length - 1, key);

function setLength(stop) {
  state.stop = Math.max(0, Math.min(data.lengths.length - 1, stop));
  state.length = data.lengths[state.stop];
  state.map = state.method.maps[state.stop];
}

function setMethod(key) {
  state.method = data.methods.find((one) => one.key === key) || data.methods[0];
  setLength(state.stop);
}

// Drawing

const canvas = part("canvas");
const RULER = 0.62; // the trained distances' share of the width
const colour = (role) => getComputedStyle(element).getPropertyValue(`--${role}`).trim();

function geometry(width, height) {
  const pad = 14;
  const ruler = (width - 2 * pad) * RULER;
  return {
    width, height, pad,
    place: (share) => pad + share * (width - 2 * pad),
    position: (p) => width - pad - (p / data.window) * ruler,
  };
}

function threads(space, ends) {
  const last = state.length - 1;
  return Array.from(ends, (end, n) => {
    const region = regionOf(state.map, last, keyAt(n / THREADS));
    return { from: space.place(n / THREADS), to: space.position(end), lost: end >= data.window, role: region[0] };
  });
}

function draw() {
  if (!canvas.isConnected || canvas.closest(".gone")) return; // the page's own ruler has taken its place
  const { clientWidth: width, clientHeight: height } = canvas;
  document.body.classList.toggle("seeing", width > 0);
  if (!width) return; // another view is open
  const ratio = devicePixelRatio || 1;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const space = geometry(width, height);
  const colours = Object.fromEntries(["near", "compressed", "far", "end", "unseen"].map((role) => [role, colour(role)]));
  const dashes = { near: [], compressed: [], far: [9, 3], end: [2, 3] };
  const dark = document.body.classList.contains("dark");
  pen.lineWidth = 1.4;
  for (const thread of threads(space, shown)) {
    pen.globalAlpha = dark ? 0.9 : thread.lost ? 0.75 : 0.6;
    pen.strokeStyle = thread.lost ? colours.unseen : colours[thread.role];
    pen.setLineDash(thread.lost ? [5, 4] : dashes[thread.role]);
    line(pen, thread.from, thread.to, height);
  }
  pen.globalAlpha = 1;
  pen.setLineDash([]);
  const at = Math.round(state.depth * THREADS);
  const end = moving ? shown[at] : given(keyAt(state.depth));
  pen.strokeStyle = colour("ink");
  pen.lineWidth = 4;
  line(pen, space.place(state.depth), space.position(end), height);
  const mark = part("mark");
  const left = Math.max(4, Math.min(width - 4, space.position(end)));
  mark.style.left = `${left}px`;
  mark.classList.toggle("turned", left > width * 0.7);
  const value = Math.round(given(keyAt(state.depth)));
  mark.textContent = value >= data.window ? `${number(value)}: ${strings.off}` : number(value);
}

function line(pen, from, to, height) {
  pen.beginPath();
  pen.moveTo(from, 0);
  pen.bezierCurveTo(from, height / 2, to, height / 2, to, height);
  pen.stroke();
}

function animate() {
  let far = false;
  for (let n = 0; n <= THREADS; n++) {
    const goal = given(keyAt(n / THREADS));
    const step = goal - shown[n];
    shown[n] = calm.matches || Math.abs(step) < 1 ? goal : shown[n] + step * 0.2;
    far = far || shown[n] !== goal;
  }
  moving = far ? requestAnimationFrame(animate) : 0;
  draw();
}

function jump() {
  for (let n = 0; n <= THREADS; n++) shown[n] = given(keyAt(n / THREADS));
  draw();
}

function show(morph) {
  const length = part("length");
  length.value = state.stop;
  length.setAttribute("aria-valuetext", say("tokens", { n: number(state.length) }));
  part("length-out").textContent = say("tokens", { n: number(state.length) });
  const back = state.length - 1 - keyAt(state.depth);
  const needle = part("needle");
  needle.value = Math.round(state.depth * 1000);
  needle.setAttribute("aria-valuetext", say("needle_value", { n: number(back) }));
  part("needle-out").textContent = say("needle_value", { n: number(back) });
  for (const button of part("methods").querySelectorAll("button")) {
    const chosen = button.dataset.key === state.method.key;
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen ? 0 : -1;
  }
  const select = part("more");
  select.value = [...select.options].some((one) => one.value === state.method.key) ? state.method.key : "";
  ribbon();
  sentence(back);
  answers();
  if (morph && !moving) moving = requestAnimationFrame(animate);
  else if (!morph) jump();
  keepAddress();
}

function ribbon() {
  const last = state.length - 1;
  const runs = [];
  const count = 200;
  for (let n = 0; n < count; n++) {
    const role = regionOf(state.map, last, Math.round((n / (count - 1)) * last))[0];
    if (runs.length && runs.at(-1).role === role) runs.at(-1).share += 1 / count;
    else runs.push({ role, share: 1 / count });
  }
  const only = state.map.length === 2;
  part("ribbon").replaceChildren(
    ...runs.map(({ role, share }) => {
      const piece = document.createElement("i");
      piece.className = `region-${role}`;
      piece.style.flexGrow = share;
      if (share > 0.18) {
        const word = document.createElement("b");
        word.textContent = only && role === "near" ? strings.all : strings[role];
        piece.append(word);
      }
      return piece;
    }),
  );
}

function sentence(back) {
  const value = given(keyAt(state.depth));
  const lost = lostTokens();
  const words = {
    method: state.method.title, length: number(state.length), distance: number(back),
    position: number(Math.round(value)), last: number(data.window - 1), count: number(lost),
  };
  const first = say(value >= data.window ? "outside" : "inside", words);
  part("sentence").textContent = `${first} ${lost ? say("lost", words) : strings.none_lost}`;
}

function lostTokens() {
  // Positions fall from the text's start on, but for where a region's maps leave them: a bisection by regions.
  let count = 0;
  const last = state.length - 1;
  const steps = Math.min(state.length, 4096);
  for (let n = 0; n < steps; n++) if (given(Math.round((n / Math.max(1, steps - 1)) * last)) >= data.window) count++;
  return Math.round((count / steps) * state.length);
}

function answers() {
  const proof = data.proof;
  const longest = Math.max(...proof.lengths);
  const box = part("answers");
  const title = part("recorded-at");
  if (state.length > longest * 1.5) {
    title.textContent = "";
    box.replaceChildren(paragraph(say("not_recorded_length", { length: number(longest) })));
    return;
  }
  const length = proof.lengths[nearest(proof.lengths, state.length)];
  const depth = proof.depths[nearest(proof.depths, state.depth)];
  title.textContent = say("recorded_at", { length: number(length), depth: `${depth * 100} %` });
  const cards = proof.methods.map(({ key, title: name }) => {
    const card = document.createElement("div");
    const rows = proof.rows.filter((row) => row[0] === length && row[1] === depth && row[2] === key);
    const found = rows.filter((row) => row[5]).length;
    card.className = found * 2 > rows.length ? "found" : found ? "" : "missed";
    const head = document.createElement("h4");
    head.textContent = `${name}: ${say("found_here", { found, tests: rows.length })}`;
    card.append(head);
    for (const [, , , wanted, answer, right] of rows) {
      const one = paragraph("");
      const quote = document.createElement("q");
      quote.textContent = answer.replace(/\s+/g, " ").trim().slice(0, 90) || " ";
      quote.dir = "auto";
      one.append(`${right ? "✓" : "✗"} `, quote, ` (${say("wanted", { number: wanted })})`);
      card.append(one);
    }
    const [hits, tests, low, high] = proof.totals[`${length} ${key}`];
    const percent = (share) => `${Math.round(share * 100)} %`;
    card.append(paragraph(say("found_length", { found: hits, tests, low: percent(low), high: percent(high) }), "total"));
    return card;
  });
  if (!proof.methods.some(({ key }) => key === state.method.key)) {
    const card = document.createElement("div");
    const head = document.createElement("h4");
    head.textContent = state.method.title;
    card.append(head, paragraph(strings.not_recorded));
    cards.push(card);
  }
  box.replaceChildren(...cards);
}

function paragraph(text, name = "") {
  const made = document.createElement("p");
  made.textContent = text;
  made.className = name;
  return made;
}

// Taking it along

function drawing() {
  const width = 1200;
  const top = 120;
  const height = 380;
  const space = geometry(width, height);
  const ends = Array.from({ length: THREADS + 1 }, (_, n) => given(keyAt(n / THREADS)));
  const curve = (from, to) => `M${from.toFixed(1)} ${top}C${from.toFixed(1)} ${top + height / 2} ${to.toFixed(1)} ${top + height / 2} ${to.toFixed(1)} ${top + height}`;
  const dashes = { far: "9 3", end: "2 3" };
  const paths = threads(space, ends).map(({ from, to, lost, role }) =>
    `<path d="${curve(from, to)}" stroke="${colour(lost ? "unseen" : role)}" stroke-dasharray="${lost ? "5 4" : dashes[role] || ""}"/>`);
  const at = given(keyAt(state.depth));
  const edge = space.position(data.window);
  const text = (x, y, size, words, anchor = "start") =>
    `<text x="${x}" y="${y}" font-size="${size}" text-anchor="${anchor}">${words.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`)}</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="630" viewBox="0 0 ${width} 630" font-family="system-ui, sans-serif" fill="#1c2733">` +
    `<rect width="${width}" height="630" fill="#fff"/>` +
    text(14, 48, 32, `${state.method.title}: ${say("tokens", { n: number(state.length) })}`) +
    text(14, 104, 18, strings.text_start) + text(width - 14, 104, 18, `${strings.question} →`, "end") +
    `<rect y="${top + height}" width="${edge}" height="40" fill="#fbe9dd"/><rect x="${edge}" y="${top + height}" width="${width - 14 - edge}" height="40" fill="#e8f2f9"/>` +
    `<g fill="none" stroke-width="1.4" stroke-opacity="0.6">${paths.join("")}</g>` +
    `<path d="${curve(space.place(state.depth), space.position(at))}" fill="none" stroke="#1c2733" stroke-width="4"/>` +
    text(14, top + height + 66, 18, strings.unseen) +
    text(edge, top + height + 66, 18, say("ruler", { window: number(data.window) })) +
    text(Math.max(14, space.position(at) + 10), top + height + 27, 18, number(Math.round(at))) +
    part("sentence").textContent.match(/.{1,125}(?:\s|$)/g).map((row, n) => text(14, 596 + 22 * n, 15, row.trim())).join("") + "</svg>";
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `lampe-ruler-${state.method.key}-${state.length}.${name}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function address() {
  const url = new URL(location.href);
  url.search = new URLSearchParams({ view: "see", tokens: state.length, needle: state.depth.toFixed(3), by: state.method.key });
  url.hash = "";
  return url.href;
}

let keeping = 0;
function keepAddress() {
  // Only where the address is this view's already, or of no view: others' links stay theirs.
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    const now = new URLSearchParams(location.search);
    if (!canvas.clientWidth || (now.get("view") || "see") !== "see" || touched === false) return;
    const next = new URL(address());
    for (const kept of ["embed", "lang", "__theme"]) if (now.has(kept)) next.searchParams.set(kept, now.get(kept));
    history.replaceState(history.state, "", next);
  }, 400);
}
let touched = false;

// Controls

function fill() {
  for (const one of element.querySelectorAll("[data-text]")) one.textContent = say(one.dataset.text, { window: number(data.window) });
  for (const one of element.querySelectorAll("[data-label]")) one.setAttribute("aria-label", strings[one.dataset.label]);
  part("seen").textContent = say("ruler", { window: number(data.window) });
  part("unseen").style.flexBasis = `${(1 - RULER) * 100}%`;
  part("source").textContent = say("source", data.proof.source);
  if (strings === data.strings.zh) element.lang = "zh";
  const box = part("methods");
  for (const method of data.methods.filter(({ key }) => data.first.includes(key))) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "radio");
    button.dataset.key = method.key;
    button.textContent = method.title;
    box.append(button);
  }
  const select = document.createElement("select");
  select.dataset.part = "more";
  select.setAttribute("aria-label", strings.more);
  select.append(new Option(`${strings.more} …`, ""));
  for (const { key, title } of data.methods) if (!data.first.includes(key)) select.append(new Option(title, key));
  box.parentElement.append(select);
  const length = part("length");
  length.min = 0;
  length.max = data.lengths.length - 1;
}

function listen() {
  const length = part("length");
  const needle = part("needle");
  const change = (set, morph = false) => {
    touched = true;
    set();
    show(morph);
  };
  length.addEventListener("input", () => change(() => setLength(Number(length.value))));
  length.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    // A step of √2; with Shift the next stop.
    const there = nearest(data.lengths, state.length * 2 ** (way / 2));
    change(() => setLength(event.shiftKey || there === state.stop ? state.stop + way : there));
  });
  needle.addEventListener("input", () => change(() => { state.depth = Number(needle.value) / 1000; }));
  needle.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!way || !event.shiftKey) return;
    event.preventDefault(); // a single token
    change(() => { state.depth = Math.max(0, Math.min(1, (keyAt(state.depth) + way) / (state.length - 1))); });
  });
  const box = part("methods");
  box.addEventListener("click", (event) => {
    const key = event.target.dataset && event.target.dataset.key;
    if (key) change(() => setMethod(key), true);
  });
  box.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = [...box.querySelectorAll("button")];
    const at = buttons.indexOf(event.target);
    if (!way || at < 0) return;
    event.preventDefault();
    const next = buttons[(at + way + buttons.length) % buttons.length];
    change(() => setMethod(next.dataset.key), true);
    next.focus();
  });
  part("more").addEventListener("change", (event) => event.target.value && change(() => setMethod(event.target.value), true));
  const stage = part("stage");
  const drag = (event) => {
    if (!event.buttons) return;
    const box = canvas.getBoundingClientRect();
    change(() => { state.depth = Math.max(0, Math.min(1, (event.clientX - box.left - 14) / (box.width - 28))); });
  };
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
  stage.addEventListener("pointermove", drag);
  part("copy").addEventListener("click", async (event) => {
    try {
      await navigator.clipboard.writeText(address());
      event.target.textContent = strings.copied;
      setTimeout(() => { event.target.textContent = strings.copy; }, 2000);
    } catch { prompt(strings.copy, address()); }
  });
  part("drawing").addEventListener("click", () => download(new Blob([drawing()], { type: "image/svg+xml" }), "svg"));
  part("image").addEventListener("click", () => {
    const picture = new Image();
    picture.onload = () => {
      const sheet = document.createElement("canvas");
      [sheet.width, sheet.height] = [2400, 1260];
      sheet.getContext("2d").drawImage(picture, 0, 0, 2400, 1260);
      sheet.toBlob((blob) => download(blob, "png"));
      URL.revokeObjectURL(picture.src);
    };
    picture.src = URL.createObjectURL(new Blob([drawing()], { type: "image/svg+xml" }));
  });
  part("live").addEventListener("click", () => trigger("click", { length: state.length, depth: state.depth, method: state.method.key }));
  new ResizeObserver(draw).observe(canvas);
  new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
}

function go(tokens, depth, by, morph = true) {
  state.depth = depth;
  setLength(nearest(data.lengths, tokens));
  setMethod(by);
  show(morph);
}

function open() {
  const asked = new URLSearchParams(location.search);
  const wanted = Number(asked.get("tokens"));
  setLength(nearest(data.lengths, wanted > 0 ? wanted : data.start));
  const depth = asked.has("needle") ? Number(asked.get("needle")) : 0.5;
  state.depth = depth >= 0 && depth <= 1 ? depth : 0.5;
  setMethod(asked.get("by") || data.methods[0].key);
  if (asked.get("embed") === "1") document.body.classList.add("embed");
}

fill();
open();
listen();
show(false);
part("hero").ruler = { positionOf, regionOf, state, draw, drawing, go }; // for the tour and the tests
