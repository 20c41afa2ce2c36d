"""An uploaded file as a document."""

from __future__ import annotations

from pathlib import Path

from app.documents.document import Document
from app.documents.kinds import check_content, kind_of
from app.documents.sandbox.apart import parse_apart
from lampe.errors import InputError


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
