"""Rows of every kind, opened as one kind of thing."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lampe
from lampe import evaluation
from lampe.calibration import Row
from lampe.errors import InputError
from lampe.files import append_line
from lampe.intervals import wilson
from lampe.methods import METHODS
from lampe.needle import Result, row_of
from lampe.results import ALL_TASKS, Outcome, Results, ResultsError, area, open_results

ROOT = Path(__file__).parents[2]
RAN = {"model": "a model", "bits": 4}
NEEDLE = Result(
    "single", 4096, 0.5, "lampe", 0, 0, "a text", False, "What?", ("123",), "It is 123.", 1.0, 2000, 2095, 800,
    "Middle", 2048, 512, 200, 1.0, None, "around", 4096, 1.5,
    settings=lampe.PRESETS["smollm2"].settings(), basis="measured",
)  # fmt: skip


def needles(path, *rows):
    path.write_text("".join(row_of(row, RAN) for row in rows), encoding="utf-8")
    return open_results(path)


def test_needles_are_paired_by_what_was_hidden(tmp_path):
    plain = METHODS["rope"].for_window(8192).settings()
    ours = [replace(NEEDLE, trial=trial, score=float(trial != 2)) for trial in range(4)]
    # The first test is LaMPE's alone, so it counts for no difference.
    theirs = [replace(row, method="rope", score=float(row.trial == 1), settings=plain, basis=None) for row in ours[1:]]
    results = needles(tmp_path / "rows.jsonl", *ours, *theirs)
    assert results.ways == ("Plain RoPE", "LaMPE")
    assert (results.tasks, results.measures("single")) == (("single",), ["score", "seconds"])
    found = results.estimates("single", "score")["LaMPE", 4096]
    assert (found.mean, found.low, found.high, found.count) == (0.75, *wilson(3, 4), 4)
    (place, apart), *others = results.differences("single", "score", "Plain RoPE").items()
    assert not others
    assert (place, apart.mean, apart.count) == (("LaMPE", 4096), (0 + 0 + 1) / 3, 3)
    assert "LaMPE with m = 2,048" in results.source


def test_the_memory_that_was_measured_is_a_cost(tmp_path):
    results = needles(tmp_path / "rows.jsonl", replace(NEEDLE, megabytes=250), replace(NEEDLE, trial=1))
    assert results.measures("single") == ["score", "seconds", "megabytes"]
    found = results.estimates("single", "megabytes")["LaMPE", 4096]
    assert (found.mean, found.count) == (250, 1), "older rows have none"


def test_plain_rope_is_one_way_whether_its_rows_have_a_setting_or_not(tmp_path):
    rope = replace(NEEDLE, method="rope", settings=None, basis=None)
    older, newer = rope, replace(rope, settings=METHODS["rope"].for_window(8192).settings(), trial=1)
    assert needles(tmp_path / "rows.jsonl", older, newer).ways == ("Plain RoPE",)
    assert open_results(ROOT / "benchmarks" / "needle.jsonl").ways == ("Plain RoPE", "LaMPE")


def test_settings_tell_ways_of_one_method_apart(tmp_path):
    other = lampe.LampeConfig(8192, 512, 64, 2048).settings()
    results = needles(tmp_path / "rows.jsonl", NEEDLE, replace(NEEDLE, settings=other, trial=1))
    assert len(results.ways) == 2
    assert all(way.startswith("LaMPE, ") for way in results.ways)
    assert {"tail 200", "tail 64"} <= {part for way in results.ways for part in way.split(", ")}


def test_evaluations_keep_what_failed(tmp_path):
    run = evaluation.Run("a model", 4, True, 0, "1.0")
    for number, score in enumerate((1.0, None, 0.0)):
        for key in ("rope", "lampe"):
            method = METHODS[key].for_window(8192)
            sample = evaluation.Sample("niah", 4096, number, key)
            found = {"error": "too long"} if score is None else {"score": score, "log_likelihood": -1.0 - number}
            row = evaluation.Row(
                **asdict(sample), **asdict(run), key=run.key_of(sample, method), settings=method.settings(), **found
            )
            append_line(tmp_path / "rows.jsonl", asdict(row))
    results = open_results(tmp_path / "rows.jsonl")
    assert results.measures("niah") == ["score", "log_likelihood", "seconds"]
    cell = results.cells("niah")["LaMPE", 4096]
    assert [one.error for one in cell] == [None, "too long", None]
    assert results.estimates("niah", "score")["LaMPE", 4096].count == 2
    assert results.estimates("niah", "log_likelihood")["LaMPE", 4096].mean == -2.0
    assert results.differences("niah", "score", "LaMPE")["Plain RoPE", 4096].count == 2


def test_tasks_that_measure_alike_are_put_together_too(tmp_path):
    plain = METHODS["rope"].for_window(8192).settings()
    rows = [
        replace(NEEDLE, task=task, trial=trial, method=method, score=score, **more)
        for method, more in (("lampe", {}), ("rope", {"settings": plain, "basis": None}))
        for task, trial, score in (("single", 0, 1.0), ("single", 1, float(method == "lampe")), ("numbers", 0, 0.5))
    ]
    results = needles(tmp_path / "rows.jsonl", *rows)
    assert results.tasks == (ALL_TASKS, "single", "numbers")
    found = results.estimates(ALL_TASKS, "score")["LaMPE", 4096]
    assert (found.mean, found.count) == (2.5 / 3, 3)
    apart = results.differences(ALL_TASKS, "score", "Plain RoPE")["LaMPE", 4096]
    assert (apart.mean, apart.count) == (1 / 3, 3), "trial 1 of each task is a sample of its own"


def test_together_are_only_samples_that_every_way_has():
    """A way that was asked the easy task alone isn't better for it."""
    outcomes = [
        Outcome(task, 100, way, sample, {"score": score})
        for task, sample, score in (("easy", "1", 1.0), ("hard", "1", 0.0), ("hard", "2", 0.0))
        for way in ("one", "other")
        if (task, sample, way) != ("hard", "2", "one")
    ]
    results = Results("", tuple(outcomes))
    assert {one.count for one in results.estimates(ALL_TASKS, "score").values()} == {2}
    assert {one.mean for one in results.estimates(ALL_TASKS, "score").values()} == {0.5}
    failed = tuple(replace(one, error="lost", values={}) if one.task == "hard" else one for one in outcomes)
    assert Results("", failed).tasks == ("easy", "hard"), "of one task nothing is together"


