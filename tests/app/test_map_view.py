"""The map page's settings: checked, as a link, as files."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lampe
from app.map.drawing import as_csv, as_json, standalone
from app.map.live import live_data
from app.map.scenes import SCENES
from app.map.settings import CUSTOM, MapSettings, curve_text
from app.ui.map_data import map_data
from lampe.errors import InputError
from lampe.methods import LampeConfig, ScaledSigmoid
from lampe.methods.lampe import rescaled

curve_texts = st.builds(
    curve_text,
    st.builds(ScaledSigmoid, st.floats(1, 1e9), st.floats(-1, 1), st.floats(-40, 40))
    | st.builds(
        ScaledSigmoid, st.just(4096.0), st.just(1e-4), st.just(-2.0), st.integers(0, 9999), st.integers(1, 9999)
    ),
)
views = st.builds(
    MapSettings,
    model=st.sampled_from([*lampe.PRESETS, CUSTOM]),
    length=st.integers(1, 1_048_576),
    window=st.integers(1, 200_000),
    head=st.integers(0, 2000),
    tail=st.integers(0, 2000),
    mapping=st.none() | st.integers(1, 8192),
    curve=st.none() | curve_texts,
    scale=st.floats(0.01, 10),
    kind=st.sampled_from(["lampe", "uniform", "plain"]),
    query=st.none() | st.integers(0, 1000),
    across=st.none() | st.integers(1, 1_048_576),
    at_query=st.integers(0, 1_048_575),
    at_key=st.integers(0, 1_048_575),
    big=st.booleans(),
)


@given(views)
def test_a_link_brings_the_view_back(view):
    given_ = asdict(view)
    if view.model != CUSTOM:
        given_ |= {"window": lampe.PRESETS[view.model].window, "curve": None}
    try:
        view = MapSettings.checked(**given_)
    except InputError:
        return
    found, problems = MapSettings.from_link(dict(parse_qsl(view.link[1:])))
    assert problems == []
    assert found == view
    assert found.position_map == view.position_map


@given(st.dictionaries(st.sampled_from(list(asdict(MapSettings()))), st.text(max_size=20)))
def test_no_link_can_break_the_page(parameters):
    view, problems = MapSettings.from_link(parameters)
    assert view == MapSettings.checked(**asdict(view))
    assert all(problem.endswith((".", "'", '"')) for problem in problems)


def test_a_links_wrong_value_gives_the_default_and_a_sentence():
    view, problems = MapSettings.from_link({"model": "llama3", "length": "much", "head": "-4", "kind": "<b>"})
    assert view == MapSettings("llama3")
    assert len(problems) == 3
    assert "'much' is not a number" in problems[0]
    view, problems = MapSettings.from_link({"head": "8100"})
    assert view == MapSettings()
    assert "don't go together" in problems[0]
    assert MapSettings.from_link({"length": "1e9"})[0] == MapSettings()
    assert MapSettings.from_link({"length": "nan"})[0] == MapSettings()


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"mapping": 2048, "head": 1900}, "less than the mapping length"),
        ({"mapping": 500}, "less than the mapping length"),
        ({"mapping": 0}, "1 to 1,048,576"),
        ({"length": None}, "empty"),
        ({"length": 0}, "1 to 1,048,576 tokens"),
        ({"length": 10.5}, "whole number"),
        ({"length": float("inf")}, "whole number"),
        ({"length": float("nan")}, "whole number"),
        ({"length": True}, "whole number"),
        ({"head": -1}, "0 to"),
        ({"tail": "x"}, "not a number"),
        ({"scale": 0}, "above 0"),
        ({"scale": float("nan")}, "above 0"),
        ({"length": 8500, "head": 8000}, "less than the mapping length"),
        ({"big": "banana"}, "Presentation size"),
        ({"model": "gpt-5"}, "must be one of"),
        ({"kind": None}, "must be one of"),
    ],
)
def test_impossible_settings_say_what_is_wrong(given_, message):
    with pytest.raises(InputError, match=message):
        MapSettings.checked(**given_)


def test_the_ablations_are_maps_of_the_library():
    assert MapSettings().position_map == lampe.position_map(lampe.PRESETS["smollm2"], 12_000)
    uniform = MapSettings(kind="uniform", mapping=2048).position_map
    assert [region.name for region in uniform.regions] == ["Middle"]
    assert uniform.relative(11_999, 0) == 11_999 * 2048 // 12_000
    assert not MapSettings(kind="plain").position_map.compresses
    assert MapSettings(mapping=3000).position_map.mapping_length == 3000
    assert (
        MapSettings(mapping=30_000, length=10_000, model="mistral", window=32_768).position_map.mapping_length == 10_000
    )


def test_a_models_own_settings_open_the_page():
    assert MapSettings.running(lampe.PRESETS["smollm2"]) == MapSettings()
    other = rescaled(40_960)
    view = MapSettings.running(other)
    assert view.model == CUSTOM
    assert view.config == other
    assert view.curve is None, "nobody calibrated it: it is Llama-3's curve"


@pytest.mark.parametrize(
    "config",
    [
        LampeConfig(8192, 300, 100, ScaledSigmoid(6001.5, 0.0003, -2.25), 1.1),
        LampeConfig(8192, 300, 100, ScaledSigmoid(6001.5, 0.0003, -2.25, 4096, 1536)),
        LampeConfig(4096, 64, 32, 1000),
    ],
)
def test_an_opened_presets_settings_are_the_maps(config):
    view = MapSettings.running(config)
    assert MapSettings.checked(**asdict(view)).config == config
    assert MapSettings.from_link(dict(parse_qsl(view.link[1:]))) == (view, [])


@pytest.mark.parametrize(
    "text", ["6144", "a, b, c", "6144, 0.1", "nan, 1, 1", "0.5, 1, 1", "9, 1, 1, 5", "9,1,1,2.5,3"]
)
def test_a_curve_that_is_none_is_a_sentence(text):
    with pytest.raises(InputError, match=r"is no curve .* Write L, a and b between commas"):
        MapSettings.checked(model=CUSTOM, curve=text)


def test_a_query_beyond_the_text_is_the_last():
    assert MapSettings.checked(length=100, query=70_000).row == 99


def test_each_point_can_be_shown():
    for point in SCENES:
        model = point.changes.get("model", "smollm2")
        sizes = {} if model == CUSTOM else {"window": lampe.PRESETS[model].window}
        MapSettings.checked(**{"length": 40, **sizes, **point.changes})


def test_the_files_hold_the_maps_numbers():
    view = MapSettings(query=9000, mapping=2048)
    found = json.loads(as_json(view))
    assert found["mapping_length"] == 2048
    assert found["view"]["query"] == 9000
    assert [region["keys"] for region in found["regions"]] == list(view.position_map.key_counts(9000))
    rows = list(csv.DictReader(as_csv(view).splitlines()))
    assert {row["region"] for row in rows} == {"Head", "Middle"}
    for row in rows:
        assert view.position_map.relative(9000, int(row["key"])) == int(row["mapped_position"])
        assert int(row["distance"]) == 9000 - int(row["key"])


def test_the_standalone_page_needs_no_network():
    page = standalone(MapSettings())
    assert "At 12,000 tokens" in page
    assert page.count('class="plotly-graph-div"') == 7
    assert "<script src" not in page


@pytest.mark.parametrize(
    "changes", [{}, {"kind": "plain"}, {"kind": "uniform"}, {"planned": 16_384}, {"mapping": 2048}]
)
def test_the_browser_has_the_map_of_each_stop_under_these_settings(changes):
    settings = MapSettings(length=5000, **changes)
    data = json.loads(live_data(settings))
    assert data["own"] == map_data(settings.position_map)
    drawn = 0
    for length, shown in zip(data["stops"], data["maps"], strict=True):
        planned = settings.planned if (settings.planned or 0) >= length else None
        try:
            expected = map_data(replace(settings, length=length, planned=planned).position_map)
        except lampe.LampeError:
            expected = None
        assert shown == expected
        drawn += shown is not None
    assert drawn > len(data["stops"]) / 3
