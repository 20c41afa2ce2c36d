"""The process that reads one file: bytes in at the standard input, JSON out, and kept from changing files,
starting programs and using the network.

Started by `app.documents.apart`. It imports neither gradio nor torch, so that it starts at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from app.documents.document import Found, tidied
from app.limits import MEMORY, SECONDS
from app.sandbox.confine import confine
from lampe.errors import InputError


def parsed(reader: Callable[[bytes], Found], data: bytes) -> Found:
    """What a reader finds, whatever is in the bytes.

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


def main(reader: str) -> None:
    """Read one file with a kind's reader, "module:function"."""
    read = resolve_name(reader)  # before anything is barred: the import may need it
    data = sys.stdin.buffer.read()
    confine(MEMORY, SECONDS)
    answer: dict[str, Any]
    try:
        found = parsed(read, data)
        answer = {"parts": [[part.label, part.text] for part in found.parts], "notes": found.notes}
    except InputError as error:
        answer = {"refused": str(error)}
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode())
    sys.stdout.buffer.flush()
