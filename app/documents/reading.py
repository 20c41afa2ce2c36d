"""An uploaded file as a document; its parser runs in a process of its own."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from app.documents.document import Document, Found
from app.documents.kinds import check_content, kind_of
from app.limits import MAX_CHARACTERS, MEMORY, SECONDS
from app.sandbox.process import run_apart
from app.serving.reports import Update
from app.serving.visitors import Visitor
from app.serving.waiting_line import WaitingLine
from lampe.errors import InputError

_PLACES = 2  # files that are read at once
_LONGEST_ANSWER = 6 * MAX_CHARACTERS  # bytes: at most four for a character, and the labels


class Files:
    """Uploaded files, which are read in turn; none stays."""

    def __init__(self) -> None:
        self._line = WaitingLine(_PLACES)
        self._readers: Counter[str] = Counter()  # of each path: uploads of one content, by whomever, share it
        self._counting = threading.Lock()

    def read(self, path: str, visitor: Visitor | None = None) -> Iterator[Update | Document]:
        """Updates on what is being done, then what `read_document` gives; the file is deleted.

        Raises
        ------
        InputError
            As there, or if the visitor has too much under way.
        """
        before = _identity(path)
        with self._counting:
            self._readers[path] += 1
        try:
            with self._line.join(visitor) as ticket:
                while not ticket.wait(0.5):
                    with suppress(OSError):
                        os.utime(path)  # it isn't forgotten
                    yield Update(f"Waiting to read the file: {len(ticket.ahead)} before you")
                yield Update("Reading the file")
                document = read_document(path)
            yield document
        finally:
            with self._counting:
                self._readers[path] -= 1
                last = not self._readers[path]
                if last:
                    del self._readers[path]
                # Somebody else's newer upload stays, until they have read it. What can't go now, the sweep takes.
                if last and _identity(path) == before:
                    with suppress(OSError):
                        Path(path).unlink()


def _identity(path: str) -> tuple[int, int] | None:
    """Of the file that lies there now; another upload puts another one there."""
    with suppress(OSError):
        about = Path(path).stat()
        return about.st_ino, about.st_ctime_ns if os.name == "nt" else 0
    return None


def read_document(path: str) -> Document:
    """The text of an uploaded file, read in a process of its own; the ending of its path says what it is.

    Raises
    ------
    InputError
        If it can't be read: the sentence says why, what the limit is, and what to do.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError("This file isn't here any more: upload it again.")
    name = file.name.encode("utf-8", "replace").decode()
    kind = kind_of(name)
    size = file.stat().st_size
    if size > kind.max_bytes:
        raise InputError(
            f"{name} has {size:,} bytes; for {kind.title} the limit is {kind.max_bytes:,}. Upload a part of it."
        )
    data = file.read_bytes()
    check_content(name, kind, data)
    found = parse_apart(kind.reader, data)
    return Document(name, kind.name, tuple(found.parts), tuple(found.notes))


def parse_apart(reader: str, data: bytes, seconds: float = SECONDS) -> Found:
    """Run a reader in a process, which ends with this call whatever happens.

    Parameters
    ----------
    reader : str
        As in `app.documents.kinds.Kind`.
    data : bytes
        What the process is given; it reads no file.
    seconds : float
        How long it may take.

    Raises
    ------
    InputError
        If it refuses the file, takes too long or too much, or ends without an answer.
    """
    try:
        answer = run_apart(command(reader), data, seconds, _LONGEST_ANSWER)
        found = msgspec.json.decode(answer, type=Found | str)
    except TimeoutError:
        raise InputError(
            f"Reading this file took longer than {seconds:.0f} seconds and was ended. Upload a part of it."
        ) from None
    except (ValueError, msgspec.DecodeError):
        raise InputError(
            "Reading this file failed: it is damaged, or takes more than "
            f"{MEMORY / 1e9:.0f} GB of memory. Save it anew, or upload a part of it."
        ) from None
    if isinstance(found, str):
        raise InputError(found)
    return found


def command(reader: str) -> list[str]:
    """What reads a file with this reader."""
    return [sys.executable, "-m", "app.documents", reader]
