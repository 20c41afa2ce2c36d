"""The page where a GPU is lent for each question: what it says of that, and what works as elsewhere."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace

import pytest
from playwright.sync_api import expect

import app.serving.borrowed
from app.page import build
from app.serving.borrowed import _Estimate
from app.settings import Settings
from lampe.inference.speed import Speed
from tests.app.lender import Lender
from tests.browser.test_ask import (  # noqa: F401, the same tests with this page
    test_a_report_is_saved_with_the_text_if_asked_for,
    test_bad_input_is_a_sentence_and_nothing_is_lost,
    test_other_methods_answer_beside_lampe,
    test_what_comes_of_a_question_is_on_the_first_screen,
    test_without_the_switch_only_lampe_runs,
)
from tests.browser.visits import DONE, ask, brief, launched

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def lender():
    return Lender()


@pytest.fixture(scope="module")
def served(small, lender):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "spaces", lender)
        page = build(replace(Settings(small["like the default"], 16, 20_000), borrowed=True))
    page.service.runner.estimates[page.service.settings.own] = _Estimate(8.0, Speed(1e-4, 1e-9, 0.005))
    return page


@pytest.fixture(scope="module")
def server(served):
    yield from launched(served)


def test_what_a_question_takes_of_the_visitors_time_is_told_before_it_is_asked(page):
    expect(page.locator("#lent")).to_contain_text(re.compile(r"up to \d+ s for one about 8,192 tokens"))
    expect(page.locator("#rope-answer")).to_have_count(0)
    page.get_by_label("Document", exact=True).fill("The boat is called Heron. " * 30)
    expect(page.locator("#length")).to_contain_text(
        re.compile(r"One answer: up to \d+ s of a GPU that is lent, 1\d% of")
    )


def test_where_an_answer_looked_is_asked_for_beforehand(page):
    brief(page)
    expect(page.locator("#look")).to_be_hidden()
    page.get_by_label("Which passages did LaMPE's answer look at?").check()
    ask(page, "The boat is called Heron. The lamp is green. " * 20)
    expect(page.locator("#status")).to_contain_text(DONE, timeout=120_000)
    expect(page.locator("#evidence")).to_contain_text("The boat is called Heron.")
    expect(page.locator("#look")).to_be_hidden()


def test_a_stop_gives_the_gpu_back(page, lender, monkeypatch):
    packed = app.serving.borrowed._packed

    def slowly(*given):
        for pack in packed(*given):
            time.sleep(0.5)  # so that what is to stop it comes before its end
            yield pack

    monkeypatch.setattr(app.serving.borrowed, "_packed", slowly)
    ask(page, "The boat is called Heron. The lamp is green. " * 700)
    expect(page.locator("#status")).to_contain_text("Reading", timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#status")).to_contain_text("Stopped", timeout=60_000)
    assert not lender.at_work()


def test_who_has_no_time_left_is_told(page, lender, monkeypatch):
    monkeypatch.setattr(lender, "seconds_left", 3)
    ask(page)
    expect(page.locator("#status")).to_contain_text("ZeroGPU quota exceeded: You have exceeded", timeout=60_000)


def test_a_grid_of_needles_runs(page):
    page.get_by_role("tab", name="Needle test").click()
    page.get_by_role("tab", name="A grid").click()
    page.get_by_label("Prompt lengths (tokens)").fill("600, 700")
    page.get_by_label("Depths").fill("0.5")
    expect(page.locator("#needle-time")).to_contain_text("4 tests: about ", timeout=60_000)
    page.get_by_role("button", name="Run the grid").click()
    expect(page.locator("#needle-status")).to_contain_text("Done: 4 tests", timeout=120_000)
    expect(page.locator("#needle-points button")).to_have_count(4)
