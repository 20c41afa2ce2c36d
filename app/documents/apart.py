"""Parsers run in a process of their own."""

from __future__ import annotations

import json

from app.documents.document import Found, Part
from app.limits import MAX_CHARACTERS, MEMORY, SECONDS
from app.sandbox.process import module, run_apart
from lampe.errors import InputError

_LONGEST_ANSWER = 6 * MAX_CHARACTERS  # bytes: at most four for a character, and the labels


def command(reader: str) -> list[str]:
    """What reads a file with this reader."""
    return module("app.documents", reader)


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
        found = json.loads(run_apart(command(reader), data, seconds, _LONGEST_ANSWER))
    except TimeoutError:
        raise InputError(
            f"Reading this file took longer than {seconds:.0f} seconds and was ended. Upload a part of it."
        ) from None
    except ValueError:
        raise InputError(
            "Reading this file failed: it is damaged, or takes more than "
            f"{MEMORY / 1e9:.0f} GB of memory. Save it anew, or upload a part of it."
        ) from None
    if "refused" in found:
        raise InputError(found["refused"])
    return Found([Part(label, text) for label, text in found["parts"]], found["notes"])
