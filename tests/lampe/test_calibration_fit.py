"""The fit and its file: a known curve is found again, a bad one isn't sold, and a broken file is a sentence."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lampe
from lampe.calibration import (
    Best,
    CalibrationError,
    Costs,
    Difference,
    Row,
    Source,
    Sweep,
    compare,
    differences,
    make_preset,
    read_preset,
    report,
    spans,
)  # fmt: skip
from lampe.calibration.fit import best_constant, best_of, fit_curve, mean_cost, price, residual, weights_of
from lampe.calibration.points import evaluations
from lampe.calibration.preset import MOST_BYTES, write_preset
from lampe.methods import Constant, LampeConfig, ScaledSigmoid
from lampe.methods.lampe import rescaled

WINDOW, LEAST = 8192, 713
LENGTHS = (2048, 3072, 4096, 6144, 8192, 12288, 16384)
BASE = LampeConfig(WINDOW, 512, 200, 2048)
SOURCE = Source("owner/model", 4, "0123456789abcdef", "a text 01234567")


def smooth(curve, length):
    share = 1 / (1 + math.exp(-(curve.slope * length + curve.intercept)))
    return curve.maximum * share


@settings(deadline=None, max_examples=40)
@given(
    st.floats(2000, WINDOW), st.floats(0.2, 6), st.floats(0, 2), st.lists(st.floats(0, 3), min_size=7, max_size=7)
)  # fmt: skip
def test_a_known_curve_is_found_again(maximum, steepness, center, sharpness):
    """Whatever the points' weights: points that lie on a curve are fitted by it."""
    known = ScaledSigmoid(maximum, steepness / WINDOW, -steepness * center)
    points = [
        Best(length, round(smooth(known, length)), 0.0, sharp, False)
        for length, sharp in zip(LENGTHS, sharpness, strict=True)
        if smooth(known, length) > LEAST
    ]
    if len(points) < 3:
        return
    fitted = fit_curve(points, WINDOW, LEAST)
    assert fitted.slope >= 0
    for point in points:
        assert smooth(fitted, point.length) == pytest.approx(point.mapping_length, rel=0.01)


def test_the_parameters_come_back_where_the_points_tell_them():
    known = ScaledSigmoid(5000.0, 0.0006, -4.0)
    points = [Best(length, round(smooth(known, length)), 0.0, 1.0, False) for length in range(4096, 20000, 1024)]
    fitted = fit_curve(points, WINDOW, LEAST)
    assert fitted.maximum == pytest.approx(5000, rel=1e-3)
    assert fitted.slope == pytest.approx(0.0006, rel=1e-2)
    assert fitted.intercept == pytest.approx(-4.0, rel=1e-2)


def test_the_best_at_no_mapping_is_a_lower_bound():
    known = ScaledSigmoid(6000.0, 0.0003, 0.2)
    exact = [Best(length, round(smooth(known, length)), 0.0, 1.0, False) for length in (8192, 12288, 16384)]
    bounds = [Best(length, length, 0.0, 1.0, True) for length in (1024, 2048, 3072)]
    assert all(smooth(known, point.length) > point.length for point in bounds)
    fitted = fit_curve([*bounds, *exact], WINDOW, LEAST)
    for point in exact:
        assert smooth(fitted, point.length) == pytest.approx(point.mapping_length, rel=0.01)
    assert [residual(point, fitted) for point in bounds] == [0, 0, 0]
    # A curve below them is drawn up: the same points, not taken for bounds, would draw it down.
    taken_exactly = fit_curve([*(replace(point, at_least=False) for point in bounds), *exact], WINDOW, LEAST)
    assert taken_exactly(2048) < fitted(2048)
    below = replace(fitted, maximum=1000.0)
    assert residual(bounds[2], below) == below(3072) - 3072 < 0


