"""The page in Chromium, as a visitor uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from app.examples import EXAMPLES
from benchmarks.screenshots import FLAGS, chromium

CHROMIUM = chromium()

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
    page.goto(server + f"?__theme={options.get('theme', 'light')}")
    page.get_by_label("Document").wait_for()
    yield page
    context.close()
    assert errors == []


def expect_drawn(page: Page, *names: str) -> None:
    """Wait until the visible plot has just these lines; each redraw puts a new plot in the old one's place."""
    page.wait_for_function(
        """names => {
            const plot = [...document.querySelectorAll('.js-plotly-plot')].find(plot => plot.offsetParent);
            return plot?.data?.map(line => line.name).join() === names;
        }""",
        arg=",".join(names),
    )


def test_typing_counts_tokens_and_redraws_the_map(page):
    page.get_by_label("Document").fill("The boat is called Heron. " * 30)
    expect(page.locator("#length")).to_contain_text("% of the window of 8,192")
    expect(page.locator("#sentence")).to_contain_text("nothing is compressed")
    expect_drawn(page, "Plain RoPE", "All")
    page.get_by_label("Document").fill("The boat is called Heron. " * 700)
    expect(page.locator("#sentence")).to_contain_text("share 1,336 positions")
    expect_drawn(page, "Plain RoPE", "Head", "Middle", "Tail")


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
    """The real thing: LaMPE finds the hidden fact, plain RoPE doesn't."""
    page.get_by_role("button", name=example.label).click()
    expect(page.locator("#length")).to_contain_text(
        "of the window of 8,192" if "4,000" in example.label else "× the window"
    )
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Reading")
    expect(page.locator("#report")).to_contain_text("not measured", timeout=400_000)
    assert example.answer in page.locator("#lampe-answer").inner_text()
    assert example.answer not in page.locator("#rope-answer").inner_text()
    expect(page.locator("#report")).to_contain_text("2,048 positions")


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


def test_the_position_map_follows_its_slider(page):
    page.get_by_role("tab", name="Position map").click()
    # A tab is built when it is first shown.
    expect_drawn(page, "Plain RoPE", "Plain RoPE, never seen in training", "Head", "Middle", "Tail")
    box = page.locator("#map-length input[type=number]")
    box.fill("30000")
    box.press("Enter")
    expect(page.locator("#map-sentence")).to_contain_text("At 30,000 tokens")
    expect(page.locator("#map-table")).to_contain_text("29,800 – 29,999")
    box.fill("1000")
    box.press("Enter")
    expect(page.locator("#map-sentence")).to_contain_text("nothing is compressed")


PHONE, PROJECTOR = {"width": 390, "height": 844}, {"width": 1920, "height": 1080}


@pytest.mark.parametrize(
    "page",
    [{"viewport": PHONE}, {"viewport": PROJECTOR}, {"theme": "dark"}],
    indirect=True,
    ids=["phone", "wide", "dark"],
)
def test_nothing_is_cut_off_and_the_plot_can_be_read(page):
    page.wait_for_selector(".js-plotly-plot .xtitle")
    overflow = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0
    contrast = page.evaluate(
        """() => {
            const channel = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
            const light = colour => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map(v => channel(v / 255));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const ink = light(getComputedStyle(document.querySelector('.js-plotly-plot .xtitle')).fill);
            let ground = document.querySelector('.js-plotly-plot');
            while (/, 0\\)$|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
            const paper = light(getComputedStyle(ground).backgroundColor);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
        }"""
    )
    assert contrast >= 4.5
