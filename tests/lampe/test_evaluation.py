"""Published benchmarks: the harness's own answers and likelihoods, rows that are kept, and refusals."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.models.huggingface import HFLM

import lampe
from lampe.__main__ import main
from lampe.evaluation import EvaluationError, Row, Run, Sample, harness, read_rows, recorded, summary
from lampe.files import checked
from lampe.methods import METHODS

LENGTH = 1024
RUN = Run("a model", 4, True, 0, "0.4.13")


def row(method="lampe", number=0, score=1.0, task="niah_single_1", **more):
    sample, own = Sample(task, 4096, number, method), METHODS[method].for_window(8192)
    settings = {"key": RUN.key_of(sample, own), "settings": own.settings(), "score": score}
    return Row(**asdict(sample), **asdict(RUN), **settings | more)


@pytest.fixture(scope="module")
def small_model(small):
    return lampe.load(small["llama"], bits=16)


@pytest.fixture(scope="module")
def task(small_model, tmp_path_factory):
    with harness.plain_tokenizer(small_model[1]) as folder:
        yield harness.prepared("niah_single_1", LENGTH, 2, folder, tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("chat", [True, False])
def test_plain_rope_gives_what_the_harness_gives_by_itself(small_model, task, chat):
    """The oracle: the harness's own language model, on the same model, unpatched and whole."""
    adapter = harness.Adapter(*small_model)
    own = HFLM(pretrained=small_model[0], tokenizer=small_model[1], max_length=1 << 20)
    with adapter.under(METHODS["rope"].for_window(4096)):
        reading, expected, metric, _ = adapter.score(task, 1, chat)
    (request,) = task.instances
    assert reading.answer == own.generate_until([SimpleNamespace(args=request.args)], disable_tqdm=True)[0]
    words = request.args[0], f" {expected[0]}"
    ((total, _),) = own.loglikelihood([SimpleNamespace(args=words)], disable_tqdm=True)
    count = len(small_model[1].encode(words[1], add_special_tokens=False))
    assert reading.log_likelihood == pytest.approx(total / count, rel=1e-3)
    assert (metric, reading.left_out) == (str(LENGTH), 0)


def test_several_choices_are_weighed_as_the_harness_weighs_them(small_model):
    adapter, own = harness.Adapter(*small_model), HFLM(pretrained=small_model[0], tokenizer=small_model[1])
    asked = [
        SimpleNamespace(args=("The lamp is green. " * 60 + "The lamp is", choice)) for choice in (" green", " far")
    ]
    with adapter.under(METHODS["rope"].for_window(4096)):
        ours = adapter.loglikelihood(asked, disable_tqdm=True)
    theirs = own.loglikelihood(asked, disable_tqdm=True)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], rel=1e-4)


def test_a_method_is_what_reads_and_a_cut_is_told(small_model, task):
    mapped = lampe.LampeConfig(4096, 64, 32, 300)
    adapter = harness.Adapter(*small_model, cut=600)
    found = {}
    for key, method in {"rope": METHODS["rope"].for_window(4096), "lampe": mapped}.items():
        with adapter.under(method):
            found[key] = harness.timed(adapter, task, 0, True)
    assert all((one["tokens"], one["left_out"] > 100) == (600, True) for one in found.values())
    assert found["rope"]["prompt"] == found["lampe"]["prompt"]
    assert found["rope"]["log_likelihood"] != pytest.approx(found["lampe"]["log_likelihood"], abs=1e-6)
    assert small_model[0].config._attn_implementation == "sdpa", "the patch is off again"


def test_samples_are_made_once_and_kept(small_model, tmp_path, monkeypatch):
    with harness.plain_tokenizer(small_model[1]) as folder:
        first = harness.prepared("niah_single_1", LENGTH, 3, folder, tmp_path)
        monkeypatch.setattr(harness.ConfigurableTask, "download", None)  # nothing is made again
        again = harness.prepared("niah_single_1", LENGTH, 2, folder, tmp_path)
    assert [doc["input"] for doc in again.eval_docs] == [first.eval_docs[number]["input"] for number in range(3)]


