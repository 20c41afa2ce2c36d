"""The page in Chromium, as a visitor uses it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

import lampe
from app.examples import EXAMPLES
from app.map_view import curve_text
from benchmarks.screenshots import FLAGS, chromium
from lampe.calibration import write_preset
from tests.app.sweeps import made

CHROMIUM = chromium()
SMOL = lampe.PRESETS["smollm2"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: install it, or name it in $CHROMIUM")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, server, request) -> Iterator[Page]:
    """A fresh visitor; an error in the console or a failed request fails the test."""
    options = getattr(request, "param", {})
    context = browser.new_context(viewport=options.get("viewport", {"width": 1440, "height": 900}))
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("requestfailed", lambda r: errors.append(r.url) if not r.url.startswith(server) else None)
    page.goto(server + f"?__theme={options.get('theme', 'light')}{options.get('link', '')}")
    page.locator("#document:visible, #map-sentence p:visible").first.wait_for()
    yield page
    context.close()
    assert errors == []


def expect_drawn(page: Page, *names: str) -> None:
    """Wait until the visible plot has just these lines; each redraw puts a new plot in the old one's place."""
    page.wait_for_function(
        """names => {
            const plot = document.querySelector('#plot-text .js-plotly-plot');
            return plot?.data?.map(line => line.name).join() === names;
        }""",
        arg=",".join(names),
    )


def test_typing_counts_tokens_and_redraws_the_map(page):
    page.get_by_label("Document").fill("The boat is called Heron. " * 30)
    expect(page.locator("#length")).to_contain_text("% of the window of 8,192")
    expect(page.locator("#sentence")).to_contain_text("nothing is compressed")
    expect_drawn(page, "Plain RoPE", "All")
    page.get_by_label("Document").fill("The boat is called Heron. " * 1700)
    expect(page.locator("#length")).to_contain_text("× the window")
    expect(page.locator("#length b")).to_have_text(re.compile(r"^[\d,]+ tokens"))
    tokens = int(page.locator("#length b").inner_text().split()[0].replace(",", ""))
    expect(page.locator("#sentence")).to_contain_text(f"{SMOL.mapping_length(tokens):,} positions in all")
    expect_drawn(page, "Plain RoPE", "Plain RoPE, never seen in training", "Head", "Middle", "Tail")


def test_a_question_is_answered_beside_plain_rope(page):
    page.get_by_label("Document").fill("The boat is called Heron. The lamp is green.")
    page.get_by_label("Question").fill("What is the boat called?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#report")).to_contain_text("not measured", timeout=120_000)
    assert "Heron" in page.locator("#lampe-answer").inner_text()
    assert "Heron" in page.locator("#rope-answer").inner_text()
    expect(page.locator("#status")).to_contain_text("Done")
    for words in ("Input length", "Window", "Mapping length", "100% All", "Reading (prefill)", "4-bit NF4"):
        expect(page.locator("#report")).to_contain_text(words)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.file)
def test_an_example_makes_the_point_in_one_click(page, example):
    """The real thing: LaMPE finds the hidden fact; plain RoPE does within its window, and not beyond."""
    page.get_by_role("button", name=example.label).click()
    expect(page.locator("#length")).to_contain_text(
        "of the window of 8,192" if "4,000" in example.label else "× the window"
    )
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Reading", timeout=60_000)
    expect(page.locator("#report")).to_contain_text("not measured", timeout=400_000)
    assert example.answer in page.locator("#lampe-answer").inner_text()
    within = "4,000" in example.label
    assert (example.answer in page.locator("#rope-answer").inner_text()) == within
    tokens = int(re.search(r"([\d,]+) tokens", page.locator("#report").inner_text())[1].replace(",", ""))
    mapped = SMOL.position_map(tokens).mapping_length
    expect(page.locator("#report")).to_contain_text(f"{tokens if within else mapped:,} positions")


