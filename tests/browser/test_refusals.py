"""Models that change, and what can't be done said in a sentence, in Chromium: on a small model, quick to answer."""

from __future__ import annotations

import pytest
import torch
from playwright.sync_api import expect
from transformers import LlamaForCausalLM

import app.serving.resident
from app.page import build
from app.settings import Settings
from tests.browser.visits import DONE, brief, counted, launched

TEXT = "The boat is called Heron. The lamp is green. " * 70


@pytest.fixture(scope="module")
def server(small):
    """The app with a model that LaMPE can't patch among those offered, and one that isn't there."""
    lab = build(Settings(small["llama"], 16, 20_000, more_models=(small["gpt2"], "no/such folder")))
    yield from launched(lab)


def ask(page, question="What is the boat called?", button="Ask"):
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name=button, exact=True).click()


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "words"), [("gpt2", "RoPE"), ("no/such folder", "neither a folder")], ids=["the patch", "the loading"]
)
def test_a_model_is_refused_in_the_words_of(page, small, name, words):
    page.get_by_role("button", name="Another model or precision").click()
    page.locator("#model-name input").click()
    page.get_by_role("option", name=small.get(name, name)).click()
    page.locator("#model-bits").get_by_label("16-bit").check()
    page.get_by_role("button", name="Load it").click()
    alert = page.locator("#model-status [role=alert]")
    expect(alert).to_contain_text(words, timeout=60_000)
    expect(alert).to_contain_text(f"{small['llama']} stays")
    expect(page.locator(".lab .model")).to_contain_text(small["llama"])


@pytest.mark.long
def test_what_wouldnt_fit_is_refused_with_what_would(page, monkeypatch):
    page.get_by_label("Document", exact=True).fill(TEXT)
    brief(page)
    ask(page)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=60_000)
    expect(page.locator("#length")).to_contain_text("One answer: ")
    expect(page.locator("#length")).to_contain_text("512 tokens are read already")
    monkeypatch.setattr(app.serving.resident, "free_bytes", lambda device: 100_000)
    ask(page)
    expect(page.get_by_role("alert")).to_contain_text("tokens fit now. Nothing was run: take a shorter text.")
    expect(page.get_by_label("Document", exact=True)).to_have_value(TEXT)
    monkeypatch.undo()
    ask(page)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=60_000)


@pytest.mark.long
def test_running_out_of_memory_is_a_sentence_and_the_next_question_is_answered(page, monkeypatch):
    page.get_by_label("Document", exact=True).fill(TEXT)
    brief(page)
    with monkeypatch.context() as patched:
        patched.setattr(LlamaForCausalLM, "forward", _no_memory)
        ask(page)
        expect(page.get_by_role("alert")).to_contain_text("There isn't enough memory for a prompt of", timeout=60_000)
    expect(page.get_by_label("Document", exact=True)).to_have_value(TEXT)
    ask(page)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=60_000)


def _no_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.long
def test_a_conversation_that_outgrows_its_plan_says_so(page):
    page.get_by_label("Document", exact=True).fill(TEXT)
    brief(page)
    assert counted(page) < 960
    ask(page)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=60_000)
    ask(page, "Why is it called so? " * 30, "Follow up")
    expect(page.locator("#status")).to_contain_text("no longer fits the 1,024 tokens", timeout=60_000)
    expect(page.locator("#status")).to_contain_text("it is planned for 2,048 now, and all of it was read again")


@pytest.mark.long
def test_another_precision_answers_in_this_window_and_nobody_elses(page, browser, server):
    def answered(visitor, precision):
        visitor.get_by_label("Document", exact=True).fill(TEXT)
        brief(visitor)
        ask(visitor)
        expect(visitor.locator("#status")).to_contain_text(DONE, timeout=60_000)
        expect(visitor.locator("#report")).to_contain_text(precision)

    page.get_by_role("button", name="Another model or precision").click()
    page.locator("#model-bits").get_by_label("4-bit NF4").check()
    page.get_by_role("button", name="Load it").click()
    expect(page.locator("#model-status")).to_contain_text("answers now", timeout=120_000)
    expect(page.locator(".lab .model")).to_contain_text("4-bit NF4")
    answered(page, "4-bit NF4")
    other = browser.new_page()
    other.goto(server + "?view=ask")
    expect(other.locator(".lab .model")).to_contain_text("16-bit")
    answered(other, "16-bit")
    other.close()
    expect(page.locator(".lab .model")).to_contain_text("4-bit NF4")
