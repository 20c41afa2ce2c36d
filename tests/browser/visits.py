"""What several tests do on the page."""

from __future__ import annotations

import re
from collections.abc import Iterator

from playwright.sync_api import Page, expect

import lampe
from app.page import Page as Lab
from app.serving.requests import planned_length

DONE = re.compile(r"^\s*Done\.")
"""What the status says when all methods have answered; while others are to come it says whose answer is done."""


def launched(lab: Lab) -> Iterator[str]:
    """The address of a page, while it is there."""
    yield lab.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    lab.demo.close()


def expect_drawn(page: Page, *names: str) -> None:
    """Wait until the visible plot has just these lines; each redraw puts a new plot in the old one's place."""
    page.wait_for_function(
        """names => {
            const plot = document.querySelector('#plot-text .js-plotly-plot');
            return plot?.data?.map(line => line.name).join() === names;
        }""",
        arg=",".join(names),
    )


def counted(page: Page) -> int:
    """The prompt's tokens as the page counted them, not as it estimated them before."""
    expect(page.locator("#length b")).to_have_text(re.compile(r"^[\d,]+ tokens"))
    return int(page.locator("#length b").inner_text().split()[0].replace(",", ""))


def brief(page: Page, tokens: int = 10) -> None:
    """Ask for an answer of so many tokens."""
    page.get_by_role("button", name="Options").click()
    page.locator("#budget input[type=number]").fill(str(tokens))
    page.locator("#budget input[type=number]").press("Tab")


def beside(page: Page, *titles: str) -> None:
    """Have these methods answer beside LaMPE, and no others."""
    removals = page.locator("#beside .token-remove:visible")
    while removals.count():
        removals.first.click()
    for title in titles:
        page.locator("#beside input").fill(title)
        page.get_by_role("option", name=title, exact=True).click()


def ask(page: Page, text: str = "The boat is called Heron. The lamp is green.") -> None:
    """Ask what the boat is called, and don't wait."""
    page.get_by_label("Document", exact=True).fill(text)
    page.get_by_label("Question").fill("What is the boat called?")
    page.get_by_role("button", name="Ask", exact=True).click()


def ask_about_the_boat(page: Page) -> None:
    """A question whose answer is Heron, and both answers to it; a short one, if `brief` was called."""
    ask(page)
    expect(page.locator("#report")).to_contain_text("not measured", timeout=120_000)
    assert "Heron" in page.locator("#lampe-answer").inner_text()
    assert "Heron" in page.locator("#rope-answer").inner_text()


def open_map(page: Page) -> None:
    page.get_by_role("tab", name="Position map").click()
    # A tab is built when it is first shown.
    page.locator("#plot-row .js-plotly-plot .xtitle").wait_for()


def trace(page: Page, plot: str, name: str) -> dict:
    """A line of a drawn figure, as plotly has it."""
    return page.evaluate(
        """([plot, name]) => {
            const found = document.querySelector(`#${plot} .js-plotly-plot`).data.find(line => line.name === name);
            return {x: Array.from(found.x), y: Array.from(found.y)};
        }""",
        [plot, name],
    )


def positions_in_all(config: lampe.LampeConfig, tokens: int) -> int:
    """The positions that a prompt comes to, planned with room for its answer."""
    position_map = config.position_map(planned_length(tokens, 48, config), tokens)
    return position_map.relative(tokens - 1, 0) + 1
