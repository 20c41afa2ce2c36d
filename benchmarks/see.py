"""What the page costs a browser: bytes and time of its first load, and of a step of the sliders.

    python -m benchmarks.see [--repeats 5] [--quick]

Starts the app, and opens it in Chromium on the same machine with an empty cache: bytes as they come over the wire, and
the time to the ruler's first picture. Then drags the ruler's slider over all stops, and the position map's from end to
end: requests, and milliseconds a frame. Prints the medians; needs requirements-dev.txt and Chromium.
"""

from __future__ import annotations

from statistics import median
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from app.page import build
from app.see.maps import LENGTHS
from app.settings import Settings
from benchmarks.measure import arguments, machine
from benchmarks.screenshots import FLAGS, chromium

_UNITS = {
    "bytes": "bytes", "first": "s to the ruler's picture", "seconds": "s to the ruler that moves",
    "whole": "s to the whole page",
    "frame": "ms a frame", "slowest": "ms", "map frame": "ms a frame",
    "map slowest": "ms",
}  # fmt: skip
_DRAG = """async () => {
  const slider = document.querySelector('#hero-length'), times = [];
  for (let stop = 0; stop <= slider.max; stop++) {
    const started = performance.now();
    slider.value = stop;
    slider.dispatchEvent(new Event('input'));
    times.push(performance.now() - started);
    await new Promise(requestAnimationFrame);
  }
  return times;
}"""


_DRAG_MAP = """async () => {
  const slider = document.querySelector('#map-slider input[type=range]'), times = [];
  for (let step = 0; step <= 140; step++) {
    const started = performance.now();
    slider.value = 6 + step / 10;
    slider.dispatchEvent(new Event('input', {bubbles: true}));
    times.push(performance.now() - started);
    await new Promise(requestAnimationFrame);
  }
  return times;
}"""


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    print(machine(), flush=True)
    url = build(Settings.from_environment()).launch(prevent_thread_lock=True, quiet=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        runs = [visit(browser, url) for _ in range(1 if given.quick else given.repeats)]
        browser.close()
    for name, unit in _UNITS.items():
        values = [run[name] for run in runs]
        print(f"{name}: {median(values):,.2f} {unit} ({min(values):,.2f} to {max(values):,.2f})")
    print(f"requests while the map's slider goes from end to end: {max(run['map requests'] for run in runs)}")
    print(f"requests while the slider goes over {len(LENGTHS)} stops: {max(run['requests'] for run in runs)}")


def visit(browser: Browser, url: str) -> dict[str, Any]:
    """A new visitor: the first load, and then the drag."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    received, requests = [0], [0]
    session.on(
        "Network.loadingFinished", lambda event: received.__setitem__(0, received[0] + event["encodedDataLength"])
    )
    page.on("request", lambda _: requests.__setitem__(0, requests[0] + 1))
    page.goto(f"{url}?view=see")
    page.locator(".hero-sentence:not(:empty)").first.wait_for()
    seconds = page.evaluate("performance.now()") / 1000
    page.locator("#see .hero-sentence:not(:empty)").wait_for()
    whole = page.evaluate("performance.now()") / 1000
    page.locator("#first").wait_for(state="detached")
    first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    before = -1
    while before != requests[0]:  # what the page asks for at its start
        before = requests[0]
        page.wait_for_timeout(3000)
    loaded, before = received[0], requests[0]
    times = sorted(page.evaluate(_DRAG))
    page.wait_for_timeout(1000)
    dragged = requests[0] - before
    page.locator("#view-map-button").click()
    page.locator("#plot-row .js-plotly-plot .xtitle").wait_for()
    before_map = -1
    while before_map != requests[0]:
        before_map = requests[0]
        page.wait_for_timeout(3000)
    of_map = sorted(page.evaluate(_DRAG_MAP))
    page.wait_for_timeout(500)
    result = {
        "map frame": median(of_map),
        "map slowest": of_map[-1],
        "map requests": requests[0] - before_map,
        "bytes": loaded,
        "first": first,
        "seconds": seconds,
        "whole": whole,
        "frame": median(times),
        "slowest": times[-1],
        "requests": dragged,
    }
    context.close()
    return result


if __name__ == "__main__":
    main()
