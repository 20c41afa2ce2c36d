"""The README's pictures, and those to look at after a change of the page.

    python -m benchmarks.screenshots [--folder assets/screenshots]

Starts the app, looks at the ruler, opens a document and cuts it, asks the 12,000-token example for real, looks at its
evidence, runs a needle test, and photographs the views: wide, on a phone, in the dark.
Needs requirements-dev.txt and Chromium (named in `CHROMIUM` if it isn't on the path).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import plotly.graph_objects as go
from playwright.sync_api import Page, sync_playwright

from app.ask.examples import EXAMPLES
from app.page import build
from app.settings import Settings
from app.web.card import SIZE
from benchmarks.questions import text_of

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def chromium() -> str | None:
    """Where Chromium is, None if it isn't."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def picture(figure: go.Figure, file: Path, height: int = 540) -> None:
    """Draw a figure in Chromium, as the page does, and keep it as PNG."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 960, "height": height})
        page.set_content(figure.to_html(include_plotlyjs=True, config={"displayModeBar": False}))
        page.wait_for_timeout(2000)
        page.screenshot(path=file)
        browser.close()


def ask_example(page: Page) -> None:
    """Take the long example, ask, and wait for both answers."""
    page.get_by_role("button", name=EXAMPLES[1].label).click()
    page.locator("#length", has_text="× the window").wait_for()
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator("#report", has_text="not measured").wait_for(timeout=600_000)
    page.wait_for_timeout(1000)


def open_document(page: Page) -> None:
    """Upload a text that comes with a package, and read two of its chapters."""
    text = text_of("orjson").encode()
    page.locator("input[type=file]").first.set_input_files(
        {"name": "orjson.md", "mimeType": "text/markdown", "buffer": text}
    )
    page.locator("#about-document", has_text="parts").wait_for()
    page.locator("#about-document summary").click()
    page.get_by_role("button", name="Read only a part of it").click()
    page.get_by_label("Pages or chapters").check()
    page.locator("#cut-first input").fill("2")
    page.locator("#cut-last input").fill("5")
    page.get_by_role("button", name="Cut it").click()
    page.locator("#left-out", has_text="Left out").wait_for()
    page.get_by_role("button", name="Another model or precision").click()


def dark(page: Page, on: bool) -> None:
    page.evaluate("on => document.body.classList.toggle('dark', on)", on)


def shoot(page: Page, folder: Path, pictures: dict[str, int]) -> None:
    """The whole page at several widths."""
    for name, width in pictures.items():
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


def see(page: Page, url: str, folder: Path) -> None:
    """The first screen, with LaMPE chosen and the needle near the text's start."""
    page.goto(f"{url}?view=see&__theme=light&by=lampe&needle=0.25")
    page.locator("#see .hero-sentence:not(:empty)").wait_for()
    page.set_viewport_size({"width": 1280, "height": 860})
    page.wait_for_timeout(2000)
    page.screenshot(path=folder / "see.png")
    page.set_viewport_size({"width": 1440, "height": 900})


def card(page: Page, url: str, file: Path) -> None:
    """What other pages show of a link to this one: the ruler under LaMPE, as its button saves it."""
    page.goto(f"{url}?view=see&__theme=light&by=lampe&needle=0.25")
    page.locator("#see .hero-sentence:not(:empty)").wait_for()
    page.wait_for_timeout(2000)
    drawn = page.evaluate("document.querySelector('#see [data-part=hero]').ruler.drawing()")
    width, height = SIZE
    page.set_viewport_size({"width": width, "height": height})
    page.set_content(f'<body style="margin:0">{drawn}</body>')
    page.screenshot(path=file, type="jpeg", quality=80)


_SCENES = ((4096, "rope"), (12_288, "rope"), (12_288, "lampe"))
_THREAD = re.compile(r'<path d="([^"]+)" stroke="([^"]+)" stroke-dasharray="[^"]*"/>')
_NEEDLE = re.compile(r'<path d="([^"]+)" fill="none" stroke="#1c2733" stroke-width="4"/>')
_LABELS = re.compile(r'<text x="[^"]*" y="(?:48|527|596|618)"[^>]*>.*?</text>')  # title, place, sentence
_SECONDS = 12


