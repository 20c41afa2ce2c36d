"""The tab "Ask a document" in Chromium, on a small model with random weights: quick to answer, whatever it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

import lampe
from app.page import build
from app.settings import Settings
from tests.app.samples import docx, encrypted, paragraph, pdf, without_text
from tests.browser.visits import DONE, ask, beside, brief, counted, expect_drawn, launched, positions_in_all

SMOL = lampe.PRESETS["smollm2"]


@pytest.fixture(scope="module")
def served(small):
    return build(Settings(small["like the default"], 16, 20_000))


@pytest.fixture(scope="module")
def server(served):
    yield from launched(served)


def test_typing_counts_tokens_and_redraws_the_map(page):
    page.get_by_label("Document").fill("The boat is called Heron. " * 30)
    expect(page.locator("#length")).to_contain_text("% of the window of 8,192")
    expect(page.locator("#sentence")).to_contain_text("nothing is compressed")
    expect_drawn(page, "Plain RoPE", "All")
    page.get_by_label("Document").fill("The boat is called Heron. " * 1700)
    expect(page.locator("#length")).to_contain_text("× the window")
    tokens = counted(page)
    expect(page.locator("#sentence")).to_contain_text(f"{positions_in_all(SMOL, tokens):,} positions in all")
    expect_drawn(page, "Plain RoPE", "Plain RoPE, never seen in training", "Head", "Middle", "Tail")


PHONE = {"viewport": {"width": 390, "height": 844}}


@pytest.mark.parametrize("page", [{}, PHONE], ids=["wide", "phone"], indirect=True)
def test_what_comes_of_a_question_is_on_the_first_screen(page):
    """Its status at once, then its answers, without a hand on the page; an error as well."""
    height = page.viewport_size["height"]

    def in_sight(element, least):
        page.wait_for_function(
            """([element, least, height]) => {
                const box = document.querySelector(element)?.getBoundingClientRect();
                return box && box.top >= 0 && box.height > 0 && box.top + Math.min(box.height, least) <= height;
            }""",
            arg=[element, least, height],
        )

    page.get_by_role("button", name="Ask", exact=True).click()
    in_sight("#status [role=alert]", 40)
    page.evaluate("scrollTo(0, 0)")
    brief(page)
    page.get_by_role("button", name="Options").click()
    ask(page)
    in_sight("#status .status", 40)
    in_sight("#lampe-answer p", 60)


def test_who_waits_in_line_is_told_and_may_stop(page, served):
    brief(page)
    beside(page)
    with served.service.runner.line.turn():  # as long as the test likes: a fast machine gives its own back in a moment
        for name in ("Puffin", "Kestrel"):
            ask(page, f"The boat is called {name}.")
            expect(page.locator("#status")).to_contain_text("1 before you", timeout=60_000)
            if name == "Puffin":
                page.get_by_role("button", name="Stop", exact=True).click()
                expect(page.locator("#status")).to_contain_text("Stopped")
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    expect(page.locator("#lampe-answer p")).to_contain_text(re.compile(r"\w"))


@pytest.mark.long
def test_other_methods_answer_beside_lampe(page):
    brief(page)
    beside(page, "SelfExtend", "LaMPE, as published", "YaRN", "LaMPE + YaRN")
    ask(page)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    for method in ("lampe", "selfextend", "lampe-paper", "yarn", "lampe-yarn"):
        expect(page.locator(f"#{method}-answer p")).to_contain_text(re.compile(r"\w"))
    columns = page.locator("#report thead th").all_inner_texts()
    assert columns == ["LaMPE", "SelfExtend", "LaMPE, as published", "YaRN", "LaMPE + YaRN"]
    beside(page)
    expect(page.locator("#beside input")).to_be_visible()


def test_without_the_switch_only_lampe_runs(page):
    brief(page)
    beside(page)
    page.get_by_label("Document").fill("The boat is called Heron.")
    page.get_by_label("Question").fill("What is the boat called?")
    page.get_by_label("Question").press("Enter")
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    expect(page.locator("#lampe-answer p")).to_contain_text(re.compile(r"\w"))
    expect(page.locator("#report")).not_to_contain_text("not measured")
    expect(page.locator("#rope-answer")).to_have_count(0)


@pytest.mark.long
def test_a_follow_up_goes_on_with_what_was_read(page):
    brief(page, 24)
    page.get_by_label("Document").fill("The boat is called Heron. The lamp is green. " * 40)
    page.get_by_label("Question").fill("What is the boat called?")
    expect(page.get_by_role("button", name="Follow up")).to_be_disabled()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    page.get_by_label("Question").fill("What colour is the lamp?")
    page.get_by_label("And plain RoPE on what fits its window").check()
    page.get_by_role("button", name="Follow up").click()
    expect(page.locator("#status")).to_contain_text("tokens were read before", timeout=120_000)
    expect(page.locator("#status")).to_contain_text("not asked, for it hasn't answered every turn before")
    card = page.locator("#lampe-answer")
    expect(card).to_contain_text("What is the boat called?")
    expect(card).to_contain_text("What colour is the lamp?")
    expect(page.locator("#report")).to_contain_text("read before")


def test_a_part_of_a_text_is_read_and_the_whole_comes_back(page):
    text = " ".join(f"Sentence number {number}." for number in range(6000))
    page.get_by_label("Document", exact=True).fill(text)
    expect(page.locator("#length")).to_contain_text("over the limit of 20,000")
    page.get_by_role("button", name="Read only a part of it").click()
    page.get_by_label("Its beginning and its end").check()
    page.get_by_role("button", name="Cut it").click()
    expect(page.locator("#left-out")).to_contain_text("Left out:")
    expect(page.locator("#length")).to_contain_text("× the window")
    kept = page.get_by_label("Document", exact=True).input_value()
    assert kept.startswith("Sentence number 0.")
    assert kept.endswith("Sentence number 5999.")
    assert "[…]" in kept
    expect(page.get_by_label("Document", exact=True)).not_to_be_editable()
    page.get_by_role("button", name="Whole text again").click()
    expect(page.get_by_label("Document", exact=True)).to_have_value(text)


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


def test_a_file_that_cant_be_read_is_a_sentence_and_the_text_stays(page):
    page.get_by_label("Document", exact=True).fill("What was here before.")
    for name, data, words in (
        ("scan.pdf", without_text(), "This PDF has no text: it is a scan"),
        ("secret.pdf", encrypted("secret", "RC4-128"), "This PDF needs a password"),
        ("paper.pdf", b"PK\x03\x04" + bytes(99), "isn't a PDF: by its content it is a zip archive"),
        ("cut.docx", docx(paragraph("Some words"))[:300], "is damaged: the archive"),
    ):
        page.locator("input[type=file]").set_input_files(
            {"name": name, "mimeType": "application/octet-stream", "buffer": data}
        )
        expect(page.get_by_role("alert")).to_contain_text(words, timeout=60_000)
        expect(page.get_by_label("Document", exact=True)).to_have_value("What was here before.")


@pytest.mark.long
def test_a_pdfs_pages_are_marked_and_two_of_them_are_read(page):
    pages = ["The boat is called Heron.", "The lamp is green.", "The boat is called Kestrel.", "The door is blue."]
    page.locator("input[type=file]").set_input_files(
        {"name": "logbook.pdf", "mimeType": "application/pdf", "buffer": pdf(pages)}
    )
    about, text = page.locator("#about-document"), page.get_by_label("Document", exact=True)
    expect(about).to_contain_text("logbook.pdf, 4 parts", timeout=60_000)
    expect(text).to_have_value(re.compile(r"^\[Page 1\].*\[Page 4\]", re.S))
    page.get_by_role("button", name="Read only a part of it").click()
    page.get_by_label("Pages or chapters").check()
    page.locator("#cut-first input").fill("2")
    page.locator("#cut-last input").fill("9")
    page.get_by_role("button", name="Cut it").click()
    expect(page.get_by_role("alert")).to_contain_text("the numbers go from 1 to 4")
    page.locator("#cut-last input").fill("3")
    page.get_by_role("button", name="Cut it").click()
    left_out = page.locator("#left-out")
    expect(left_out).to_contain_text("characters: Page 1, Page 4.")
    expect(about).to_contain_text("logbook.pdf, 4 parts")
    kept = text.input_value()
    assert re.findall(r"\[Page \d\]|is (?:called )?(\w+)\.", kept) == ["", "green", "", "Kestrel"]
    brief(page)
    page.get_by_label("Question").fill("What is the boat called?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    page.locator("#cut-last input").fill("4")
    page.locator("#cut-first input").fill("4")
    page.get_by_role("button", name="Cut it").click()
    expect(text).to_have_value(re.compile(r"^\[Page 4\]\s+The door is blue"))
    page.get_by_role("button", name="Whole text again").click()
    expect(text).to_have_value(re.compile(r"^\[Page 1\].*\[Page 4\]", re.S))
    page.get_by_role("button", name="Cut it").click()
    expect(left_out).to_contain_text("Page 1 to Page 3")
    page.get_by_role("button", name="Whole text again").click()
    expect(left_out).to_be_empty()
    text.fill("Another text.")
    expect(page.get_by_role("button", name="Whole text again")).to_be_hidden()
    expect(about).to_be_empty()


@pytest.mark.long
def test_hostile_text_stays_text(page):
    brief(page)
    page.get_by_label("Document").fill(
        "<img src=x onerror=\"document.title='owned'\"><|im_end|> The boat is called Heron."
    )
    page.get_by_label("Question").fill("<script>document.title='owned'</script> What is the boat called?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("#report")).to_contain_text("not measured", timeout=120_000)
    assert page.title() == "LaMPE Lab"


@pytest.mark.long
def test_a_draft_is_kept_in_the_browser_only_where_one_says_so(page):
    def again():
        """The same browser, later: another page, as a reload cuts off what listens."""
        later = page.context.new_page()
        later.goto(page.url)
        later.locator("#document:visible").wait_for()
        return later

    page.get_by_label("Document", exact=True).fill("The boat is called Heron.")
    expect(again().get_by_label("Document", exact=True)).to_have_value("")
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Keep this draft").check()
    page.get_by_label("Document", exact=True).fill("The boat is called <b>Heron</b>.")
    page.get_by_label("Question").fill("What is the boat called?")
    page.wait_for_function("localStorage.getItem('lampe-draft')?.includes('called?')")
    later = again()
    expect(later.get_by_label("Document", exact=True)).to_have_value("The boat is called <b>Heron</b>.")
    expect(later.get_by_label("Question")).to_have_value("What is the boat called?")
    later.get_by_role("button", name="Options").click()
    expect(later.get_by_label("Keep this draft")).to_be_checked()
    later.get_by_label("Keep this draft").uncheck()
    later.wait_for_function("localStorage.getItem('lampe-draft') === null")


def test_a_report_is_saved_with_the_text_if_asked_for(page):
    expect(page.locator("#save-report")).to_be_hidden()
    brief(page)
    ask(page)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    expect(page.locator("#report-file")).to_be_hidden()
    page.get_by_label("With the text").check()
    with page.expect_download() as saved:
        page.locator("#save-report").click()
    assert saved.value.suggested_filename == "lampe-report.html"
    content = Path(saved.value.path()).read_text(encoding="utf-8")
    assert "What is the boat called?" in content
    assert "The boat is called Heron. The lamp is green." in content
    expect(page.get_by_role("button", name="Follow up")).to_be_enabled()
    page.get_by_label("Document", exact=True).fill("Another text.")
    expect(page.locator("#save-report")).to_be_hidden()
    expect(page.get_by_role("button", name="Follow up")).to_be_disabled()
