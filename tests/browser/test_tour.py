"""The tour over the real page, the page as it is shown to a room, and what assistive technology finds in it."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from app.ask.examples import EXAMPLES
from app.page import VIEWS
from app.tour.page import tour_data
from tests.browser.visits import DONE

STEPS = tour_data()["steps"]
WORDS = tour_data()["words"]
DRAWN = ".js-plotly-plot .xtitle"
OWN = {"see": ".hero-sentence:not(:empty)", "results": "#results-table table"}
"""What a view shows when it is ready."""
SMALLEST = """() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const one = node.parentElement;
    if (!node.textContent.trim() || one.closest('script, style')) continue;
    if (!one.checkVisibility({visibilityProperty: true})) continue;
    let zoom = 1;
    for (let up = one; up; up = up.parentElement) zoom *= parseFloat(getComputedStyle(up).zoom) || 1;
    found.push([parseFloat(getComputedStyle(one).fontSize) * zoom, node.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""


def test_ten_steps_each_point_at_something_in_sight(page):
    page.locator("#tour [data-key=start]").click()
    panel = page.locator("#tour-panel")
    for number, step in enumerate(STEPS):
        expect(panel.locator("h2")).to_have_text(WORDS["en"][f"{number + 1}_title"])
        expect(page.locator(f"#view-{step['view']}-button")).to_have_attribute("aria-selected", "true")
        pointed = page.locator(".tour-pointed")
        expect(pointed).to_have_count(1)
        expect(pointed).to_be_in_viewport()
        if "ruler" in step:
            tokens, _, by = step["ruler"]
            expect(page.locator("#see [data-part=length-out]")).to_have_text(f"{tokens:,} tokens")
            expect(page.locator(f"#see [role=radio][data-key={by}]")).to_have_attribute("aria-checked", "true")
        if step.get("open"):
            expect(pointed).to_have_attribute("open", "")
        page.keyboard.press("Enter")  # the button that goes on has the focus
    expect(panel).to_be_hidden()
    expect(page.locator(".tour-pointed")).to_have_count(0)
    expect(page.locator("#tour [data-key=start]")).to_be_focused()


@pytest.mark.long
@pytest.mark.parametrize("page", [{"link": "&tour=9&lang=zh"}], indirect=True)
def test_a_link_opens_a_step_in_a_language_and_it_runs_live(page):
    expect(page.locator("#tour-panel h2")).to_have_text(WORDS["zh"]["9_title"])
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#tour-panel h2")).to_have_text(WORDS["zh"]["8_title"])
    page.locator("#tour-panel [data-key=next]").click()
    page.locator("#tour-panel [data-key=run]").click()
    expect(page.locator("#tour-panel")).to_be_hidden()
    expect(page.locator("#document textarea")).to_have_value(EXAMPLES[1].text, timeout=30_000)
    expect(page.locator("#status")).not_to_be_empty(timeout=60_000)
    page.locator("#stop-button").click()
    expect(page.locator("#status")).to_contain_text("Stopped", timeout=60_000)
    assert not DONE.match(page.locator("#status").inner_text())


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [{"link": "&view=see&present=1", "viewport": {"width": 1920, "height": 1080}}], indirect=True
)
def test_a_room_reads_everything(page):
    """24 px and more, controls too; nothing but the view itself."""
    page.locator(".hero-sentence:not(:empty)").wait_for()
    size, text = page.evaluate(SMALLEST)
    assert size >= 23.9, text
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for hidden in (".lab", ".mapping-row", "footer", "#view-see-button"):
        expect(page.locator(hidden).first).to_be_hidden()
    page.locator("body").press("Escape")
    expect(page.locator("#view-see-button")).to_be_visible()
    present = page.locator("#tour [data-key=present]")
    for view in VIEWS[1:]:
        page.locator(f"#view-{view}-button").click()
        page.locator(f"{OWN.get(view, DRAWN)} >> visible=true").first.wait_for()
        present.click()
        expect(page.locator("#view-see-button")).to_be_hidden()
        page.wait_for_timeout(1000)  # gradio's buttons grow by and by
        size, text = page.evaluate(SMALLEST)
        assert size >= 23.9, f"{view}: {text}"
        present.click()
        expect(page.locator("#view-see-button")).to_be_visible()
    page.locator("#view-see-button").click()
    page.locator("body").press("p")
    expect(page.locator("#view-see-button")).to_be_hidden()
    was = page.evaluate("document.body.classList.contains('dark')")
    page.locator("#tour [data-key=theme]").click()
    assert page.evaluate("document.body.classList.contains('dark')") is not was


@pytest.mark.long
@pytest.mark.parametrize("page", [{"theme": "light"}, {"theme": "dark"}], indirect=True, ids=["light", "dark"])
def test_no_view_shuts_anybody_out(page):
    """axe-core finds nothing, in no view."""
    for view in VIEWS:
        page.locator(f"#view-{view}-button").click()
        page.locator(f"{OWN.get(view, DRAWN)} >> visible=true").first.wait_for()
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        told = [(one["id"], one["impact"], [node["html"][:120] for node in one["nodes"]]) for one in violations]
        assert not told, f"{view}: {told}"
