"""The process that reads one file: bytes in at the standard input, JSON out, and kept from changing files,
starting programs and using the network.

Started by `app.documents.sandbox.apart`. It imports neither gradio nor torch, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any

import psutil

from app.documents.document import Found, tidied
from app.limits import MEMORY, SECONDS
from lampe.errors import InputError

_BARRED = (
    "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "socket.", "os.chmod", "os.chown", "os.link",
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


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


def confine() -> None:
    """Cap what this process may take from here on, and keep it from writing, connecting and starting anything.

    Windows knows no such caps; there, only the time is limited.
    """
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)
    try:
        import resource
    except ImportError:
        return
    caps = {
        resource.RLIMIT_AS: psutil.Process().memory_info().vms + MEMORY,
        resource.RLIMIT_CPU: round(SECONDS) + 1,  # should the app be gone when the time is over
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in caps.items():
        _, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
            resource.setrlimit(limit, (most, most))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Python asks this before it does such things."""
    if event.startswith(_BARRED) or (event == "open" and arguments[2] & _WRITING):
        raise PermissionError(f"{event} is barred here")


def main(reader: str) -> None:
    """Read one file with a kind's reader, "module:function"."""
    read = resolve_name(reader)  # before anything is barred: the import may need it
    data = sys.stdin.buffer.read()
    confine()
    answer: dict[str, Any]
    try:
        found = parsed(read, data)
        answer = {"parts": [[part.label, part.text] for part in found.parts], "notes": found.notes}
    except InputError as error:
        answer = {"refused": str(error)}
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode())
    sys.stdout.buffer.flush()
