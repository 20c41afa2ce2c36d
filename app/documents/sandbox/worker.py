"""The process that reads one file: bytes in at the standard input, JSON out, and kept from changing files,
starting programs and using the network.

Run by `app.documents.sandbox.apart`. It imports neither gradio nor torch, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from app.documents.document import Found, tidied
from app.documents.sandbox.caps import MEMORY, SECONDS
from lampe.errors import InputError

PARSERS = {
    "txt": ("plain", "read_plain"),
    "md": ("plain", "read_markdown"),
    "html": ("markup", "read_html"),
    "pdf": ("pdf", "read_pdf"),
    "docx": ("docx", "read_docx"),
    "epub": ("epub", "read_epub"),
}
"""For each kind, the module here and the function in it: only that kind's packages are imported."""

_BARRED = (
    "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "socket.", "os.chmod", "os.chown", "os.link",
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Parser = Callable[[bytes], Found]


def parser_of(kind: str) -> Parser:
    """The parser of a kind."""
    module, function = PARSERS[kind]
    return getattr(import_module(f"app.documents.formats.{module}"), function)


def parsed(parser: Parser, data: bytes) -> Found:
    """What a parser finds, whatever is in the bytes.

    Raises
    ------
    InputError
        If the file can't be read. A parser that fails at something unforeseen is one more way to find it damaged.
    """
    try:
        return tidied(parser(data))
    except InputError:
        raise
    except MemoryError:
        raise InputError(
            f"Reading this file takes more than {MEMORY / 1e9:.0f} GB of memory, the limit here. Upload a part of it."
        ) from None
    except RecursionError:
        raise InputError("This file is nested too deeply to be read. Upload its text as a .txt file.") from None
    except Exception:
        raise InputError(
            "This file is damaged, or isn't what its ending says: it can't be read. Open it in the program that made "
            "it and save it anew."
        ) from None


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
    _lower(resource.RLIMIT_AS, _memory_now() + MEMORY)
    _lower(resource.RLIMIT_CPU, round(SECONDS) + 1)  # should the app be gone when the time is over
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NPROC, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Python asks this before it does such things."""
    if event.startswith(_BARRED) or (event == "open" and arguments[2] & _WRITING):
        raise PermissionError(f"{event} is barred here")


def _lower(limit: int, most: int) -> None:
    import resource

    _, hard = resource.getrlimit(limit)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses to set it
        resource.setrlimit(limit, (most, most))


def _memory_now() -> int:
    """Bytes of address space in use."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def main(kind: str) -> None:
    """Read one file."""
    parser = parser_of(kind)
    data = sys.stdin.buffer.read()
    confine()
    answer: dict[str, Any]
    try:
        found = parsed(parser, data)
        answer = {"parts": found.parts, "notes": found.notes}
    except InputError as error:
        answer = {"refused": str(error)}
    output = sys.stdout.buffer
    text = json.dumps(answer, ensure_ascii=False, default=lambda part: [part.label, part.text])
    output.write(text.encode())
    output.flush()


if __name__ == "__main__":
    main(sys.argv[1])
