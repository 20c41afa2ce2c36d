"""Asking, with the real model in 4 bits: the session that the page and the API share."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

import lampe
from app.checks import AskError
from app.computing import with_progress
from app.examples import EXAMPLES
from app.reports import Update
from app.session import Session
from app.settings import Settings
from lampe.load import Progress
from lampe.needle import HAYSTACKS, Cell, Result

MAPPED = lampe.LampeConfig(8192, 512, 200, 2048)  # 4,000 tokens are compressed, as they aren't by the model's own
TEXT = "The lamp on the pier is green. The boat is called Heron. Nobody knows who painted the door."
QUESTION = "What is the boat called?"


@pytest.fixture(scope="module")
def session(default_folder):
    return Session(Settings(None, 4, 20_000))


def last(updates):
    *_, update = updates
    return update


def test_the_tokenizer_and_config_come_without_the_model(session):
    assert session.config() is lampe.PRESETS["smollm2"]
    assert len(session.prompt(TEXT, QUESTION)) < 80
    assert not session.model_ready


def test_a_short_text_is_answered_alike_by_both(session):
    answers = {method: last(session.ask(TEXT, QUESTION, method, 24)) for method in ("lampe", "rope")}
    assert "Heron" in answers["lampe"].answer
    assert answers["lampe"].answer == answers["rope"].answer, "short enough that the map changes nothing"
    assert answers["rope"].attention is None
    report = answers["lampe"].report
    assert report.input_length == report.mapping_length == len(session.prompt(TEXT, QUESTION))
    assert [row["name"] for row in report.regions] == ["All"]
    assert report.new_tokens >= 3
    assert not report.stopped


def test_progress_is_real_and_the_answer_grows(session):
    updates = list(session.ask(EXAMPLES[0].text, EXAMPLES[0].question, "lampe", 12, config=MAPPED))
    reading = [u.done for u in updates if u.stage == "Reading"]
    assert reading == sorted(set(reading)), "each chunk once"
    assert len(reading) >= 4000 // 512
    answers = [u.answer for u in updates if u.stage == "Answering"]
    assert all(b.startswith(a) for a, b in itertools.pairwise(answers))
    report = updates[-1].report
    assert [row["name"] for row in report.regions] == ["Head", "Middle", "Tail"]
    assert sum(row["keys"] for row in report.regions) == report.input_length
    assert sum(row["share"] for row in report.regions) == pytest.approx(1, abs=1e-3)
    assert len(report.layer_shares) == 30
    attention = updates[-1].attention
    assert attention.shares.shape == (report.new_tokens, 30, 9, 3), "the prompt's last token, then the answer's"
    assert attention.shares.float().sum(-1) == pytest.approx(torch.ones(report.new_tokens, 30, 9), abs=2e-3)
    assert attention.shares[0].float().mean((0, 1)).tolist() == pytest.approx(
        [row["share"] for row in report.regions], abs=1e-3
    )
    assert attention.position_map.length == report.input_length
    assert attention.queries[0] == ":"
    assert updates[-1].answer.startswith("".join(attention.queries[1:]).strip())


def test_the_answer_is_that_of_one_plain_generate(session):
    """Chunked, streamed and planned ahead, against transformers' own generate() on the whole prompt."""
    text, question = EXAMPLES[0].text, EXAMPLES[0].question
    update = last(session.ask(text, question, "lampe", 16, config=MAPPED))
    model, tokenizer = session.model(), session.tokenizer()
    ids = torch.tensor([session.prompt(text, question)])
    with lampe.patch(model, MAPPED) as patched, torch.inference_mode():
        made = model.generate(ids, max_new_tokens=16, do_sample=False)
        assert patched.position_map.mapping_length == update.report.mapping_length
    assert tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip() == update.answer


def test_waiting_repeats_what_was_last_reported_and_nothing_more():
    def work(progress):
        progress(Progress("Converting", 1, 3, "steps"))
        time.sleep(1.3)

    updates = list(with_progress(work))
    assert len(updates) >= 3
    assert set(updates) == {Update("Converting", 1, 3, "steps")}