def test_sharp_points_count_more():
    points = [
        Best(length, m, 0.0, 1.0, False) for length, m in ((4096, 1500), (8192, 4000), (12288, 1500), (16384, 4000))
    ]
    sharp = [replace(point, sharpness=50.0) if point.mapping_length == 4000 else point for point in points]
    even, drawn = (fit_curve(chosen, WINDOW, LEAST) for chosen in (points, sharp))
    assert abs(residual(points[1], drawn)) < abs(residual(points[1], even))
    assert weights_of(sharp) == pytest.approx([0.1, 50 / 25.5, 0.1, 50 / 25.5])
    assert weights_of([replace(point, sharpness=0.0) for point in points]) == [1.0] * 4


def test_a_curve_falls_only_where_the_data_does():
    falling = [Best(length, m, 0.0, 1.0, False) for length, m in ((2048, 2000), (8192, 1500), (16384, 1000))]
    assert fit_curve(falling, WINDOW, LEAST).slope < 0
    level = [replace(point, mapping_length=1500) for point in falling]
    curve = fit_curve(level, WINDOW, LEAST)
    assert curve.slope >= 0
    assert curve(8192) == pytest.approx(1500, abs=2)


def test_sharpness_is_the_rise_half_an_octave_away():
    costs = Costs(8192, (1024, 2048, 4096, 8192), (3.0, 1.0, 2.0, 2.5))
    best = best_of(costs)
    assert (best.mapping_length, best.at_least) == (2048, False)
    assert best.sharpness == pytest.approx((1.0 + 0.5) / 2)
    assert best_of(replace(costs, costs=(3.0, 2.0, 2.0, 1.0))).sharpness == pytest.approx(0.5), "one side"
    assert best_of(replace(costs, costs=(3.0, 2.0, 2.0, 1.0))).at_least
    assert not best_of(replace(costs, length=9000, costs=(3.0, 2.0, 2.0, 1.0))).at_least
    assert best_of(Costs(8192, (1024, 1100), (1.0, 1.5))).sharpness == pytest.approx(0.5), "up to the last one tried"
    assert best_of(Costs(2048, (2048,), (1.0,))).sharpness == 0


def test_costs_between_are_straight_over_the_logarithm():
    costs = Costs(8192, (1024, 2048, 4096), (3.0, 1.0, 2.0))
    assert costs.at(2048) == 1
    assert costs.at(math.sqrt(2) * 1024) == pytest.approx(2)
    assert costs.at(800) == 3, "below what was tried: the nearest"
    assert costs.at(4097) is None
    # A configuration that maps nothing beyond the window is plain RoPE there, which nobody tried.
    long = Costs(16384, (1024, 8192), (1.0, 2.0))
    priced = price(replace(BASE, mapping=700), [long])
    assert (priced[0].mapping_length, priced[0].cost) == (16384, None)
    assert mean_cost(priced) == math.inf


def test_the_best_constant_is_the_best_of_all():
    sweep = [Costs(4096, (1024, 2048, 4096), (2.0, 1.0, 3.0)), Costs(16384, (1024, 3000, 8192), (5.0, 1.0, 1.5))]
    best = best_constant(BASE, sweep)
    least = mean_cost(price(replace(BASE, mapping=best), sweep))
    assert all(least <= mean_cost(price(replace(BASE, mapping=m), sweep)) + 1e-12 for m in range(713, 8193, 7))


def rows_of(sweep, cost):
    """The rows of a sweep whose loss is a function of length and mapping length."""
    rows = []
    for length in sweep.lengths:
        while missing := sweep.missing(length, rows):
            rows += [
                Row(**vars(e), loss=cost(e.length, e.mapping_length), tokens=512, seconds=1.0) for e in missing
            ]  # fmt: skip
    return rows


def loss_sweep(lengths=LENGTHS):
    return Sweep(BASE, lengths, 10**6, "perplexity", windows=2, refine=2)


