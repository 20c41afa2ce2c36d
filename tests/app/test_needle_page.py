"""The needle tab's pure parts: forms, files, and what is shown of a result."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace

import pytest

import lampe
from app.needle.figures import GridPoint, by_point, heat
from app.needle.forms import READY, checked_grid, given_haystack, numbers, own_needle
from app.needle.results import GridResults, as_csv, as_jsonl, opened
from app.needle.views import card, details, place, point_buttons, table, time, verdict
from lampe.errors import InputError
from lampe.needle import Cell, NeedleError, Result, read_results, row_of

RESULT = Result(
    "single", 4096, 0.5, "lampe", 0, 0, "reference", False, "What is it?", ("123",), "It is 123.", 1.0, 2000, 2095, 800,
    "Middle", 2048, 512, 200, 1.0, 0.031, "the <b>number</b> is 123.", 4096, 1.5,
)  # fmt: skip


RAN_WITH = {"model": "SmolLM2-135M-Instruct", "bits": 4}


def test_lists_of_numbers_are_read_as_people_write_them():
    assert numbers("Lengths", "2048, 4096;8192 ", int, "1") == [2048, 4096, 8192]
    assert numbers("Depths", "", float, "1") == []
    with pytest.raises(InputError, match=r"'4k' is not a number\. Write them as 2048, 4096"):
        numbers("Lengths", "2048, 4k", int, "2048, 4096")


def test_a_needle_of_ones_own():
    assert own_needle("", " ") is None
    needle = own_needle("blue <i>door</i>", "42")
    assert needle.expected == ("42",)
    assert "blue <i>door</i>" in needle.question
    with pytest.raises(InputError, match="needs both"):
        own_needle("door", "")
    with pytest.raises(InputError, match="too long"):
        own_needle("door" * 100, "1")


def test_ready_grids_can_be_run():
    for choice in READY:
        cells = checked_grid(
            "single", numbers("", choice.lengths, int, ""), numbers("", choice.depths, float, ""), ["rope", "lampe"],
            choice.trials, 0,
        )  # fmt: skip
        assert cells
    assert given_haystack("one text").name != given_haystack("another").name, "their results aren't mixed up"
    with pytest.raises(NeedleError, match="empty"):
        given_haystack(" ")
    with pytest.raises(InputError, match="must be text"):
        given_haystack(None)


def test_results_survive_their_files(tmp_path):
    rows = [RESULT, replace(RESULT, method="rope", score=0.0, answer='a,\n"b"\u2028c', attention=None)]
    path = tmp_path / "rows.jsonl"
    path.write_text(as_jsonl(GridResults(tuple(rows), RAN_WITH)), encoding="utf-8")
    assert read_results(path) == rows
    assert opened(path) == GridResults(tuple(rows), RAN_WITH)
    table = list(csv.DictReader(as_csv(GridResults(tuple(rows), RAN_WITH)).splitlines(keepends=True)))
    assert {row["bits"] for row in table} == {"4"}
    assert [row["answer"] for row in table] == [row.answer for row in rows]


@pytest.mark.parametrize("formula", ['=HYPERLINK("https://evil.example")', "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_cell_of_a_table_is_a_formula(formula):
    """An answer may be what somebody hid in a text, and the table is opened by another program."""
    rows = GridResults((replace(RESULT, answer=formula, expected=(formula,)),), RAN_WITH)
    (row,) = csv.DictReader(as_csv(rows).splitlines(keepends=True))
    assert row["answer"] == row["expected"] == f"'{formula}"
    assert float(row["score"]) == RESULT.score
    assert as_jsonl(rows).count(json.dumps(formula)) == 2, "the other file is data, and stays as it was"


@pytest.mark.parametrize(
    "change",
    [{"length": "x"}, {"method": "<b>"}, {"expected": "123"}, {"score": 7}, {"task": None}, {"depth": 2}, {"bits": 3}],
)
def test_a_file_that_isnt_a_result_names_its_line(tmp_path, change):
    path = tmp_path / "rows.jsonl"
    row = json.dumps(asdict(RESULT) | RAN_WITH | change)
    path.write_text(f"{row_of(RESULT, RAN_WITH)}{row}\n", encoding="utf-8")
    with pytest.raises(NeedleError, match="Line 2 of rows"):
        read_results(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"\xff\x00", "isn't text"), (b"[]\n", "Line 1"), (b"[" * 100_000, "Line 1")],
)
def test_a_file_of_something_else_is_refused_in_words(tmp_path, content, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        opened(path)


def test_a_file_that_heat_maps_cant_show_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    many = [replace(RESULT, length=1000 + n, depth=n / 1000) for n in range(21)]
    path.write_text(as_jsonl(GridResults(tuple(many), RAN_WITH)), encoding="utf-8")
    with pytest.raises(InputError, match="441 points of length and depth; at most 400"):
        opened(path)
    for other, ran_with in (
        (replace(RESULT, task="passkey"), RAN_WITH),
        (RESULT, RAN_WITH | {"bits": 16}),
        (replace(RESULT, mapping_length=1024), RAN_WITH),
        (replace(RESULT, attention_scale=1.1), RAN_WITH),
    ):
        path.write_text(
            row_of(RESULT, RAN_WITH) + row_of(other, ran_with),
            encoding="utf-8",
        )
        with pytest.raises(InputError, match="mixes results"):
            opened(path)


def test_what_is_shown_is_escaped_and_says_what_came_of_it():
    missed = replace(RESULT, answer="<script>", score=0.0, expected=("1", "2"))
    assert verdict(RESULT) == "Found"
    assert "1, 2" in verdict(missed)
    assert verdict(replace(missed, score=0.5)).startswith("1 of 2")
    for shown in (card(missed), details([missed, RESULT])):
        assert "<script>" not in shown
        assert "<b>number" not in shown
    strip = place(RESULT, lampe.position_map(lampe.LampeConfig(8192, 512, 200, 2048), 4096))
    assert "2,095 tokens before" in strip
    assert "mapped position 800" in strip
    assert "3.1% of the last token's attention" in strip
    assert strip.index("region-end") < strip.index("region-compressed") < strip.index("region-near")


def test_the_heat_map_holds_the_means_and_blanks():
    rows = [RESULT, replace(RESULT, trial=1, score=0.0), replace(RESULT, method="rope", depth=0.1, score=0.0)]
    cells = [Cell("single", n, d, m) for n in (4096, 8192) for d in (0.1, 0.5) for m in ("rope", "lampe")]
    rope, ours = heat(rows, cells).data
    assert (rope.name, ours.name) == ("Plain RoPE", "LaMPE")
    assert [list(row) for row in ours.z] == [[None, None], [0.5, None]]
    assert [list(row) for row in rope.z] == [[0.0, None], [None, None]]
    assert ours.customdata[1][0] == str(GridPoint("lampe", 4096, 0.5)), "a click there says which point it was"
    assert "50%" in table(rows)
    assert table([]) == ""


def test_each_point_can_be_looked_into():
    rows = [RESULT, replace(RESULT, trial=1, score=0.0), replace(RESULT, method="rope", depth=0.1, score=0.0)]
    tests = by_point(rows)
    buttons = point_buttons(rows)
    for point in tests:
        assert f'data-point="{point}"' in buttons
    assert "◐ LaMPE, 4,096 tokens, depth 0.5: 50% of 2" in buttons
    shown = details(tests[GridPoint("lampe", 4096, 0.5)])
    assert (shown.count("<li>"), "Trial 2" in shown) == (2, True)
    assert details([]) == point_buttons([]) == ""


def test_the_time_of_a_grid_in_words():
    assert "1 test: the time isn’t measured yet" in time(1, None)
    assert "Every test of this grid is done" in time(0, 0.0)
    assert "20 tests: about 75 s here." in time(20, 75.2)
    assert "about 10 min" in time(20, 600)
    assert "about 2.5 hours" in time(20, 9000)
