"""Who is here, and what is done when they have left."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_REMEMBERED = 10_000  # of those who have left; a session costs nothing to make up


class Presence:
    """The sessions that somebody listens for: an open page, or a program that awaits its answer.

    A page or client that shows it is open (its heartbeat) has left when that ends, though a connection of its may
    linger; whoever shows nothing has left when none is listened on any more.
    """

    def __init__(self) -> None:
        self._streams: Counter[str] = Counter()
        self._hearts: Counter[str] = Counter()  # those of the streams that say that a page or client is open
        self._last: dict[str, float] = {}  # when those who have left did
        self._first: dict[str, float] = {}  # when those who never listened yet were first asked for
        self._leaving: list[Callable[[str], None]] = []
        self._lock = threading.Lock()

    def on_leave(self, told: Callable[[str], None]) -> None:
        """Have this called with each session that has left: quick, and harmless for one that never was here."""
        self._leaving.append(told)

    @contextmanager
    def here(self, session: str, heartbeat: bool = False) -> Iterator[None]:
        """Somebody listens for a session, for as long as the context lasts."""
        with self._lock:
            self._streams[session] += 1
            self._hearts[session] += heartbeat
            self._last.pop(session, None)
            self._first.pop(session, None)
        try:
            yield
        finally:
            with self._lock:
                self._streams[session] -= 1
                self._hearts[session] -= heartbeat
                gone = not self._streams[session] or (heartbeat and not self._hearts[session])
                for streams in (self._streams, self._hearts):
                    if not streams[session]:
                        del streams[session]
                if gone:
                    self._last[session] = time.monotonic()
                    while len(self._last) > _REMEMBERED:
                        del self._last[next(iter(self._last))]
            if gone:
                self.left(session)

    def asks(self, session: str) -> None:
        """A call of a session has come in: somebody is there, and will listen."""
        with self._lock:
            self._last.pop(session, None)
            self._first.pop(session, None)

    def gone(self, session: str) -> bool:
        """Whether they have left, and have asked nothing since: what begins for them now needn't be done."""
        with self._lock:
            return session in self._last

    def left(self, session: str) -> None:
        """They have left."""
        for told in self._leaving:
            told(session)

    def away(self, session: str) -> float:
        """Seconds since anybody listened for a session, or since it was first asked for here; 0 if somebody does."""
        with self._lock:
            if session in self._streams:
                return 0.0
            known = self._last.get(session) or self._first.setdefault(session, time.monotonic())
            return time.monotonic() - known

    def forget(self, seconds: float) -> None:
        """Don't remember any more who was last seen so long ago."""
        before = time.monotonic() - seconds
        with self._lock:
            for seen in (self._last, self._first):
                for session in [session for session, when in seen.items() if when < before]:
                    del seen[session]