def along(curve):
    """Costs whose best mapping length follows a curve: a valley over ln m."""
    return lambda length, m: 2 + math.log(m / min(smooth(curve, length), length)) ** 2


def test_a_sweep_along_a_curve_gives_the_curve():
    known = ScaledSigmoid(5500.0, 0.0004, -2.6)
    sweep = loss_sweep()
    preset = make_preset(sweep, rows_of(sweep, along(known)), SOURCE)
    assert preset.config.mapping == preset.curve
    assert preset.config.basis == "measured"
    assert "the curve is used" in preset.why
    for length in LENGTHS[2:]:
        assert preset.curve(length) == pytest.approx(smooth(known, length), rel=0.15)
    assert mean_cost(preset.curve_costs) < mean_cost(preset.constant_costs) < mean_cost(preset.llama3_costs)
    assert preset.constant_costs[0].mapping_length <= 2048
    llama3 = rescaled(WINDOW)
    assert [one.mapping_length for one in preset.llama3_costs] == [
        llama3.position_map(length).mapping_length for length in LENGTHS
    ]


def test_a_fit_worse_than_a_constant_is_no_success():
    """Best points that jump, each far better than its neighbours only there: no curve follows them."""
    best = dict(zip(LENGTHS, (1024, 3072, 1024, 5793, 1024, 5793, 1024), strict=True))

    def jumping(length, m):
        return 2.0 - 0.01 * (m == best[length]) + (0.0 if m == 2048 or m == best[length] else 1.0)

    sweep = loss_sweep()
    preset = make_preset(sweep, rows_of(sweep, jumping), SOURCE)
    assert preset.config.mapping == Constant(2048)
    assert "the fit is no success: the curve is no better, and the constant is used" in preset.why
    assert preset.why in report(preset)
    assert mean_cost(preset.constant_costs) < mean_cost(preset.curve_costs)


def test_where_no_mapping_is_always_best_there_is_no_curve_to_sell():
    """Every point is a lower bound: any curve above them fits, and says no more than a constant."""
    lengths = (2048, 3072, 4096)
    sweep = loss_sweep(lengths)
    preset = make_preset(sweep, rows_of(sweep, lambda length, m: 2 - m / length), SOURCE)
    assert [point.at_least for point in preset.points] == [True] * 3
    assert preset.residuals == [0, 0, 0]
    assert preset.config.mapping == Constant(4096)


def test_a_falling_fit_says_so():
    sweep = loss_sweep()
    preset = make_preset(sweep, rows_of(sweep, along(ScaledSigmoid(6000.0, -0.0002, 0.5))), SOURCE)
    assert preset.curve.slope < 0
    end = int(re.search(r"Beyond about ([\d,]+) tokens", preset.why)[1].replace(",", ""))
    fitted = replace(BASE, mapping=preset.curve)
    assert fitted.position_map(end - 500).compresses
    assert not fitted.position_map(end + 500).compresses


def test_too_few_lengths_are_a_sentence():
    sweep = loss_sweep((2048, 4096))
    with pytest.raises(CalibrationError, match="three different input lengths"):
        make_preset(sweep, rows_of(sweep, along(ScaledSigmoid(6000.0, 0.0002, 0.5))), SOURCE)


@pytest.fixture(scope="module")
def preset():
    sweep = loss_sweep()
    rows = rows_of(sweep, along(ScaledSigmoid(5500.0, 0.0004, -2.6)))
    return make_preset(sweep, rows, SOURCE)


@pytest.fixture
def file(preset, tmp_path):
    write_preset(preset, tmp_path / "new" / "preset.json")
    return tmp_path / "new" / "preset.json"


def test_a_preset_comes_back_from_its_file(preset, file):
    assert read_preset(file) == preset
    assert lampe.load_preset(str(file)) == preset.config
    constant = replace(preset, config=replace(preset.config, mapping=2048))
    write_preset(constant, file)
    assert lampe.load_preset(file) == constant.config
    assert json.loads(file.read_text(encoding="utf-8"))["residuals"] == preset.residuals


