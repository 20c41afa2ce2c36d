"""The examples' recorded answers are those of the texts, and of the settings, that the page has now."""

from __future__ import annotations

import pytest

import lampe
from app.ask.examples import EXAMPLES, recorded_answers
from app.serving.requests import planned_length
from benchmarks import first_look


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.file)
def test_lampe_finds_it_and_plain_rope_only_within_its_window(example):
    rows = recorded_answers()["examples"]
    own = {row["method"]: row for row in rows if row.items() >= first_look.asked(example).items()}
    assert {method: row["right"] for method, row in own.items()} == {"lampe": True, "rope": not example.mapped}
    for row in own.values():
        assert (example.answer in row["answer"]) == row["right"]
    length, config = own["lampe"]["input_length"], lampe.PRESETS["smollm2"]
    position_map = config.position_map(planned_length(length, 48, config), length)
    counts = position_map.key_counts(length - 1)
    expected = [(region.name, keys) for region, keys in zip(position_map.regions, counts, strict=True)]
    assert [(row["name"], row["keys"]) for row in own["lampe"]["regions"]] == expected
    assert own["lampe"]["mapping_length"] == min(position_map.mapping_length, length)
    assert own["rope"]["input_length"] == length
