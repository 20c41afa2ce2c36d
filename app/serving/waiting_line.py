"""First come, first served: where requests wait for the one model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Ticket:
    """A request's place in a `WaitingLine`.

    Attributes
    ----------
    seconds : callable
        How long it will take, about, from now on or from its turn on; None while nobody knows.
    """

    def __init__(self, line: WaitingLine) -> None:
        self._line = line
        self.seconds: Callable[[], float | None] = lambda: None

    def before(self, seconds: float) -> list[Ticket]:
        """Those who are still before it, after waiting at most so many seconds."""
        line = self._line
        with line.moved:
            if line.waiting[0] is not self:
                line.moved.wait(seconds)
            return list(line.waiting)[: line.waiting.index(self)]


class WaitingLine:
    """Requests in the order in which they came."""

    def __init__(self) -> None:
        self.waiting: deque[Ticket] = deque()
        self.moved = threading.Condition()

    @contextmanager
    def join(self) -> Iterator[Ticket]:
        """A ticket at the end, for as long as the context lasts."""
        ticket = Ticket(self)
        with self.moved:
            self.waiting.append(ticket)
        try:
            yield ticket
        finally:
            with self.moved:
                self.waiting.remove(ticket)
                self.moved.notify_all()