def change(path, value):
    def changed(given):
        *parents, last = path
        for name in parents:
            given = given[name]
        if value is KeyError:
            del given[last]
        else:
            given[last] = value

    return changed


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (change(["format"], "other"), "doesn't begin with the format"),
        (change(["config"], KeyError), "missing required field `config`"),
        (change(["config"], []), "Expected `object`, got `array` - at `$.config`"),
        (change(["config", "window"], 0), "window must be at least 1"),
        (change(["config", "window"], 10**12), "at most 100,000,000 tokens"),
        (change(["config", "window"], True), "Expected `int`, got `bool` - at `$.config.window`"),
        (change(["config", "head"], -1), "can't be negative"),
        (change(["config", "head"], 9000), "leave nothing to map"),
        (change(["config", "mapping"], 700), "leave nothing to map"),
        (change(["config", "mapping"], 2048.5), "Expected `int | object`, got `float`"),
        (change(["config", "mapping", "slope"], math.nan), "malformed: invalid character"),
        (change(["config", "mapping", "maximum"], -3.0), "at least 1 position"),
        (change(["config", "mapping"], {}), "missing required field `maximum`"),
        (change(["config", "attention_scale"], 0.0), "attention scale"),
        (change(["points"], {"a": 1}), "Expected `array`, got `object` - at `$.points`"),
        (change(["points", 0, "length"], 0), "Expected `int` >= 1 - at `$.points[0].length`"),
        (change(["points"], []), "of length >= 1 - at `$.points`"),
        (change(["constant"], 0), "Expected `int` >= 1 - at `$.constant`"),
        (lambda given: given["points"].pop(), "other lengths"),
        (change(["measured", 0], None), "Expected `object`, got `null` - at `$.measured[0]`"),
        (change(["measured", 0, "found"], 0.5), "where it has needles"),
        (change(["measured", 0, "loss"], None), "where it has windows"),
        (change(["how", "objective"], "both"), "nothing was measured for the objective"),
        (change(["how", "objective"], "fame"), "nothing was measured for the objective"),
        (change(["source", "model"], "x" * 2000), "of length <= 1000 - at `$.source.model`"),
    ],
)
def test_a_hostile_preset_is_a_sentence(file, changed, words):
    given = json.loads(file.read_text(encoding="utf-8"))
    changed(given)
    file.write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(CalibrationError, match=re.escape(words)):
        lampe.load_preset(file)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"not json", b"\xff\xfe", b"[" * 100_000, b"{}", b'{"format": 1' + b"1" * 9999]
)
def test_what_is_no_preset_is_a_sentence(tmp_path, data):
    file = tmp_path / "x.json"
    file.write_bytes(data)
    with pytest.raises(CalibrationError, match=r"x\.json"):
        lampe.load_preset(file)


def test_a_huge_file_is_not_read(tmp_path):
    file = tmp_path / "x.json"
    with file.open("wb") as sparse:
        sparse.truncate(MOST_BYTES + 1)
    with pytest.raises(CalibrationError, match="more than 4 MB"):
        lampe.load_preset(file)


def test_what_is_measured_depends_on_the_objective():
    point = loss_sweep().missing(2048, [])[0].point
    kinds = {
        objective: [e.kind for e in evaluations(point, objective, 2, 3, 0)]
        for objective in ("perplexity", "needle", "both")
    }
    assert kinds == {
        "perplexity": ["loss"] * 2,
        "needle": ["needle"] * 6,
        "both": ["loss", "needle", "needle", "needle"] * 2,
    }


def needle_rows(found, windows=4, length=1000):
    point = {"length": length, "mapping_length": 500, "head": 1, "tail": 1}
    return [
        Row(**point, kind="needle", text_window=w, hidden=8, asked=a, seed=1, found=found(w, a), log_likelihood=-1.0)
        for w in range(windows)
        for a in range(8)
    ]


