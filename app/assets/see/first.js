// Shows the first picture where the ruler opens as it begins, and takes it away when that is drawn. `words` is given.
const first = document.getElementById("first");
const asked = new URLSearchParams(location.search);
const elsewhere = [...asked.keys()].some((key) => !["view", "lang", "__theme"].includes(key));
if ((asked.get("view") || "see") !== "see" || elsewhere) {
  first.remove();
} else {
  const theme = asked.get("__theme");
  const dark = theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  first.classList.toggle("dark", dark);
  const chinese = navigator.languages.some((one) => one.startsWith("zh")) && !navigator.language.startsWith("en");
  const told = words[asked.get("lang")] || words[chinese ? "zh" : "en"];
  for (const one of first.querySelectorAll("[data-first]")) one.textContent = told[one.dataset.first];
  const since = performance.now();
  const away = () => {
    clearInterval(timer);
    first.classList.add("gone");
    setTimeout(() => first.remove(), 300);
  };
  const timer = setInterval(() => {
    // Whoever does something, and what went wrong, is not to be hidden; nor is a page that takes very long.
    const drawn = document.querySelector(".hero-sentence:not(:empty), .toast-body");
    if (drawn || performance.now() - since > 20_000) away();
  }, 50);
  for (const event of ["pointerdown", "keydown"]) addEventListener(event, away, { once: true, capture: true });
}
