"""Comparing methods on the same windows and needles."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

import lampe
from lampe.calibration import (
    CalibrationError,
    Evaluation,
    TrialRow,
    evaluate,
    measure,
    read_trials,
    run_trials,
    trials,
    tuned,
)
from lampe.calibration.comparing import cost, write_trial
from lampe.methods import METHODS, LampeConfig
from lampe.needle import HAYSTACKS, TokenizedHaystack

LENGTH = 500
LAMPE = LampeConfig(256, 32, 16, 200)
SOURCE = {"model": "tiny", "bits": 16}


@pytest.fixture(scope="module")
def loaded(default_folder):
    return lampe.load(bits=16)


@pytest.fixture(scope="module")
def tokenized(loaded):
    return TokenizedHaystack(HAYSTACKS["reference"](), loaded[1])


def row(method, length=LENGTH, asked=None, **came):
    came = came or ({"loss": 2.0} if asked is None else {"found": True, "log_likelihood": -0.5})
    return TrialRow(length, 0, 1, asked, 5, method, **came)


def test_a_trial_of_lampe_is_an_evaluation_of_its_sweep(loaded, tokenized):
    """Oracle: the sweep's own rows, which were measured by the same windows and needles."""
    model = loaded[0]
    point = Evaluation(LENGTH, 200, 32, 16, text_window=0, hidden=2, seed=5)
    swept = list(evaluate(model, tokenized, [point, *(replace(point, kind="needle", asked=n) for n in (0, 1))], 256))
    tried = list(run_trials(model, tokenized, trials(LAMPE, [LENGTH], 1, 2, 5)))
    for one, other in zip(tried, swept, strict=True):
        assert replace(other, seconds=0).loss == one.loss
        assert (other.found, other.log_likelihood, other.asked) == (one.found, one.log_likelihood, one.asked)


@pytest.mark.long
def test_what_is_kept_isnt_measured_again_and_what_runs_alike_is_measured_once(loaded, tokenized, monkeypatch):
    model, read = loaded[0], []
    own = measure.read_window
    monkeypatch.setattr(
        "lampe.calibration.comparing.read_window", lambda *given: read.append(given[2].key) or own(*given)
    )
    methods = [METHODS[key].for_window(1024) for key in ("rope", "selfextend", "yarn", "jetlong")]
    wanted = [one for method in [*methods, LAMPE] for one in trials(method, [LENGTH], 1, 1, 5)]
    rows = list(run_trials(model, tokenized, wanted))
    assert [row.trial for row in rows] == wanted
    assert read == ["rope", "lampe"]
    assert len({(row.loss, row.log_likelihood) for row in rows if row.method != LAMPE}) == 2
    before = len(read)
    kept = [row for row in rows if row.method != LAMPE]
    again = list(run_trials(model, tokenized, wanted, kept))
    assert [row.method for row in again] == [LAMPE] * 2
    assert len(read) == before + 1


@pytest.mark.parametrize("key", METHODS)
def test_rows_go_through_a_file(key, tmp_path):
    method = METHODS[key].for_window(8192)
    file, rows = tmp_path / "rows.jsonl", [row(method), row(method, asked=0)]
    for one in rows:
        write_trial(file, one, SOURCE)
    write_trial(file, row(method), {**SOURCE, "bits": 4})
    assert read_trials(file, SOURCE) == rows
    assert read_trials(tmp_path / "none.jsonl", SOURCE) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "alibi"}, "There is no method 'alibi'"),
        ({"settings": {"window": 8192, "near": 0}}, "near must be from 1 to 5,460"),
        ({"length": "500"}, r"Expected `int`, got `str` - at `\$.length`"),
        ({"asked": 1}, "a row holds a loss, or"),
        ({"loss": None}, "a row holds a loss, or"),
    ],
)
def test_a_line_that_is_no_row_is_named(change, why, tmp_path):
    method = METHODS["selfextend"].for_window(8192)
    file = tmp_path / "rows.jsonl"
    write_trial(file, row(method), SOURCE)
    given = {**json.loads(file.read_text(encoding="utf-8")), **change}
    file.write_text(file.read_text(encoding="utf-8") + json.dumps(given) + "\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match=f"Line 2 of rows.jsonl is no row of a comparison .*{why}"):
        read_trials(file, SOURCE)


def test_the_settings_that_cost_least_are_taken():
    rule = METHODS["jetlong"].for_window(8192)
    rows = []
    for number, one in enumerate(rule.candidates()):
        rows += [row(one, loss=3.0 - 0.1 * number), row(one, asked=0)]
    assert tuned(rule, rows) == rule.candidates()[-1]
    better = [row(rule, loss=3.0), row(rule, asked=0)]
    assert cost(better) == pytest.approx((3.0 + 0.5 / 1.5) / 2)
    missed = [row(rule, loss=3.0), row(rule, asked=0, found=False, log_likelihood=-0.5)]
    assert cost(missed) == pytest.approx(cost(better) + 0.5)
    with pytest.raises(CalibrationError, match="At 500 tokens there is no loss, or no needle"):
        tuned(rule, rows[:-1])
    with pytest.raises(CalibrationError, match="There are no rows"):
        tuned(rule, rows[:2])


@pytest.mark.parametrize("key", METHODS)
def test_candidates_are_different_possible_settings_and_no_more_than_lampes(key):
    method = METHODS[key].for_window(8192)
    candidates = method.candidates()
    assert candidates[0] == method
    assert len(set(candidates)) == len(candidates) <= 10
    assert {type(one) for one in candidates} == {type(method)}
    assert all(type(method).from_settings(one.settings()) == one for one in candidates)


def test_a_rows_fields_are_those_of_its_trial_and_its_outcome():
    one = row(LAMPE)
    assert asdict(one).keys() >= {"method", "length", "loss", "seconds"}
    assert one.trial == trials(LAMPE, [LENGTH], 1, 1, 5)[0]