def test_one_thread_does_all_the_computing(default_folder):
    """More threads would each keep OpenMP workers, and every token would take twice the time."""
    session, seen = Session(Settings(None, 4, 20_000)), set()
    with register_module_forward_hook(lambda *_: seen.add(threading.current_thread().name)):
        for method in ("lampe", "rope"):
            last(session.ask(TEXT, QUESTION, method, 4))
    assert seen == {"model"}


@pytest.mark.parametrize("when", ["Reading", "Answering"])
def test_stop_ends_a_run_and_keeps_what_there_is(session, when):
    stop = threading.Event()
    after = []
    for update in session.ask(EXAMPLES[0].text, EXAMPLES[0].question, "lampe", 200, stop, MAPPED):
        if stop.is_set():
            after.append(update)
        elif update.stage == when and (update.done or update.answer):
            stop.set()
    assert len(after) <= 3
    assert after[-1].report.stopped
    assert after[-1].stage == "Stopped"
    assert after[-1].report.mapping_length == MAPPED.position_map(after[-1].report.input_length).mapping_length
    assert (after[-1].report.new_tokens > 0) == (when == "Answering")


def test_a_visitor_who_leaves_frees_the_model(session):
    for when in ("Reading", "Answering"):
        updates = session.ask(EXAMPLES[0].text, EXAMPLES[0].question, "lampe", 200, config=MAPPED)
        next(update for update in updates if update.stage == when and (update.done or update.answer))
        updates.close()
    assert "Heron" in last(session.ask(TEXT, QUESTION, "rope", 24)).answer
    assert session.model().config._attn_implementation == "sdpa"


def test_two_at_once_wait_for_each_other_and_get_their_own(session):
    answers = {}

    def visit(name):
        text = f"The boat is called {name}. The lamp is green."
        answers[name] = last(session.ask(text, QUESTION, "lampe", 24)).answer

    visitors = [threading.Thread(target=visit, args=(name,)) for name in ("Heron", "Puffin", "Kestrel")]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert len(answers) == 3
    assert all(name in answer for name, answer in answers.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  \n"}, "There is no text"),
        ({"question": " "}, "There is no question"),
        ({"text": "word " * 21_000}, r"have 21,\d+ tokens; the limit here is 20,000"),
        ({"method": "magic"}, "must be one of lampe, rope"),
        ({"max_new_tokens": 0}, "1 to 512"),
        ({"max_new_tokens": 9999}, "1 to 512"),
    ],
)
def test_a_request_that_cant_be_run_says_why(session, change, message):
    request = {"text": TEXT, "question": QUESTION, "method": "lampe", "max_new_tokens": 8} | change
    with pytest.raises(AskError, match=message):
        last(session.ask(**request))


def test_a_model_that_cant_be_had_says_why_and_can_be_tried_again():
    session = Session(Settings("no such model", 4, 20_000))
    for _ in range(2):
        with pytest.raises(lampe.LoadError, match="neither a folder"):
            last(session.ask(TEXT, QUESTION, "lampe", 8))


def test_out_of_memory_is_a_sentence_and_the_app_goes_on(session, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes")

    model = session.model()
    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", fail)
        with pytest.raises(AskError, match="isn't enough memory"):
            last(session.ask(TEXT, QUESTION, "rope", 8))
    assert "Heron" in last(session.ask(TEXT, QUESTION, "rope", 24)).answer


def test_a_visitors_own_settings_are_what_runs(session):
    config = lampe.LampeConfig(8192, 16, 8, 40)
    update = last(session.ask(TEXT, QUESTION, "lampe", 4, config=config))
    assert update.report.mapping_length == 40
    assert update.attention.config == config
    cell = Cell("single", 600, 0.5, "lampe")
    (result,) = [e for e in session.needles(HAYSTACKS["filler"](), [cell], config=config) if isinstance(e, Result)]
    assert result.ran_by(config)
    assert last(session.ask(TEXT, QUESTION, "lampe", 4)).report.mapping_length != 40, "nobody else has them"
