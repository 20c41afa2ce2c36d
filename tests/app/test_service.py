"""Asking: the service that the page and the API share, with a small model of random weights."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

import app.serving.resident
import lampe
from app.ask.examples import EXAMPLES
from app.ask.views import done
from app.serving.answering import DECODED
from app.serving.requests import MAX_TURNS, Chosen, Prompt, Request, Sampling, Variant, planned_length
from app.serving.start import start
from app.serving.visitors import Visitor
from app.settings import Settings
from lampe.errors import InputError
from lampe.inference.prefill import CHUNK
from lampe.inference.prompt import ANSWER_PREFIX
from lampe.inference.speed import Speed
from lampe.methods import METHODS
from lampe.needle import HAYSTACKS, Cell, Result

CONFIG = lampe.LampeConfig(4096, 128, 64, 500)  # compresses what the model's own settings leave alone
TEXT = "The lamp on the pier is green. The boat is called Heron. Nobody knows who painted the door."
QUESTION = "What is the boat called?"
ANN, BOB = Visitor("ann"), Visitor("bob")
DOCUMENT = EXAMPLES[0].text[:2800]  # some 700 tokens
LONG = EXAMPLES[0].text * 4  # so many that what is to end it comes before its end


@pytest.fixture(scope="module")
def service(small):
    return start(Settings(small["llama"], 16, 20_000))


def mapped(service, config=CONFIG):
    return Chosen(service.settings.own, config)


def returned(generator):
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


def prompt_of(service, request):
    return returned(service.texts.prompt(request))


def tokens(count):
    return Prompt(list(range(count)), count, (0, count), 0)


def last(updates):
    *_, update = updates
    return update


def test_the_tokenizer_and_config_come_without_the_model(default_folder):
    service = start(Settings(None, 4, 20_000))
    assert service.config() == lampe.PRESETS["smollm2"]
    assert len(prompt_of(service, Request(TEXT, QUESTION)).ids) < 80
    assert service.needs(tokens(80), 8) is None, "no model is loaded"


def test_a_short_text_is_answered_alike_by_both(service):
    answers = {method: last(service.ask(Request(TEXT, QUESTION, method, 8))) for method in ("lampe", "rope")}
    assert answers["lampe"].answer == answers["rope"].answer, "short enough that the map changes nothing"
    assert answers["rope"].attention is None
    report = answers["lampe"].report
    assert report.input_length == report.mapping_length == len(prompt_of(service, Request(TEXT, QUESTION)).ids)
    assert [row["name"] for row in report.regions] == ["All"]
    assert report.new_tokens >= 3
    assert not report.stopped


def test_progress_is_real_and_the_answer_grows(service):
    updates = list(service.ask(Request(EXAMPLES[0].text[:7000], QUESTION, "lampe", 12, chosen=mapped(service))))
    reading = [u.done for u in updates if u.stage == "Reading"]
    assert reading == sorted(set(reading)), "each chunk once"
    assert len(reading) >= 1500 // 512
    answers = [u.answer for u in updates if u.stage == "Answering"]
    assert all(b.startswith(a) for a, b in itertools.pairwise(answers))
    report = updates[-1].report
    assert [row["name"] for row in report.regions] == ["Head", "Middle", "Tail"]
    assert sum(row["keys"] for row in report.regions) == report.input_length
    assert sum(row["share"] for row in report.regions) == pytest.approx(1, abs=1e-3)
    assert len(report.layer_shares) == 2
    attention = updates[-1].attention
    assert attention.shares.shape == (report.new_tokens, 2, 4, 3), "the prompt's last token, then the answer's"
    assert attention.shares.float().sum(-1) == pytest.approx(torch.ones(report.new_tokens, 2, 4), abs=2e-3)
    assert attention.shares[0].float().mean((0, 1)).tolist() == pytest.approx(
        [row["share"] for row in report.regions], abs=1e-3
    )
    planned = planned_length(report.input_length, 12, CONFIG)
    assert attention.position_map.length == report.planned_length == planned > report.input_length
    assert attention.position_map.end == report.input_length
    assert report.regions[2]["keys"] == CONFIG.tail, "the last prompt token's own Tail"
    assert ANSWER_PREFIX.endswith(attention.queries[0])
    assert updates[-1].answer.startswith("".join(attention.queries[1:]).strip())


def test_the_answer_is_that_of_one_plain_generate(service):
    """Chunked, streamed and planned ahead, against transformers' own generate() on the whole prompt."""
    text, question = f"{DOCUMENT}\n\n{TEXT}", QUESTION
    update = last(service.ask(Request(text, question, "lampe", 16, chosen=mapped(service))))
    model, tokenizer = service.model(), service.texts.tokenizer()
    ids = torch.tensor([prompt_of(service, Request(text, question)).ids])
    with lampe.patch(model, CONFIG) as patched, torch.inference_mode():
        patched.plan(planned_length(ids.shape[1], 16, CONFIG), ids.shape[1])
        made = model.generate(ids, max_new_tokens=16, do_sample=False)
        assert patched.position_map.mapping_length == update.report.mapping_length
    assert tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip() == update.answer


