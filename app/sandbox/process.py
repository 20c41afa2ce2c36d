"""Giving bytes to a process, and ending it whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_KEPT = (
    "PATH", "SYSTEMROOT", "APPDATA", "USERPROFILE", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)  # fmt: skip
"""Of the environment: where programs, Python and its packages lie."""


def run_apart(arguments: list[str], data: bytes, seconds: float, most: int) -> bytes:
    """What a process writes when it is given some bytes. It ends with this call.

    Parameters
    ----------
    arguments : list of str
        Its command line; it starts in the app's folder, and no token or key is in its environment.
    data : bytes
        Its standard input.
    seconds : float
        How long it may take.
    most : int
        Bytes that it may write.

    Returns
    -------
    bytes
        Empty if that is more than it may.

    Raises
    ------
    TimeoutError
        If it takes longer.
    """
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        start_new_session=True,
    )
    ends = time.monotonic() + seconds
    timer = threading.Timer(seconds, _end, [process])
    timer.daemon = True
    timer.start()
    assert process.stdin
    assert process.stdout
    try:
        with suppress(OSError), process.stdin:  # it has ended: what it wrote until then says why
            process.stdin.write(data)
        with process.stdout:
            answer = process.stdout.read(most + 1)
    finally:
        late = time.monotonic() >= ends
        timer.cancel()
        timer.join()
        _end(process)
        process.wait()
    if late:
        raise TimeoutError(f"took longer than {seconds:.0f} seconds")
    return answer if len(answer) <= most else b""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill it with whatever it has started. It isn't waited for yet, so its number is still its own."""
    with suppress(ProcessLookupError, PermissionError):  # it has ended by itself
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
