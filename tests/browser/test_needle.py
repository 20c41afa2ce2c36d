"""One needle in Chromium: on a small model with random weights, quick to answer, whatever it says."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from app.page import build
from app.settings import Settings
from tests.browser.visits import launched


@pytest.fixture(scope="module")
def server(small):
    yield from launched(build(Settings(small["like the default"], 16, 20_000)))


def test_a_needle_is_hidden_asked_for_and_shown_in_its_place(page):
    page.get_by_role("tab", name="Needle test").click()
    before = page.locator("#needle-recorded")
    expect(before).to_contain_text("Recorded, not run now: the share found of 10 numbers")
    before.locator(".js-plotly-plot .xtitle").first.wait_for()
    page.get_by_label("Prompt length (tokens)").fill("900")
    page.get_by_label("Your own needle").fill("<b>blue</b> door")
    page.get_by_role("button", name="Hide it and ask").click()
    expect(page.locator("#needle-status")).to_contain_text("needs both")
    page.get_by_label("is", exact=True).fill("4711")
    page.get_by_role("button", name="Hide it and ask").click()
    expect(page.locator("#needle-status")).to_contain_text("Done", timeout=120_000)
    expect(before).to_be_hidden()
    for method in ("rope", "lampe"):
        card = page.locator(f"#needle-answer-{method}")
        expect(card).to_contain_text("<b>blue</b> door")
        assert ("✓ Found" in card.inner_text()) == ("4711" in card.inner_text().split("Missed")[0])
    expect(page.locator("#needle-place")).to_contain_text("of the last token's attention fell on it")
    marked = page.locator("#plot-needle-distance .js-plotly-plot").evaluate(
        "gd => gd._fullData.filter(trace => trace.name === 'needle').map(trace => [trace.x[0], trace.y[0]])"
    )
    assert len(marked) == 1
    assert f"{marked[0][0]:,} tokens before" in page.locator("#needle-place").inner_text()
    page.get_by_role("button", name="See its place").click()
    expect(page.get_by_label("Input length (tokens)")).to_have_value("900")
    expect(page.get_by_label("Key in the middle")).to_have_value(str(899 - marked[0][0]))
    page.get_by_role("tab", name="Needle test").click()
    page.get_by_label("Prompt length (tokens)").fill("21000")
    page.get_by_role("button", name="Hide it and ask").click()
    expect(page.locator("#needle-status")).to_contain_text("The limit here is 20,000 tokens")
