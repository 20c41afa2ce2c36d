"""The sweep: what is measured is what a whole forward gives, and what was measured is never lost nor done twice."""

from __future__ import annotations

import copy
import itertools
import json
import math
import random
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pydoc_data.topics import topics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lampe
from lampe import __main__ as cli
from lampe import patch
from lampe.calibration import Evaluation, Row, Sweep, SweepPoint, library_docstrings, measure, read_preset
from lampe.calibration.points import coarse_mappings, evaluations, refined_mappings, window_end, work
from lampe.calibration.rows import put_together, read_rows, write_row
from lampe.cli import calibrate as command
from lampe.inference.prefill import PromptReader
from lampe.inference.prompt import ANSWER_PREFIX, around
from lampe.methods import LampeConfig
from lampe.models import memory
from lampe.models.load import load_tokenizer
from lampe.models.weights import weight_bits, weights_hash
from lampe.needle import Cell, Haystack, TokenizedHaystack, prompt_of
from tests.lampe import tiny

BASE = LampeConfig(256, 16, 8, 128)
TEXT = " ".join(f"On day {day} the tide came at {day * 37 % 24} and the boats went out." for day in range(200))


def text_of(tokenized, one):
    return measure.text_of(tokenized, one.length, one.text_window, one.hidden, one.seed)


@pytest.fixture(scope="module")
def tokenizer(default_folder):
    return load_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    config = copy.deepcopy(tiny.FAMILIES["llama"])
    config.vocab_size, config.max_position_embeddings = len(tokenizer), 256
    return tiny.build(config)


@pytest.fixture(scope="module")
def tokenized(tokenizer):
    return TokenizedHaystack(Haystack("tides", TEXT), tokenizer)


def sweep(tokenized, **changes):
    settings = {"base": BASE, "lengths": (160, 400), "windows": 2, "needles": 2, "steps": 3, "refine": 1}
    return Sweep(text_tokens=len(tokenized.ids), **{**settings, **changes})


@pytest.mark.parametrize("objective", ["perplexity", "both"])
def test_the_figures_are_those_of_whole_forwards(model, tokenized, objective):
    """Oracle: one forward over everything, under the patch with the plan of the length; unpatched where m = l."""
    base = replace(BASE, window=512)  # an answer that passes the window would be planned anew
    some = sweep(tokenized, base=base, lengths=(300,), refine=0, objective=objective)
    rows = list(some.run(partial(measure.evaluate, model, tokenized, window=512)))
    assert {row.mapping_length for row in rows} == {64, 181, 300}
    for row in rows:
        text = text_of(tokenized, row.evaluation)
        ids = text.prompts[row.asked or 0].ids
        assert len(ids) == 300
        scored, given = text.scored, ids
        if row.kind == "needle":
            answer, count = measure.answer_tokens(tokenized.tokenizer, text.prompts[row.asked].needles)
            given = [*ids, *answer]
            scored = list(range(len(given) - count, len(given)))
        mapped = row.mapping_length < 300
        with patch(model, LampeConfig(512, 16, 8, row.mapping_length)) if mapped else nullcontext() as patched:
            if patched:
                patched.plan(300)
            logits = tiny.logits(model, torch.tensor([given]))[0]
        wanted = [given[token] for token in scored]
        before = logits[[token - 1 for token in scored]]
        likelihood = before.log_softmax(-1)[range(len(scored)), wanted].mean().item()
        assert row.tokens == len(scored)
        if row.kind == "loss":
            assert row.loss == pytest.approx(-likelihood, abs=1e-4)
        else:
            assert row.log_likelihood == pytest.approx(likelihood, abs=1e-4)
            assert row.found == (before.argmax(-1).tolist() == wanted)


def test_needles_that_share_what_they_begin_with_score_as_alone(model, tokenized, monkeypatch):
    wanted = sweep(tokenized, lengths=(300,), needles=3, windows=1).missing(300, [])
    alone = [next(measure.evaluate(model, tokenized, [evaluation], 256)) for evaluation in wanted]
    read, kept = PromptReader.read, []

    def watched(reader, *args):
        yield from read(reader, *args)
        kept.append(reader.kept)

    monkeypatch.setattr(PromptReader, "read", watched)
    together = list(measure.evaluate(model, tokenized, wanted, 256))
    assert all(again > 240 for number, again in enumerate(kept) if number % 4), "only the question is read anew"
    for one, other in zip(together, alone, strict=True):
        assert one.evaluation == other.evaluation
        assert (one.log_likelihood or one.loss) == pytest.approx(other.log_likelihood or other.loss, abs=1e-4)


