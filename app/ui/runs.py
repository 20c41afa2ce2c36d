"""What runs for each visitor, and their Stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from app.serving.reports import Update
from app.serving.requests import Chosen
from app.ui.html import message, note, status
from lampe.errors import InputError, LampeError


class Runs:
    """The runs of one part of the page, by visitor: each open page and each client has a session of its own.

    Parameters
    ----------
    demo : gr.Blocks
        The page; a visitor who leaves it stops what runs for them.
    """

    def __init__(self, demo: gr.Blocks) -> None:
        self._running: dict[str, dict[threading.Event, bool]] = {}  # and whether others must wait for it
        self._lock = threading.Lock()
        demo.unload(self.stop)

    def check_idle(self, request: gr.Request) -> None:
        """Refuse what can't go on beside a run of this visitor's.

        Raises
        ------
        InputError
            If one runs that wasn't asked to end.
        """
        with self._lock:
            self._check_idle(_visitor(request))

    @contextmanager
    def started(self, request: gr.Request | None, beside: bool = False) -> Iterator[threading.Event]:
        """A run, for as long as the context lasts; the event asks it to end.

        Parameters
        ----------
        request : gr.Request or None
            None has nobody who could stop it.
        beside : bool
            Whether it may run beside others of this visitor's, and they beside it.

        Raises
        ------
        InputError
            If it may not, and one runs that wasn't asked to end.
        """
        visitor, stop = _visitor(request), threading.Event()
        with self._lock:
            if not beside:
                self._check_idle(visitor)
            self._running.setdefault(visitor, {})[stop] = not beside
        try:
            yield stop
        except BaseException:
            stop.set()  # what it has started elsewhere ends too
            raise
        finally:
            with self._lock:
                del self._running[visitor][stop]
                if not self._running[visitor]:
                    del self._running[visitor]

    def stop(self, request: gr.Request) -> None:
        """Ask all runs of a visitor to end: they said so, or have left."""
        with self._lock:
            for stop in self._running.get(_visitor(request), ()):
                stop.set()

    def _check_idle(self, visitor: str) -> None:
        if any(alone and not stop.is_set() for stop, alone in self._running.get(visitor, {}).items()):
            raise InputError("Something of yours is still running here: stop it first, or wait until it has ended.")


def measuring(measured: Callable[..., Iterator[Update]], runs: Runs) -> Callable[[Chosen, gr.Request], Iterator[str]]:
    """A handler that has this machine's speed measured, and says how far that is; nothing at its end."""

    def measure(chosen: Chosen, request: gr.Request) -> Iterator[str]:
        try:
            with runs.started(request, beside=True) as stop:
                for update in measured(chosen, stop):
                    yield status(update)
            yield note("Stopped.") if stop.is_set() else ""
        except LampeError as error:
            yield message(str(error))

    return measure


def _visitor(request: gr.Request | None) -> str:
    return (request.session_hash if request else None) or ""