def test_the_harness_gets_a_tokenizer_without_code():
    """It loads whatever folder it is given with `trust_remote_code`."""

    class Hostile:
        def save_pretrained(self, folder):
            own = {"auto_map": {"AutoTokenizer": ["somebody/model--code.Own", None]}, "model_max_length": 7}
            (folder / "tokenizer_config.json").write_text(json.dumps(own), encoding="utf-8")

    with harness.plain_tokenizer(Hostile()) as folder:
        written = json.loads((Path(folder) / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert written == {"model_max_length": 7}
    assert not Path(folder).exists()


def test_what_memory_cant_hold_is_a_row_that_says_so(small_model, task, monkeypatch):
    monkeypatch.setattr(harness, "free_bytes", lambda device: 1000)
    adapter = harness.Adapter(*small_model)
    with adapter.under(METHODS["rope"].for_window(4096)):
        found = harness.timed(adapter, task, 0, True)
    assert "take about" in found["error"]
    assert "score" not in found


def test_what_a_tasks_own_script_raises_is_a_row_that_says_so(small_model, task, monkeypatch):
    def scripted(*_):
        raise IndexError("list index out of range")

    adapter = harness.Adapter(*small_model)
    monkeypatch.setattr(adapter, "score", scripted)
    assert harness.timed(adapter, task, 0, True)["error"] == "IndexError: list index out of range"


@pytest.mark.long
def test_groups_are_their_tasks_and_unknown_ones_are_told():
    assert {*harness.WITHOUT_DATA} < {*harness.leaves(["ruler"])}
    assert len(harness.leaves(["ruler", "ruler_vt"])) == 13
    with pytest.raises(EvaluationError, match=r"has no task 'niah_sngle'\. Is it one of .*niah"):
        harness.leaves(["niah_sngle"])


@pytest.mark.long
def test_the_command_runs_the_real_model_keeps_its_rows_and_goes_on(default_folder, tmp_path, capsys):
    arguments = ["evaluate", "--lengths", str(LENGTH), "--samples", "1", "--out", str(tmp_path)]
    assert main([*arguments, "--tasks", "niah_single_1,ruler_vt", "--methods", "rope"]) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    assert [(row.task, row.method, row.number) for row in rows] == [
        ("niah_single_1", "rope", 0),
        ("ruler_vt", "rope", 0),
    ]
    assert rows[0].score == 1, rows[0].answer
    assert (rows[0].megabytes or 0) > 10 or sys.platform != "linux"
    assert rows[0].log_likelihood > -1
    assert main([*arguments, "--tasks", "niah_single_1", "--methods", "rope,selfextend"]) == 0
    again = read_rows(tmp_path / "rows.jsonl")
    assert again[:2] == rows
    assert [row.method for row in again[2:]] == ["selfextend"]
    assert again[2].prompt == rows[0].prompt, "each method is asked the same"
    shown = capsys.readouterr().out
    assert "niah_single_1, 1,024 tokens" in shown
    assert "(one pair)" in shown


def test_data_that_cant_be_had_is_a_sentence_and_the_rest_runs(small, tmp_path, capsys):
    arguments = ["evaluate", "--model", small["llama"], "--bits", "16", "--samples", "1", "--lengths", "600"]
    assert main([*arguments, "--tasks", "ruler_qa_squad", "--out", str(tmp_path)]) == 2
    assert "The data of ruler_qa_squad can't be had" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"score": None}, "has a score, or says why"),
        ({"error": "broken"}, "has a score, or says why"),
        ({"number": 5}, "its key isn't that"),
        ({"log_likelihood": 1.0}, "log_likelihood"),
        ({"method": "magic"}, "no method"),
        ({"bits": 5}, "bits"),
    ],
)
def test_a_line_that_is_no_row_is_refused_by_its_number(tmp_path, change, words):
    file = tmp_path / "rows.jsonl"
    good = asdict(row())
    file.write_text("".join(json.dumps(line) + "\n" for line in (good, good | change)), encoding="utf-8")
    with pytest.raises(EvaluationError, match=f"Line 2 of rows.jsonl .*{words}"):
        read_rows(file)


