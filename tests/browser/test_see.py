"""The view that opens first, in Chromium."""

from __future__ import annotations

import random
import threading

import pytest
from playwright.sync_api import expect

import lampe
from app.see.maps import LENGTHS
from app.see.page import START
from app.ui.map_data import map_data
from lampe.families import family_config
from lampe.methods import METHODS

RULER = "document.querySelector('.hero').ruler"
SEE = {"link": "&view=see"}
EMBEDDED = {"link": "&view=see&embed=1", "viewport": {"width": 390, "height": 844}}


@pytest.fixture
def tab(browser):
    """A browser that has seen nothing yet."""
    context = browser.new_context()
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("page", [SEE], indirect=True)
def test_the_browsers_positions_are_the_engines(page):
    """All methods, at random lengths, ends, queries and keys: the script's port of `PositionMap`, held to Python's."""
    chance, cases = random.Random(5), []
    for cls in METHODS.values():
        for _ in range(30):
            length = chance.randrange(2, 2**17)
            method = cls.for_window(8192)
            end = length
            if cls.key.startswith("lampe") and length > 2000:
                end = chance.randrange(1500, length + 1)
            if cls.key == "lampe" and chance.random() < 0.5:
                method = lampe.LampeConfig(8192, 512, 200, lampe.Constant(chance.randrange(800, 8192)))
            position_map = method.position_map(length, end)
            pairs = []
            for _ in range(12):
                query = chance.choice((end - 1, length - 1, chance.randrange(length)))
                pairs.append((query, chance.choice((0, query, chance.randrange(query + 1)))))
            cases.append((map_data(position_map), pairs, [float(position_map.relative(*pair)) for pair in pairs]))
    found = page.evaluate(
        f"cases => cases.map(([map, pairs]) => pairs.map(([q, k]) => {RULER}.positionOf(map, q, k)))",
        [[shown, pairs] for shown, pairs, _ in cases],
    )
    for got, (_, pairs, expected) in zip(found, cases, strict=True):
        assert got == pytest.approx(expected, abs=1e-9), pairs


def test_before_gradios_scripts_have_come_the_ruler_is_there_and_moves(server, tab):
    """They never come here: its threads end where the engine puts them, and follow the slider."""
    tab.route("**/assets/*.js", lambda route: route.abort())
    tab.goto(server)
    first = tab.locator("#first")
    expect(first).to_contain_text("never seen in training")
    first.get_by_role("radio", name="LaMPE", exact=True).click()
    first.get_by_label("Length of the text").fill("70")
    expect(first.locator("output").first).to_have_text(f"{LENGTHS[70]:,} tokens")
    first.get_by_label("Place of the needle").fill("0")
    position_map = lampe.LampeConfig.for_model(family_config("smollm2")).position_map(LENGTHS[70])
    last = round(position_map.relative(LENGTHS[70] - 1, 0))
    expect(first.locator(".hero-sentence")).to_contain_text(f"{last:,}")
    expect(first.get_by_role("button", name="Run it live")).to_be_hidden()
    assert tab.locator("#see").count() == 0


def test_the_ruler_that_was_there_first_hands_over_what_it_shows(server, tab):
    """Gradio's scripts come late: length, place, method and focus stay where the visitor has put them."""
    held, waiting = [], threading.Event()
    tab.route("**/assets/*.js", lambda route: route.continue_() if waiting.is_set() else held.append(route))
    tab.goto(server, wait_until="commit")
    first = tab.locator("#first")
    first.get_by_role("radio", name="LaMPE", exact=True).click()
    first.get_by_label("Length of the text").fill("40")
    first.get_by_label("Place of the needle").fill("250")
    waiting.set()
    for route in held:
        route.continue_()
    expect(first).to_have_count(0, timeout=30_000)
    assert tab.evaluate(f"[{RULER}.state.method.key, {RULER}.state.length, {RULER}.state.depth]") == [
        "lampe", LENGTHS[40], 0.25,
    ]  # fmt: skip
    expect(tab.get_by_label("Place of the needle")).to_be_focused()
    expect(tab.locator("#hero-length")).to_have_count(1)
    expect(tab.get_by_role("button", name="Run it live")).to_be_visible()


@pytest.mark.parametrize("page", [SEE], indirect=True)
def test_it_begins_with_the_first_method_at_the_same_length(page):
    begins = page.evaluate(f"[{RULER}.state.method.key, {RULER}.state.length]")
    assert begins == [next(iter(METHODS)), START]


def test_another_view_opens_without_it(server, tab):
    tab.goto(f"{server}?view=map")
    assert tab.locator("#first").count() == 0


