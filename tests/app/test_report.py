"""A report of what was asked: all that was said, nothing that runs, and the text only if asked for."""

from __future__ import annotations

import re
from html import unescape

import lampe
from app.ask.conversation import Conversation
from app.ask.saving import report
from app.ask.views import run_report
from app.serving.document_cache import LAMPE
from app.serving.reports import RunReport
from app.serving.requests import Chosen, Variant
from app.settings import ModelChoice

EVIL = '<script>alert(1)</script><img src=x onerror="alert(2)">'
CONFIG = lampe.PRESETS["smollm2"]


def run(method):
    position_map = CONFIG.position_map(12_288, 12_000)
    regions = [
        {"name": region.name, "role": region.role.value, "keys": keys, "share": 0.5}
        for region, keys in zip(position_map.regions, position_map.key_counts(11_999), strict=True)
    ]
    return RunReport(
        method, False, EVIL, 4, 12_000, 12_288, 0, 0, 8192, 8192, "", regions, [], 60.0, 4.0, 20, 0.7, 0.9, 5,
        stopped=False, cut_short=False,
    )  # fmt: skip


def made(with_text=False):
    exchanges = {
        LAMPE: (("First?", "One."), (f"Second {EVIL}?", f"Two {EVIL}")),
        Variant("rope"): (("First?", "Nothing."), (f"Second {EVIL}?", "")),
    }
    conversation = Conversation(f"The text. {EVIL}", Chosen(ModelChoice("m", 4)), exchanges)
    reports = [run("lampe"), run("rope")]
    return report(conversation, reports[0], run_report(reports), CONFIG, with_text)


def test_all_that_was_said_is_in_it_and_the_text_only_if_asked_for():
    shown = unescape(re.sub(r"<[^>]+>", " ", made()))
    for words in ("First?", "One.", "Nothing.", "(no answer)", "Plain RoPE", "temperature 0.7, top-p 0.9, seed 5"):
        assert words in shown
    assert '"maximum"' in shown or '"mapping"' in shown, "LaMPE's settings"
    assert "8,192" in shown
    assert "The text." not in shown
    assert "characters, not kept" in shown
    assert "The text." in made(with_text=True)
    assert made().count("<svg") == 1


def test_nothing_in_it_runs_or_is_fetched():
    for page in (made(), made(with_text=True)):
        assert "<script" not in page
        assert "<img" not in page
        assert not re.search(r"\bon\w+=\"", re.sub(r"&lt;.*?&gt;", "", page))
        assert not re.search(r"(?:src|href)=", re.sub(r"&lt;.*?&gt;", "", page))
