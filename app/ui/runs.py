"""What runs for each visitor, and their Stop."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gradio as gr

from app.serving.presence import Presence
from app.serving.reports import Update
from app.serving.requests import Chosen
from app.serving.visitors import Visitor, place_of
from app.ui.html import message, note, status
from lampe.errors import InputError, LampeError

_numbers = itertools.count()


class Runs:
    """The runs of one part of the page, by visitor: each open page and each client has a session of its own.

    Parameters
    ----------
    presence : Presence
        A visitor who leaves stops what runs for them.
    """

    def __init__(self, presence: Presence) -> None:
        self._running: dict[str, dict[threading.Event, bool]] = {}  # and whether others must wait for it
        self._lock = threading.RLock()
        self._presence = presence
        presence.on_leave(self._stop)

    def check_idle(self, request: gr.Request) -> None:
        """Refuse what can't go on beside a run of this visitor's.

        Raises
        ------
        InputError
            If one runs that wasn't asked to end.
        """
        with self._lock:
            runs = self._running.get(visitor_of(request).session, {})
            if any(alone and not stop.is_set() for stop, alone in runs.items()):
                raise InputError("Something of yours is still running here: stop it first, or wait until it has ended.")

    @contextmanager
    def started(self, request: gr.Request, beside: bool = False) -> Iterator[threading.Event]:
        """A run, for as long as the context lasts; the event asks it to end.

        Parameters
        ----------
        request : gr.Request
        beside : bool
            Whether it may run beside others of this visitor's, and they beside it.

        Raises
        ------
        InputError
            If it may not, and one runs that wasn't asked to end.
        """
        session, stop = visitor_of(request).session, threading.Event()
        with self._lock:
            if not beside:
                self.check_idle(request)
            self._running.setdefault(session, {})[stop] = not beside
        if self._presence.gone(session):
            stop.set()
        try:
            yield stop
        except BaseException:
            stop.set()  # what it has started elsewhere ends too
            raise
        finally:
            with self._lock:
                del self._running[session][stop]
                if not self._running[session]:
                    del self._running[session]

    def stop(self, request: gr.Request) -> None:
        """Ask all runs of a visitor to end, who has said so."""
        self._stop(visitor_of(request).session)

    def _stop(self, session: str) -> None:
        with self._lock:
            for stop in self._running.get(session, ()):
                stop.set()


def measuring(measured: Callable[..., Iterator[Update]], runs: Runs) -> Callable[[Chosen, gr.Request], Iterator[str]]:
    """A handler that has this machine's speed measured, and says how far that is; nothing at its end."""

    def measure(chosen: Chosen, request: gr.Request) -> Iterator[str]:
        try:
            with runs.started(request, beside=True) as stop:
                for update in measured(chosen, stop, visitor_of(request)):
                    yield status(update)
            yield note("Stopped.") if stop.is_set() else ""
        except LampeError as error:
            yield message(str(error))

    return measure


def visitor_of(request: gr.Request | None) -> Visitor:
    """Who makes a request."""
    address = place_of(request.client.host) if request and getattr(request, "client", None) else ""
    if request is None or not request.session_hash:  # who can't be told from others of their address
        return Visitor(f"nobody {next(_numbers)}", address)
    return Visitor(request.session_hash, address)