@pytest.mark.long
@pytest.mark.parametrize("page", [SEE], indirect=True)
def test_nothing_is_asked_of_the_server_while_one_drags_and_a_frame_is_short(page):
    expect(page.locator(".hero-sentence")).to_contain_text("Plain RoPE")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    before = -1
    while before != len(asked):  # what the page itself asks for at its start
        before = len(asked)
        page.wait_for_timeout(4000)
    asked.clear()
    length = page.get_by_label("Length of the text")
    for stop in range(20, 80, 4):
        length.fill(str(stop))
    page.get_by_role("radio", name="LaMPE", exact=True).click()
    page.wait_for_timeout(1500)
    assert [url for url in asked if "heartbeat" not in url] == []
    frame = page.evaluate(
        f"() => {{ const t = performance.now(); for (let n = 0; n < 50; n++) {RULER}.draw(); "
        "return (performance.now() - t) / 50; }"
    )
    assert frame < 30, "on two busy cores; benchmarks/see.py measures it alone"


@pytest.mark.parametrize("page", [SEE], indirect=True)
def test_plain_rope_runs_off_the_ruler_and_lampe_does_not(page):
    """What the view is there to say: seen, said, and with what was recorded under it."""
    sentence = page.locator(".hero-sentence")
    page.get_by_label("Place of the needle").fill("0")
    expect(sentence).to_contain_text("12,288 tokens: the needle is 12,287 tokens back")
    expect(sentence).to_contain_text("none beyond 8,191")
    expect(page.locator(".hero-mark")).to_contain_text("off the ruler")
    expect(page.locator(".hero-answers .missed")).to_have_count(2)  # the very start is lost either way
    page.get_by_label("Place of the needle").fill("500")
    expect(page.locator(".hero-answers .missed")).to_contain_text("Plain RoPE: found 0 of 2")
    expect(page.locator(".hero-answers")).to_contain_text("LaMPE: found 2 of 2")
    page.get_by_label("Place of the needle").fill("0")
    page.get_by_role("radio", name="LaMPE", exact=True).click()
    expect(sentence).to_contain_text("All of the text is on the ruler")
    expect(page.locator(".hero-mark")).to_have_text("8,191")
    expect(page.locator(".hero-ribbon")).to_contain_text("squeezed")
    page.get_by_label("Another method").select_option("rerope")
    expect(page.locator(".hero-answers")).to_contain_text("Not recorded for this method")


@pytest.mark.parametrize("page", [SEE], indirect=True)
def test_it_works_by_keyboard(page):
    length = page.get_by_label("Length of the text")
    length.focus()
    before = int(length.input_value())
    page.keyboard.press("ArrowRight")
    stop = int(length.input_value())
    assert LENGTHS[stop] / LENGTHS[before] == pytest.approx(2**0.5, rel=0.06)
    expect(length).to_have_attribute("aria-valuetext", f"{LENGTHS[stop]:,} tokens")
    page.keyboard.press("Shift+ArrowLeft")
    assert int(length.input_value()) == stop - 1
    needle = page.get_by_label("Place of the needle")
    needle.focus()
    back = needle.get_attribute("aria-valuetext")
    page.keyboard.press("Shift+ArrowRight")
    assert int(back.split()[0].replace(",", "")) - 1 == int(
        needle.get_attribute("aria-valuetext").split()[0].replace(",", "")
    )
    page.get_by_role("radio", name="Plain RoPE").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="LaMPE", exact=True)).to_be_checked()


@pytest.mark.parametrize("page", [{"link": "&view=see&tokens=16384&needle=0.25&by=string&lang=zh"}], indirect=True)
def test_a_link_brings_it_back_also_in_chinese(page):
    expect(page.locator(".hero-sentence")).to_contain_text("STRING，16,384 个词元")
    expect(page.locator(".claims")).to_contain_text("压缩中间")
    expect(page.get_by_role("radio", name="STRING")).to_be_checked()
    page.get_by_role("radio", name="SelfExtend").click()
    page.wait_for_function("location.search.includes('by=selfextend') && location.search.includes('tokens=16384')")


@pytest.mark.long
@pytest.mark.parametrize("page", [SEE], indirect=True)
def test_run_it_live_fills_in_the_needle_test(page):
    page.get_by_role("radio", name="SelfExtend").click()
    page.get_by_label("Place of the needle").fill("250")
    page.get_by_role("button", name="Run it live").click()
    expect(page.locator("#needle-length input")).to_have_value("12288")
    expect(page.locator("#needle-depth input[type=number]")).to_have_value("0.25")
    expect(page.locator("#needle-methods")).to_contain_text("SelfExtend")


@pytest.mark.parametrize("page", [EMBEDDED], indirect=True)
def test_embedded_only_the_ruler_is_there_and_nothing_is_wider_than_a_phone(page):
    expect(page.locator(".hero")).to_be_visible()
    expect(page.get_by_role("tab", name="Ask a document")).to_be_hidden()
    expect(page.locator(".claims")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("page", [SEE], indirect=True)
@pytest.mark.parametrize("kind", ["SVG", "PNG"])
def test_the_picture_can_be_taken_home(page, kind):
    with page.expect_download() as downloaded:
        page.get_by_role("button", name=kind).click()
    content = downloaded.value.path().read_bytes()
    assert content.startswith(b"<svg" if kind == "SVG" else b"\x89PNG")
    assert downloaded.value.suggested_filename == f"lampe-ruler-rope-12288.{kind.lower()}"