def animation(page: Page, url: str, file: Path) -> None:
    """The ruler as a moving picture: a text that fits, the same stretched, and what LaMPE makes of it."""
    page.goto(f"{url}?view=see&__theme=light")
    page.locator("#see .hero-sentence:not(:empty)").wait_for()
    frames = []
    for tokens, by in _SCENES:
        ruler = "document.querySelector('#see [data-part=hero]').ruler"
        page.evaluate(f"{ruler}.go({tokens}, 0.25, '{by}')")
        page.wait_for_timeout(2000)
        frames.append(page.evaluate(f"{ruler}.drawing()"))

    def moving(name: str, values: Sequence[str]) -> str:
        """Each scene stands still, and glides into the next; the last one back into the first."""
        held = ";".join(value for value in values for _ in range(2))
        times = ";".join(f"{time:.3f}" for n in range(len(values)) for time in (n / 3, n / 3 + 0.2))
        return (
            f'<animate attributeName="{name}" dur="{_SECONDS}s" repeatCount="indefinite" '
            f'values="{held};{values[0]}" keyTimes="{times};1"/>'
        )

    def thread(several: Sequence[re.Match[str]]) -> str:
        places, colours = zip(*(one.groups() for one in several), strict=True)
        return f'<path d="{places[0]}" stroke="{colours[0]}">{moving("d", places)}{moving("stroke", colours)}</path>'

    threads = list(zip(*(_THREAD.finditer(frame) for frame in frames), strict=True))
    drawn = _THREAD.sub("", frames[0]).replace(
        'stroke-opacity="0.6">', 'stroke-opacity="0.6">' + "".join(thread(one) for one in threads[::2]), 1
    )
    needles = [_NEEDLE.findall(frame)[0] for frame in frames]
    drawn = _NEEDLE.sub(lambda found: found[0].replace("/>", f">{moving('d', needles)}</path>"), drawn)
    labels = ""
    for number, frame in enumerate(frames):
        on = [str(int(other == number)) for other in range(len(frames))]
        switched = (
            f'<animate attributeName="opacity" dur="{_SECONDS}s" repeatCount="indefinite" calcMode="discrete" '
            f'values="{";".join([*on, on[0]])}" keyTimes="0;0.267;0.6;0.933"/>'
        )
        labels += f'<g opacity="{on[0]}">{"".join(_LABELS.findall(frame))}{switched}</g>'
    file.write_text(_LABELS.sub("", drawn).replace("</svg>", f"{labels}</svg>"), encoding="utf-8")


def results(page: Page, url: str, folder: Path) -> None:
    """The sweep, each mapping length less the one that is used."""
    query = {"view": "results", "rows": "sweep", "task": "A hidden number", "measure": "log_likelihood"}
    page.goto(f"{url}?{urlencode({**query, 'less': 'm = 8,192', '__theme': 'light'})}")
    page.locator("#results-table table").wait_for()
    page.wait_for_timeout(2000)
    page.screenshot(path=folder / "results.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("assets/screenshots"))
    parser.add_argument("--quick", action="store_true", help="only those that no model is needed for")
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    lab = build(Settings.from_environment())
    url = lab.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        see(page, url, folder)
        results(page, url, folder)
        animation(page, url, folder / "ruler.svg")
        card(browser.new_page(), url, Path("app/assets/card.jpg"))
        if given.quick:
            browser.close()
            return
        page.goto(f"{url}?view=ask&__theme=light")
        open_document(page)
        shoot(page, folder, {"document": 1440, "document-phone": 390})
        page.reload()
        ask_example(page)
        shoot(page, folder, {"ask": 1440, "ask-phone": 390})
        page.set_viewport_size({"width": 1440, "height": 900})
        page.get_by_role("button", name="Which passages").click()
        page.locator("#evidence li").first.wait_for(timeout=120_000)
        page.locator("#evidence").screenshot(path=folder / "evidence.png")
        dark(page, True)
        shoot(page, folder, {"ask-dark": 1440})
        page.get_by_role("tab", name="Position map").click()
        page.locator("#plot-shares .js-plotly-plot .xtitle").wait_for()
        for name, width in (("map-dark", 1440), ("map", 1440), ("map-phone", 390)):
            dark(page, name == "map-dark")
            page.set_viewport_size({"width": width, "height": 1600})
            page.wait_for_timeout(2000)
            page.screenshot(path=folder / f"{name}.png")
        page.set_viewport_size({"width": 1440, "height": 900})
        page.locator("#map-shares").scroll_into_view_if_needed()
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / "map-attention.png")
        dark(page, False)
        page.get_by_role("tab", name="Needle test").click()
        page.get_by_role("button", name="Hide it and ask").click()
        page.locator("#needle-status", has_text="Done").wait_for(timeout=600_000)
        shoot(page, folder, {"needle": 1440, "needle-phone": 390})
        browser.close()
    lab.demo.close()


if __name__ == "__main__":
    main()