def test_one_thread_does_all_the_computing(service):
    """More threads would each keep OpenMP workers, and every token would take twice the time."""
    seen = set()
    with register_module_forward_hook(lambda *_: seen.add(threading.current_thread().name)):
        for method in ("lampe", "rope"):
            last(service.ask(Request(TEXT, QUESTION, method, 4)))
    assert seen == {"model"}


@pytest.mark.parametrize("when", ["Reading", "Answering"])
def test_stop_ends_a_run_and_keeps_what_there_is(service, when):
    stop = threading.Event()
    after = []
    for update in service.ask(Request(LONG, QUESTION, "lampe", 200, chosen=mapped(service)), stop):
        if stop.is_set():
            after.append(update)
        elif update.stage == when and (update.done or update.answer):
            stop.set()
    assert len(after) <= 4
    assert after[-1].report.stopped
    assert after[-1].stage == "Stopped"
    assert after[-1].report.mapping_length == CONFIG.position_map(after[-1].report.input_length).mapping_length
    assert (after[-1].report.new_tokens > 0) == (when == "Answering")


def test_a_visitor_who_leaves_frees_the_model(service):
    for when in ("Reading", "Answering"):
        updates = service.ask(Request(LONG, QUESTION, "lampe", 200, chosen=mapped(service)))
        next(update for update in updates if update.stage == when and (update.done or update.answer))
        updates.close()
    assert last(service.ask(Request(TEXT, QUESTION, "rope", 8))).report.new_tokens
    assert service.model().config._attn_implementation == "sdpa"


def test_three_at_once_wait_for_each_other_and_get_their_own(service):
    answers = {}

    def asked(name):
        return last(service.ask(Request(f"{name} sails. " * 30, QUESTION, "lampe", 8))).answer

    def visit(name):
        answers[name] = asked(name)

    alone = {name: asked(name) for name in ("Heron", "Puffin", "Kestrel")}
    assert len(set(alone.values())) == 3
    visitors = [threading.Thread(target=visit, args=(name,)) for name in alone]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert answers == alone


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  \n"}, "There is no text"),
        ({"question": " "}, "There is no question"),
        ({"text": "word " * 21_000}, r"have 21,\d+ tokens; the limit here is 20,000"),
        ({"method": "magic"}, "There is no method 'magic'; the methods are rope, lampe, "),
        ({"max_new_tokens": 0}, "1 to 512"),
        ({"max_new_tokens": 9999}, "1 to 512"),
        ({"earlier": (("q", "a"),) * (MAX_TURNS + 1)}, "41 turns; at most 40"),
        ({"sampling": Sampling(-0.1)}, "temperature must be a number from 0 to 2"),
        ({"sampling": Sampling(float("nan"))}, "temperature must be a number from 0 to 2"),
        ({"sampling": Sampling(1, 0)}, r"Top-p must be a number from 0\.01 to 1"),
        ({"sampling": Sampling(1, 1, -1)}, "seed must be a number from 0"),
        ({"sampling": Sampling(1, 1, 0.5)}, "seed must be a whole number"),
    ],
)
def test_a_request_that_cant_be_run_says_why(service, change, message):
    request = {"text": TEXT, "question": QUESTION, "method": "lampe", "max_new_tokens": 8} | change
    with pytest.raises(InputError, match=message):
        last(service.ask(Request(**request)))


