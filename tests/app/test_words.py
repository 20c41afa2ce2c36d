"""The words of the main path are there in each language, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.ask.conversation import MOST_BESIDE
from app.ask.examples import EXAMPLES
from app.page import VIEWS
from app.ui.html import TERMS
from app.ui.words import LANGUAGES, WORDS, word

APP = Path(__file__).parents[2] / "app"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_is_there_in_each_language(language):
    words = WORDS.translations[language]
    assert words.keys() == WORDS.translations["en"].keys()
    for key, text in words.items():
        assert text.strip(), key
        assert bool(re.search(r"[\u4e00-\u9fff]", text)) == (language == "zh" and key not in ("top_p", "term_rope")), (
            key
        )
    assert str(MOST_BESIDE) in words["beside"]


def test_every_word_is_used_and_an_unknown_one_is_an_error():
    source = "".join(path.read_text(encoding="utf-8") for path in APP.rglob("*.py"))
    used = set(re.findall(r'(?:word|in_each_language)\("(\w+)"', source))
    used |= {f"view_{view}" for view in VIEWS} | {example.word for example in EXAMPLES}
    used |= {f"{part}_{term}" for part in ("term", "about") for term in TERMS}
    assert used == WORDS.translations["en"].keys()
    with pytest.raises(KeyError):
        word("no such word")
