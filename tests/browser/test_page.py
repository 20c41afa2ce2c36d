"""A grid of needle tests, calibration, and the look of every tab in Chromium."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

import lampe
from app.ask.examples import EXAMPLES
from app.map.settings import curve_text
from lampe.calibration import write_preset
from tests.app.sweeps import made
from tests.browser.visits import counted, positions_in_all


@pytest.mark.long
def test_a_grid_stops_goes_on_and_can_be_taken_home(page):
    page.get_by_role("tab", name="Needle test").click()
    page.get_by_role("tab", name="A grid").click()
    page.get_by_label("Prompt lengths (tokens)").fill("600, 6000")
    page.get_by_label("Depths").fill("half")
    expect(page.locator("#needle-time")).to_contain_text("'half' is not a number")
    page.get_by_label("Depths").fill("0.5")
    page.get_by_role("button", name="How long will it take?").click()
    expect(page.locator("#needle-time")).to_contain_text("4 tests: about ", timeout=120_000)
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


@pytest.mark.long
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
    tokens = counted(page)
    expect(page.locator("#sentence")).to_contain_text(f"{positions_in_all(preset.config, tokens):,} positions in all")
    page.get_by_role("tab", name="Position map").click()
    expect(page.locator("#map-own-curve textarea, #map-own-curve input")).to_have_value(curve_text(preset.curve))
    page.get_by_role("tab", name="Calibration").click()
    page.get_by_role("button", name="Back to this model's own mapping").click()
    expect(page.locator("#preset-in-use .status")).to_have_count(0)
    page.get_by_role("tab", name="Ask a document").click()
    own = positions_in_all(lampe.PRESETS["smollm2"], tokens)
    expect(page.locator("#sentence")).to_contain_text(f"{own:,} positions in all")


@pytest.mark.long
def test_the_published_mapping_is_one_press_away_in_all_tabs(page):
    published = lampe.LampeConfig.for_window(8192)
    page.get_by_role("button", name="LaMPE as published").click()
    expect(page.locator("#preset-in-use")).to_contain_text("as published in all tabs")
    expect(page.locator("#preset-in-use")).to_contain_text("not calibrated for this model")
    page.locator("#document textarea").fill(max((example.text for example in EXAMPLES), key=len))
    tokens = counted(page)
    expect(page.locator("#sentence")).to_contain_text(f"{positions_in_all(published, tokens):,} positions in all")
    page.get_by_role("tab", name="Position map").click()
    expect(page.locator("#map-sentence")).to_contain_text(f"{positions_in_all(published, tokens):,} positions in all")
    page.get_by_role("button", name="Back to this model's own mapping").click()
    expect(page.locator("#preset-in-use .status")).to_have_count(0)
    own = positions_in_all(lampe.PRESETS["smollm2"], tokens)
    page.get_by_role("tab", name="Ask a document").click()
    expect(page.locator("#sentence")).to_contain_text(f"{own:,} positions in all")
    expect(page.get_by_role("button", name="Back to this model's own mapping")).to_be_hidden()


@pytest.mark.long
@pytest.mark.parametrize("page", [{"link": "&view=ask&lang=zh"}], indirect=True)
def test_a_link_shows_the_main_path_in_chinese(page):
    expect(page.get_by_role("tab", name="向文档提问")).to_have_attribute("aria-selected", "true")
    expect(page.locator("header.lab")).to_contain_text("普通 RoPE 会迷失")
    expect(page.get_by_text("plain RoPE loses its way")).to_be_hidden()
    page.get_by_role("button", name="选项").click()
    page.locator("#budget input[type=number]").fill("5")
    page.get_by_label("文档", exact=True).fill("The boat is called Heron.")
    page.get_by_label("问题").fill("What is the boat called?")
    page.get_by_role("button", name="提问", exact=True).click()
    expect(page.locator("#status")).to_contain_text(re.compile(r"^\s*Done\."), timeout=120_000)


CONTRAST = """() => {
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
"""Between the axis title of the plot in sight and its ground."""
PHONE, PROJECTOR = {"width": 390, "height": 844}, {"width": 1920, "height": 1080}


@pytest.mark.long
@pytest.mark.parametrize(
    "page",
    [{"viewport": PHONE}, {"viewport": PROJECTOR}, {"theme": "dark"}],
    indirect=True,
    ids=["phone", "wide", "dark"],
)
def test_nothing_is_cut_off_and_the_plot_can_be_read(page):
    for tab in ("Ask a document", "Needle test", "Position map", "Calibration", "Results"):
        page.get_by_role("tab", name=tab).click()
        page.locator(".js-plotly-plot .xtitle:visible").first.wait_for()
        if tab == "Results":  # its command is the longest of all
            page.get_by_label("RULER, by method").check()
            expect(page.get_by_text("niah_single_1: score, by tokens of the prompt")).to_be_visible()
        overflow = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, tab
        assert page.evaluate(CONTRAST) >= 4.5, tab