def test_a_model_that_cant_be_had_says_why_and_can_be_tried_again():
    service = start(Settings("no such model", 4, 20_000))
    for _ in range(2):
        with pytest.raises(lampe.LoadError, match="neither a folder"):
            last(service.ask(Request(TEXT, QUESTION, "lampe", 8)))


def test_out_of_memory_is_a_sentence_and_the_app_goes_on(service, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes")

    model = service.model()
    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", fail)
        with pytest.raises(InputError, match="isn't enough memory"):
            last(service.ask(Request(TEXT, QUESTION, "rope", 8)))
    assert last(service.ask(Request(TEXT, QUESTION, "rope", 8))).report.new_tokens


def test_what_wouldnt_fit_is_refused_before_it_is_read(service, monkeypatch):
    needs = service.needs(tokens(1000), 8)
    attention = last(service.ask(Request(TEXT, QUESTION, "lampe", 4))).attention
    with monkeypatch.context() as patched:
        patched.setattr(app.serving.resident, "free_bytes", lambda device: needs.bytes)
        assert len(prompt_of(service, Request("word " * 1200, QUESTION)).ids) > 1000
        for refused in (
            service.ask(Request("word " * 1200, QUESTION, "lampe", 8)),
            service.evidence(replace(attention, prompt=prompt_of(service, Request("word " * 1200, QUESTION)))),
            service.needles(HAYSTACKS["filler"](), [Cell("single", 1200, 0.5, "lampe")]),
        ):
            stages = []
            with pytest.raises(InputError, match=r"are free: at most 1,008 tokens fit now. Nothing was run"):
                stages += [update.stage for update in refused]
            assert "Reading" not in stages
        assert last(service.ask(Request(TEXT, QUESTION, "lampe", 8))).report.new_tokens
    assert service.needs(tokens(2000), 8).bytes == pytest.approx(2 * needs.bytes, rel=0.02)


def test_others_are_answered_while_a_long_text_is_read(service):
    """Each a chunk at a time, and each as if alone."""
    questions = {who: Request(f"{who} sails. " * 900, QUESTION, "lampe", 40, chosen=mapped(service)) for who in "ab"}
    alone = {who: last(service.ask(request)).answer for who, request in questions.items()}
    long = service.ask(questions["a"], visitor=ANN)
    next(update for update in long if update.stage == "Reading" and update.done)
    assert last(service.ask(questions["b"], visitor=BOB)).answer == alone["b"], "though she was first"
    rest = list(long)
    assert rest[-1].answer == alone["a"]
    assert rest[-1].report.input_length > 5 * CHUNK


def test_what_is_drawn_is_drawn_again_though_others_draw_in_between(service):
    drawn = Request(TEXT, QUESTION, "rope", 3 * DECODED, sampling=Sampling(1.5, 1, 7))
    alone = last(service.ask(drawn)).answer
    going = service.ask(drawn, visitor=ANN)
    next(update for update in going if update.stage == "Answering" and update.done >= DECODED)
    last(service.ask(replace(drawn, sampling=Sampling(1.5, 1, 8)), visitor=BOB))
    assert last(going).answer == alone


def test_a_grid_lets_others_go_before_it_and_gives_what_it_gives_alone(service):
    cells = [Cell("single", 1500, depth, "lampe") for depth in (0.9, 0.5, 0.1)]

    def results(events):
        return [event.answer for event in events if isinstance(event, Result)]

    alone = results(service.needles(HAYSTACKS["filler"](), cells, chosen=mapped(service)))
    grid = service.needles(HAYSTACKS["filler"](), cells, chosen=mapped(service), visitor=ANN)
    first = next(event for event in grid if isinstance(event, Result))
    assert last(service.ask(Request(TEXT, QUESTION, "lampe", 4), visitor=BOB)).report.new_tokens
    assert [first.answer, *results(grid)] == alone


def test_who_waits_is_told_and_what_there_is_stays_in_sight(service):
    last(service.ask(Request(TEXT, QUESTION, "rope", 1)))
    with service.runner.line.join(ANN, service.settings.own) as ticket:
        assert ticket.wait(0)
        waiting = service.ask(Request(TEXT, QUESTION, "lampe", 2), visitor=BOB)
        assert next(waiting).stage == "Waiting for the model: 1 before you"
        ticket.give_back()
        update = next(update for update in waiting if update.stage == "Reading")
        assert ticket.wait(0) or ticket.wait(5)
        later = next(update for update in waiting if update.waiting)
        assert (later.stage, later.total, later.waiting) == (update.stage, update.total, 1)
    assert last(waiting).report.new_tokens == 2


def test_needle_tests_wait_in_their_middle_too(service):
    """Others are given turns between two chunks; what the test is at stays in sight, and it goes on."""
    cell = Cell("single", 1500, 0.5, "lampe")
    last(service.ask(Request(TEXT, QUESTION, "rope", 1)))
    going = service.needles(HAYSTACKS["filler"](), [cell], chosen=mapped(service), visitor=BOB)
    update = next(update for update in going if update.stage == "Reading")
    with service.runner.line.join(ANN, service.settings.own) as ticket:
        assert ticket.wait(5)
        later = next(update for update in going if update.waiting)
        assert (later.stage, later.total, later.waiting) == (update.stage, update.total, 1)
    *_, result = going
    assert isinstance(result, Result)


def test_what_would_take_too_long_isnt_begun(service):
    last(service.ask(Request(TEXT, QUESTION, "rope", 1)))
    hurried = start(replace(service.settings, max_minutes=1))
    hurried.runner.speeds[service.settings.own] = Speed(1.0, 0.0, 1.0)
    message = r"take about [23] minutes here; the limit is 1\. Nothing was run"
    for refused in (
        hurried.ask(Request(TEXT, QUESTION, "rope", 100)),
        hurried.needles(HAYSTACKS["filler"](), [Cell("single", 100, 0.5, "rope")]),
    ):
        with pytest.raises(InputError, match=message):
            list(refused)


def test_memory_that_others_have_set_aside_is_waited_for(service, monkeypatch):
    needs = service.needs(tokens(1000), 8)
    monkeypatch.setattr(app.serving.resident, "free_bytes", lambda device: needs.bytes)
    with service.runner.line.join(ANN, service.settings.own) as ticket:
        ticket.bytes = needs.bytes // 2
        waiting = service.ask(Request("word " * 800, QUESTION, "lampe", 4), visitor=BOB)
        assert any(update.stage.startswith("Waiting for memory") for update in waiting)
    assert last(waiting).report.new_tokens


def test_stop_ends_the_measurement_of_the_speed(service):
    service.runner.speeds.clear()
    stop = threading.Event()
    for update in service.measured(stop=stop):
        if update.stage.startswith("Measuring"):
            stop.set()
    assert service.runner.speeds == {}
    assert service.needs(tokens(100), 8).seconds is None


def test_an_answer_that_reached_its_longest_says_so(service, monkeypatch):
    report = last(service.ask(Request(TEXT, QUESTION, "lampe", 2))).report
    assert report.cut_short
    assert "the answer stops after 2 tokens" in done([report])
    every = list(range(service.model().config.vocab_size))
    monkeypatch.setattr(service.model().generation_config, "eos_token_id", every)
    report = last(service.ask(Request(TEXT, QUESTION, "lampe", 1))).report
    assert (report.new_tokens, report.cut_short) == (1, False), "the model ended there itself"
    assert done([report]) == "Done."


def test_a_visitors_own_settings_are_what_runs(service):
    config = lampe.LampeConfig(4096, 16, 8, 40)
    update = last(service.ask(Request(TEXT, QUESTION, "lampe", 4, chosen=mapped(service, config))))
    assert update.report.mapping_length == 40
    assert update.attention.method == config
    cell = Cell("single", 600, 0.5, "lampe")
    (result,) = [
        e
        for e in service.needles(HAYSTACKS["filler"](), [cell], chosen=mapped(service, config))
        if isinstance(e, Result)
    ]
    assert result.ran_by({"lampe": config})
    assert last(service.ask(Request(TEXT, QUESTION, "lampe", 4))).report.mapping_length != 40, "nobody else has them"


# Several questions on one text

OTHER = "Which island is this about?"


def test_a_second_question_reads_only_itself_and_is_answered_as_if_alone(service):
    first = last(service.ask(Request(DOCUMENT, QUESTION, "lampe", 8, chosen=mapped(service)), visitor=ANN)).report
    prompt = prompt_of(service, Request(DOCUMENT, OTHER))
    mine, anyones = (service.needs(prompt, 8, mapped(service), visitor) for visitor in (ANN, None))
    second = last(service.ask(Request(DOCUMENT, OTHER, "lampe", 8, chosen=mapped(service)), visitor=ANN))
    assert (mine.kept, anyones.kept) == (second.report.kept, 0)
    assert mine.seconds < anyones.seconds
    alone = last(service.ask(Request(DOCUMENT, OTHER, "lampe", 8, chosen=mapped(service))))
    assert first.kept == 0
    assert second.report.kept > 0.6 * second.report.input_length
    assert alone.report.kept == 0
    assert second.answer == alone.answer
    assert torch.equal(second.attention.shares, alone.attention.shares)
    assert (
        last(service.ask(Request(DOCUMENT, OTHER, "lampe", 8, chosen=mapped(service)), visitor=BOB)).report.kept == 0
    ), "it is Ann's alone"
    service.presence.left("ann")
    assert last(service.ask(Request(DOCUMENT, OTHER, "lampe", 8, chosen=mapped(service)), visitor=ANN)).report.kept == 0
    service.presence.left("ann")
    service.presence.left("bob")


def test_a_follow_up_goes_on_until_its_plan_ends_then_all_is_read_again(service):
    words = " ".join(DOCUMENT.split()[:500])
    asked = Request(words, QUESTION, "lampe", 8, chosen=mapped(service))
    answer = last(service.ask(asked, visitor=Visitor("cleo")))
    followed = Request(words, "And who painted it?", "lampe", 8, ((QUESTION, answer.answer),), chosen=mapped(service))
    update = last(service.ask(followed, visitor=Visitor("cleo")))
    assert update.report.planned_length == answer.report.planned_length
    assert update.report.kept >= 512
    assert update.report.outgrown is None
    assert update.answer == last(service.ask(followed)).answer
    long = Request(words, "Why? " * 500, "lampe", 8, followed.earlier, chosen=mapped(service))
    update = last(service.ask(long, visitor=Visitor("cleo")))
    assert update.report.planned_length > answer.report.planned_length
    assert update.report.kept == 0, "another plan has other keys"
    assert (first_plan := answer.report.planned_length) == update.report.outgrown
    assert f"no longer fits the {first_plan:,} tokens" in done([update.report])
    service.presence.left("cleo")
    dropped = last(service.ask(followed, visitor=Visitor("cleo"))).report
    assert "so all of it was read again" in done([dropped], following=True)
    assert done([dropped]) == done([replace(dropped, kept=0)]), "no word of it where nothing was asked before"
    service.presence.left("cleo")


def test_a_text_is_cut_to_the_window_where_it_is_longer(service):
    config = lampe.LampeConfig(600, 64, 32, 256)
    cut = Request(DOCUMENT, QUESTION, "rope", 8, chosen=mapped(service, config), cut=True)
    prompt, whole = (
        prompt_of(service, cut),
        prompt_of(service, Request(DOCUMENT, QUESTION, "rope", 8, chosen=mapped(service, config))),
    )
    assert len(prompt.ids) + 8 == 600
    _, stop = prompt.document
    assert prompt.ids[:stop] == whole.ids[:stop]
    assert prompt.ids[stop:] == whole.ids[whole.document[1] :]
    assert prompt.left_out == len(whole.ids) - len(prompt.ids) > 50
    report = last(service.ask(cut, visitor=Visitor("dora"))).report
    assert report.left_out == prompt.left_out
    assert report.variant == cut.variant == Variant("rope", cut=True)
    for way in (False, True):
        again = last(service.ask(replace(cut, cut=way), visitor=Visitor("dora")))
        assert again.report.kept == (512 if way else 0), "neither takes the other's"
    service.presence.left("dora")
    short = prompt_of(service, Request(TEXT, QUESTION, "rope", 8, cut=True))
    assert short.left_out == 0
    assert short.ids == prompt_of(service, Request(TEXT, QUESTION, "rope", 8)).ids


@pytest.mark.parametrize("key", ["lampe-paper", "selfextend", "dca", "yarn"])
def test_any_method_answers_and_is_asked_again_from_what_it_has_read(service, key, monkeypatch):
    """With a window so short that each of them changes something."""
    small = METHODS[key].for_window(512)
    monkeypatch.setattr(service.models, "method", lambda key, choice: small)
    asked = Request(DOCUMENT, QUESTION, key, 6)
    first = last(service.ask(asked, visitor=Visitor("emil")))
    assert (first.report.method, first.report.window, first.report.kept) == (key, 512, 0)
    assert first.report.input_length > 512
    assert first.attention.method == small
    again = last(service.ask(asked, visitor=Visitor("emil")))
    assert again.answer == first.answer
    assert again.report.kept >= first.report.input_length - 2 * CHUNK - small.position_map(2048).tail
    *_, evidence = service.evidence(again.attention, visitor=Visitor("emil"))
    assert evidence.position_map.regions == again.attention.position_map.regions
    service.presence.left("emil")


def test_what_is_drawn_is_drawn_again_with_its_seed(service):
    def drawn(seed, temperature=1.5):
        return last(service.ask(Request(TEXT, QUESTION, "lampe", 6, sampling=Sampling(temperature, 1.0, seed)))).answer

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) > 1
    greedy = last(service.ask(Request(TEXT, QUESTION, "lampe", 6))).answer
    assert drawn(3, 0.0) == greedy


