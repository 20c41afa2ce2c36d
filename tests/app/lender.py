"""A stand-in for the package `spaces` where no GPU is lent: what its decorator does, as it is written there.

A job runs in a forked process: what goes there and comes back is pickled, none of the parent's threads is there, it
ends when its time is over, closing the generator ends it at its next yield, and of an exception only the name comes
back.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import stat
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import torch

_fork = multiprocessing.get_context("fork")
_BEAT = 0.05


class Lender(types.ModuleType):
    """The module, with what it does now.

    Attributes
    ----------
    seconds_left : float
        Of the visitor's.
    asked : list of float
        Seconds that each job asked for.
    seconds_to_start : float
        Until a process has its GPU.
    pids : list of int
        Of the processes that were forked.
    """

    def __init__(self) -> None:
        super().__init__("spaces")
        self.seconds_left, self.seconds_to_start = 1e9, 0.0
        self.asked: list[float] = []
        self.pids: list[int] = []

    def at_work(self) -> list[int]:
        """Processes that are still there."""
        return [pid for pid in self.pids if Path(f"/proc/{pid}").exists()]

    def GPU(self, duration: Callable[..., float]) -> Callable[[Any], Any]:
        def decorate(task: Callable[..., Iterator[Any]]) -> Any:
            @wraps(task)
            def handler(*args: Any) -> Iterator[Any]:
                seconds = duration(*args)
                self.asked.append(seconds)
                if seconds > self.seconds_left:
                    asked = f"{seconds:.0f}s requested vs. {self.seconds_left:.0f}s left"
                    said = f"You have exceeded your ZeroGPU quota ({asked})."
                    raise gr.Error(said, title="ZeroGPU quota exceeded", print_exception=False)
                yield from self._lent(task, pickle.dumps(args), seconds)

            return handler

        return decorate

    def _lent(self, task: Callable[..., Iterator[Any]], args: bytes, seconds: float) -> Iterator[Any]:
        ours, theirs = _fork.Pipe()
        stop = _fork.Event()
        process = _fork.Process(
            target=_forked, args=(task, args, theirs, stop, os.getpid(), self.seconds_to_start), daemon=True
        )
        process.start()
        theirs.close()
        self.pids.append(process.pid or 0)
        until = time.monotonic() + seconds
        try:
            with closing(ours):
                while True:
                    while not ours.poll(_BEAT):
                        ended = not process.is_alive() and not ours.poll()  # what it sent last is there before its end
                        if time.monotonic() > until or ended:
                            raise gr.Error("GPU task aborted", title="ZeroGPU worker error", print_exception=False)
                    try:
                        kind, value = ours.recv()
                    except EOFError:
                        kind, value = "error", "GPU task aborted"
                    if kind == "error":
                        raise gr.Error(value, title="ZeroGPU worker error", print_exception=False)
                    if kind == "end":
                        return
                    yield pickle.loads(value)
        finally:
            stop.set()
            process.join(0.5)
            process.kill()
            process.join()


def _forked(
    task: Callable[..., Iterator[Any]], args: bytes, out: Any, stop: Any, parent: int, seconds_to_start: float
) -> None:
    """What the process does: in a thread of its own, as there, and without the server's connections.

    Held here, one that the server closes would stay open for the browser, whose next request would be heard by nobody.
    """
    for entry in list(Path("/proc/self/fd").iterdir()):
        number = int(entry.name)
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode) and number != out.fileno():
                os.close(number)

    def iterate() -> None:
        try:
            assert os.getpid() != parent
            assert threading.active_count() == 2, "none of the parent's"
            torch.set_num_threads(1)
            time.sleep(seconds_to_start)
            steps = task(*pickle.loads(args))
            for value in steps:
                if stop.is_set():
                    steps.close()  # type: ignore[attr-defined]
                    return
                out.send(("value", pickle.dumps(value)))
            out.send(("end", None))
        except Exception as error:
            out.send(("error", type(error).__name__))

    thread = threading.Thread(target=iterate)
    thread.start()
    thread.join()
    os._exit(0)  # nothing of the parent's is cleared away here
