"""The README's pictures, and those to look at after a change of the page.

    python -m benchmarks.screenshots [--folder assets/screenshots]

Starts the app, opens a document and cuts it, asks the 12,000-token example for real, looks at its evidence, runs a
needle test, and photographs the tabs: wide, on a phone, in the dark.
Needs requirements-dev.txt and Chromium (named in `CHROMIUM` if it isn't on the path).
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import plotly.graph_objects as go
from playwright.sync_api import Page, sync_playwright

from app.ask.examples import EXAMPLES
from app.page import build
from app.settings import Settings
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("assets/screenshots"))
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    lab = build(Settings.from_environment())
    url = lab.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{url}?__theme=light")
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