@given(st.sampled_from(sorted(METHODS)), st.integers(0, 99), st.floats(0, 1), st.text())
def test_a_row_comes_back_as_it_was(method, number, score, answer):
    one = row(method, number, score, answer=answer, expected=("7", "8"), log_likelihood=-0.5)
    assert checked(Row, json.loads(json.dumps(asdict(one)))) == one


def test_the_table_pairs_methods_on_the_samples_that_both_have():
    rows = [row("rope", number, score) for number, score in enumerate((0.0, 0.0, 1.0))]
    rows += [row("lampe", number, 1.0, log_likelihood=-2.0) for number in range(2)]
    assert " 55.00   0.00 to 421.91" in summary([row("rope", 0, 10.0), row("rope", 1, 100.0)]), (
        "not all scores are shares"
    )
    failed = replace(
        rows[-1],
        number=2,
        score=None,
        error="no memory",
        key=RUN.key_of(Sample("niah_single_1", 4096, 2, "lampe"), METHODS["lampe"].for_window(8192)),
    )
    rope, mapped = summary([*rows, failed]).splitlines()[-2:]
    assert rope.split()[:2] == ["rope", "0.33"]
    assert mapped.split()[:2] == ["lampe", "1.00"]
    assert "+1.000 (+1.000 to +1.000)" in mapped
    assert mapped.endswith("1 failed")


def test_rows_of_several_runs_or_settings_are_told_apart():
    """Never one table of two models, nor of a method as it was before and after it was tuned."""
    tuned = replace(METHODS["lampe"].for_window(8192), tail=0)
    rows = [row("rope", 0, 0.0), row("lampe", 0, 1.0)]
    again = replace(rows[1], settings=tuned.settings(), score=0.25, key=RUN.key_of(rows[1].sample, tuned))
    other = replace(RUN, bits=16)
    larger = replace(rows[0], bits=16, score=0.5, key=other.key_of(rows[0].sample, METHODS["rope"].for_window(8192)))
    first, second, third = re.split(r"\n\n(?=a model)", recorded([*rows, larger, again]))
    for table, settings, score in ((first, METHODS["lampe"].for_window(8192), "1.00"), (second, tuned, "0.25")):
        assert f"lampe {json.dumps(settings.settings())}" in table
        assert table.splitlines()[-1].split()[:2] == ["lampe", score]
        assert table.splitlines()[-2].split()[:2] == ["rope", "0.00"]
    assert "in 16 bits" in third
    assert third.splitlines()[-1].split()[:2] == ["rope", "0.50"]


def test_several_tasks_of_a_length_are_paired_together_too(tmp_path, capsys):
    rows = [
        row(method, number, score, task=task, log_likelihood=likely)
        for task, scores in {"niah_single_1": (1.0, 1.0), "ruler_vt": (0.2,)}.items()
        for method, worse, likely in (("rope", 0.2, -3.0), ("lampe", 0.0, -1.0))
        for number, score in enumerate(score - worse for score in scores)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in rows), encoding="utf-8")
    assert main(["evaluate", "--recorded", "--out", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    title, table = table.split("\n\n", 1)
    assert title == "a model in 4 bits, chat template, lm-evaluation-harness 0.4.13"
    assert table == summary(rows) + "\n"
    *_, title, rope, mapped = table.splitlines()
    assert title == "all 2 tasks, 4,096 tokens"
    assert rope.split()[:2] == ["rope", "0.53"]
    assert "+0.200 (+0.200 to +0.200);" in mapped
    assert "+2.000 (+2.000 to +2.000)" in mapped
