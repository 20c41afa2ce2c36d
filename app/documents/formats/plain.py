"""Plain text and Markdown: their text stays as it is."""

from __future__ import annotations

import re
from itertools import pairwise

from app.documents.document import Found, Part
from app.documents.formats.blocks import beginnings
from app.documents.formats.encodings import decoded
from app.limits import MAX_PAGES

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]")
_LINE_END = re.compile("\r\n?")


def read_plain(data: bytes) -> Found:
    """A text; form feeds, as older documents have them, separate its pages."""
    text, notes = decoded(data)
    pages = text.removesuffix("\f").split("\f")
    if not 1 < len(pages) <= MAX_PAGES:
        return Found([Part("Text", text)], notes)
    return Found([Part(f"Page {number}", page + "\n") for number, page in enumerate(pages, 1)], notes)


def read_markdown(data: bytes) -> Found:
    """Markdown as it is written, its headings (those with #) as the parts' labels."""
    text, notes = decoded(data)
    lines = _LINE_END.sub("\n", text).splitlines(keepends=True)
    levels, labels, fence = [0] * len(lines), [""] * len(lines), ""
    for number, line in enumerate(lines):
        if opened := _FENCE.match(line):
            if not fence:
                fence = opened[1]
            elif opened[1].startswith(fence):
                fence = ""
        elif not fence and (heading := _HEADING.match(line)):
            label = line[heading.end() :].strip()
            bare = label.rstrip("#")  # which may follow it after a space; those of "C#" stay
            labels[number] = label if bare and not bare[-1].isspace() else bare.rstrip()
            levels[number] = len(heading[1]) if labels[number] else 0
    starts = beginnings(levels)
    if starts and not "".join(lines[: starts[0]]).strip():
        labels[0] = labels[starts[0]]
        starts[0] = 0
    bounds = sorted({0, *starts, len(lines)})
    first = "Beginning" if starts else "Text"
    return Found([Part(labels[start] or first, "".join(lines[start:end])) for start, end in pairwise(bounds)], notes)
