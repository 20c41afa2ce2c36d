"""The tour's steps name what there is, and its words are there in each language."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from app.page import VIEWS
from app.see.maps import LENGTHS
from app.see.page import hero_data
from app.tour.page import tour_data
from app.ui.words import LANGUAGES


def test_at_most_ten_steps_on_views_lengths_and_methods_that_there_are():
    steps = tour_data()["steps"]
    assert 1 < len(steps) <= 10
    ruler = {method["key"] for method in hero_data()["methods"]}
    for step in steps:
        assert step["view"] in VIEWS
        if "ruler" in step:
            tokens, depth, by = step["ruler"]
            assert tokens in LENGTHS
            assert 0 <= depth <= 1
            assert by in ruler


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_is_there_in_each_language(language):
    data = tour_data()
    english, words = data["words"]["en"], data["words"][language]
    assert words.keys() == english.keys()
    script = (files("app") / "assets" / "tour" / "tour.js").read_text(encoding="utf-8")
    named = set(re.findall(r'button\("(\w+)"', script)) | set(re.findall(r"words\.(\w+)", script))
    steps = {f"{number + 1}{part}" for number in range(len(data["steps"])) for part in ("", "_title")}
    assert named | steps == words.keys()
    for key, text in words.items():
        assert text.strip()
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), key