def test_found_is_what_greedy_decoding_goes_on_with(model, tokenized):
    prompt = prompt_of(tokenized, Cell("single", 200, 0.5, "rope"))
    reader = PromptReader(model)
    list(reader.read(prompt.ids))
    greedy = model.generate(torch.tensor([prompt.ids]), max_new_tokens=4, do_sample=False)[0, 200:].tolist()
    assert reader.score(greedy, 2)[1]
    assert not reader.score([*greedy[:-1], greedy[-1] + 1], 2)[1]


def test_an_answer_is_the_sentence_that_the_page_begins(tokenized):
    needles = measure.needles_alike(tokenized, 1, random.Random(3))[0]
    answer, count = measure.answer_tokens(tokenized.tokenizer, needles)
    key = needles.question.removeprefix("What is the secret number of the ").removesuffix("?")
    assert tokenized.tokenizer.decode(answer) == f" the secret number of the {key} is {needles.expected[0]}"
    assert tokenized.tokenizer.decode(answer[-count:]).strip() == needles.expected[0]
    assert needles.prefix == ANSWER_PREFIX


def test_a_text_begins_as_the_tokenizer_begins_it(tokenized):
    class Begins:
        def encode(self, text):
            return [7, 9]

    begun = copy.copy(tokenized)
    begun.tokenizer = Begins()
    stop = window_end(1, len(tokenized.ids))
    text = text_of(begun, Evaluation(40, 40, 0, 0, text_window=1))
    assert text.prompts[0].ids == [7, 9, *tokenized.ids[stop - 38 : stop]]
    assert text.scored == list(range(20, 40))


@given(st.integers(1, 1000))
def test_windows_are_spread_evenly_however_many_there_are(count):
    """And more of them are added to those that were measured: each ends where it did."""
    ends = sorted(window_end(number, 100_000) for number in range(count))
    gaps = [after - before for before, after in itertools.pairwise([ends[-1] - 100_000, *ends])]
    assert 0 <= ends[0] <= ends[-1] < 100_000
    assert max(gaps) <= 2 * 100_000 / count + 2


def test_a_window_is_what_stands_before_its_end(tokenized):
    whole = len(tokenized.ids)
    inside = tokenized.window(900, 100)
    assert inside.ids == tokenized.ids[800:900]
    assert all(
        tokenized.ids[800 + place - 1] == tokenized.ids[tokenized.breaks[1] - 1] for place in inside.breaks if place
    )
    around = tokenized.window(30, 100)
    assert around.ids == [*tokenized.ids[whole - 70 :], *tokenized.ids[:30]], "the text goes round"
    assert 70 in around.breaks
    assert tokenized.window(whole, whole).ids == tokenized.ids


def test_a_sweep_that_was_stopped_has_measured_all_points_as_well(model, tokenized):
    own = partial(measure.evaluate, model, tokenized, window=BASE.window)
    some = itertools.islice(sweep(tokenized, needles=1, refine=0, windows=3).run(own), 11)
    windows = [row.text_window for row in some]
    assert windows == sorted(windows)


def test_mappings_reach_from_an_eighth_of_the_window_to_no_mapping():
    assert coarse_mappings(16384, 8192, 512, 200) == [1024, 1448, 2048, 2896, 4096, 5793, 8192, 16384]
    assert coarse_mappings(3072, 8192, 512, 200) == [1024, 1448, 2048, 3072]
    assert coarse_mappings(3072, 8192, 1024, 1000) == [2048, 3072]
    assert coarse_mappings(900, 8192, 512, 200) == [900]
    assert refined_mappings({1024: 3.0, 2048: 1.0, 4096: 2.0}) == [1448, 2896]
    assert refined_mappings({1024: 1.0, 2048: 1.0, 4096: 2.0}) == [1448]
    assert refined_mappings({1000: 1.0, 1090: 2.0}) == [], "nothing worth while lies between"


def test_work_counts_what_is_read():
    loss, first, second = evaluations(SweepPoint(1000, 500, 16, 8), "both", 1, 2, 0)
    assert work(loss, 1000) == work(first, 1000) == 2000
    assert work(second, 1000) < 200, "a question"


