"""A visitor's runs: one at a time where it must be, stopped by who started them, and gone with them."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from gradio_client import Client
from gradio_client.utils import Status

from app.ask.examples import EXAMPLES
from app.serving.presence import Presence
from app.ui.runs import Runs
from lampe.errors import InputError
from tests.app.test_service import QUESTION, TEXT

MINE, YOURS = SimpleNamespace(session_hash="mine"), SimpleNamespace(session_hash="yours")


@pytest.fixture
def runs():
    return Runs(Presence())


def test_one_run_for_each_visitor_until_it_ends(runs):
    with runs.started(MINE):
        with pytest.raises(InputError, match="still running"):
            runs.check_idle(MINE)
        with pytest.raises(InputError, match="still running"), runs.started(MINE):
            pass
        runs.check_idle(YOURS)
        with runs.started(YOURS), runs.started(MINE, beside=True):
            pass
        with pytest.raises(InputError):
            runs.check_idle(MINE)
    with runs.started(MINE, beside=True):
        runs.check_idle(MINE)


def test_stop_is_for_the_visitors_own_runs_and_another_may_begin_then(runs):
    with runs.started(MINE) as first, runs.started(MINE, beside=True) as second, runs.started(YOURS) as other:
        runs.stop(MINE)
        assert first.is_set()
        assert second.is_set()
        assert not other.is_set()
        with runs.started(MINE) as third:
            assert not third.is_set()


def test_a_run_that_is_left_asks_what_it_started_to_end(runs):
    def going(stops):
        with runs.started(MINE) as stop:
            stops.append(stop)
            yield

    stops = []
    left = going(stops)
    next(left)
    left.close()
    assert stops[0].is_set()
    runs.check_idle(MINE)


def await_all(come_to, jobs):
    ends = time.monotonic() + 60
    while not all(map(come_to, jobs)):
        assert time.monotonic() < ends, jobs
        time.sleep(0.1)


@pytest.mark.long
def test_a_caller_who_leaves_frees_the_model(server):
    leaving, staying = Client(server, verbose=False), Client(server, verbose=False)
    short, long = (TEXT, QUESTION, "lampe", 8), (EXAMPLES[0].text[:2800], QUESTION, "lampe", 1)
    staying.predict(*short, api_name="/ask")  # now the model is loaded
    assert [leaving.predict(*long, api_name="/ask")[1]["kept"] > 0 for _ in range(2)] == [False, True]
    jobs = [leaving.submit(f"{n} {EXAMPLES[1].text}", QUESTION, api_name="/ask") for n in range(3)]
    jobs.append(leaving.submit([12_000], [0.3, 0.7], api_name="/needle_grid"))
    await_all(lambda job: job.status().code is Status.PROCESSING, jobs)
    leaving.close()
    # Each of the others takes minutes.
    assert "Heron" in staying.submit(*short, api_name="/ask").result(timeout=60)[0]
    await_all(lambda job: job.done(), jobs)
    staying.session_hash = leaving.session_hash
    assert staying.predict(*long, api_name="/ask")[1]["kept"] == 0, "nothing of theirs has stayed"
    staying.close()
