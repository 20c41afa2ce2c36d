// Draws the ruler where it is what opens, from what gradio's scripts will take, and hands it over when theirs is drawn.
const first = document.getElementById("first");
const asked = new URLSearchParams(location.search);
const elsewhere = [...asked.keys()].some((key) => !["view", "lang", "__theme", "tokens", "needle", "by"].includes(key));
const page = window.gradio_config;
const see = page && page.components.find((one) => one.props.elem_id === "see");
if ((asked.get("view") || "see") !== "see" || elsewhere || !see) {
  first.remove();
} else {
  try {
    draw();
  } catch (error) {
    first.remove(); // what is under it says what there is to say
    throw error;
  }
}

function draw() {
  const theme = asked.get("__theme");
  const dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.body.classList.toggle("dark", dark);
  const style = document.createElement("style");
  style.textContent = page.css;
  first.prepend(style);
  const element = document.getElementById("first-see");
  element.innerHTML = see.props.html_template;
  new Function("element", "props", "trigger", see.props.js_on_load)(element, see.props.props, () => {});
  const since = performance.now();
  let held = false; // nobody's slider is taken out of their hand
  first.addEventListener("pointerdown", (event) => { held = Boolean(event.target.closest("input, [data-part=stage]")); });
  for (const event of ["pointerup", "pointercancel"]) addEventListener(event, () => { held = false; });
  const timer = setInterval(() => {
    const drawn = document.querySelector("#see .hero-sentence:not(:empty)");
    const late = performance.now() - since > 20_000;
    // What went wrong isn't to be hidden, nor a page that takes very long.
    if (!late && (held || !(drawn || document.querySelector(".toast-body")))) return;
    clearInterval(timer);
    try {
      if (drawn) handOver(element, drawn.closest(".hero"));
    } finally {
      first.classList.add("gone");
      setTimeout(() => first.remove(), 300);
    }
  }, 50);
}

function handOver(element, theirs) {
  const { length, depth, method } = element.querySelector(".hero").ruler.state;
  theirs.ruler.go(length, depth, method.key, false);
  const { part, key } = document.activeElement.dataset;
  const found = (part || key) && theirs.querySelector(part ? `[data-part="${part}"]` : `[data-key="${key}"]`);
  if (found && first.contains(document.activeElement)) found.focus();
  scrollTo(0, first.scrollTop);
}