def test_a_run_that_failed_leaves_nothing_to_go_on_from(service, monkeypatch):
    last(service.ask(Request(DOCUMENT, QUESTION, "rope", 4), visitor=Visitor("eve")))
    layer, forward = service.model().model.layers[1], type(service.model().model.layers[1]).forward
    monkeypatch.setattr(layer, "forward", lambda *args, **kwargs: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        last(service.ask(Request(DOCUMENT, OTHER, "rope", 4), visitor=Visitor("eve")))
    monkeypatch.setattr(layer, "forward", lambda *args, **kwargs: forward(layer, *args, **kwargs))
    assert last(service.ask(Request(DOCUMENT, OTHER, "rope", 4), visitor=Visitor("eve"))).report.kept == 0
    service.presence.left("eve")


def test_after_a_stop_the_next_question_is_answered_right(service):
    for when in ("Reading", "Answering"):
        stop = threading.Event()
        for update in service.ask(
            Request(DOCUMENT, QUESTION, "lampe", 8, chosen=mapped(service)), stop, Visitor("fay")
        ):
            if update.stage == when and (update.done > 512 or update.answer):
                stop.set()
        alone = last(service.ask(Request(DOCUMENT, OTHER, "lampe", 8, chosen=mapped(service))))
        assert (
            last(
                service.ask(Request(DOCUMENT, OTHER, "lampe", 8, chosen=mapped(service)), visitor=Visitor("fay"))
            ).answer
            == alone.answer
        )
        service.presence.left("fay")


@pytest.mark.parametrize(
    ("tokens", "mapping", "planned"),
    [(1500, 800, 2048), (2001, 800, 3072), (600, 800, 600), (600, 2048, 1024), (9000, 6654, 9216)],
)
def test_a_plan_has_room_for_an_answer_but_where_tail_would_begin_inside_head(tokens, mapping, planned):
    config = lampe.LampeConfig(8192, 512, 200, mapping)
    assert planned_length(tokens, 48, config) == planned
    config.position_map(planned, tokens)
