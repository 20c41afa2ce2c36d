// Shows the first picture where the ruler is what opens, and takes it away when that is drawn. `words` is given.
const first = document.getElementById("first");
const asked = new URLSearchParams(location.search);
const elsewhere = [...asked.keys()].some((key) => !["view", "lang", "__theme", "tokens", "needle", "by"].includes(key));
if ((asked.get("view") || "see") !== "see" || elsewhere) {
  first.remove();
} else {
  const theme = asked.get("__theme");
  first.classList.toggle("dark", theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  const told = words[(navigator.language || "en").startsWith("zh") ? "zh" : "en"];
  for (const one of first.querySelectorAll("[data-first]")) one.textContent = told[one.dataset.first];
  const since = performance.now();
  const timer = setInterval(() => {
    const drawn = document.querySelector(".hero-sentence:not(:empty)");
    // Longer than this, and something is wrong that the page will say.
    if (!drawn && performance.now() - since < 20_000) return;
    clearInterval(timer);
    first.classList.add("gone");
    setTimeout(() => first.remove(), 300);
  }, 50);
}
