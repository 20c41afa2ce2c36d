"""The texts that needles are hidden in, as text and as tokens."""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

from lampe.inference.prompt import encode_all
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
    """

    def __init__(self, haystack: Haystack, tokenizer: Any) -> None:
        self.haystack, self.tokenizer = haystack, tokenizer
        sentences = re.split(r"(?<=[.!?])(?=\s)", haystack.text.strip() + "\n")
        tokens = encode_all(tokenizer, sentences)
        self.ids = list(itertools.chain.from_iterable(tokens))
        self.breaks = list(itertools.accumulate(map(len, tokens), initial=0))

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
