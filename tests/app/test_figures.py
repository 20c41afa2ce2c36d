"""What is drawn is what `relative` says, at every length."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lampe
from app.ask.examples import EXAMPLES
from app.ask.views import length_readout, run_report
from app.map.drawing import draw
from app.map.figures import (
    Frame,
    area,
    curves,
    distance_figure,
    formula,
    frames,
    polygon,
    regions_figure,
)
from app.map.more_figures import BINS, curve_figure, lengths_along, matrix, matrix_figure, row_figure, shares_figure
from app.map.settings import MapSettings
from app.map.views import map_sentence, map_table, regions_caption, shares_table, token_strip
from app.serving.reports import Attention, RunReport
from app.serving.requests import Prompt, Request
from app.ui.figure import as_plot
from app.ui.html import message

SMOL = lampe.LampeConfig(8192, 512, 200, 2048)
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
    figure = json.loads(as_plot(distance_figure(position_map, SMOL.window), "lampe").plot)
    traces = {trace["name"]: trace for trace in figure["data"]}
    assert list(traces) == ["Plain RoPE", "Plain RoPE, never seen in training", "Head", "Middle", "Tail"]
    assert (traces["Plain RoPE"]["x"][0], traces["Plain RoPE"]["x"][-1]) == (0, 8191)
    assert traces["Plain RoPE"]["x"] == traces["Plain RoPE"]["y"]
    assert "⌊(i − 512)·1,336/11,288⌋ + 512 − ⌊j·1,336/11,288⌋" in traces["Middle"]["hovertemplate"]
    unseen = traces["Plain RoPE, never seen in training"]["x"]
    assert (unseen[0], unseen[-1]) == (8191, 11_999)
    for curve in curves(position_map):
        assert traces[curve.region]["x"] == curve.distances
        assert traces[curve.region]["y"] == curve.positions
    assert figure["config"]["displaylogo"] is False
    short = distance_figure(lampe.position_map(SMOL, 500), SMOL.window)
    assert [trace.name for trace in short.data] == ["Plain RoPE", "All"]


def test_the_sentence_and_table_have_the_maps_numbers():
    position_map = lampe.position_map(SMOL, 12_000)
    sentence = map_sentence(position_map, SMOL)
    for number in ("12,000", "513", "11,287", "1,336", "8.4", "200", "2,048"):
        assert number in sentence
    table = map_table(position_map, 11_999)
    for number in ("0 – 512", "513 – 11,799", "11,800 – 11,999", "1,848 – 2,047"):
        assert number in table
    assert "never seen" in map_sentence(
        lampe.position_map(lampe.LampeConfig(100, 50, 50, 90), 300), lampe.LampeConfig(100, 50, 50, 90)
    )
    assert "nothing is compressed" in map_sentence(lampe.position_map(SMOL, 99), SMOL)
    assert "not calibrated" in map_sentence(
        lampe.position_map(SMOL, 99), lampe.LampeConfig(100, 1, 1, 9, basis="rescaled")
    )


@st.composite
def maps(draw):
    """Any map the page can be asked for."""
    head, tail = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    m = draw(st.integers(head + tail + 1, head + tail + 500))
    length = draw(st.integers(1, 5000))
    return lampe.position_map(lampe.LampeConfig(100_000, head, tail, m), length)


def some_frame(data, length):
    sides = [sorted((data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, length - 1)))) for _ in range(2)]
    return Frame(*((first, last + 1) for first, last in sides))


def inside(corners, key, query):
    """Whether a point lies in a convex polygon."""
    turns = [
        (u - x) * (query - y) - (v - y) * (key - x)
        for (x, y), (u, v) in zip(corners, [*corners[1:], *corners[:1]], strict=True)
    ]
    return bool(corners) and (all(t >= 0 for t in turns) or all(t <= 0 for t in turns))


@given(maps(), st.data())
def test_the_polygons_are_the_regions(position_map, data):
    frame = some_frame(data, position_map.length)
    query = data.draw(st.integers(frame.queries[0], frame.queries[1] - 1))
    key = data.draw(st.integers(frame.keys[0], frame.keys[1] - 1))
    number = position_map.region(query, key)
    polygons = [polygon(region, frame) for region in position_map.regions]
    assert [inside(corners, key, query) for corners in polygons] == [k == number for k in range(len(polygons))]


def test_the_polygons_are_to_scale():
    position_map = lampe.position_map(SMOL, 12_000)
    frame = Frame.whole(position_map)
    areas = [area(polygon(region, frame)) for region in position_map.regions]
    counts = [sum(position_map.key_counts(i)[r] for i in range(0, 12_000)) for r in range(3)]
    # A border that runs between tokens cuts half of a diagonal's pairs: 12,000 of 72 million.
    assert areas == pytest.approx(counts, rel=2e-3, abs=12_000)
    caption = regions_caption(position_map)
    for count in counts:
        assert f"{count:,}" in caption


@pytest.mark.parametrize("length", [12_000, 1_048_576])
def test_head_and_tail_can_be_seen_at_any_length(length):
    position_map = lampe.position_map(SMOL, length)
    shown = frames(position_map)
    for name, region in (("Head, enlarged", 0), ("Tail, enlarged", 2)):
        frame = shown[name]
        size = (frame.queries[1] - frame.queries[0]) * (frame.keys[1] - frame.keys[0])
        assert area(polygon(position_map.regions[region], frame)) > size / 20


@given(maps(), st.data())
def test_the_matrix_is_the_map(position_map, data):
    frame = some_frame(data, position_map.length)
    found = matrix(position_map, frame, bins=17)
    assert len(found.queries) <= 17
    assert len(found.keys) <= 17
    assert frame.queries[0] <= found.queries[0] <= found.queries[-1] < frame.queries[1]
    for row, query in enumerate(found.queries.tolist()):
        for column, key in enumerate(found.keys.tolist()):
            assert found.regions[row, column] == position_map.region(query, key)
            assert found.positions[row, column] == position_map.relative(query, key)
    if frame.across <= 17:
        assert found.queries.tolist() == list(range(*frame.queries)), "a small window shows every token"
        assert found.keys.tolist() == list(range(*frame.keys))


def test_the_matrix_figure_has_true_token_numbers_and_a_bound_on_its_size():
    position_map = lampe.position_map(SMOL, 1_048_576)
    whole = matrix_figure(position_map, Frame.whole(position_map)).data[0]
    assert np.shape(whole.z) == (BINS, BINS)
    found = matrix(position_map, Frame.whole(position_map))
    seen = found.regions >= 0
    assert (np.asarray(whole.z)[seen] == found.positions[seen]).all()
    assert np.isnan(np.asarray(whole.z)[~seen]).all()
    assert whole.text[BINS - 1][0] == f"Middle, {found.queries[-1] - found.keys[0]:,} back"
    close = matrix_figure(position_map, Frame.around(500_000, 400_000, 40, 1_048_576)).data[0]
    assert list(close.x) == list(range(399_980, 400_020))
    assert len(set(np.asarray(close.z)[0])) < 3, "784 tokens share a position: a stair step"


def test_every_hover_says_which_pair_and_what_formula():
    position_map = lampe.position_map(SMOL, 12_000)
    points = regions_figure(position_map, Frame.whole(position_map)).data[-1]
    for i, j, text in zip(points.y, points.x, points.text, strict=True):
        region = position_map.regions[position_map.region(int(i), int(j))]
        assert text == (
            f"{region.name}: {i - j:,} tokens back<br>mapped position {position_map.relative(int(i), int(j)):,}"
            f"<br>{formula(region)}"
        )


@given(maps(), st.data())
def test_a_formula_gives_what_it_says(position_map, data):
    query = data.draw(st.integers(0, position_map.length - 1))
    key = data.draw(st.integers(0, query))
    text = formula(position_map.regions[position_map.region(query, key)])
    code = text.replace(",", "").replace("−", "-").replace("·", "*").replace("/", "//")
    code = code.replace("⌊", "(").replace("⌋", ")").replace("i", str(query)).replace("j", str(key))
    assert eval(code) == position_map.relative(query, key)


def test_the_curve_figure_shows_what_the_library_takes():
    config = lampe.PRESETS["llama3"]
    position_map = lampe.position_map(config, 131_072)
    llama2 = lampe.PRESETS["llama2"]
    curves = {
        "these settings": lambda n: config.position_map(n).mapping_length,
        "Llama-2": lambda n: llama2.position_map(n).mapping_length,
    }
    figure = curve_figure(position_map, config.window, curves, 262_144)
    traces = {trace.name: trace for trace in figure.data}
    lengths = lengths_along(64, 262_144)
    assert list(traces["these settings"].x) == lengths
    for length, m in zip(lengths, traces["these settings"].y, strict=True):
        assert lampe.position_map(config, length).mapping_length == m
    assert (traces["this input"].x, traces["this input"].y) == ((131_072,), (position_map.mapping_length,))
    assert list(traces["Llama-2"].y) == [lampe.position_map(llama2, length).mapping_length for length in lengths]


@pytest.mark.parametrize("query", [0, 511, 6000, 11_999])
def test_a_row_has_every_key_of_its_query(query):
    position_map = lampe.position_map(SMOL, 12_000)
    regions = [trace for trace in row_figure(position_map, query).data if trace.name != "Plain RoPE"]
    assert max(max(trace.x) for trace in regions) == query
    assert min(min(trace.x) for trace in regions) == 0
    for trace in regions:
        assert (position_map.relative(query, np.array(trace.x)) == np.array(trace.y)).all()


def test_measured_shares_are_drawn_as_they_are():
    shares = torch.rand(2, 4, 5, 3, generator=torch.Generator().manual_seed(0)).softmax(-1)
    layers = (0, 1, 5, 7)  # those between aren't mapped
    figure = shares_figure(SMOL.position_map(12_000).regions, layers, shares[1].numpy())
    traces = {trace.name: trace for trace in figure.data}
    assert traces["Middle"].x == layers
    assert traces["Middle"].y == pytest.approx(shares[1, :, :, 1].mean(1).tolist())
    assert traces["Tail, highest head"].y == pytest.approx(shares[1, :, :, 2].amax(1).tolist())
    run = Attention(
        lampe.position_map(SMOL, 12_000),
        SMOL,
        (" the", "<b>"),
        (1, 2),
        Request("", ""),
        Prompt([1], 1, (0, 1), 0),
        layers,
        shares.half(),
    )
    assert "&lt;b&gt;" in shares_table(run, 1)
    assert f"{shares[1].mean((0, 1))[0]:.1%}" in shares_table(run, 1)
    assert f"(layer {layers[shares[1].half().float().mean(1)[:, 0].argmax()]})" in shares_table(run, 1)


def test_a_short_texts_tokens_are_escaped_and_coloured_by_region():
    position_map = lampe.position_map(lampe.LampeConfig(24, 2, 1, 6), 8)
    strip = token_strip(position_map, 6, ["<b>", " a", " b", " c", " d", " e", " f", "\n"])
    assert "<b>" not in strip
    assert strip.count("token-compressed") == 4
    assert 'token-later" title="token 7: after the query">↵' in strip
    assert f"<sub>{position_map.relative(6, 0)}</sub>" in strip


@pytest.mark.parametrize(
    "view",
    [
        MapSettings(),
        MapSettings(length=1),
        MapSettings(length=64, head=0, tail=0, mapping=10),
        MapSettings(length=1_048_576, kind="plain"),
        MapSettings("llama3.1", 1_048_576, 131_072, big=True),
        MapSettings(kind="uniform", query=0),
        MapSettings("custom", 40, 24, 6, 4, 18, across=16, at_query=30, at_key=30),
        MapSettings("custom", 3000, 1, 0, 0, kind="plain"),
        MapSettings("custom", 3000, 10, 0, 0),
        MapSettings(length=1_048_576, across=BINS, at_query=1_048_575, at_key=500_000),
        MapSettings(head=0),
        MapSettings(tail=0),
    ],
    ids=str,
)
def test_every_view_can_be_drawn_within_a_megabyte(view):
    drawn = draw(view)
    size = sum(len(json.dumps(as_plot(figure, name).plot)) for name, (_, figure) in drawn.figures.items())
    assert size + sum(map(len, drawn.words.values())) < 1_000_000
    assert all(isinstance(figure, go.Figure) for _, figure in drawn.figures.values())
    assert f"{view.position_map.mapping_length:,}" in drawn.words["numbers"]


def test_the_readout_tells_window_and_limit_apart():
    assert "50% of the window" in length_readout(4096, True, 8192, 20_000)
    assert "1.5 × the window" in length_readout(12_288, True, 8192, 20_000)
    assert "over the limit of 20,000" in length_readout(20_001, True, 8192, 20_000)
    assert "about 100" in length_readout(100, False, 8192, 20_000)


def test_a_curve_nobody_calibrated_is_named_wherever_it_is_shown():
    doubt = "not calibrated for this model"
    report = RunReport(
        "lampe", False, "a/b", 4, 9000, 9216, 0, 0, 8192, 2048, doubt, [], [], 1.0, 1.0, 0, 0.0, 1.0, 0, True, False
    )  # fmt: skip
    assert "2,048 positions, planned for 9,216 tokens, not calibrated for this model" in run_report([report])
    assert "not calibrated" not in run_report([replace(report, doubt="")])


def test_messages_are_escaped():
    assert "<script>" not in message("<script>alert(1)</script>.txt is empty.")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.file)
def test_each_example_holds_its_fact_once(example):
    assert example.answer in example.fact
    assert example.text.count(example.fact) == 1
    assert example.text.count(example.answer) == 1
    assert f"\n\n{example.fact}\n\n" in example.text


def test_a_missing_head_leaves_its_own_plane_out():
    assert set(draw(MapSettings(head=0)).figures) >= {"regions-0", "regions-2"}
    assert "regions-1" not in draw(MapSettings(head=0)).figures
    assert "regions-2" not in draw(MapSettings(tail=0)).figures


def test_what_is_said_of_maps_that_compress_nothing():
    plain = draw(MapSettings(length=1000, kind="plain"))
    assert "mapping length" not in plain.words["sentence"]
    curve = {trace.name: trace for trace in draw(MapSettings(kind="plain")).figures["curve"][1].data}["these settings"]
    assert curve.x == curve.y
    assert (
        "5,649 has positions, so LaMPE reads it just as plain RoPE does"
        in draw(MapSettings("llama3.1", 4000, 131_072)).words["sentence"]
    )
    custom = MapSettings("custom", 3000, 8192)
    assert "isn't more than Head + Tail (712)" in draw(custom).words["sentence"]
    assert "not calibrated" in draw(custom).words["numbers"]
    assert "not calibrated" in draw(custom).words["curve"]
