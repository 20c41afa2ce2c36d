"""The thread that works for all visitors: what it tells, and how waiting for it ends."""

from __future__ import annotations

import threading
import time

import pytest

from app.serving.computing import Computing
from app.serving.reports import Update


def test_waiting_repeats_what_was_last_reported_and_nothing_more():
    def work(tell):
        tell(Update("Converting", 1, 3, "steps"))
        time.sleep(1.3)

    updates = list(Computing("test").stream(work, threading.Event(), Update("Getting ready")))
    assert len(updates) >= 3
    assert set(updates) == {Update("Converting", 1, 3, "steps")}


def test_a_stop_ends_the_waiting_for_work_that_doesnt_look_at_it():
    stop, ended = threading.Event(), threading.Event()
    waiting = Computing("test").stream(lambda tell: ended.wait(60), stop, Update("Getting ready"))
    assert next(waiting).stage == "Getting ready"
    stop.set()
    assert list(waiting) == []
    ended.set()


def test_what_fails_in_the_models_thread_is_raised_where_it_was_asked_for():
    def work(tell):
        tell(1)
        raise KeyError("x")

    events = Computing("test").stream(work, threading.Event())
    assert next(events) == 1
    with pytest.raises(KeyError):
        next(events)
