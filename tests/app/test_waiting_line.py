"""The line: whoever has had the least goes next, and nobody holds up the others for longer than a slice."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import app.serving.waiting_line as lines
from app.serving.visitors import Visitor
from app.serving.waiting_line import MOST_OF_AN_ADDRESS, MOST_OF_ONE, WaitingLine
from lampe.errors import InputError

ANN, BOB, EVE = Visitor("ann", "1"), Visitor("bob", "2"), Visitor("eve", "3")


@pytest.fixture
def clock(monkeypatch):
    """Time that goes on only when a test says so."""
    now = [100.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: now[0])

    def go_on(seconds):
        now[0] += seconds

    return go_on


def slices(tickets, count, clock, seconds=lambda ticket: 1.0):
    """Who gets the next places, all waiting all the time, each for so many seconds."""
    served = []
    for _ in range(count):
        for ticket in tickets:
            ticket.wait(0)  # all say that they wait
        (at_work,) = (ticket for ticket in tickets if ticket.since is not None)
        served.append(at_work.visitor.session)
        clock(seconds(at_work))
        for ticket in tickets:
            ticket.wait(0)
        at_work.give_back()
    return served


def test_a_place_is_taken_and_given_back(clock):
    line = WaitingLine()
    with line.join(ANN) as first, line.join(BOB) as second:
        assert first.wait(0)
        assert not second.wait(0)
        assert second.ahead == [first]
        clock(1)
        first.give_back()
        assert second.wait(0)
        assert not first.wait(0)
        assert first.ahead == [second]
    assert len(line) == 0


def test_two_places(clock):
    line = WaitingLine(2)
    with line.join(ANN) as first, line.join(BOB) as second, line.join(EVE) as third:
        assert first.wait(0)
        assert second.wait(0)
        assert not third.wait(0)
        assert third.ahead == [first, second]
        clock(1)
        second.give_back()
        assert third.wait(0)


def test_visitors_take_turns_however_much_one_asks(clock):
    line = WaitingLine()
    with line.join(EVE) as a, line.join(EVE) as b, line.join(EVE) as c, line.join(ANN) as d:
        served = slices([a, b, c, d], 8, clock)
    assert served.count("ann") == 4
    assert "".join(served).count("eveeve") <= 1


def test_many_names_of_one_address_have_one_share(clock):
    line = WaitingLine()
    with line.join(ANN) as honest:
        tickets = [line.join(Visitor(f"eve {number}", "3")) for number in range(20)]
        entered = [ticket.__enter__() for ticket in tickets]
        served = slices([honest, *entered], 40, clock)
        for ticket in tickets:
            ticket.__exit__(None, None, None)
    assert served.count("ann") == 20
    assert max(served.count(f"eve {number}") for number in range(20)) == 1, "and they share it"


def test_whoever_comes_new_isnt_behind_nor_far_ahead(clock):
    """Not after all that somebody still wants, nor alone until they have had as much."""
    line = WaitingLine()
    with line.join(ANN) as first:
        slices([first], 50, clock)
        with line.join(BOB) as second:
            served = slices([first, second], 10, clock)
    assert served.count("bob") == 5


def test_a_longer_slice_counts_for_more(clock):
    line = WaitingLine()
    with line.join(ANN) as long, line.join(BOB) as short:
        served = slices([long, short], 12, clock, lambda ticket: 3.0 if ticket is long else 1.0)
    assert served.count("bob") == 3 * served.count("ann")


def test_somebody_who_doesnt_look_for_their_turn_loses_it_and_not_their_place(clock):
    line = WaitingLine()
    with line.join(ANN) as gone, line.join(BOB) as here:
        assert gone.wait(0)
        gone.give_back()
        clock(5)
        assert here.wait(0)
        here.give_back()
        assert gone.wait(0)


def test_work_of_another_kind_waits_for_what_has_begun_and_then_goes_first(clock):
    line = WaitingLine()
    with line.join(ANN, "small") as first, line.join(BOB, "large") as other:
        assert first.wait(0)
        clock(1)
        first.give_back()
        assert not other.wait(0), "something of hers lies in memory"
        assert other.ahead == [first]
        with line.join(EVE, "small") as late:
            clock(1)
            first.wait(0)
            clock(1)
            first.give_back()
            assert not other.wait(0)
            assert not late.wait(0), "nothing new of the old kind begins before it"
            assert first.wait(0), "but what has begun comes to its end"
            first.give_back(rest=True)
            assert other.wait(0)
            other.give_back(rest=True)
            clock(5)
            assert late.wait(0)


def test_others_go_on_where_what_has_begun_takes_long(clock):
    """One who wants another model doesn't hold up all who want this one."""
    line = WaitingLine()
    with line.join(ANN, "small") as first, line.join(BOB, "large") as other, line.join(EVE, "small") as late:
        first.seconds = lambda: 600.0
        assert first.wait(0)
        assert not first.blocks
        assert not other.wait(0)
        assert first.blocks
        clock(1)
        for ticket in (other, late):
            ticket.wait(0)
        first.give_back()
        assert not other.wait(0)
        assert late.wait(0)
        late.give_back(rest=True)
        first.seconds = lambda: 10.0
        clock(0.1)
        assert not other.wait(0)
        assert not late.wait(0), "it ends soon"


