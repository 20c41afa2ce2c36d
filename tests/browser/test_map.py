"""The position map in Chromium."""

from __future__ import annotations

import math
import re

import pytest
from playwright.sync_api import expect

import lampe
from app.map.live import STOPS
from app.serving.requests import planned_length
from lampe.methods import METHODS
from tests.browser.visits import ask_about_the_boat, brief, counted, open_map, trace

PLACES = [6, 9.3, 12.5, 13, 13.2, 14.06, 17.81, 20, 13.75]
"""Where the slider is dragged to: log₂ of the tokens."""
SMOL = lampe.PRESETS["smollm2"]


@pytest.mark.long
def test_methods_are_drawn_beside_lampe_and_a_link_brings_them_back(page):
    open_map(page)
    expect(page.locator("#plot-methods")).to_be_hidden()
    for title in ("SelfExtend", "Dual Chunk Attention"):
        page.locator("#map-beside input").fill(title)
        page.get_by_role("option", name=title, exact=True).click()
    expect(page.locator("#map-formulas")).to_contain_text("⌊i·1/3⌋ + 683 − ⌊j·1/3⌋")
    expect(page.locator("#map-formulas")).to_contain_text("min(i mod 5,120 + 5,120, 6,144)")
    position_map = METHODS["selfextend"].for_window(8192).position_map(12_000)
    drawn = trace(page, "plot-methods", "SelfExtend")
    assert drawn["y"] == [position_map.relative(11_999, 11_999 - distance) for distance in drawn["x"]]
    link = page.locator("#map-link a")
    expect(link).to_have_attribute("href", re.compile("beside=selfextend%2Cdca"))
    with page.context.expect_page() as opened:
        link.click()
    expect(opened.value.locator("#map-formulas")).to_contain_text("Dual Chunk Attention")


def test_moving_the_slider_redraws_every_figure(page):
    open_map(page)
    slider = page.locator("#map-slider input[type=range]")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowRight")
    length = round(2 ** (13.55 + 0.04))
    expect(page.get_by_label("Input length (tokens)")).to_have_value(str(length))
    expect(page.locator("#map-sentence")).to_contain_text(f"At {length:,} tokens")
    position_map = lampe.position_map(lampe.PRESETS["smollm2"], length)
    page.wait_for_function(
        """length => {
            const lines = document.querySelector('#plot-distance .js-plotly-plot')?.data;
            return lines && Array.from(lines.at(-1).x).at(-1) === length - 1;
        }""",
        arg=length,
    )
    for plot in ("plot-distance", "plot-row"):
        line = trace(page, plot, "Middle")
        keys = [length - 1 - x for x in line["x"]] if plot == "plot-distance" else line["x"]
        assert line["y"] == [position_map.relative(length - 1, key) for key in keys]
    assert trace(page, "plot-curve", "this input") == {"x": [length], "y": [position_map.mapping_length]}
    slots = position_map.mapping_length - 712
    expect(page.locator("#map-numbers")).to_contain_text(f"{slots:,}/{length - 712:,}")
    expect(page.get_by_label("Follow the prompt")).not_to_be_checked()


def test_while_the_slider_is_dragged_the_browser_draws_and_asks_nothing(page):
    open_map(page)
    slider = page.locator("#map-slider input[type=range]")
    expect(page.locator("#map-live")).to_contain_text("12,000 tokens: the first is given distance 8,191")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    said = page.evaluate(
        """places => places.map((place) => {
            const slider = document.querySelector('#map-slider input[type=range]');
            slider.value = place;
            slider.dispatchEvent(new Event('input', {bubbles: true}));
            return [slider.getAttribute('aria-valuetext'), document.querySelector('#map-live p').textContent];
        })""",
        PLACES,
    )
    page.wait_for_timeout(1000)
    assert asked == []
    for place, (spoken, sentence) in zip(PLACES, said, strict=True):
        assert spoken == f"{round(2**place):,} tokens"
        length = min(STOPS, key=lambda stop: abs(math.log2(stop) - place))
        position_map = lampe.PRESETS["smollm2"].position_map(length)
        far = position_map.relative(length - 1, 0)
        assert sentence.startswith(f"{length:,} tokens: the first is given distance {far:,}"), sentence
    for figure in ("distance", "curve", "row"):
        assert page.locator(f"#map-live [data-part={figure}] :is(path, rect)").count() > 1
    slider.dispatch_event("pointerup")
    expect(page.get_by_label("Input length (tokens)")).to_have_value(str(round(2 ** PLACES[-1])))
    expect(page.locator("#map-live p")).to_contain_text(f"{round(2 ** PLACES[-1]):,} tokens:")


