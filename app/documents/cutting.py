"""A document that is too long, cut to a number of tokens in one of three ways that a person chooses.

Nothing is left out silently: a `Cut` says which characters of the document are kept and which aren't, and in which
parts they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from app.documents.document import Part, text_of
from lampe.errors import InputError

Count = Callable[[str], int]
"""The tokens that a text takes, with whatever is always put around it: the question, the chat template."""

WAYS = ("beginning", "both ends", "parts")
MARK = "\n\n[…]\n\n"
"""What stands in the kept text where something between was left out."""

_WORD = 200  # characters that are gone back to a word's border: text without spaces is cut anywhere
_NEAR = 1 / 1000  # share of the limit that may stay unused, to count fewer times
_FEW = 2
_ROUNDS = 40
_CHARACTERS_PER_TOKEN = 4
_SPACELESS = "\u2e80"  # from here on come the scripts that have no spaces between words
_PAGE = re.compile(r"Page \d+")


class Stretch(NamedTuple):
    """A run of a document's characters, from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True)
class Cut:
    """What is kept of a document, and what isn't.

    Parameters
    ----------
    text : str
        The kept text, with `MARK` where something between was left out.
    tokens : int
        What it counts.
    kept, left_out : tuple of Stretch
        In their order; together they are the whole document.
    sentence : str
        The same for people: how much was left out, and of which parts.
    """

    text: str
    tokens: int
    kept: tuple[Stretch, ...]
    left_out: tuple[Stretch, ...]
    sentence: str


def cut(way: str, parts: Sequence[Part], count: Count, limit: int, first: int = 1, last: int | None = None) -> Cut:
    """Keep as much of a document as the limit allows, or nearly.

    Parameters
    ----------
    way : str
        One of `WAYS`: the beginning, both ends in equal shares, or a range of parts, cut at its end if it is too long.
    parts : sequence of Part
    count : callable
        Whatever is kept was counted by it.
    limit : int
        Most tokens.
    first, last : int
        The range's numbers, from 1; all parts if nothing is said. The other ways don't look at them.

    Raises
    ------
    InputError
        For another way, a range that isn't there or has no text in it, or if there is no room for any text.
    """
    last = len(parts) if last is None else last
    if way not in WAYS:
        raise InputError(f"What is kept must be one of {', '.join(WAYS)}, not {way!r:.40}.")
    if way != "parts":
        first, last = 1, len(parts)
    elif not 1 <= first <= last <= len(parts):
        raise InputError(
            f"There is no range from {first} to {last}: the first mustn't be after the last, and the numbers go from 1 "
            f"to {len(parts):,}."
        )
    text = text_of(parts)
    bounds = [0, *accumulate(len(part.text) for part in parts)]
    start, end = bounds[first - 1], bounds[last]
    if not text[start:end].strip():
        raise InputError("There is no text in this range. Choose another.")
    kept, tokens, chosen = _largest(text, start, end, way == "both ends", count, limit)
    edges = [0, *(edge for stretch in kept for edge in stretch), len(text)]
    left_out = tuple(Stretch(*gap) for gap in zip(edges[::2], edges[1::2], strict=True) if gap[0] < gap[1])
    return Cut(chosen, tokens, kept, left_out, _sentence(parts, bounds, text, left_out))


_Fitting = tuple[tuple[Stretch, ...], int, str]  # what is kept, its tokens, its text


def _largest(text: str, start: int, end: int, both: bool, count: Count, limit: int) -> _Fitting:
    """The most that fits of the characters from `start` to `end`, their beginning or both their ends."""

    def made(size: int) -> _Fitting:
        stretches = [Stretch(start, end)]
        if size < end - start:
            head = size // 2 if both else size
            stretches = [Stretch(start, _border(text, start + head, start, end, -1))]
            if both:
                tail = _border(text, end - (size - head), start, end, 1)
                stretches.append(Stretch(max(tail, stretches[0].end), end))
        kept = tuple(stretch for stretch in stretches if text[slice(*stretch)].strip())
        chosen = MARK.join(text[slice(*stretch)].strip() for stretch in kept)
        return kept, count(chosen), chosen

    best, over = made(0), 0
    if best[1] >= limit:
        raise InputError(f"There is no room for any text: the question alone takes {best[1]:,} of {limit:,} tokens.")
    low, high = 0, end - start + 1  # characters that fit, and those that are too many
    size = min(end - start, _CHARACTERS_PER_TOKEN * limit)
    for turn in range(_ROUNDS):
        found = made(size)
        if found[1] <= limit:
            low, best = size, found
        else:
            high, over = size, found[1]
        unused = limit - best[1]
        if high - low <= 1 or (best[0] and unused <= max(_FEW, limit * _NEAR)):
            break
        if not over:
            size = min(end - start, 2 * size)
        elif turn % 3 == 2:  # a straight line alone may come near from one side only, and slowly
            size = (low + high) // 2
        else:
            between = round((high - low) * unused / (over - best[1]))
            size = low + min(max(1, between), high - low - 1)
    if not best[0]:
        raise InputError(f"There is no room for any text: the limit is {limit:,} tokens.")
    return best


def _border(text: str, place: int, start: int, end: int, step: int) -> int:
    """The nearest border between words from a place on, backwards (-1) or forwards (1); the place if none is near."""
    for border in range(place, place + step * (_WORD + 1), step):
        if not start < border < end:
            return min(max(border, start), end)
        before, after = text[border - 1], text[border]
        if before.isspace() or after.isspace() or max(before, after) >= _SPACELESS:
            return border
    return place


def _sentence(parts: Sequence[Part], bounds: Sequence[int], text: str, left_out: Sequence[Stretch]) -> str:
    places = [place for gap in left_out for place in _places(parts, bounds, text, gap)]
    if not places:
        return "Nothing was left out."
    characters = sum(gap.end - gap.start for gap in left_out)
    return f"Left out: {characters:,} of {len(text):,} characters: {', '.join(places)}."


def _places(parts: Sequence[Part], bounds: Sequence[int], text: str, gap: Stretch) -> list[str]:
    """The parts that a gap lies in, in words; those without text in it aren't named."""
    places: list[str] = []
    whole: list[str] = []  # only the gap's first and last part may be there in part
    for part, (start, end) in zip(parts, pairwise(bounds), strict=True):
        if not text[max(start, gap.start) : min(end, gap.end)].strip():
            continue
        name = "the text" if len(parts) == 1 else part.label if _PAGE.fullmatch(part.label) else f"“{part.label}”"
        before, after = text[start : max(start, gap.start)].strip(), text[min(end, gap.end) : end].strip()
        if before:
            places.append(f"{'something inside' if after else 'the end of'} {name}")
        elif after:
            return [*places, *_run(whole), f"the beginning of {name}"]
        else:
            whole.append(name)
    return places + _run(whole)


def _run(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) < 3 else [f"{names[0]} to {names[-1]}"]
