"""What the server says, in Chinese too."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from app.serving.reports import Update
from app.ui.html import message, note, status
from app.ui.said import catalogue, chinese, said

PLACE = re.compile(r"\{\w*\}")


def sentences():
    """Every text in the sources, with what is put into it left open."""
    for package in ("app", "lampe"):
        for file in sorted((Path(__file__).parents[2] / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
                elif isinstance(node, ast.JoinedStr):
                    yield "".join(one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)


def test_each_sentence_is_one_that_the_program_says():
    known = set(sentences())
    missing = [english for english in catalogue() if PLACE.sub("{}", english) not in known]
    assert missing == []


@pytest.mark.parametrize("english", catalogue())
def test_each_keeps_what_is_put_into_it(english):
    template = catalogue()[english]
    assert sorted(PLACE.findall(english)) == sorted(PLACE.findall(template))
    assert PLACE.findall(english).count("{name}") <= 1, "two of any length take quadratic time"
    values = {
        place: "1,234" if place.startswith("{n") and place != "{name}" else "A (b).+"
        for place in PLACE.findall(english)
    }
    filled = PLACE.sub(lambda place: values[place[0]], english)
    assert chinese(filled) == PLACE.sub(lambda place: values[place[0]], template)


def test_what_is_not_known_is_said_in_english_and_nothing_gets_through():
    assert said("Something <b>else</b>") == "Something &lt;b&gt;else&lt;/b&gt;"
    told = said("Fetching <script>alert(1)</script>")
    assert "<script>" not in told
    assert told.count("&lt;script&gt;") == 2
    assert chinese("Fetching " + "x" * 10_000) is None


def test_a_status_has_both_languages():
    told = status(Update("Reading", 300, 1200, "tokens", seconds_left=12, waiting=2), "LaMPE")
    assert "LaMPE: Reading" in told
    assert "300 of 1,200 tokens, about 12 s left, in turn with 2 more" in told
    assert "LaMPE: 正在阅读" in told
    assert "300 / 1,200 个词元，还需约 12 秒，与另外 2 项轮流进行" in told
    waiting = status(Update("Waiting for the model: 2 before you", seconds_left=400))
    assert "Waiting for the model: 2 before you" in waiting
    assert "正在等待模型：您前面还有 2 项" in waiting
    assert "，约 7 分钟" in waiting
    assert "已停止。" in note("Stopped.")
    assert "请先提问" in message("There is no answer yet: ask first.")
