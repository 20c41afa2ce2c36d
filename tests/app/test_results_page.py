"""The view of results: what it shows of rows, its files, and what it makes of hostile ones."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, replace
from html import escape

import gradio as gr
import pytest

from app.results import views
from app.results.files import Asked, as_csv, as_json, as_latex
from app.results.page import HEAT, LINES, ResultsTab, asked_of, opened
from app.results.recorded import RECORDED, offered, recorded
from app.serving.start import start
from app.settings import Settings
from lampe.calibration import Row
from lampe.errors import InputError
from lampe.needle import row_of
from lampe.results import Outcome, Results
from tests.lampe.test_results import NEEDLE, RAN, needles

EVIL = "<img src=x onerror=alert(1)>\"'&_%$\\"


@pytest.fixture(scope="module")
def tab():
    with gr.Blocks(), gr.Tab("Results") as one:
        return ResultsTab(start(Settings.from_environment()), one)


def asking(**query):
    return gr.Request(session_hash="ann", query_params=query)


def test_what_comes_with_the_app_is_there_at_once(tab):
    assert {"needles", "methods", "sweep", "held-out"} <= set(offered())
    shown = tab.arrive(False, asking(), None, "needles", None, None, None, None)
    assert "Recorded, by <code>python -m benchmarks.needle</code>" in shown[tab.source]
    assert f"{recorded('needles').estimates('single', 'score')['LaMPE', 16384].mean:.0%}" in shown[tab.table]
    assert list(tab.arrive(True, asking(rows="sweep"))) == [tab.shown], "what is open isn't drawn again"


def test_an_address_opens_its_table_and_gives_it_back(tab):
    asked = {"rows": "sweep", "task": "A hidden number", "measure": "log_likelihood", "less": "m = 8,192"}
    shown = tab.arrive(False, asking(**asked, figure=HEAT), None, "needles", None, None, None, None)
    assert shown[tab.task].value == "A hidden number"
    assert shown[tab.base].value == "m = 8,192"
    assert shown[tab.figure_kind] == HEAT
    for key, value in asked.items():
        assert f"{key}=" in shown[tab.link], value
    nonsense = {"rows": "../../etc/passwd", "task": EVIL, "measure": "x", "less": EVIL, "figure": EVIL}
    shown = tab.arrive(False, asking(**nonsense), None, "needles", None, None, None, None)
    assert (shown[tab.task].value, shown[tab.base].value, shown[tab.figure_kind]) == ("single", "", LINES)
    assert "<img" not in str(shown)


def test_a_figure_that_leaves_ways_out_says_so(tab):
    shown = tab.choose("sweep", asking())
    assert shown[tab.figure_kind] == HEAT
    assert shown[tab.message] == "", "the heat map has all"
    shown = tab.change(asking(), None, "sweep", None, None, None, LINES)
    assert f"of {len(recorded('sweep').ways)} ways, the table all" in shown[tab.message]


def test_differences_are_marked_by_what_is_better():
    def made(way, values):
        return [Outcome("t", 1024, way, str(n), {"loss": value, "seconds": 1}) for n, value in enumerate(values)]

    results = Results("", tuple(made("a", [2, 3, 4]) + made("b", [1, 2, 3.1]) + made("c", [2, 3, 4])))
    shown = views.comparison(results, "t", "loss", "a")
    assert len(re.findall(r'class="cell better"', shown)) == 1, "less loss is better"
    assert "<b>0</b> <small>the same" in shown
    assert "worse" not in views.comparison(results, "t", "loss", None)


def test_what_a_way_costs_is_a_column_where_it_was_measured():
    def made(way, **values):
        return Outcome("t", 1024, way, "s", {"score": 1.0, "seconds": 1.25, **values})

    shown = views.comparison(Results("", (made("a", megabytes=1234.4), made("b"))), "t", "score", None)
    assert "<td>1,234&nbsp;MB</td></tr>" in shown
    assert "<td>1.2&nbsp;s</td><td>–</td></tr>" in shown
    assert "Memory" not in views.comparison(Results("", (made("a"),)), "t", "score", None)


def test_a_cell_opens_its_samples(tab, tmp_path):
    rows = [replace(NEEDLE, trial=trial, answer=EVIL, excerpt=EVIL, question=EVIL) for trial in range(20)]
    results = needles(tmp_path / "rows.jsonl", *rows)
    event = gr.EventData(None, {"point": "0 4096"})
    shown = tab.look((results, "rows.jsonl"), None, "single", event)
    assert shown.count("<li>") == views.MOST_SAMPLES
    assert f"{20 - views.MOST_SAMPLES} more are in the file" in shown
    assert escape(EVIL) in shown
    assert "<img" not in shown
    for point in ("0 1", "7 4096", "", None, {"a": 1}):
        assert tab.look((results, "rows.jsonl"), None, "single", gr.EventData(None, {"point": point})) == ""


def test_a_visitors_file_is_shown_and_no_other(tab, tmp_path):
    needles(tmp_path / "mine.jsonl", NEEDLE)
    shown = tab.open_file(str(tmp_path / "mine.jsonl"), asking())
    assert "From the file that was opened" in shown[tab.source]
    assert shown[tab.link] == "", "a link couldn't open it"
    (tmp_path / "other.jsonl").write_text("nonsense")
    shown = tab.open_file(str(tmp_path / "other.jsonl"), asking())
    assert list(shown) == [tab.message], "what is open stays"
    shown = tab.change(asking(), None, None)
    assert "forgotten the file" in shown[tab.message]


def test_files_say_what_the_table_says(tmp_path):
    rows = [replace(NEEDLE, trial=n, score=float(n > 1)) for n in range(4)]
    other = [replace(row, score=1.0, settings=row.settings | {"tail": 0}) for row in rows]
    results = needles(tmp_path / "rows.jsonl", *rows, *other)
    first, second = results.ways
    asked = Asked("single", "score", first)
    (one, two) = csv.DictReader(as_csv(results, asked).splitlines())
    assert (one["way"], float(one["mean"]), one["difference"]) == (first, 0.5, "")
    assert (two["way"], float(two["difference"]), two["pairs"]) == (second, 0.5, "4")
    given = json.loads(as_json(results, asked))
    assert (given["source"], given["rows"][1]["mean"]) == (results.source, 1.0)
    table = as_latex(results, asked)
    assert r"+0.500_{" in table
    assert table.count(r"\\") == 2, "one line of names and one way less the other"


def test_no_name_in_a_file_is_a_formula_or_a_command():
    results = Results("a\nb", (Outcome(EVIL, 1024, f"=cmd {EVIL}", "s", {"score": 1.0, "seconds": 1}),))
    asked = Asked(EVIL, "score")
    (row,) = csv.DictReader(as_csv(results, asked).splitlines())
    assert row["way"].startswith("'=")
    table = as_latex(results, asked)
    assert r"\_\%\$\textbackslash{}" in table
    assert table.splitlines()[0] == "% a b"
    assert "<img" not in views.comparison(results, *asked)


def test_more_than_a_table_holds_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(row_of(replace(NEEDLE, length=300 + n), RAN) for n in range(1000)), encoding="utf-8")
    with pytest.raises(InputError, match="room for 400"):
        opened(path)
    rows = (replace(NEEDLE, settings=NEEDLE.settings | {"tail": n}) for n in range(1000))
    path.write_text("".join(row_of(row, RAN) for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match="1,000 pairs of a way and a length"):
        opened(path)
    row = Row(1024, 1024, 512, 200, 1.0, "loss", 0, 8, None, 7, loss=2.0, tokens=512)
    with path.open("w", encoding="utf-8") as file:
        for m in range(800, 1024):
            file.write(json.dumps(asdict(replace(row, mapping_length=m)) | RAN) + "\n")
    with pytest.raises(InputError, match="224 ways to map"):
        opened(path)
    path.write_bytes(b" " * 5_000_001)
    with pytest.raises(InputError, match="larger than 5 MB"):
        opened(path)


def test_each_recorded_file_has_the_command_that_makes_it():
    for one in RECORDED.values():
        assert one.command.startswith("python -m ")
    results = recorded("needles")
    assert asked_of(results, None, None, None) == Asked("single", "score")
    assert asked_of(results, "x", "y", "z") == Asked("single", "score")


def test_a_cost_is_shown_only_where_it_was_measured_of_each():
    """Of short texts alone it would be less than of all."""
    both = {"score": 1.0, "seconds": 2.0}
    rows = [Outcome("t", 1, "a way", "1", both | {"megabytes": 5.0}), Outcome("t", 2, "a way", "1", both)]
    shown = views.comparison(Results("", tuple(rows)), "t", "score", None)
    assert "2.0&nbsp;s" in shown
    assert "MB" not in shown
