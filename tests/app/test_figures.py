"""What is drawn is what `relative` says, at every length."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import lampe
from app.examples import EXAMPLES
from app.figures import curves, distance_figure
from app.session import RunReport
from app.views import length_readout, map_sentence, map_table, message, run_report

SMOL = lampe.PRESETS["smollm2"]
LLAMA31 = lampe.PRESETS["llama3.1"]


@pytest.mark.parametrize("config", [SMOL, LLAMA31, lampe.LampeConfig(8192, 0, 0, 900)])
@pytest.mark.parametrize("length", [1, 2, 64, 2048, 2049, 12_000, 1_048_576])
def test_the_curves_are_the_map(config, length):
    position_map = lampe.position_map(config, length)
    drawn = curves(position_map)
    covered = 0
    for curve in drawn:
        number = [region.name for region in position_map.regions].index(curve.region)
        for d, position in zip(curve.distances, curve.positions, strict=True):
            assert position_map.relative(length - 1, length - 1 - d) == position
            assert position_map.region(length - 1, length - 1 - d) == number
        assert curve.distances[0] == covered, "regions join without a gap"
        covered = curve.distances[-1] + 1
        assert len(curve.distances) <= 160
    assert covered == length


def test_the_figure_shows_the_curves_and_what_plain_rope_never_saw():
    position_map = lampe.position_map(SMOL, 12_000)
    figure = json.loads(distance_figure(position_map, SMOL.window).plot)
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert list(traces) == ["Plain RoPE", "Plain RoPE, never seen in training", "Head", "Middle", "Tail"]
    assert traces["Plain RoPE"]["x"] == [0, 8191]
    assert traces["Plain RoPE, never seen in training"]["x"] == [8191, 11_999]
    for curve in curves(position_map):
        assert traces[curve.region]["x"] == curve.distances
        assert traces[curve.region]["y"] == curve.positions
    assert figure["config"]["displaylogo"] is False
    short = json.loads(distance_figure(lampe.position_map(SMOL, 500), SMOL.window).plot)
    assert [trace["name"] for trace in short["data"]] == ["Plain RoPE", "All"]


def test_the_sentence_and_table_have_the_maps_numbers():
    position_map = lampe.position_map(SMOL, 12_000)
    sentence = map_sentence(position_map, SMOL)
    for number in ("12,000", "513", "11,287", "1,336", "8.4", "200", "2,048"):
        assert number in sentence
    table = map_table(position_map)
    for number in ("0 – 512", "513 – 11,799", "11,800 – 11,999", "1,848 – 2,047"):
        assert number in table
    assert "never seen" in map_sentence(
        lampe.position_map(lampe.LampeConfig(100, 50, 50, 90), 300), lampe.LampeConfig(100, 50, 50, 90)
    )
    assert "nothing is compressed" in map_sentence(lampe.position_map(SMOL, 99), SMOL)
    assert "not calibrated" in map_sentence(
        lampe.position_map(SMOL, 99), lampe.LampeConfig(100, 1, 1, 9, calibrated=False)
    )


def test_the_readout_tells_window_and_limit_apart():
    assert "50% of the window" in length_readout(4096, True, 8192, 20_000)
    assert "1.5 × the window" in length_readout(12_288, True, 8192, 20_000)
    assert "over the limit of 20,000" in length_readout(20_001, True, 8192, 20_000)
    assert "about 100" in length_readout(100, False, 8192, 20_000)


def test_a_curve_nobody_calibrated_is_named_wherever_it_is_shown():
    report = RunReport("lampe", "a/b", 4, 9000, 8192, 2048, False, [], [], 1.0, 1.0, 0, True)
    assert "2,048 positions, not calibrated for this model" in run_report([report])
    assert "not calibrated" not in run_report([replace(report, calibrated=True)])
    assert "not calibrated" not in run_report([replace(report, method="rope")])


def test_messages_are_escaped():
    assert "<script>" not in message("<script>alert(1)</script>.txt is empty.")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.file)
def test_each_example_holds_its_fact_once(example):
    assert example.answer in example.fact
    assert example.text.count(example.fact) == 1
    assert example.text.count(example.answer) == 1
    assert f"\n\n{example.fact}\n\n" in example.text