def test_needles_are_hidden_together_and_each_is_asked_for(tokenized):
    reading = Evaluation(400, 400, 16, 8, text_window=1, hidden=3, seed=5)
    text = text_of(tokenized, reading)
    prompts = text.prompts
    assert {len(prompt.ids) for prompt in prompts} == {400}, "all end at the same token"
    texts = [tokenized.tokenizer.decode(prompt.ids) for prompt in prompts]
    for number, prompt in enumerate(prompts):
        (sentence,), (start, stop) = prompt.needles.sentences, prompt.spans[0]
        assert all(text.count(sentence) == 1 for text in texts)
        assert tokenized.tokenizer.decode(prompt.ids[start:stop]) == f" {sentence}"
        assert texts[number].endswith(ANSWER_PREFIX)
        assert (number + 0.5) / 3 == pytest.approx(start / len(prompt.ids), abs=0.1)
    same = next(
        k for k, tokens in enumerate(zip(*(prompt.ids for prompt in prompts), strict=True)) if len(set(tokens)) > 1
    )
    assert same > prompts[2].spans[0][1], "they differ in the question alone"
    assert len({prompt.needles.expected for prompt in prompts}) == 3
    assert text_of(tokenized, reading) == text
    assert text_of(tokenized, replace(reading, seed=6)) != text
    start = len(around(tokenized.tokenizer, "")[0])
    assert (
        prompts[0].ids[start:][:30] != text_of(tokenized, replace(reading, text_window=0)).prompts[0].ids[start:][:30]
    )
    # The loss is that of the text's last tokens, which a question and needles aren't.
    question = tokenized.tokenizer.decode(prompts[0].ids).index("Question:")
    assert len(tokenized.tokenizer.decode(prompts[0].ids[: text.scored[-1] + 1])) <= question
    hidden = {token for prompt in prompts for token in range(*prompt.spans[0])}
    assert not hidden & set(text.scored)
    assert 150 < len(text.scored) <= 200


def test_costs_are_as_documented(tokenized):
    point = {"length": 9, "mapping_length": 5, "head": 1, "tail": 1}
    rows = [
        Row(**point, kind="loss", loss=2.0),
        Row(**point, kind="loss", text_window=1, loss=3.0),
        Row(**point, kind="needle", hidden=2, asked=0, seed=1, found=True, log_likelihood=-0.5),
        Row(**point, kind="needle", hidden=2, asked=1, seed=1, found=False, log_likelihood=-1.5),
    ]
    (one,) = put_together([*rows, rows[0]])
    assert (one.windows, one.needles, one.loss, one.found, one.log_likelihood) == (2, 2, 2.5, 0.5, -1)
    assert one.cost("perplexity", 0.5) == 2.5
    assert one.cost("needle", 0.5) == 0.5 + 0.5 / 2
    assert one.cost("both", 0.25) == pytest.approx(0.25 * 0.75 + 0.75 * 2.5)


@pytest.fixture
def calls(model, tokenizer, monkeypatch, tmp_path):
    """The command on the tiny model: its arguments, and its sweep file."""
    text = tmp_path / "tides.txt"
    text.write_text(TEXT, encoding="utf-8")
    monkeypatch.setattr(command, "load", lambda *_, **__: (model, tokenizer))
    path = tmp_path / "rows" / "sweep.jsonl"
    arguments = [
        "calibrate", "--lengths", "160,400,300", "--steps", "3", "--windows", "2", "--needles", "2", "--head", "16",
        "--tail", "8", "--text", str(text), "--sweep", str(path), "--out", str(tmp_path / "preset.json"),
    ]  # fmt: skip
    return arguments, path


def without_seconds(path):
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.long
def test_an_interrupted_sweep_goes_on_to_the_same_file(calls, tmp_path, monkeypatch, capsys):
    arguments, path = calls
    assert cli.main(arguments) == 0
    whole, shown = without_seconds(path), capsys.readouterr().out
    assert "best m" in shown
    assert lampe.load_preset(tmp_path / "preset.json").head == 16
    path.unlink()
    run, measured = Sweep.run, []

    def interrupted(*args):
        for row in itertools.islice(run(*args), 7):
            measured.append(row)
            yield row
        raise KeyboardInterrupt

    monkeypatch.setattr(Sweep, "run", interrupted)
    assert cli.main(arguments) == 130
    assert "is kept in" in capsys.readouterr().err
    assert without_seconds(path) == whole[:7]
    assert cli.main(arguments) == 130, "what is there isn't measured again"
    monkeypatch.setattr(Sweep, "run", run)
    assert cli.main(arguments) == 0
    assert without_seconds(path) == whole
    assert capsys.readouterr().out == shown
    assert len({json.dumps(row) for row in whole}) == len(whole)
    monkeypatch.setattr(measure, "applied", None)  # a finished sweep measures nothing
    assert cli.main(arguments) == 0


def test_rows_of_another_model_or_text_are_left_alone(calls, model):
    _, path = calls
    source = {"model": "x", "weights": weights_hash(model)}
    row = Row(160, 32, 16, 8, kind="loss", loss=1.0)
    path.parent.mkdir()
    write_row(path, row, source)
    assert read_rows(path, source) == [row]
    assert read_rows(path, {**source, "weights": "other"}) == []
    assert read_rows(path.with_name("none"), source) == []


def test_the_hash_tells_weights_apart(model):
    before = weights_hash(model)
    assert weights_hash(copy.deepcopy(model)) == before
    other = copy.deepcopy(model)
    assert weights_hash(other) == weights_hash(copy.deepcopy(model).bfloat16().float()) == before
    with torch.no_grad():
        other.model.norm.weight[3] += 0.1
    assert weights_hash(other) != before, "also where it was asked for before"
    assert weight_bits(model) == 32