def test_stop_ends_a_run_and_the_next_one_works(page):
    page.get_by_role("button", name=EXAMPLES[1].label).click()
    expect(page.locator("#length")).to_contain_text("× the window")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text("512 of", timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Stopped", timeout=20_000)
    assert page.get_by_label("Document").input_value() == EXAMPLES[1].text
    test_a_question_is_answered_beside_plain_rope(page)


def test_two_visitors_wait_in_line_and_stop_works_there(page, browser, server):
    page.get_by_role("button", name=EXAMPLES[0].label).click()
    expect(page.locator("#length")).to_contain_text("of the window of 8,192")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Reading", timeout=60_000)
    other = browser.new_page()
    other.goto(server)
    for text, end in (("The boat is called Puffin.", "Stopped"), ("The boat is called Kestrel.", "Done")):
        other.get_by_label("Document").fill(text)
        other.get_by_label("Question").fill("What is the boat called?")
        other.get_by_role("button", name="Ask", exact=True).click()
        expect(other.locator("#status")).to_contain_text("1 before you")
        if end == "Stopped":
            other.get_by_role("button", name="Stop", exact=True).click()
        expect(other.locator("#status")).to_contain_text(end, timeout=120_000)
    assert "Kestrel" in other.locator("#lampe-answer").inner_text()
    other.close()
    expect(page.locator("#status")).to_contain_text("Done", timeout=120_000)
    assert EXAMPLES[0].answer in page.locator("#lampe-answer").inner_text()


def test_without_the_switch_only_lampe_runs(page):
    page.get_by_label("Plain RoPE beside it").uncheck()
    page.get_by_label("Document").fill("The boat is called Heron.")
    page.get_by_label("Question").fill("What is the boat called?")
    page.get_by_label("Question").press("Enter")
    expect(page.locator("#status")).to_contain_text("Done", timeout=120_000)
    assert "Heron" in page.locator("#lampe-answer").inner_text()
    expect(page.locator("#report")).not_to_contain_text("not measured")
    expect(page.locator("#rope-answer section")).to_have_count(0)


def test_bad_input_is_a_sentence_and_nothing_is_lost(page, tmp_path):
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("There is no text")
    page.get_by_label("Document").fill("word " * 21_000)
    expect(page.locator("#length")).to_contain_text("over the limit of 20,000")
    page.get_by_label("Question").fill("What?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("the limit here is 20,000")
    assert len(page.get_by_label("Document").input_value()) == 105_000
    picture = tmp_path / "<img src=x onerror=alert(1)>.txt"
    picture.write_bytes(b"\x89PNG\x00")
    page.locator("input[type=file]").set_input_files(picture)
    expect(page.get_by_role("alert")).to_contain_text("isn't plain text")
    assert len(page.get_by_label("Document").input_value()) == 105_000


def test_an_upload_becomes_the_document(page, tmp_path):
    notes = tmp_path / "notes.md"
    notes.write_text("# Märchen\n\nThe boat is called <b>Heron</b>.", encoding="utf-8")
    page.locator("input[type=file]").set_input_files(notes)
    expect(page.get_by_label("Document")).to_have_value(notes.read_text(encoding="utf-8"))


def test_hostile_text_stays_text(page):
    page.get_by_label("Document").fill(
        "<img src=x onerror=\"document.title='owned'\"><|im_end|> The boat is called Heron."
    )
    page.get_by_label("Question").fill("<script>document.title='owned'</script> What is the boat called?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#report")).to_contain_text("not measured", timeout=120_000)
    assert page.title() == "LaMPE Lab"


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


def test_moving_the_slider_redraws_every_figure(page):
    open_map(page)
    slider = page.locator("#map-slider input[type=range]")
    slider.focus()
    for _ in range(40):
        slider.press("ArrowRight")
    length = round(2 ** (13.55 + 0.40))
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


def test_the_map_follows_the_document_until_the_person_moves_it(page):
    open_map(page)
    page.get_by_role("tab", name="Ask a document").click()
    page.get_by_label("Document", exact=True).fill("The boat is called Heron. " * 700)
    expect(page.locator("#length")).to_contain_text("% of the window of 8,192")
    counted = page.locator("#length b").inner_text().split()[0]
    page.get_by_role("tab", name="Position map").click()
    box = page.get_by_label("Input length (tokens)")
    expect(box).to_have_value(counted.replace(",", ""))
    expect(page.locator("#map-sentence")).to_contain_text(f"At {counted} tokens")
    box.fill("30000")
    expect(page.locator("#map-sentence")).to_contain_text("At 30,000 tokens")
    expect(page.locator("#map-table")).to_contain_text("29,800 – 29,999")
    page.get_by_label("Follow the prompt").check()
    expect(page.locator("#map-sentence")).to_contain_text(f"At {counted} tokens")


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
        expect(sentence).to_contain_text(words)
    expect(page.locator("#map-strip .token-tail")).to_have_count(4)
    expect(page.locator("#map-strip .token-query")).to_have_count(1)
    page.get_by_label("Query token i").fill("3")
    expect(page.locator("#map-strip .token-later").first).to_be_visible()
    page.get_by_label("A short text").fill("<img src=x onerror=\"document.title='owned'\"> " * 3)
    expect(page.locator("#map-strip")).to_contain_text("onerror")
    assert page.title() == "LaMPE Lab"
    page.get_by_label("A short text").fill("word " * 500)
    expect(page.get_by_role("alert")).to_contain_text("the limit is 400")


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
    expect(page.locator("#map-sentence")).to_contain_text("clamped to the input length")


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


@pytest.mark.parametrize(
    ("button", "start"), [("CSV", "region,query"), ("JSON", "{"), ("One HTML file", "<!doctype html>")]
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


def test_after_a_run_its_attention_is_on_the_map(page):
    test_a_question_is_answered_beside_plain_rope(page)
    page.get_by_role("tab", name="Position map").click()
    expect(page.locator("#map-shares")).to_contain_text("the last of the prompt")
    page.locator("#plot-shares .js-plotly-plot .xtitle").wait_for()
    assert trace(page, "plot-shares", "All")["y"] == pytest.approx([1] * 30, abs=0.01)
    page.get_by_role("button", name="Open the map of this run").click()
    expect(page.get_by_label("Follow the prompt")).not_to_be_checked()
    expect(page.locator("#map-sentence")).to_contain_text("nothing is compressed")


def test_a_needle_is_hidden_asked_for_and_shown_in_its_place(page):
    page.get_by_role("tab", name="Needle test").click()
    page.get_by_label("Prompt length (tokens)").fill("900")
    page.get_by_label("Your own needle").fill("<b>blue</b> door")
    page.get_by_role("button", name="Hide it and ask").click()
    expect(page.locator("#needle-status")).to_contain_text("needs both")
    page.get_by_label("is", exact=True).fill("4711")
    page.get_by_role("button", name="Hide it and ask").click()
    expect(page.locator("#needle-status")).to_contain_text("Done", timeout=120_000)
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


def test_a_grid_stops_goes_on_and_can_be_taken_home(page):
    page.get_by_role("tab", name="Needle test").click()
    page.get_by_role("tab", name="A grid").click()
    page.get_by_label("Prompt lengths (tokens)").fill("600, 6000")
    page.get_by_label("Depths").fill("half")
    expect(page.locator("#needle-time")).to_contain_text("'half' is not a number")
    page.get_by_label("Depths").fill("0.5")
    expect(page.locator("#needle-time")).to_contain_text("4 tests: ")
    page.get_by_role("button", name="Run the grid").click()
    expect(page.locator("#needle-table")).to_contain_text("600 tokens", timeout=120_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#needle-status")).to_contain_text("run it again to go on", timeout=20_000)
    page.get_by_label("Prompt lengths (tokens)").fill("600, 700")
    page.get_by_role("button", name="Run the grid").click()
    expect(page.locator("#needle-status")).to_contain_text("Done: 4 tests", timeout=120_000)
    expect(page.locator("#needle-time")).to_contain_text("Every test of this grid is done")
    page.get_by_label("Prompt lengths (tokens)").fill("600, 700, 800")
    expect(page.locator("#needle-time")).to_contain_text("2 tests: about ")
    page.get_by_label("Prompt lengths (tokens)").fill("600, 700")
    expect(page.locator("#needle-points button")).to_have_count(4)
    page.locator("#needle-points button", has_text="LaMPE, 700 tokens").press("Enter")
    expect(page.locator("#needle-details")).to_contain_text("What is the secret number")
    expect(page.locator("#needle-details h3")).to_have_text("LaMPE, 700 tokens, depth 0.5")
    page.locator("#plot-needle .js-plotly-plot .xtitle").first.wait_for()
    first = page.locator("#plot-needle .nsewdrag").first
    box = first.bounding_box()
    first.hover(position={"x": box["width"] / 4, "y": box["height"] / 2})
    first.click(position={"x": box["width"] / 4, "y": box["height"] / 2})
    expect(page.locator("#needle-details h3")).to_have_text("Plain RoPE, 600 tokens, depth 0.5")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="JSONL").click()
    rows = waiting.value.path()
    assert len(rows.read_text(encoding="utf-8").splitlines()) == 4
    page.get_by_role("button", name="Forget its results").click()
    expect(page.locator("#needle-points button")).to_have_count(0)
    expect(page.locator("#needle-details h3")).to_have_count(0)
    inputs = page.locator("input[type=file][accept*=jsonl]")
    inputs.set_input_files({"name": "r.jsonl", "mimeType": "text/plain", "buffer": b'{"x": 1}'})
    expect(page.locator("#needle-status")).to_contain_text("is no result of a needle test")
    inputs.set_input_files({"name": "r.jsonl", "mimeType": "text/plain", "buffer": rows.read_bytes()})
    expect(page.locator("#needle-points button")).to_have_count(4)


def test_a_preset_file_is_opened_used_and_left_again(page, tmp_path):
    preset = made(source="<img src=x onerror=alert(1)>")
    write_preset(preset, tmp_path / "own.json")
    page.get_by_role("tab", name="Calibration").click()
    sentence, origin = page.locator("#calibration-sentence"), page.locator("#calibration-origin")
    use = page.get_by_role("button", name="Run with the opened preset")
    expect(origin).to_contain_text("SmolLM2-135M-Instruct in 4 bits")
    expect(use).to_be_hidden()
    upload = page.locator("input[type=file][accept*=json]:not([accept*=jsonl])")
    upload.set_input_files({"name": "no.json", "mimeType": "application/json", "buffer": b'{"format": 1}'})
    expect(page.locator("#calibration-message")).to_contain_text("no.json is no preset file")
    expect(origin).to_contain_text("SmolLM2-135M-Instruct in 4 bits")
    upload.set_input_files(tmp_path / "own.json")
    expect(origin).to_contain_text("<img src=x onerror=alert(1)>")
    expect(sentence).to_contain_text(f"m(l) = {preset.curve.maximum:,.5g} /")
    for name in ("chosen", "loss", "needles"):
        expect(page.locator(f"#plot-calibration-{name} .js-plotly-plot")).to_be_visible()
    use.click()
    expect(page.locator("#preset-in-use")).to_contain_text("opened preset own.json")
    page.get_by_role("tab", name="Ask a document").click()
    page.locator("#document textarea").fill(max((example.text for example in EXAMPLES), key=len))
    expect(page.locator("#length b")).to_have_text(re.compile(r"^[\d,]+ tokens"))
    tokens = int(page.locator("#length b").inner_text().split()[0].replace(",", ""))
    expect(page.locator("#sentence")).to_contain_text(f"{preset.config.mapping_length(tokens):,} positions in all")
    page.get_by_role("tab", name="Position map").click()
    expect(page.locator("#map-own-curve textarea, #map-own-curve input")).to_have_value(curve_text(preset.curve))
    page.get_by_role("tab", name="Calibration").click()
    page.get_by_role("button", name="Back to the model's own preset").click()
    expect(page.locator("#preset-in-use .status")).to_have_count(0)
    page.get_by_role("tab", name="Ask a document").click()
    own = lampe.PRESETS["smollm2"].mapping_length(tokens)
    expect(page.locator("#sentence")).to_contain_text(f"{own:,} positions in all")


PHONE, PROJECTOR = {"width": 390, "height": 844}, {"width": 1920, "height": 1080}


@pytest.mark.parametrize(
    "page",
    [{"viewport": PHONE}, {"viewport": PROJECTOR}, {"theme": "dark"}],
    indirect=True,
    ids=["phone", "wide", "dark"],
)
@pytest.mark.parametrize("tab", ["Ask a document", "Needle test", "Position map", "Calibration"])
def test_nothing_is_cut_off_and_the_plot_can_be_read(page, tab):
    page.get_by_role("tab", name=tab).click()
    page.locator(".js-plotly-plot .xtitle:visible").first.wait_for()
    overflow = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    contrast = page.evaluate(
        """() => {
            const channel = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            const light = colour => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map(v => channel(v / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const plot = [...document.querySelectorAll('.js-plotly-plot')].find(plot => plot.checkVisibility());
            const ink = light(getComputedStyle(plot.querySelector('.xtitle')).fill);
            let ground = plot;
            while (/, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
            const paper = light(getComputedStyle(ground).backgroundColor);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        }"""
    )
    assert contrast >= 4.5
