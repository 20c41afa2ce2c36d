"""A GPU that is lent for each job, with a stand-in that forks: what a visitor can do, and what they are told."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from dataclasses import replace

import pytest

import app.serving.borrowed
from app.ask.conversation import Turn
from app.serving.answering import Answer
from app.serving.borrowed import Borrowed, _done, _Estimate
from app.serving.document_cache import LAMPE
from app.serving.evidence import passages
from app.serving.reports import Update
from app.serving.requests import Chosen, Request, Variant
from app.serving.start import start
from app.serving.waiting_line import MOST_OF_ONE
from app.settings import LENT_SECONDS, ModelChoice, Settings
from lampe.errors import InputError
from lampe.inference.speed import Speed
from lampe.models.load import LoadError
from lampe.needle import HAYSTACKS, Cell, Result
from tests.app.lender import Lender
from tests.app.test_service import ANN, CONFIG, DOCUMENT, LONG, QUESTION, TEXT, last, mapped, prompt_of

CELLS = [
    Cell("single", length, depth, method) for length in (600, 700) for depth in (0.2, 0.8) for method in ("lampe",)
]


@pytest.fixture
def lender(monkeypatch):
    lender = Lender()
    monkeypatch.setitem(sys.modules, "spaces", lender)
    return lender


@pytest.fixture
def service(small, lender):
    """Models that are small, on the CPU, with a speed that is about theirs."""
    service = start(Settings(small["llama"], 16, 20_000, borrowed=True))
    thinks(service, Speed(1e-4, 1e-9, 0.005))
    return service


def thinks(service, speed, start=0.0):
    """What jobs are thought to take."""
    service.runner.estimates[service.settings.own] = _Estimate(start, speed)


@pytest.mark.parametrize("method", ["lampe", "rope"])
def test_an_answer_is_the_resident_models(service, small, lender, method):
    request = Request(f"{DOCUMENT} {TEXT}", QUESTION, method, 12, chosen=mapped(service))
    lent, own = last(service.ask(request)), last(start(Settings(small["llama"], 16, 20_000)).ask(request))
    assert lent.answer == own.answer
    assert lent.report.input_length == own.report.input_length
    assert lent.report.regions == own.report.regions
    assert (lent.attention is None) == (own.attention is None)
    assert len(lender.asked) == 1


def test_each_question_is_a_job_of_its_own_and_reads_the_text_again(service, lender):
    updates = [list(service.ask(Request(LONG, QUESTION, "lampe", 20, chosen=mapped(service)))) for _ in range(2)]
    assert any(update.stage.startswith("Waiting for a GPU") for update in updates[0])
    for told in updates:
        assert len([one for one in told if one.stage == "Reading"]) > 3, "as it comes"
        assert any(one.stage == "Answering" for one in told)
        assert told[-1].report.kept == 0
    assert updates[0][-1].answer == updates[1][-1].answer
    assert len(set(lender.pids)) == 2


def test_what_a_question_takes_is_told_before_and_learnt_from_each(service, lender):
    request = Request(DOCUMENT, QUESTION, "lampe", 20, chosen=mapped(service))
    needs = service.needs(prompt_of(service, request), 20, mapped(service))
    before = service.runner.speeds[service.settings.own]
    last(service.ask(request))
    assert lender.asked == [needs.lent]
    assert service.runner.speeds[service.settings.own] != before
    assert needs.lent > needs.seconds


def test_where_an_answer_looked_comes_with_it_or_not_at_all(service):
    request = Request(f"{DOCUMENT} {TEXT}", QUESTION, "lampe", 6, chosen=mapped(service), look=True)
    update = last(service.ask(request))
    assert 0 < len(passages(update.evidence)) <= 5
    assert update.evidence.weights.shape[0] == 2
    turn = Turn.new(QUESTION, [], False)
    turn.take(LAMPE, update)
    assert turn.evidence is update.evidence
    with pytest.raises(InputError, match="together with it here"):
        list(service.evidence(update.attention))


def test_a_stop_ends_the_process_and_keeps_what_was_written(service, lender):
    for when in ("Reading", "Answering"):
        stop, after = threading.Event(), []
        for update in service.ask(Request(LONG, QUESTION, "lampe", 200, chosen=mapped(service)), stop):
            if stop.is_set():
                after.append(update)
            elif update.stage == when and (update.done or update.answer):
                stop.set()
        assert after[-1].stage == "Stopped"
        assert bool(after[-1].answer) == (when == "Answering")
    assert not lender.at_work()


def test_who_leaves_gives_the_gpu_back(service, lender):
    updates = service.ask(Request(LONG, QUESTION, "lampe", 200, chosen=mapped(service)))
    next(update for update in updates if update.done)
    updates.close()
    assert not lender.at_work()


def test_needle_tests_go_in_batches_that_the_time_allows(service, lender):
    thinks(service, Speed(0.02, 0, 0.01, 512))  # two tests fit in one
    found = [event for event in service.needles(HAYSTACKS["reference"](), CELLS) if isinstance(event, Result)]
    assert sorted((result.cell for result in found), key=repr) == sorted(CELLS, key=repr)
    assert len(lender.asked) > 1
    assert max(lender.asked) <= LENT_SECONDS / 2 + 1


# What goes wrong


def test_a_quota_that_is_used_up_is_a_sentence_and_nothing_is_run(service, lender):
    lender.seconds_left = 3
    with pytest.raises(InputError, match=r"ZeroGPU quota exceeded: You have exceeded .* This one wasn't answered"):
        last(service.ask(Request(TEXT, QUESTION, "lampe", 4)))
    assert lender.pids == []


def test_a_time_that_was_too_short_is_told_and_the_next_asks_for_twice_as_much(service, lender, monkeypatch):
    monkeypatch.setattr(app.serving.borrowed, "_SHORTEST", 1.5)
    thinks(service, Speed(1e-6, 0, 1e-6))
    updates, request = [], Request(LONG, QUESTION, "lampe", 500, chosen=mapped(service))

    def ask():
        updates.extend(service.ask(request))

    with pytest.raises(InputError, match=r"was taken back before the end: it was lent for 2 s"):
        ask()
    assert updates, "what had come stays"
    assert service.needs(prompt_of(service, request), 500, mapped(service)).lent == 4


def test_a_start_that_took_too_long_is_told_and_learnt_as_well(service, lender, monkeypatch):
    monkeypatch.setattr(app.serving.borrowed, "_SHORTEST", 1.0)
    monkeypatch.setattr(lender, "seconds_to_start", 5)
    with pytest.raises(InputError, match=r"was taken back before the end: it was lent for 1 s"):
        last(service.ask(Request(TEXT, QUESTION, "lampe", 4)))
    assert service.runner.estimates[service.settings.own].start == 1


def test_a_short_answer_teaches_no_more_than_what_was_done(service, lender):
    """Its tokens count, not those that it might have had."""
    asked = Request(TEXT, QUESTION, "lampe", 500)
    job = Answer(service.settings.own, asked, prompt_of(service, asked), service.config())
    update = last(service.ask(replace(asked, max_new_tokens=8)))
    done = _done(job, update)
    assert done.request.max_new_tokens == update.report.new_tokens <= 8
    assert done.seconds(Speed(0, 0, 1.0)) == update.report.new_tokens
    estimate = _Estimate(0, Speed(0, 0, 0.02))
    estimate.learn(0.2, 0.1)
    assert estimate.speed.answer == pytest.approx(0.015), "half and half"
    assert _done(job, Update("Answering")) is None


def test_a_worker_that_dies_is_a_sentence_and_the_next_question_is_answered(service, lender):
    updates = service.ask(Request(LONG, QUESTION, "lampe", 200, chosen=mapped(service)))
    next(update for update in updates if update.done)
    os.kill(lender.pids[-1], signal.SIGKILL)
    with pytest.raises(InputError, match="The process that had the GPU has ended"):
        list(updates)
    assert last(service.ask(Request(TEXT, QUESTION, "lampe", 4))).report.new_tokens


def test_what_the_job_refuses_is_said_in_its_own_words_and_a_failure_by_its_name(service, monkeypatch, capfd):
    def refuses(*_):
        raise InputError("No, and this is why.")
        yield

    def fails(*_):
        raise ZeroDivisionError(QUESTION)
        yield

    monkeypatch.setattr("app.serving.answering._answer", refuses)
    with pytest.raises(InputError, match="No, and this is why"):
        last(service.ask(Request(TEXT, QUESTION, "lampe", 4)))
    monkeypatch.setattr("app.serving.answering._answer", fails)
    with pytest.raises(InputError, match=r"went wrong on the GPU \(ZeroDivisionError\)"):
        last(service.ask(Request(TEXT, QUESTION, "lampe", 4)))
    assert QUESTION not in "".join(capfd.readouterr()), "its message may be a visitor's text"


def test_what_would_take_longer_than_is_lent_is_refused_before(service, lender):
    thinks(service, Speed(1.0, 0, 1.0))
    with pytest.raises(InputError, match=f"{LENT_SECONDS} s are lent at a time"):
        last(service.ask(Request(DOCUMENT, QUESTION, "lampe", 4)))
    assert lender.asked == []


def test_only_what_was_loaded_at_the_start_answers(service):
    other = Chosen(ModelChoice(service.settings.model_id, 4), CONFIG)
    with pytest.raises(InputError, match=r"isn't loaded here.*in 16 bits"):
        list(service.prepare(other, threading.Event()))
    with pytest.raises(InputError, match="isn't loaded here"):
        last(service.ask(Request(TEXT, QUESTION, "lampe", 4, chosen=other)))
    assert list(service.measured()) == []
    assert list(service.prepare(mapped(service), threading.Event())) == []


def test_nothing_is_run_before_anybody_asks(small, lender, monkeypatch):
    """There is no GPU then."""
    monkeypatch.setattr("lampe.attention.selfcheck.checked", lambda *_: pytest.fail("it was probed"))
    Borrowed(Settings(small["llama"], 16, 20_000, borrowed=True))
    assert lender.pids == []


def test_a_job_that_ends_early_is_told(service, monkeypatch):
    """`spaces` may end one after somebody else's stop."""
    monkeypatch.setattr(service.runner, "_work", lambda *_: (pickle.dumps([Update("Reading", 1, 2)]) for _ in "1"))
    with pytest.raises(InputError, match="taken back before the end"):
        list(service.ask(Request(TEXT, QUESTION, "lampe", 4)))
    with pytest.raises(InputError, match="taken back before the end"):
        list(service.needles(HAYSTACKS["reference"](), CELLS))


