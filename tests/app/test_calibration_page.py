"""A preset's sweep as figures and words: what stands there is what the file holds."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

import lampe
from app.calibration import views as calibration_views
from app.calibration.figures import chosen_figure, loss_figure, needle_figure
from app.calibration.page import MOST_POINTS, fitting, opened, shipped
from app.settings import ModelChoice
from app.ui.html import curve_formula
from lampe.calibration import CalibrationError, write_preset
from lampe.errors import InputError
from lampe.methods import ScaledSigmoid
from tests.app.sweeps import BASE, LENGTHS, made

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def preset():
    return made()


def test_each_length_has_its_line_with_what_was_measured(preset):
    loss, needles = loss_figure(preset), needle_figure(preset)
    for length, of_loss, of_needles in zip(LENGTHS, loss.data, needles.data, strict=True):
        points = sorted((one for one in preset.measured if one.length == length), key=lambda one: one.mapping_length)
        assert of_loss.name == of_needles.name == f"{length:,} tokens"
        assert list(of_loss.x) == list(of_needles.x) == [one.mapping_length for one in points]
        best = min(one.loss for one in points)
        assert list(of_loss.y) == pytest.approx([one.loss - best for one in points])
        assert list(of_loss.customdata) == [one.loss for one in points]
        assert list(of_needles.y) == pytest.approx([math.exp(one.log_likelihood) for one in points])
        symbols = {0.0: "x", 0.5: "circle-open", 1.0: "circle"}
        assert list(of_needles.marker.symbol) == [symbols[one.found] for one in points]
    assert len({line.line.color for line in loss.data}) == len(LENGTHS)
    shown = {symbol for line in needles.data for symbol in line.marker.symbol}
    assert shown == {"x", "circle-open", "circle"}


def test_what_wasnt_measured_has_no_figure():
    perplexity = made("perplexity")
    assert needle_figure(perplexity) is None
    assert loss_figure(perplexity) is not None
    assert "seed" not in calibration_views.provenance(perplexity)
    needle = made("needle")
    assert loss_figure(needle) is None
    assert needle_figure(needle) is not None


def test_the_chosen_mapping_lengths_are_those_of_the_maps(preset):
    figure = chosen_figure(preset)
    lines = {line.name: line for line in figure.data}
    configs = {
        "fitted curve": replace(BASE, mapping=preset.curve),
        "best constant": replace(BASE, mapping=preset.constant),
    }
    for name, config in configs.items():
        line = lines[name]
        assert list(line.y) == [config.position_map(length).mapping_length for length in line.x]
    best = {
        x: y
        for name in lines
        if name.startswith("best: ") or name == "best"
        for x, y in zip(lines[name].x, lines[name].y, strict=True)
    }
    assert best == {point.length: point.mapping_length for point in preset.points}
    assert preset.ways["fitted curve"] == preset.config
    assert lines["fitted curve"].line.width > lines["best constant"].line.width
    constant = replace(preset, config=replace(BASE, mapping=preset.constant))
    lines = {line.name: line for line in chosen_figure(constant).data}
    assert lines["fitted curve"].line.width < lines["best constant"].line.width


def test_points_of_other_heads_arent_mixed_in(preset):
    other = replace(preset.measured[0], head=300, loss=0.0)
    mixed = replace(preset, measured=(*preset.measured, other))
    assert loss_figure(mixed) == loss_figure(preset)


def test_the_tables_hold_every_number(preset):
    table = calibration_views.chosen_table(preset)
    for point in preset.points:
        assert f"{point.length:,} tokens</th><td>" in table
        assert f"{point.sharpness:.4f}" in table
    for priced in (*preset.curve_costs, *preset.constant_costs, *preset.llama3_costs):
        cost = "not tried" if priced.cost is None else f"{priced.cost:.4f}"
        assert f"{cost} <small>(m = {priced.mapping_length:,})</small>" in table
    every = calibration_views.sweep_table(preset)
    assert every.count('<th scope="row">') == len(preset.measured)
    assert "1 of 2" in every


def test_the_formula_has_the_curves_numbers(preset):
    text = calibration_views.sentence(preset)
    assert (
        f"{preset.curve.maximum:,.5g} / (1 + e^−({preset.curve.slope:.4g}·l − {-preset.curve.intercept:.4g}))" in text
    )
    assert "the curve is used" in text
    assert "m = 2,048 at every input length" in calibration_views.in_use(BASE, "x.json")
    short = ScaledSigmoid(5000.0, 0.1, 2.0, 8192, 1536)
    assert "1,536 below 8,192 tokens" in curve_formula(short)
    assert calibration_views.in_use(None, "") == ""


def test_a_hostile_file_stays_text():
    """Names in a preset come from whoever wrote the file."""
    preset = replace(made(source=HOSTILE), why=HOSTILE)
    preset = replace(preset, made=replace(preset.made, machine=HOSTILE))
    shown = (
        calibration_views.sentence(preset)
        + calibration_views.provenance(preset)
        + calibration_views.in_use(BASE, HOSTILE)
        + calibration_views.no_sweep(HOSTILE)
        + calibration_views.chosen_table(preset)
        + calibration_views.sweep_table(preset)
    )
    assert "<img" not in shown
    assert "&lt;img" in shown


def test_a_file_is_opened_or_refused_in_words(preset, tmp_path):
    file = tmp_path / "preset.json"
    write_preset(preset, file)
    assert opened(str(file)) == preset
    one = preset.measured[0]
    many = tuple(replace(one, mapping_length=1024 + n) for n in range(MOST_POINTS + 1))
    write_preset(replace(preset, measured=many), file)
    with pytest.raises(InputError, match=r"2,001 measured points; at most 2,000"):
        opened(str(file))
    given = json.loads(file.read_text(encoding="utf-8"))
    for change in ({"points": []}, {"measured": []}, {"constant": 0}, {"constant": "2048"}):
        file.write_text(json.dumps(given | change), encoding="utf-8")
        with pytest.raises(CalibrationError, match="is broken"):
            opened(str(file))
    file.write_bytes(b"\x89PNG")
    with pytest.raises(CalibrationError):
        opened(str(file))


def test_a_preset_of_another_window_isnt_used(preset):
    config, words = fitting(preset, BASE, ModelChoice("owner/model", 4))
    assert config.basis == "measured"
    assert "follow it" in words
    config, words = fitting(preset, BASE, ModelChoice("owner/model", 16))
    assert (config, config.basis) == (preset.config, "family")
    assert "measured on owner/model in 4 bits; here runs owner/model in 16 bits" in words
    with pytest.raises(InputError, match=r"for a window of 8,192 tokens, and other/model has 4,096"):
        fitting(preset, replace(BASE, window=4096), ModelChoice("other/model", 4))


def test_the_shipped_sweep_is_the_models_own():
    preset = shipped(lampe.PRESETS["smollm2"])
    assert preset.source.model == "SmolLM2-135M-Instruct"
    assert preset.source.bits == 4
    assert {one.length for one in preset.measured} >= {2048, 4096, 8192, 16384}
    assert fitting(preset, lampe.PRESETS["smollm2"], ModelChoice(None, 4))[1].startswith("In use: ")
    assert preset.config == lampe.PRESETS["smollm2"], "what it came to is what runs"
    assert shipped(lampe.PRESETS["llama3"]) is None, "the paper's sweep wasn't published"
    assert shipped(replace(preset.config, basis="family")) is None, "another model's sweep isn't this one's"
