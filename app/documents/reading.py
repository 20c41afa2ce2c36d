"""An uploaded file as a document."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.documents.apart import parse_apart
from app.documents.document import Document
from app.documents.kinds import check_content, kind_of
from app.serving.reports import Update
from app.serving.visitors import Visitor
from app.serving.waiting_line import WaitingLine
from lampe.errors import InputError

_PLACES = 2  # files that are read at once


class Files:
    """Uploaded files, which are read in turn; none stays."""

    def __init__(self) -> None:
        self._line = WaitingLine(_PLACES)
        self._readers: Counter[str] = Counter()  # of each path: uploads of one content, by whomever, share it
        self._counting = threading.Lock()

    def read(self, path: str, visitor: Visitor | None = None) -> Iterator[Update | Document]:
        """The text of an uploaded file, read in a process of its own; the file is deleted.

        Parameters
        ----------
        path : str
        visitor : Visitor, optional

        Yields
        ------
        Update
            What is being done; then the `Document`.

        Raises
        ------
        InputError
            If it can't be read: the sentence says why, what the limit is, and what to do.
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
    """The text of an uploaded file, read in a process of its own.

    Parameters
    ----------
    path : str
        Where the upload lies; its ending says what it is.

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
