// A tour of ten steps over the real page, and the page as it is shown to a room.
// `props.data` has the steps (which view, what is pointed at, how the ruler stands) and the words.

const data = JSON.parse(props.data);
const wanted = new URLSearchParams(location.search);
const chinese = (navigator.language || "").startsWith("zh");
const words = data.words[wanted.get("lang")] || data.words[chinese ? "zh" : "en"];
const panel = document.createElement("section");
let step = -1;

function button(key, press) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = words[key];
  made.dataset.key = key;
  made.addEventListener("click", press);
  return made;
}

const paragraph = (name) => Object.assign(document.createElement("p"), { className: name });
const title = document.createElement("h2");
const text = paragraph("tour-text");
const count = paragraph("tour-count");
const [back, next, run, end] = [
  button("back", () => go(step - 1)), button("next", () => go(step + 1)),
  button("run", () => runs()), button("end", () => stop()),
];
const choices = document.createElement("div");
choices.append(back, next, run, end, count);
panel.id = "tour-panel";
panel.hidden = true;
panel.setAttribute("role", "dialog");
panel.setAttribute("aria-label", words.label);
const told = document.createElement("div");
told.setAttribute("aria-live", "polite");
told.append(title, text);
panel.append(told, choices);
document.getElementById(panel.id)?.remove(); // of an earlier load of the page
document.body.append(panel);

function unpoint() {
  for (const one of document.querySelectorAll(".tour-pointed")) one.classList.remove("tour-pointed");
}

async function found(selector, of) {
  // A view is drawn when it is opened.
  for (let tries = 0; tries < 100 && step === of; tries++) {
    const one = document.querySelector(selector);
    if (one && one.getClientRects().length) return one;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return null;
}

async function go(to) {
  if (to < 0) return;
  if (to >= data.steps.length) return stop();
  step = to;
  unpoint();
  const { view, point, ruler, open, run: live } = data.steps[to];
  panel.hidden = false;
  title.textContent = words[`${to + 1}_title`];
  text.textContent = words[`${to + 1}`];
  count.textContent = words.at.replace("{n}", to + 1).replace("{all}", data.steps.length);
  back.disabled = !to;
  next.textContent = to === data.steps.length - 1 ? words.end : words.next;
  end.hidden = to === data.steps.length - 1;
  run.hidden = !live;
  document.getElementById(`view-${view}-button`)?.click();
  const target = await found(point, to);
  if (!target || step !== to) return;
  if (ruler) document.querySelector("#see [data-part=hero]")?.ruler?.go(...ruler);
  if (open) target.open = true;
  target.classList.add("tour-pointed");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  target.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
}

async function runs() {
  const [fills, filled, asks] = data.steps[step].run;
  stop();
  document.querySelector(fills)?.click();
  for (let tries = 0; tries < 100; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
    if (document.querySelector(filled)?.value) return document.querySelector(asks)?.click();
  }
}

function stop() {
  step = -1;
  unpoint();
  panel.hidden = true;
  element.querySelector("[data-key=start]").focus();
}

function present() {
  const on = document.body.classList.toggle("presenting");
  element.querySelector("[data-key=present]").setAttribute("aria-pressed", on);
  dispatchEvent(new Event("resize")); // figures take their room again
}

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");
const moving = (target) => target.closest?.("[role=radio], [role=tab], [role=slider], .js-plotly-plot");

document.addEventListener("keydown", (event) => {
  if (!element.isConnected || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (step >= 0) stop();
    else if (document.body.classList.contains("presenting")) present();
  } else if (!typing(event.target)) {
    if (event.key.toLowerCase() === "p") present();
    else if (moving(event.target)) return;
    else if (step >= 0 && event.key === "ArrowRight") go(step + 1);
    else if (step >= 0 && event.key === "ArrowLeft") go(step - 1);
    else return;
    event.preventDefault();
  }
});

const row = element.querySelector("[data-part=row]");
const presenting = button("present", present);
presenting.setAttribute("aria-pressed", false);
presenting.title = words.keys;
row.append(
  button("start", () => { go(0); next.focus(); }), presenting,
  button("theme", () => document.body.classList.toggle("dark")),
);
if (wanted.get("present") === "1") present();
if (wanted.has("tour")) go(Math.min(data.steps.length, Math.max(1, Number(wanted.get("tour")) || 1)) - 1);