@pytest.mark.parametrize(
    ("change", "end", "words"),
    [
        ({}, "", "ends before its end"),
        ({"loss": None}, "\n", "holds a loss"),
        ({"kind": "needle"}, "\n", "a row of a needle holds none"),
    ],
)
def test_a_broken_sweep_file_is_a_sentence_and_stays(calls, capsys, change, end, words):
    arguments, path = calls
    path.parent.mkdir()
    write_row(path, Row(160, 32, 16, 8, kind="loss", loss=1.0), {})
    first = path.read_text(encoding="utf-8")
    line = json.dumps({**json.loads(first), **change}) + end
    path.write_text(first + line, encoding="utf-8")
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Line 2 of sweep.jsonl is no row" in said
    assert path.read_text(encoding="utf-8") == first + line


def test_what_cannot_be_measured_is_a_sentence(calls, capsys, monkeypatch):
    arguments, path = calls
    for change, words in (
        (["--lengths", "160,20,300"], "fewer than 26 tokens"),
        (["--lengths", "160,400,160"], "three different input lengths, and there is 160 and 400"),
        (["--lengths", "160,400,30000"], "a window has up to 30,000"),
        (["--windows", "0"], "Windows must be at least 1"),
        (["--weight", "nan"], "from 0 to 1"),
        (["--sweep-over", "head"], "at least one value"),
        (["--sweep-over", "mapping_length", "--values", "64,300"], "400 tokens can't be mapped to 300"),
        (["--sweep-over", "mapping_length", "--values", "24"], "above 24 (Head + Tail), up to 256 (the window)"),
        (["--text", str(path)], "No such file"),
    ):
        assert cli.main([*arguments, *change]) == 2
        assert words in capsys.readouterr().err
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 303e6}))
    assert cli.main([*arguments, "--lengths", "160,400,3000", "--objective", "needle"]) == 2
    assert "GB are free: take lengths of at most" in capsys.readouterr().err
    assert not path.exists()


def test_head_and_tail_can_be_swept_too(calls, capsys):
    arguments, path = calls
    assert cli.main([*arguments, "--sweep-over", "head", "--values", "8,16", "--objective", "needle"]) == 0
    rows = without_seconds(path)
    assert {(row["length"], row["head"], row["tail"]) for row in rows} == {
        (length, head, 8) for length in (160, 300, 400) for head in (8, 16)
    }
    assert math.isfinite(rows[0]["log_likelihood"])
    points, differences = capsys.readouterr().out.split("\n\n")
    assert points.count("\n") == 6, "a line for each point"
    assert differences.count("\n") == 5, "a line for each length: Head 16 against 8"
    assert "(one pair)" not in differences


def test_mapping_lengths_of_ones_own_are_swept(calls, capsys):
    """Where a grid costs too much; of those above an input's length one is left, which doesn't map it."""
    arguments, path = calls
    swept = ["--sweep-over", "mapping_length", "--values", "128,64,999,500"]
    assert cli.main([*arguments, *swept, "--objective", "perplexity"]) == 0
    assert sorted({(row["length"], row["mapping_length"]) for row in without_seconds(path)}) == [
        *((160, m) for m in (64, 128, 160)), *((300, m) for m in (64, 128, 300)), *((400, m) for m in (64, 128, 400))
    ]  # fmt: skip
    assert "128" in capsys.readouterr().out.split("\n\n")[1], "against what isn't mapped"


def test_calibrate_gives_what_its_file_says(model, tokenized, tmp_path, monkeypatch):
    out, rows, reports = tmp_path / "preset.json", tmp_path / "rows.jsonl", []

    def again():
        return lampe.calibrate(
            model, tokenized.tokenizer, (160, 300, 400), base=BASE, text=tokenized.haystack, name="tiny", out=out,
            rows=rows, windows=1, needles=1, steps=3, progress=lambda *report: reports.append(report),
        )  # fmt: skip

    config = again()
    assert config == lampe.load_preset(out)
    assert (config.window, config.head, config.tail, config.basis) == (256, 16, 8, "measured")
    preset = read_preset(out)
    assert {row["text"] for row in without_seconds(rows)} == {preset.source.text} == {"tides"}
    assert [point.length for point in preset.points] == [160, 300, 400]
    assert reports[0][:2] == (None, 0)
    assert reports[-1][2] == 0
    assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)
    monkeypatch.setattr(measure, "applied", None)  # all is in the file
    assert again() == config
    assert replace(read_preset(out), made=preset.made) == preset


def test_the_text_is_long_and_always_the_same(tokenizer):
    text = library_docstrings()
    assert text == library_docstrings()
    assert len(TokenizedHaystack(text, tokenizer).ids) > 200_000
    assert not any(topic in text.text for topic in topics.values()), "what the README's figures use"
