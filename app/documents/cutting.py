"""A document that is too long, cut to a number of tokens in one of three ways that a person chooses.

Nothing is left out silently: a `Cut` says which characters of the document are kept and which aren't, and in which
parts they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from app.documents.document import Part, text_of
from lampe.errors import InputError

Count = Callable[[str], int]
"""The tokens that a text takes, with whatever is always put around it: the question, the chat template."""

MARK = "\n\n[…]\n\n"
"""What stands in the kept text where something between was left out."""

_WORD = 200  # characters that are gone back to a word's border: text without spaces is cut anywhere
_NEAR = 1 / 1000  # share of the limit that may stay unused, to count fewer times
_FEW = 2
_ROUNDS = 40
_CHARACTERS_PER_TOKEN = 4
_SPACELESS = "\u2e80"  # from here on come the scripts that have no spaces between words
_PAGE = re.compile(r"Page \d+")


@dataclass(frozen=True)
class Stretch:
    """A run of a document's characters.

    Parameters
    ----------
    start, end : int
        In the document's text.
    """

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


WAYS = ("beginning", "both ends", "parts")


def cut(way: str, parts: Sequence[Part], count: Count, limit: int, first: int = 1, last: int | None = None) -> Cut:
    """Cut in one of `WAYS`: see `cut_end`, `cut_middle` and, with the first and the last part, `cut_to_parts`.

    Raises
    ------
    InputError
        As they do, and for another way.
    """
    if way == "parts":
        return cut_to_parts(parts, first, len(parts) if last is None else last, count, limit)
    if way not in WAYS:
        raise InputError(f"What is kept must be one of {', '.join(WAYS)}, not {way!r:.40}.")
    return (cut_end if way == "beginning" else cut_middle)(parts, count, limit)


def cut_end(parts: Sequence[Part], count: Count, limit: int) -> Cut:
    """Keep the beginning, as much as the limit allows.

    Parameters
    ----------
    parts : sequence of Part
    count : callable
    limit : int
        Most tokens, as `count` counts them.

    Raises
    ------
    InputError
        If there is no room for any text.
    """
    text = text_of(parts)
    return _cut(parts, count, limit, len(text), lambda size: [Stretch(0, _border_before(text, size))])


def cut_middle(parts: Sequence[Part], count: Count, limit: int, share: float = 0.5) -> Cut:
    """Keep the beginning and the end.

    Parameters
    ----------
    parts, count, limit
        As in `cut_end`.
    share : float
        How much of what is kept is the beginning, from 0 to 1.

    Raises
    ------
    InputError
        If there is no room for any text.
    """
    text = text_of(parts)

    def both(size: int) -> list[Stretch]:
        if size >= len(text):
            return [Stretch(0, len(text))]
        head = round(size * share)
        first, last = _border_before(text, head), _border_after(text, len(text) - (size - head))
        return [Stretch(0, first), Stretch(max(first, last), len(text))]

    return _cut(parts, count, limit, len(text), both)


def cut_to_parts(parts: Sequence[Part], first: int, last: int, count: Count, limit: int) -> Cut:
    """Keep a range of pages or chapters, cut at its end if it is still too long.

    Parameters
    ----------
    parts, count, limit
        As in `cut_end`.
    first, last : int
        Numbers of the first and the last part to keep, from 1.

    Raises
    ------
    InputError
        If there is no such range, no text in it, or no room for any text.
    """
    if not 1 <= first <= last <= len(parts):
        raise InputError(
            f"There is no range from {first} to {last}: the first mustn't be after the last, and the numbers go from 1 "
            f"to {len(parts):,}."
        )
    text = text_of(parts)
    bounds = _bounds(parts)
    start, end = bounds[first - 1], bounds[last]
    if not text[start:end].strip():
        raise InputError("There is no text in this range. Choose another.")
    return _cut(
        parts,
        count,
        limit,
        end - start,
        lambda size: [Stretch(start, end if size >= end - start else max(start, _border_before(text, start + size)))],
    )


def _cut(parts: Sequence[Part], count: Count, limit: int, most: int, choose: Callable[[int], Sequence[Stretch]]) -> Cut:
    """The largest choice, or nearly, whose text is within the limit; each is counted before it is taken."""
    text = text_of(parts)

    def kept(size: int) -> tuple[str, tuple[Stretch, ...]]:
        stretches = tuple(stretch for stretch in choose(size) if text[stretch.start : stretch.end].strip())
        return MARK.join(text[stretch.start : stretch.end].strip() for stretch in stretches), stretches

    tokens = count("")
    if tokens >= limit:
        raise InputError(f"There is no room for any text: the question alone takes {tokens:,} of {limit:,} tokens.")
    low, high = 0, most + 1
    fitting: tuple[int, str, tuple[Stretch, ...]] = (tokens, "", ())
    over: int | None = None
    size = min(most, _CHARACTERS_PER_TOKEN * limit)
    for turn in range(_ROUNDS):
        chosen, stretches = kept(size)
        tokens = count(chosen)
        if tokens <= limit:
            low, fitting = size, (tokens, chosen, stretches)
        else:
            high, over = size, tokens
        unused = limit - fitting[0]
        if high - low <= 1 or (fitting[2] and unused <= max(_FEW, limit * _NEAR)):
            break
        if over is None:
            size = min(most, 2 * size)
        elif turn % 3 == 2:  # a straight line alone may come near from one side only, and slowly
            size = (low + high) // 2
        else:
            between = round((high - low) * unused / (over - fitting[0]))
            size = low + min(max(1, between), high - low - 1)
    tokens, chosen, stretches = fitting
    if not stretches:
        raise InputError(f"There is no room for any text: the limit is {limit:,} tokens.")
    left_out = _others(stretches, len(text))
    return Cut(chosen, tokens, stretches, left_out, _sentence(parts, left_out))


def _border_before(text: str, place: int) -> int:
    """The last border between words up to a place."""
    place = min(max(place, 0), len(text))
    for border in range(place, max(place - _WORD, -1), -1):
        if _is_border(text, border):
            return border
    return place


def _border_after(text: str, place: int) -> int:
    """The first border between words from a place on."""
    place = min(max(place, 0), len(text))
    for border in range(place, min(place + _WORD, len(text)) + 1):
        if _is_border(text, border):
            return border
    return place


def _is_border(text: str, place: int) -> bool:
    if place in (0, len(text)):
        return True
    before, after = text[place - 1], text[place]
    return before.isspace() or after.isspace() or max(before, after) >= _SPACELESS


def _bounds(parts: Sequence[Part]) -> list[int]:
    return [0, *accumulate(len(part.text) for part in parts)]


def _others(kept: Sequence[Stretch], length: int) -> tuple[Stretch, ...]:
    """What lies between stretches, before the first, and after the last."""
    edges = [0, *(edge for stretch in kept for edge in (stretch.start, stretch.end)), length]
    return tuple(Stretch(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)


def _sentence(parts: Sequence[Part], left_out: Sequence[Stretch]) -> str:
    text = text_of(parts)
    places = [place for gap in left_out for place in _places(parts, text, gap)]
    if not places:
        return "Nothing was left out."
    characters = sum(gap.end - gap.start for gap in left_out)
    return f"Left out: {characters:,} of {len(text):,} characters: {', '.join(places)}."


def _places(parts: Sequence[Part], text: str, gap: Stretch) -> list[str]:
    """The parts that a gap lies in, in words; those without text in it aren't named."""
    places: list[str] = []
    whole: list[str] = []
    for part, (start, end) in zip(parts, pairwise(_bounds(parts)), strict=True):
        if not text[max(start, gap.start) : min(end, gap.end)].strip():
            continue
        name = "the text" if len(parts) == 1 else part.label if _PAGE.fullmatch(part.label) else f"“{part.label}”"
        before, after = text[start : max(start, gap.start)].strip(), text[min(end, gap.end) : end].strip()
        if not before and not after:
            whole.append(name)
            continue
        places += _run(whole)
        whole = []
        where = "something inside" if before and after else "the end of" if before else "the beginning of"
        places.append(f"{where} {name}")
    return places + _run(whole)


def _run(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) < 3 else [f"{names[0]} to {names[-1]}"]
