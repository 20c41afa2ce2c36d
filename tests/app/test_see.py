"""What opens first: its data come from the library and from what was recorded, and its words are all there."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

import lampe
from app.see import figures, page, proof, words
from app.ui.map_data import map_data
from app.ui.words import LANGUAGES
from lampe.methods import METHODS
from lampe.needle import read_results
from lampe.positions import IndexMap, PositionMap, Region, Role

ROWS = Path(__file__).parents[2] / "benchmarks" / "needle.jsonl"


def test_what_is_called_recorded_is_what_the_benchmark_has_kept():
    shipped = proof.recorded()
    source = shipped["source"]
    assert shipped == json.loads(
        json.dumps(proof.proof_of(read_results(ROWS), source["model"], source["date"], source["command"]))
    )
    assert sum(tests for _, tests, *_ in shipped["totals"].values()) == len(shipped["rows"]), "no trial is left out"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_is_there_in_each_language(language):
    english, own = words.strings()["en"], words.strings()[language]
    assert own.keys() == english.keys()
    for key, text in own.items():
        assert text.strip()
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", english[key])), key
        assert not re.search(r"[<>&\"]", text), "strings are text, not HTML"


def test_every_word_is_used_and_every_word_that_is_used_is_known():
    known = words.strings()["en"].keys()
    assets = files("app") / "assets" / "see"
    script = (assets / "hero.js").read_text(encoding="utf-8")
    shown = (assets / "hero.html").read_text(encoding="utf-8") + page.sections(proof.recorded())
    named = set(re.findall(r'data-(?:text|label)="(\w+)"', shown))
    named |= set(re.findall(r'say\("(\w+)"', script)) | set(re.findall(r"strings\.(\w+)", script))
    named -= {"zh", "replace"}
    named |= {role.value for role in Role} | {"outside", "inside"}  # taken by name
    assert named == known


def test_without_a_script_the_english_words_are_there():
    html = words.filled('<p data-text="lead"></p><h2 data-text="title"></h2>', words.strings()["en"])
    assert "Each token of a text" in html
    assert "up to 8,192 tokens" in html


def test_it_is_small():
    """Under 60 kB of ours, as it is sent before it is compressed, but for the methods' maps."""
    assets = files("app") / "assets" / "see"
    own = sum(len((assets / name).read_bytes()) for name in ("hero.html", "hero.js", "hero.css", "en.json", "zh.json"))
    assert own < 60_000
    assert len(json.dumps(page.hero_data())) < 200_000


def test_each_method_that_moves_positions_is_in_it_with_the_models_own_lampe():
    data = page.hero_data()
    keys = [method["key"] for method in data["methods"]]
    assert keys == [key for key in METHODS if METHODS[key].for_window(8192).frequencies(2**17) is None]
    assert set(data["first"]) <= set(keys)
    own = next(method for method in data["methods"] if method["key"] == "lampe")
    for length, shown in zip(data["lengths"], own["maps"], strict=True):
        assert shown == map_data(lampe.PRESETS["smollm2"].position_map(length))
    assert set(proof.recorded()["lengths"]) <= set(data["lengths"]), "the slider stops where something was recorded"


def test_a_map_that_the_browser_cannot_evaluate_is_refused_here():
    region = Region("All", Role.NEAR, 0, None, lambda i: i, IndexMap())
    with pytest.raises(TypeError, match=r"tell app/ui/map_data\.py"):
        map_data(PositionMap(10, 10, 0, 0, (region,)))


def test_the_charts_are_drawn_from_the_maps():
    """The squeeze figure ends at the position that the engine gives the first key."""
    config = words.RULER
    drawn = figures.squeeze_chart(config, 12_288)
    assert drawn.count("<path") > 6
    chart = figures.Chart("", "", "", (0, 12_288), (0, 12_288))
    left, top = chart.at(12_287, config.position_map(12_288).relative(12_287, 0))
    assert f"L{left} {top}" in drawn


def test_the_limits_that_are_told_are_those_that_were_measured():
    rows = [json.loads(line) for line in ROWS.with_name("questions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = {way: sum(row["right"] for row in rows if row["way"] == way) for way in {row["way"] for row in rows}}
    assert sorted(right.values()) == [0, 0, 1, 12]
    assert "0 of 20, and 12 of 20" in words.strings()["en"]["limit_small"]
