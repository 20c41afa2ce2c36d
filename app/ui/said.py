"""What the server says, in the languages of the page: a sentence is known by its English."""

from __future__ import annotations

import json
import re
from functools import cache
from html import escape
from importlib.resources import files

_FILE = files("app") / "assets" / "words" / "said.json"
_LONGEST = 600  # characters of a sentence that is looked up: what visitors name may be in it
_PLACE = re.compile(r"\{(\w+)\}")


@cache
def catalogue() -> dict[str, str]:
    """Chinese by English; ``{n}``, ``{n1}``, … stand for numbers, and ``{name}``, once, for anything."""
    return json.loads(_FILE.read_text(encoding="utf-8"))


def chinese(sentence: str) -> str | None:
    """A sentence of the server's in Chinese; None if that isn't known."""
    if found := catalogue().get(sentence):
        return found
    if len(sentence) <= _LONGEST:
        for pattern, template in _patterns():
            if match := pattern.fullmatch(sentence):
                return _PLACE.sub(lambda place: match[place[1]], template)
    return None


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    def pattern(english: str) -> str:
        pieces = _PLACE.split(english)  # between the places, and their names
        return "".join(
            (rf"(?P<{piece}>[\d,.]+)" if piece.startswith("n") and piece != "name" else r"(?P<name>.+)")
            if number % 2
            else re.escape(piece)
            for number, piece in enumerate(pieces)
        )

    return [(re.compile(pattern(english)), template) for english, template in catalogue().items() if "{" in english]


def in_both(english: str, chinese: str) -> str:
    """HTML in both languages, of which the browser shows its own; both are HTML already."""
    if english == chinese:
        return english
    return f'<span lang="en" class="only-en">{english}</span><span lang="zh" class="only-zh">{chinese}</span>'


def said(sentence: str) -> str:
    """A sentence of the server's as HTML, in both languages where it is known in both."""
    return in_both(escape(sentence), escape(chinese(sentence) or sentence))