def test_differences_are_of_the_same_needles():
    """A way that finds one more of each eight is better for sure, though the two shares' own intervals overlap."""
    one, other = needle_rows(lambda w, a: a < 4), needle_rows(lambda w, a: a < 3)
    found = compare(one, reversed(other), "found")
    assert (found.mean, found.count) == (0.125, 32)
    assert 0 < found.low < 0.125 < found.high
    assert not found.level
    assert compare(one, one, "found") == Difference(0, 0, 0, 32)
    back = compare(other, one, "found")
    assert back.mean == -found.mean
    # One lost and one won: level.
    mixed = compare(needle_rows(lambda w, a: a in (0, 1)), needle_rows(lambda w, a: a in (1, 2)), "found")
    assert mixed.level


def test_a_difference_counts_what_both_were_measured_on():
    some, all_ = needle_rows(lambda w, a: True, windows=2), needle_rows(lambda w, a: False)
    assert compare(some, all_, "found").count == 16
    with pytest.raises(ValueError, match="nothing was measured in both ways for loss"):
        compare(some, all_, "loss")
    with pytest.raises(ValueError, match="in both ways"):
        compare(some, needle_rows(lambda w, a: True, length=2000), "found")


def test_one_pair_has_no_interval():
    found = compare(needle_rows(lambda w, a: True)[:1], needle_rows(lambda w, a: False)[:1], "found")
    assert found.level
    assert str(found) == "+1.000 (one pair)"


def test_a_sweeps_points_are_told_against_the_unmapped_one():
    mapped = needle_rows(lambda w, a: a < 4)
    plain = [replace(row, mapping_length=1000, found=row.asked < 3) for row in mapped]
    head, line = differences([*mapped, *plain]).split("\n")
    assert head.split()[:2] == ["tokens", "m"]
    assert line.split()[:2] == ["1,000", "500"]
    assert str(compare(mapped, plain, "found")) in line
    assert line.endswith("–"), "no loss was measured"
    assert differences(mapped) == "", "a single point"


def test_a_sweep_is_told_against_what_is_used_within_the_window_and_beyond():
    """Within it the whole window as a mapping length means unmapped; of lengths and windows only common ones count."""
    whole = replace(BASE, mapping=WINDOW)
    shapes = [(length, m) for length in (4096, 6144, 16384) for m in (2048, WINDOW, 16384) if m <= max(length, 2048)]
    shapes += [(4096, 4096), (6144, 6144)]
    rows = [
        replace(row, mapping_length=m, found=row.asked < (5 if m == min(length, WINDOW) else 3))
        for length, m in shapes
        for row in needle_rows(lambda w, a: True, length=length)
    ]
    head, *lines = spans(rows, whole).split("\n")
    assert head.split()[:3] == ["window", "m", "needles"]
    names = [line[:20].split(maxsplit=1) for line in lines]
    assert names == [["within", "2,048"], ["beyond", "2,048"], ["beyond", "not mapped"]]
    ours, theirs = ([row for row in rows if row.length == 16384 and row.mapping_length == m] for m in (WINDOW, 2048))
    assert str(compare(theirs, ours, "found")) in lines[1]
    assert [line[20:].split()[0] for line in lines] == ["64", "32", "32"], "needles"
    assert spans([row for row in rows if row.mapping_length == WINDOW], whole) == ""


def test_each_length_keeps_its_share_of_a_difference():
    """What differs between lengths alone is no uncertainty of their mean."""
    short = needle_rows(lambda w, a: True), needle_rows(lambda w, a: False)
    long = needle_rows(lambda w, a: False, length=2000), needle_rows(lambda w, a: True, length=2000)
    assert compare([*short[0], *long[0]], [*short[1], *long[1]], "found") == Difference(0, 0, 0, 64)
