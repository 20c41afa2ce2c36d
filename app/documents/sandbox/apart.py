"""Parsers run in a process of their own, which may fail in any way without harm to the app."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from app.documents.document import Found, Part
from app.limits import MAX_CHARACTERS, MEMORY, SECONDS
from lampe.errors import InputError

_ROOT = Path(__file__).parents[3]
_LONGEST_ANSWER = 6 * MAX_CHARACTERS  # bytes: at most four for a character, and the labels
_KEPT = ("PATH", "SYSTEMROOT", "PYTHONHOME", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def command(reader: str) -> list[str]:
    """What reads a file with this reader."""
    return [sys.executable, "-m", "app.documents.sandbox", reader]


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
    answer = _answer(command(reader), data, seconds)
    try:
        found = json.loads(answer)
    except ValueError:
        raise InputError(
            "Reading this file failed: it is damaged, or takes more than "
            f"{MEMORY / 1e9:.0f} GB of memory. Save it anew, or upload a part of it."
        ) from None
    if "refused" in found:
        raise InputError(found["refused"])
    return Found([Part(label, text) for label, text in found["parts"]], found["notes"])


def _answer(arguments: list[str], data: bytes, seconds: float) -> bytes:
    """What a process writes when it is given some bytes; empty if that is far too much."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},  # no token or key is in it
        start_new_session=True,
    )
    started = time.monotonic()
    timer = threading.Timer(seconds, _end, [process])
    timer.daemon = True
    timer.start()
    assert process.stdin
    assert process.stdout
    try:
        with suppress(OSError), process.stdin:  # it has ended: what it wrote until then says why
            process.stdin.write(data)
        with process.stdout:
            answer = process.stdout.read(_LONGEST_ANSWER + 1)
        late = time.monotonic() - started >= seconds
    finally:
        timer.cancel()
        timer.join()
        _end(process)
        process.wait()
    if late:
        raise InputError(
            f"Reading this file took longer than {seconds:.0f} seconds and was ended. Upload a part of it."
        )
    return answer if len(answer) <= _LONGEST_ANSWER else b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with whatever it has started. It isn't waited for yet, so its number is still its own."""
    with suppress(ProcessLookupError, PermissionError):  # it has ended by itself
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