@pytest.mark.long
def test_the_map_follows_the_document_until_the_person_moves_it(page):
    open_map(page)
    page.get_by_role("tab", name="Ask a document").click()
    page.get_by_label("Document", exact=True).fill("The boat is called Heron. " * 700)
    expect(page.locator("#length")).to_contain_text("% of the window of 8,192")
    tokens = counted(page)
    planned = planned_length(tokens, 48, lampe.PRESETS["smollm2"])  # with room for the answer and further questions
    page.get_by_role("tab", name="Position map").click()
    box = page.get_by_label("Input length (tokens)")
    expect(box).to_have_value(str(tokens))
    expect(page.get_by_label("Planned for (tokens)")).to_have_value(str(planned))
    expect(page.locator("#map-sentence")).to_contain_text(f"At {tokens:,} tokens, planned for {planned:,},")
    box.fill("30000")
    expect(page.get_by_label("Planned for (tokens)")).to_have_value("")
    expect(page.locator("#map-sentence")).to_contain_text("At 30,000 tokens")
    expect(page.locator("#map-table")).to_contain_text("29,800 – 29,999")
    page.get_by_label("Follow the prompt").check()
    expect(page.locator("#map-sentence")).to_contain_text(f"At {tokens:,} tokens, planned for {planned:,},")


@pytest.mark.long
def test_each_point_shows_what_it_says(page):
    open_map(page)
    sentence = page.locator("#map-sentence")
    for label, words in (
        ("Inside the window", "At 4,000 tokens"),
        ("16 × the window", "At 131,072 tokens the last token sees"),
        ("The paper's Llama-3 at 128K", "6,204 positions in all"),
        ("Without LaMPE", "Positions beyond 8,192 were never seen in training"),
        ("One sentence", "18 positions in all"),
    ):
        page.get_by_role("button", name=label, exact=True).click()
        expect(sentence).to_contain_text(words, timeout=60_000)  # five figures each, on a busy machine
    expect(page.locator("#map-strip .token-end")).to_have_count(4)
    expect(page.locator("#map-strip .token-query")).to_have_count(1)
    page.get_by_label("Query token i").fill("3")
    expect(page.locator("#map-strip .token-later").first).to_be_visible()
    page.get_by_label("A short text").fill("<img src=x onerror=\"document.title='owned'\"> " * 3)
    expect(page.locator("#map-strip")).to_contain_text("onerror")
    assert page.title() == "LaMPE Lab"
    page.get_by_label("A short text").fill("word " * 500)
    expect(page.get_by_role("alert")).to_contain_text("the limit is 400")


@pytest.mark.long
def test_impossible_settings_keep_the_last_good_picture(page):
    open_map(page)
    sentence = page.locator("#map-sentence p")
    before = sentence.inner_text()
    page.get_by_label("Head", exact=True).fill("8100")
    expect(page.locator("#map-message")).to_contain_text(
        f"must be less than the mapping length ({SMOL.mapping_length(12_000):,})"
    )
    assert sentence.inner_text() == before
    page.get_by_label("Head", exact=True).fill("")
    expect(page.locator("#map-message")).to_contain_text("Head is empty")
    page.get_by_label("Head", exact=True).fill("100")
    expect(page.locator("#map-message")).to_be_empty()
    expect(page.locator("#map-sentence")).to_contain_text("101 nearest keys")
    page.get_by_label("Fixed mapping length").fill("8000")
    page.get_by_label("Input length (tokens)").fill("5000")
    expect(page.locator("#map-sentence")).to_contain_text("LaMPE reads it just as plain RoPE does")