def test_tasks_of_other_scales_or_measures_stay_apart():
    share, of_a_hundred = (Outcome(task, 0, "a way", "1", {"score": score}) for task, score in (("a", 1), ("b", 80)))
    assert Results("", (share, of_a_hundred)).tasks == ("a", "b")
    loss = replace(share, task="c", values={"loss": 0.5})
    assert Results("", (share, loss)).tasks == ("a", "c")
    assert Results("", (of_a_hundred, replace(of_a_hundred, task="c"))).tasks == (ALL_TASKS, "b", "c")
    assert Results("", (share, replace(share, task="c", values={"score": 0, "seconds": 3}))).tasks[0] == ALL_TASKS
    named = replace(share, task=ALL_TASKS)
    assert Results("", (share, named)).tasks == ("a", ALL_TASKS)
    assert Results("", (share, named)).of(ALL_TASKS) == [named]
    many = [replace(share, task=task, way=f"way {n}") for task in "ab" for n in range(401)]
    assert Results("", tuple(many)).tasks == ("a", "b"), "no table has room for it"


def test_a_sweep_has_plain_rope_wherever_nothing_is_mapped(tmp_path):
    """A mapping length of at least the input's maps nothing: the reading without a map stands for all of them."""
    for length, m, tail, loss in (
        (1024, 1024, 200, 2.0), (4096, 4096, 200, 3.0), (4096, 2048, 200, 2.5), (4096, 2048, 0, 2.75),
    ):  # fmt: skip
        row = Row(length, m, 512, tail, 1.0, "loss", 0, 8, None, 7, loss=loss, tokens=512)
        append_line(tmp_path / "sweep.jsonl", asdict(row) | RAN | {"text": "a text"})
    results = open_results(tmp_path / "sweep.jsonl")
    assert results.ways == ("Nothing mapped", "m = 2,048", "m = 2,048, Tail 0")
    means = {place: one.mean for place, one in results.estimates("Loss of the text", "loss").items()}
    assert means == {
        ("Nothing mapped", 1024): 2.0, ("Nothing mapped", 4096): 3.0, ("m = 2,048", 1024): 2.0,
        ("m = 2,048", 4096): 2.5, ("m = 2,048, Tail 0", 1024): 2.0, ("m = 2,048, Tail 0", 4096): 2.75,
    }  # fmt: skip


@pytest.mark.parametrize("file", ["benchmarks/needle.jsonl", "assets/smollm2.jsonl", "benchmarks/presets.jsonl"])
def test_the_rows_that_come_with_the_project_open(file):
    results = open_results(ROOT / file)
    assert "SmolLM2-135M-Instruct in 4 bits" in results.source
    for task in results.tasks:
        for measure in results.measures(task):
            for (way, length), one in results.estimates(task, measure).items():
                values = [
                    o.values[measure] for o in results.outcomes if (o.task, o.way, o.length) == (task, way, length)
                ]
                assert one.mean == pytest.approx(fmean(values))
                assert one.low <= one.mean + 1e-12
                assert one.high >= one.mean - 1e-12


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"), (b"\n", "is empty"), (b"not json\n", "isn't a file of results"), (b"[1]\n", "isn't a file"),
        (b'{"a": 1}\n', "no needle test, no evaluation and no sweep"), (b'{"haystack": 1}\n', "Line 1 of rows"),
        (b"\xff\xfe\n", "isn't a file of results"), (b"[" * 100_000, "isn't a file of results"),
    ],
)  # fmt: skip
def test_another_file_is_refused_in_a_sentence(tmp_path, content, said):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=said):
        open_results(tmp_path / "rows.jsonl")
    assert issubclass(ResultsError, InputError)


def test_rows_of_two_kinds_in_one_file_are_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    needles(path, NEEDLE)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text_window": 0}) + "\n")
    with pytest.raises(InputError, match="Line 2 of rows"):
        open_results(path)


@given(st.dictionaries(st.integers(1, 10**6), st.floats(-10, 10), min_size=2, max_size=8))
def test_the_area_is_a_mean(values):
    found = area(values)
    assert found is not None
    assert min(values.values()) - 1e-9 <= found <= max(values.values()) + 1e-9
    lengths = sorted(values)
    # A line in log2(length) has its middle's value.
    assert area({n: math.log2(n) for n in lengths}) == pytest.approx(math.log2(lengths[0] * lengths[-1]) / 2)


def test_one_length_has_no_area():
    assert area({4096: 0.5}) is None
    assert area({0: 0.5, 4096: 0.7}) is None, "texts as they are have no place on the axis"
    assert Results("", (Outcome("a", 1, "b", "c", {"seconds": 1.0}),)).measures("a") == ["seconds"]
