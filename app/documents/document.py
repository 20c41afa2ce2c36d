"""A document as text in parts, and what every text goes through before it is shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from app.limits import MAX_CHARACTERS, MEMORY
from lampe.errors import InputError

_LONGEST_LABEL = 120
_LINE_ENDS = re.compile("\r\n?|[\v\f\x85]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # with tabs and line ends left out
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Part:
    """A page or a chapter.

    Parameters
    ----------
    label : str
        What to call it: "Page 3", or a chapter's title.
    text : str
        With the empty line after it: the texts of all parts in a row are the document's text.
    """

    label: str
    text: str


@dataclass(frozen=True)
class Document:
    """What was read from a file.

    Parameters
    ----------
    name : str
        The file's.
    kind : str
        One of the names in `app.documents.kinds.KINDS`.
    parts : tuple of Part
        At least one, with text in one of them. A PDF's are its pages, those without text too.
    notes : tuple of str
        Sentences on what the reader should know: another encoding than UTF-8, pages without text.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it."""
        return text_of(self.parts)


class Found(NamedTuple):
    """What a parser gives."""

    parts: list[Part]
    notes: list[str]


def text_of(parts: Iterable[Part]) -> str:
    """The text of parts in a row."""
    return "".join(part.text for part in parts)


def parsed(reader: Callable[[bytes], Found], data: bytes) -> Found:
    """What a reader finds, tidied, whatever is in the bytes.

    Raises
    ------
    InputError
        If the file can't be read. A reader that fails at something unforeseen is one more way to find it damaged.
    """
    try:
        return tidied(reader(data))
    except InputError:
        raise
    except MemoryError:
        sentence = f"Reading this file takes more than {MEMORY / 1e9:.0f} GB of memory, the limit here. Upload a part."
    except RecursionError:
        sentence = "This file is nested too deeply to be read. Upload its text as a .txt file."
    except Exception:
        sentence = (
            "This file is damaged, or isn't what its ending says: it can't be read. Open it in the program that made "
            "it and save it anew."
        )
    raise InputError(sentence)


def tidied(found: Found) -> Found:
    """Text that can be encoded, has no control characters, and ends its lines in one way; a note if some were dropped.

    Raises
    ------
    InputError
        If nothing is left, or more than is counted here.
    """
    parts, dropped = [], 0
    for number, part in enumerate(found.parts, 1):
        text, controls = _cleaned(part.text)
        label, _ = _cleaned(part.label)
        parts.append(Part(" ".join(label.split())[:_LONGEST_LABEL] or f"Part {number}", text))
        dropped += controls
    check_characters(sum(len(part.text) for part in parts))
    if not any(part.text.strip() for part in parts):
        raise InputError("This file has no text in it.")
    notes = list(found.notes)
    if dropped:
        notes.append(f"{dropped:,} control characters, which are no text, were left out.")
    return Found(parts, notes)


def check_characters(count: int) -> None:
    """Refuse more text than is counted here."""
    if count > MAX_CHARACTERS:
        raise InputError(
            f"This file has more than {MAX_CHARACTERS:,} characters of text, the limit here. Upload a part of it."
        )


def _cleaned(text: str) -> tuple[str, int]:
    """The text, and how many characters were dropped."""
    text = _LINE_ENDS.sub("\n", text)
    if _SURROGATES.search(text):  # a pair is one character in two pieces; half of one is nothing
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    return _CONTROLS.subn("", text)
