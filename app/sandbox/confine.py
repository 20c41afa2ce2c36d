"""What such a process does to itself before it looks at what it was given."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

import psutil

_BARRED = (
    "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "socket.", "os.chmod", "os.chown", "os.link",
    "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.truncate",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def confine(memory: int, seconds: float) -> None:
    """Cap what this process may take from here on, and keep it from writing, connecting and starting anything.

    Windows knows no such caps; there, only the time is limited, by who started it.

    Parameters
    ----------
    memory : int
        Bytes, beside what it has.
    seconds : float
        Of computing, should the app be gone when the time is over.
    """
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)
    try:
        import resource
    except ImportError:
        return
    caps = {
        resource.RLIMIT_AS: psutil.Process().memory_info().vms + memory,
        resource.RLIMIT_CPU: round(seconds) + 1,
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
