"""A fair line: visitors' work in turn, a slice at a time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from app.serving.visitors import Visitor
from lampe.errors import InputError

MOST_OF_ONE = 4
MOST_OF_AN_ADDRESS = 60
"""Of all visitors who call from one address: a class behind one router is one."""

_SOON = 30.0  # seconds that others wait so that work of another kind can begin
_GRACE = 1.0  # seconds that a turn is kept for somebody who has looked for it and doesn't at the moment


class Ticket:
    """A piece of work in a `WaitingLine`, from when it joins until it ends.

    Attributes
    ----------
    visitor : Visitor
    kind : hashable
        Work of two kinds never goes on side by side; None goes with any.
    seconds : callable
        How long it will take, about, from now on or from its turn on; None while nobody knows.
    bytes : int
        Of memory that are set aside for it.
    """

    def __init__(self, line: WaitingLine, visitor: Visitor, kind: Hashable, number: int) -> None:
        self.visitor, self.kind, self.number = visitor, kind, number
        self.seconds: Callable[[], float | None] = lambda: None
        self.bytes = 0
        self.begun = False  # something of it lies in memory between its slices
        self.since: float | None = None  # while it has a place: when it took it
        self.looks_until = 0.0  # when it was last waited with, and the grace
        self._line = line

    def wait(self, seconds: float) -> bool:
        """Wait at most so many seconds for a place; whether it has one now."""
        line, until = self._line, time.monotonic() + seconds
        with line._moved:
            self.looks_until = until + _GRACE
            while line._next() is not self:
                left = until - time.monotonic()
                if left <= 0:
                    return False
                line._moved.wait(min(left, _GRACE))  # somebody else's turn may run out without a word
            self.since, self.begun = time.monotonic(), True
            line._moved.notify_all()
            return True

    @property
    def blocks(self) -> bool:
        """Whether work of another kind waits for this to come to its end, or to rest."""
        with self._line._moved:
            now = time.monotonic()
            waiting = (one for one in self._line._tickets if not one.begun and one.looks_until > now)
            return any(one.kind not in (None, self.kind) for one in waiting)

    @property
    def ahead(self) -> list[Ticket]:
        """Those that come before it, as far as can be told now."""
        line = self._line
        with line._moved:
            others = sorted((other for other in line._tickets if other is not self), key=line._rank)
            blocking = [other for other in others if other.begun and other.kind not in (None, self.kind)]
            at_work = [other for other in others if other.since is not None]
            before = [other for other in others if line._rank(other) < line._rank(self)]
            return list(dict.fromkeys([*at_work, *blocking, *before]))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A place for as long as the context lasts, which is to be short."""
        while not self.wait(60):
            pass
        try:
            yield
        finally:
            self.give_back(rest=True)

    def give_back(self, rest: bool = False) -> None:
        """A slice is done: let others have the place.

        Parameters
        ----------
        rest : bool
            Whether nothing of it lies in memory now, so that work of another kind may begin.
        """
        with self._line._moved:
            if self in self._line._tickets:  # else it left in the midst of a slice
                self._line._charge(self)
                self.begun, self.looks_until = not rest, time.monotonic() + _GRACE
                self._line._moved.notify_all()


class WaitingLine:
    """Work that waits for one of few places, and gives it back after each slice.

    The next place goes to the address that has had the least time, and there to the visitor who has. So somebody who
    asks much, under however many names, holds up the others by no more than one who asks one thing after the other.

    Parameters
    ----------
    places : int
    most : int
        Tickets of one visitor at once.
    """

    def __init__(self, places: int = 1, most: int = MOST_OF_ONE) -> None:
        self._places, self._most = places, most
        self._tickets: list[Ticket] = []
        self._moved = threading.Condition()
        self._numbers = itertools.count()
        self._used: dict[Hashable, float] = {}  # seconds, by address and by visitor

    def __len__(self) -> int:
        return len(self._tickets)

    @property
    def bytes(self) -> int:
        """Set aside for all of them."""
        with self._moved:
            return sum(ticket.bytes for ticket in self._tickets)

    @contextmanager
    def join(self, visitor: Visitor | None = None, kind: Hashable = None) -> Iterator[Ticket]:
        """A ticket, for as long as the context lasts.

        Parameters
        ----------
        visitor : Visitor, optional
            None is a visitor of their own.
        kind : hashable
            See `Ticket`.

        Raises
        ------
        InputError
            If they, or those of their address, have as many already as may be.
        """
        with self._moved:
            number = next(self._numbers)
            visitor = visitor or Visitor(f"nobody {number}")
            self._check_share(visitor)
            ticket = Ticket(self, visitor, kind, number)
            self._open_account(visitor.address, {other.visitor.address for other in self._tickets})
            others = {other.visitor for other in self._tickets if other.visitor.address == visitor.address}
            self._open_account(visitor, others)
            self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            with self._moved:
                self._charge(ticket)
                self._tickets.remove(ticket)
                here = {account for one in self._tickets for account in (one.visitor, one.visitor.address)}
                self._used = {account: used for account, used in self._used.items() if account in here}
                self._moved.notify_all()

    @contextmanager
    def turn(self, visitor: Visitor | None = None) -> Iterator[None]:
        """A place, for what is done in a moment; errors as in `join`."""
        with self.join(visitor) as ticket, ticket.turn():
            yield

    def _check_share(self, visitor: Visitor) -> None:
        mine = sum(ticket.visitor.session == visitor.session for ticket in self._tickets)
        if mine >= self._most:
            raise InputError(
                f"{mine} things of yours are under way here, the most at once: wait until one has ended, or stop it."
            )
        of_address = sum(ticket.visitor.address == visitor.address for ticket in self._tickets)
        if visitor.address and of_address >= MOST_OF_AN_ADDRESS:
            raise InputError(
                f"{MOST_OF_AN_ADDRESS} things are under way here for callers from your address, the most at once: try "
                "again in a while."
            )

    def _open_account(self, account: Hashable, others: set[Any]) -> None:
        """Whoever comes new begins with as little as anybody here has used, not with nothing."""
        least = min((self._used[other] for other in others), default=0.0)
        self._used.setdefault(account, least)

    def _charge(self, ticket: Ticket) -> None:
        if ticket.since is not None:
            used, ticket.since = time.monotonic() - ticket.since, None
            for account in (ticket.visitor, ticket.visitor.address):
                self._used[account] += used

    def _next(self) -> Ticket | None:
        """Whose turn it is; None while all places are taken."""
        begun = [ticket for ticket in self._tickets if ticket.begun]
        if sum(ticket.since is not None for ticket in begun) >= self._places:
            return None
        kinds = {ticket.kind for ticket in begun} - {None}
        held_up, now = False, time.monotonic()
        ending = sum(ticket.seconds() or 0.0 for ticket in begun) < _SOON
        waiting = (ticket for ticket in self._tickets if ticket.since is None and ticket.looks_until > now)
        for ticket in sorted(waiting, key=self._rank):
            if ticket.begun or (not held_up and (ticket.kind is None or kinds <= {ticket.kind})):
                return ticket
            held_up = ending  # what has begun comes to its end soon: nothing new of its kind goes before this one
        return None

    def _rank(self, ticket: Ticket) -> tuple[float, float, int]:
        return self._used[ticket.visitor.address], self._used[ticket.visitor], ticket.number