def test_a_model_that_cant_be_had_is_refused_to_who_chooses_it(small, lender):
    settings = Settings(small["llama"], 16, 20_000, more_models=("no/such folder",), borrowed=True)
    service = start(settings)
    with pytest.raises(LoadError, match="neither a folder"):
        list(service.prepare(Chosen(ModelChoice("no/such folder", 16)), threading.Event()))
    assert last(service.ask(Request(TEXT, QUESTION, "lampe", 4))).report
    with pytest.raises(LoadError, match="neither a folder"):
        start(Settings("no/such folder", 16, 20_000, borrowed=True))


def test_one_visitor_has_no_more_than_their_share(service):
    going = [service.ask(Request(TEXT, QUESTION, "lampe", 4), visitor=ANN) for _ in range(MOST_OF_ONE + 1)]
    for one in going[:-1]:
        next(update for update in one if update.stage.startswith("Waiting for a GPU"))
    with pytest.raises(InputError, match="under way here, the most at once"):
        list(going[-1])
    for one in going:
        one.close()


def test_variants_beside_each_other_are_jobs_too(service, lender):
    for variant in (LAMPE, Variant("selfextend"), Variant("rope", cut=True)):
        request = Request(DOCUMENT, QUESTION, variant.method, 4, chosen=mapped(service), cut=variant.cut)
        assert last(service.ask(request)).report.variant == variant
    assert len(lender.pids) == 3
