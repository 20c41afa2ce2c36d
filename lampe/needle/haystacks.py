"""The texts that needles are hidden in, as text and as tokens."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

from lampe.inference.prompt import PART, encode_all, parts_of
from lampe.needle.tasks import NeedleError


@dataclass(frozen=True)
class Haystack:
    """A text to hide needles in.

    Parameters
    ----------
    name : str
    text : str
    """

    name: str
    text: str

    @classmethod
    def named(cls, name: str, text: str) -> Haystack:
        """A text of somebody's own. The name gets its hash, so that another text of that name has other results."""
        return cls(f"{name} {hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}", text)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise NeedleError("The haystack is empty: there is no text to hide a needle in.")
        if "\x00" in self.text:
            raise NeedleError("The haystack isn't text: it has null bytes in it.")


def language_reference() -> Haystack:
    """Python's language reference: long English prose that comes with every Python; each version has its own."""
    return Haystack("language reference", "\n\n".join(topics.values()))


def filler() -> Haystack:
    """The same few sentences, over and over: a haystack with nothing that a needle could be taken for."""
    return Haystack(
        "filler",
        "The meadow is wide and the wind goes over it. A cart passes in the morning and another at noon. Nobody is in "
        "a hurry. The shadows grow, the birds settle, and the next day is much like this one.\n",
    )


HAYSTACKS: dict[str, Callable[[], Haystack]] = {"reference": language_reference, "filler": filler}


class TokenizedHaystack:
    """A haystack as token ids, with the places between its sentences.

    Parameters
    ----------
    haystack : Haystack
    tokenizer : transformers tokenizer
    most : int, optional
        Of a longer text only its beginning is tokenized, of at least so many tokens; by default all of it.
    """

    def __init__(self, haystack: Haystack, tokenizer: Any, most: int | None = None) -> None:
        self.haystack, self.tokenizer = haystack, tokenizer
        self.ids: list[int] = []
        self.breaks = [0]
        for sentences in _sentences(haystack.text.strip() + "\n"):
            for tokens in encode_all(tokenizer, sentences):
                self.ids += tokens
                self.breaks.append(len(self.ids))
            if most is not None and len(self.ids) >= most:
                break

    def window(self, stop: int, count: int) -> TokenizedHaystack:
        """The `count` tokens before token `stop`, as a haystack of its own; before its first token comes its last."""
        part = copy.copy(self)
        first = (stop - count) % len(self.ids)
        part.ids = (self.ids[first:] + self.ids)[:count]
        laps = (*self.breaks, *(len(self.ids) + place for place in self.breaks[1:]))
        part.breaks = [place - first for place in laps if first <= place <= first + count]
        return part

    def take(self, count: int) -> tuple[list[int], bool]:
        """The first `count` tokens, and whether the text had to be repeated for them."""
        repeats = -(-count // len(self.ids))
        return (self.ids * repeats)[:count], repeats > 1

    def place(self, depth: float, count: int) -> int:
        """The sentence end nearest to a depth of the first `count` tokens; 0 and `count` are such places too."""
        target = depth * count
        lap = int(target) // len(self.ids) * len(self.ids)
        near = [lap + place for place in self.breaks if lap + place <= count]
        return min((*near, count), key=lambda place: (abs(place - target), place))


def _sentences(text: str) -> Iterator[list[str]]:
    """A text's sentences, each with the space before it and one that is very long in parts, as many as make a `PART`
    at a time."""
    some, characters, start = [], 0, 0
    for border in re.finditer(r"(?<=[.!?])(?=\s)|\Z", text):
        for part in parts_of(text[start : border.start()]):
            some.append(part)
            characters += len(part)
            if characters >= PART:
                yield some
                some, characters = [], 0
        start = border.start()
    yield some
