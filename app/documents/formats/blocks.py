"""Paragraphs and headings, gathered into parts: what HTML, EPUB and Word documents have in common."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from app.documents.document import Part
from app.limits import MAX_PAGES

_DEEPEST = 3  # headings below this level name no part


class Block(NamedTuple):
    """A paragraph, a heading or a line.

    Parameters
    ----------
    text : str
    level : int
        A heading's, from 1; 0 for anything else.
    tight : bool
        Whether it stands in the line after another tight one: an item of a list, a row of a table.
    """

    text: str
    level: int = 0
    tight: bool = False


def parts_of(blocks: Sequence[Block], title: str) -> list[Part]:
    """A part for each heading, those of the lower levels left aside where there would be too many.

    Parameters
    ----------
    blocks : sequence of Block
    title : str
        The label of what comes before the first heading.
    """
    starts = beginnings([block.level for block in blocks])
    followed = pairwise([*blocks, Block("")])
    texts = [block.text + ("\n" if block.tight and following.tight else "\n\n") for block, following in followed]
    bounds = sorted({0, *starts, len(blocks)})
    labels = {start: blocks[start].text for start in starts}
    return [Part(labels.get(start, title), "".join(texts[start:end])) for start, end in pairwise(bounds)]


def beginnings(levels: Sequence[int]) -> list[int]:
    """Where parts begin, given the level of each heading and 0 for what is none."""
    for deepest in range(_DEEPEST, 0, -1):
        found = [place for place, level in enumerate(levels) if 0 < level <= deepest]
        if len(found) < MAX_PAGES:
            return found
    return []