@pytest.mark.long
def test_the_matrix_zooms_down_to_single_tokens(page):
    open_map(page)
    page.get_by_role("button", name="Head border").click()
    expect(page.locator("#matrix-caption")).to_contain_text("every token is shown")
    page.wait_for_function(
        "() => document.querySelector('#plot-matrix .js-plotly-plot')?._fullData?.[0]?.x?.length === 64"
    )
    matrix = page.evaluate(
        """() => { const d = document.querySelector('#plot-matrix .js-plotly-plot')._fullData[0];
                   return {x: Array.from(d.x), y: Array.from(d.y), z: Array.from(d.z, row => Array.from(row))}; }"""
    )
    position_map = lampe.position_map(lampe.PRESETS["smollm2"], 12_000)
    for row, query in enumerate(matrix["y"]):
        assert matrix["z"][row] == [position_map.relative(query, key) for key in matrix["x"]]
    page.get_by_role("button", name="Out × 4").click()
    expect(page.locator("#matrix-caption")).to_contain_text("queries 11,744 to 11,999")
    page.get_by_role("button", name="Whole text").click()
    expect(page.locator("#matrix-caption")).to_contain_text("queries 0 to 11,999")


@pytest.mark.parametrize("page", [{"link": "&model=llama3&length=131072&head=300&query=70000&big=1"}], indirect=True)
def test_a_link_opens_the_view(page):
    expect(page.get_by_role("tab", name="Position map")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#map-sentence")).to_contain_text("At 131,072 tokens the last token sees its 301 nearest keys")
    expect(page.get_by_label("Query token i")).to_have_value("70000")
    expect(page.get_by_label("Presentation size")).to_be_checked()
    link = page.get_by_role("link", name="Link to this view")
    expect(link).to_have_attribute("href", "?model=llama3&length=131072&head=300&query=70000&big=1")
    size = page.evaluate(
        "() => parseFloat(getComputedStyle(document.querySelector('#map-sentence .sentence')).fontSize)"
    )
    assert size > 20


@pytest.mark.parametrize("page", [{"link": "&length=%3Cb%3E&model=llama3"}], indirect=True)
def test_a_link_with_a_wrong_value_says_so(page):
    expect(page.locator("#map-look")).to_contain_text("'<b>' is not a number")
    expect(page.locator("#map-sentence")).to_contain_text("At 12,000 tokens")


@pytest.mark.long
@pytest.mark.parametrize(
    ("button", "start"), [("CSV", "\ufeffregion,query"), ("JSON", "{"), ("One HTML file", "<!doctype html>")]
)
def test_a_view_can_be_taken_home(page, browser, button, start):
    open_map(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name=button, exact=True).click()
    path = waiting.value.path()
    assert path.read_text(encoding="utf-8").startswith(start)
    assert waiting.value.suggested_filename.startswith("lampe-map-smollm2-12000.")
    if button == "One HTML file":
        offline = browser.new_context(offline=True)
        view = offline.new_page()
        view.set_content(path.read_text(encoding="utf-8"))
        expect(view.locator(".js-plotly-plot .xtitle")).to_have_count(7)
        offline.close()


@pytest.mark.long
def test_after_a_run_its_attention_is_on_the_map(page):
    brief(page)
    ask_about_the_boat(page)
    page.get_by_role("tab", name="Position map").click()
    expect(page.locator("#map-shares")).to_contain_text("the last of the prompt")
    page.locator("#plot-shares .js-plotly-plot .xtitle").wait_for()
    assert trace(page, "plot-shares", "All")["y"] == pytest.approx([1] * 30, abs=0.01)
    page.get_by_role("button", name="Open the map of this run").click()
    expect(page.get_by_label("Follow the prompt")).not_to_be_checked()
    expect(page.locator("#map-sentence")).to_contain_text("nothing is compressed")