def test_a_turn_that_runs_out_is_the_next_ones():
    """Also where nobody says a word."""
    line = WaitingLine()
    with line.join(ANN) as gone, line.join(BOB) as here:
        assert not here.wait(0) or here.give_back() is None
        with line.join(EVE) as first:
            assert first.wait(1)
            gone.wait(0)
            first.give_back()
        started = time.monotonic()
        assert here.wait(30)
        assert time.monotonic() - started < 5


def test_a_share_is_bounded_and_told():
    line = WaitingLine()
    tickets = [line.join(ANN) for _ in range(MOST_OF_ONE)]
    for ticket in tickets:
        ticket.__enter__()
    with pytest.raises(InputError, match=f"{MOST_OF_ONE} things of yours are under way"), line.join(ANN):
        pass
    with line.join(BOB):
        pass
    tickets += [line.join(Visitor(f"ann {n}", "1")) for n in range(MOST_OF_AN_ADDRESS - MOST_OF_ONE)]
    for ticket in tickets[MOST_OF_ONE:]:
        ticket.__enter__()
    with pytest.raises(InputError, match="callers from your address"), line.join(Visitor("another ann", "1")):
        pass
    for ticket in tickets:
        ticket.__exit__(None, None, None)
    with line.join(ANN):
        pass
    assert len(line) == 0


def test_threads_wake_up_when_it_is_their_turn():
    line, order = WaitingLine(), []

    def visit(visitor):
        with line.join(visitor) as ticket:
            for _ in range(3):
                while not ticket.wait(10):
                    pass
                order.append(visitor.session)
                time.sleep(0.02)
                ticket.give_back()

    started = time.monotonic()
    threads = [threading.Thread(target=visit, args=(one,)) for one in (ANN, BOB, EVE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order) == sorted(["ann", "bob", "eve"] * 3)
    assert time.monotonic() - started < 5, "none slept through their turn"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(["x", "y", None])), max_size=12))
def test_everybody_comes_to_their_turn(wanted):
    """Whoever joins, from wherever and of whatever kind: all are done at the end."""
    line, done = WaitingLine(), []
    joined = [line.join(Visitor(f"{n} {a} {s}", str(a)), kind) for n, (a, s, kind) in enumerate(wanted)]
    tickets = [one.__enter__() for one in joined]
    left = {ticket: 2 for ticket in tickets}
    for _ in range(20 * len(tickets)):
        for ticket in list(left):
            if ticket.wait(0):
                kinds = {other.kind for other in tickets if other.begun} - {None}
                assert len(kinds) <= 1
                left[ticket] -= 1
                ticket.give_back(rest=not left[ticket])
                if not left[ticket]:
                    done.append(ticket)
                    del left[ticket]
                    joined[tickets.index(ticket)].__exit__(None, None, None)
    assert len(done) == len(tickets)
