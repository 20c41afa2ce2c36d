"""What takes the default model in Chromium: that it answers rightly, and work that is long enough to be stopped."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

import lampe
from app.ask.examples import EXAMPLES
from tests.browser.visits import DONE, ask, ask_about_the_boat, beside, brief

SMOL = lampe.PRESETS["smollm2"]


@pytest.mark.long
def test_a_question_is_answered_beside_plain_rope(page):
    brief(page)
    ask_about_the_boat(page)
    expect(page.locator("#status")).to_contain_text(DONE)
    for words in ("Input length", "Window", "Mapping length", "100% All", "Reading (prefill)", "4-bit NF4"):
        expect(page.locator("#report")).to_contain_text(words)


@pytest.mark.parametrize(
    "example",
    [pytest.param(one, id=one.file, marks=() if one.mapped else pytest.mark.long) for one in EXAMPLES],
)
def test_an_example_makes_the_point_in_one_click(page, example):
    """The real thing: LaMPE finds the hidden fact.

    That plain RoPE does within its window and not beyond is recorded, and tests/benchmarks/test_first_look.py
    holds to the same text: reading it all once more would take as long as a tenth of all tests.
    """
    beside(page)
    expect(page.locator("#recorded")).to_contain_text(f"✗ {EXAMPLES[-1].answer} isn’t in it")
    if example is EXAMPLES[-1]:
        page.get_by_role("button", name="Run it live").click()
    else:
        page.get_by_role("button", name=example.label).click()
    expect(page.locator("#length")).to_contain_text("× the window" if example.mapped else "of the window of 8,192")
    if example is not EXAMPLES[-1]:
        page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Reading", timeout=60_000)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=900_000)
    assert example.answer in page.locator("#lampe-answer").inner_text()
    expect(page.locator("#recorded")).to_be_hidden()
    tokens = int(re.search(r"([\d,]+) tokens", page.locator("#report").inner_text())[1].replace(",", ""))
    mapped = SMOL.position_map(tokens).mapping_length
    expect(page.locator("#report")).to_contain_text(f"{mapped if example.mapped else tokens:,} positions")
    alike = "LaMPE reads it just as plain RoPE does"
    assert (alike in page.locator("#sentence").inner_text()) != example.mapped


@pytest.mark.long
def test_stop_ends_a_run_and_the_next_one_works(page):
    page.get_by_role("button", name=EXAMPLES[1].label).click()
    expect(page.locator("#length")).to_contain_text("× the window")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text(re.compile(r"[1-9][\d,]* of 1"), timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Stopped", timeout=20_000)
    assert page.get_by_label("Document").input_value() == EXAMPLES[1].text
    brief(page)
    ask_about_the_boat(page)


@pytest.mark.long
def test_a_long_document_holds_up_nobody_else(page, browser, server):
    other = browser.new_page()
    other.goto(server + "?view=ask")
    brief(other)
    for one in (page, other):
        beside(one)
    page.get_by_role("button", name=EXAMPLES[1].label).click()
    expect(page.locator("#length")).to_contain_text("× the window")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Reading", timeout=60_000)
    ask(other, "The boat is called Kestrel.")
    expect(other.locator("#status")).to_contain_text(DONE, timeout=120_000)
    assert "Kestrel" in other.locator("#lampe-answer").inner_text()
    other.close()
    expect(page.locator("#status")).to_contain_text("Reading")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Stopped", timeout=20_000)


@pytest.mark.long
def test_three_methods_side_by_side_and_the_passages_behind_an_answer(page):
    brief(page)
    page.get_by_label("Document").fill("The boat is called Heron. Nobody knows who painted the door. " * 20)
    page.get_by_label("Question").fill("What is the boat called?")
    page.get_by_label("And plain RoPE on what fits its window").check()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    for method in ("lampe", "rope", "rope-cut"):
        assert "Heron" in page.locator(f"#{method}-answer").inner_text()
    page.get_by_role("button", name="Which passages").click()
    evidence = page.locator("#evidence")
    expect(evidence).to_contain_text("a hint, not a proof", timeout=60_000)
    assert evidence.locator("mark").count() == 5
    before = evidence.inner_text()
    page.locator("#look-layers").get_by_label("Last third").check()
    expect(evidence).to_contain_text("layers 20 to 29")
    assert evidence.inner_text() != before
