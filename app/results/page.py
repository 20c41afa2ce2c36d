"""The tab "Results": rows of any measurement of ours as tables and figures, the shipped ones and those of a visitor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.results import views
from app.results.figures import MOST_LINES, MOST_PANELS, heat_figure, lines_figure
from app.results.files import FILES, Asked
from app.results.recorded import RECORDED, offered, recorded
from app.serving.service import ModelService
from app.ui.downloads import saves
from app.ui.events import AT_ONCE, INTERNAL, Shown
from app.ui.figure import as_plot
from app.ui.html import message, note
from app.ui.runs import visitor_of
from lampe.errors import InputError, LampeError
from lampe.results import MEASURES, MOST_CELLS, Results, ResultsError, open_results

MOST_BYTES = 5_000_000
LINES, HEAT = "Lines", "Heat map"
_OPENS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-point]');
  if (button) trigger('select', {point: button.dataset.point});
});
"""
_IN_SIGHT = "() => document.querySelector('#results-samples section')?.scrollIntoView({block: 'nearest'})"


def opened(path: Path) -> Results:
    """The rows of a file that a visitor brings.

    Raises
    ------
    InputError
        If it is none, or more than a table has room for.
    """
    if path.stat().st_size > MOST_BYTES:
        raise InputError(
            f"This file is larger than {MOST_BYTES / 1e6:.0f} MB. Open a part of it: each line is a row of its own."
        )
    results = open_results(path)
    places = {(one.task, one.way, one.length) for one in results.outcomes}
    tasks = Counter(task for task, *_ in places)
    cells = max(tasks.values())
    if cells > MOST_CELLS or len(tasks) > MOST_CELLS:
        raise ResultsError(
            f"This file has {cells:,} pairs of a way and a length in one of its {len(tasks):,} tasks; a table "
            f"here has room for {MOST_CELLS} of each. Open a part of it: each line is a row of its own."
        )
    return results


class ResultsTab:
    """The view's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
        Its desk makes the files.
    tab : gr.Tab
        This one of the page's: what it shows is drawn when it is opened.
    """

    def __init__(self, service: ModelService, tab: gr.Tab) -> None:
        self.own = gr.State(None)  # a visitor's own rows, and their file's name
        self.shown = gr.State(False)
        with gr.Row(elem_classes="columns map-page"):
            with gr.Column(scale=2, min_width=300, elem_classes="map-controls"):
                self._lay_out_controls()
            with gr.Column(scale=6, min_width=320):
                self._lay_out_results()
        self._wire(service, tab)

    def _lay_out_controls(self) -> None:
        gr.HTML(
            '<p class="sentence">What was measured, by which command, and how sure it is. Choose a way '
            "to compare with, and every figure becomes a difference on the same samples.</p>"
        )
        with gr.Group():
            recordings = [(one.title, name) for name, one in offered().items()]
            first = recordings[0][1] if recordings else None
            self.rows = gr.Radio(recordings, value=first, label="Recorded rows", elem_id="results-rows")
            self.task = gr.Dropdown([], label="Task", elem_id="results-task")
            self.measure = gr.Radio([], label="Measure", elem_id="results-measure")
            self.base = gr.Dropdown([], label="Less (a difference to this way)", elem_id="results-base")
            self.figure_kind = gr.Radio([LINES, HEAT], value=LINES, label="Figure", elem_id="results-figure")
        self.published = gr.Checkbox(False, label="Published figures below", elem_id="results-published")
        self.upload = gr.UploadButton(
            "Open a file of rows", size="sm", file_types=[".jsonl"], type="filepath", elem_id="results-upload"
        )
        with gr.Row(elem_classes="points"):
            self.save_buttons = {name: gr.Button(name, size="sm") for name in FILES}
        self.link = gr.HTML(elem_id="results-link")
        self.message = gr.HTML(elem_id="results-message")
        self.file = gr.DownloadButton(visible="hidden", elem_id="results-file")

    def _lay_out_results(self) -> None:
        self.source = gr.HTML(elem_id="results-source")
        self.plot = gr.Plot(show_label=False, label="Results by length", elem_id="plot-results")
        self.table = gr.HTML(elem_id="results-table", js_on_load=_OPENS)
        self.samples = gr.HTML(elem_id="results-samples")
        self.of_others = gr.HTML(elem_id="results-published-table")

    def _wire(self, service: ModelService, tab: gr.Tab) -> None:
        asked = [self.own, self.rows, self.task, self.measure, self.base, self.figure_kind]
        drawn = [
            self.message, self.rows, self.task, self.measure, self.base, self.figure_kind, self.source, self.plot,
            self.table, self.samples, self.link, self.own, self.shown,
        ]  # fmt: skip
        self.desk = service.desk
        tab.select(self.arrive, [self.shown, *asked], drawn, **INTERNAL)
        self.rows.input(self.choose, self.rows, drawn, **INTERNAL)
        changes = [self.task.input, self.measure.input, self.base.input, self.figure_kind.input]
        gr.on(changes, self.change, asked, drawn, **INTERNAL)
        self.upload.upload(self.open_file, self.upload, drawn, **INTERNAL)
        looked = self.table.select(self.look, [self.own, self.rows, self.task], self.samples, **AT_ONCE)
        looked.then(js=_IN_SIGHT, **AT_ONCE)
        self.published.input(lambda on: views.published() if on else "", self.published, self.of_others, **AT_ONCE)
        for name, button in self.save_buttons.items():
            saves(button, asked[:-1], self.in_file(name), self.file, self.message, service.desk)

    # What the events do

    def arrive(self, shown: bool, request: gr.Request, *asked: Any) -> Shown:
        """The view as it is opened: what the address names, or what comes first."""
        if shown:
            return {self.shown: True}
        given = dict(request.query_params) if request else {}
        name = given.get("rows") if given.get("rows") in offered() else asked[1]
        return self.change(request, None, name, *(given.get(key) for key in ("task", "measure", "less", "figure")))

    def choose(self, name: str, request: gr.Request) -> Shown:
        """Other recorded rows."""
        return self.change(request, None, name)

    def change(self, request: gr.Request, *asked: Any) -> Shown:
        """What is asked for, in the visitor's turn."""
        try:
            with self.desk.turn(visitor_of(request)):
                return self.show(*asked)
        except (LampeError, OSError) as error:
            return {self.message: message(str(error))}

    def open_file(self, path: str, request: gr.Request) -> Shown:
        """Rows that a visitor brings."""
        try:
            with self.desk.turn(visitor_of(request)):
                own = opened(Path(path)), Path(path).name
                words = note(f"{own[1]} is open: {len(own[0].outcomes):,} rows.")
                shown = self.show(own, None)
                return shown | {self.message: words + shown[self.message]}
        except (LampeError, OSError) as error:
            return {self.message: message(str(error))}

    def show(
        self, own: tuple[Results, str] | None, name: str | None, task: str | None = None, measure: str | None = None,
        base: str | None = None, kind: str | None = None,
    ) -> Shown:  # fmt: skip
        """Table and figure of some rows; what they don't have becomes what they have."""
        results = self._results(own, name)
        asked = asked_of(results, task, measure, base)
        there = results.measures(asked.task)
        cells = results.estimates(asked.task, asked.measure)
        ways = list(dict.fromkeys(way for way, _ in cells))
        kind = kind if kind in (LINES, HEAT) else LINES if len(ways) <= MOST_LINES else HEAT
        figure = lines_figure(results, *asked) if kind == LINES else heat_figure(results, *asked)
        most = MOST_LINES if kind == LINES else MOST_PANELS
        left_out = len(ways) > most and (kind == LINES or by_depth(results, asked))
        return {
            self.own: own,
            self.shown: True,
            self.message: note(f"The figure has the first {most} of {len(ways)} ways, the table all.")
            if left_out
            else "",
            self.rows: gr.Radio(value=None if own else name),
            self.figure_kind: kind,
            self.task: gr.Dropdown(choices=list(results.tasks), value=asked.task),
            self.measure: gr.Radio(choices=[(MEASURES[key].title, key) for key in there], value=asked.measure),
            self.base: gr.Dropdown(choices=[("nothing", ""), *((way, way) for way in ways)], value=asked.base or ""),
            self.source: views.source(results, None if own else RECORDED[str(name)].command),
            self.plot: as_plot(figure, "lampe-results"),
            self.table: views.comparison(results, *asked) + views.EXPLAINED,
            self.samples: "",
            self.link: "" if own else link(str(name), asked, kind),
        }

    def look(self, own: tuple[Results, str] | None, name: str | None, task: str, event: gr.EventData) -> str:
        """The samples behind a cell that was opened."""
        point = event._data.get("point") if isinstance(event._data, dict) else None
        try:
            results = self._results(own, name)
        except LampeError as error:
            return message(str(error))
        for (way, length), outcomes in results.cells(task).items():
            if point == f"{results.ways.index(way)} {length}":
                return views.samples(way, length, outcomes)
        return ""

    def in_file(self, name: str) -> Callable[..., tuple[str, str]]:
        """What a button saves: a file's name and its text."""
        ending, content = FILES[name]

        def make(
            own: tuple[Results, str] | None, rows: str | None, task: str, measure: str, base: str | None
        ) -> tuple[str, str]:
            results = self._results(own, rows)
            return f"lampe-results.{ending}", content(results, asked_of(results, task, measure, base))

        return make

    def _results(self, own: tuple[Results, str] | None, name: str | None) -> Results:
        """The visitor's own rows, or recorded ones.

        Raises
        ------
        InputError
            If the server has forgotten the visitor's, or there are none of that name.
        """
        if own:
            return own[0]
        if name not in offered():
            raise InputError("The server has forgotten the file that was open: open it again, or choose recorded rows.")
        return recorded(name)


def by_depth(results: Results, asked: Asked) -> bool:
    """Whether its heat map is one for each way."""
    return not asked.base and any(one.depth is not None for one in results.of(asked.task))


def asked_of(results: Results, task: str | None, measure: str | None, base: str | None) -> Asked:
    """What is asked for, or what comes nearest among the results."""
    task = task if task in results.tasks else results.tasks[0]
    there = results.measures(task)
    measure = measure if measure in there else there[0]
    ways = {way for way, _ in results.estimates(task, measure)}
    return Asked(task, measure, base if base in ways else None)


def link(name: str, asked: Asked, kind: str) -> str:
    """A link that opens what is shown."""
    query = {"view": "results", "rows": name, "task": asked.task, "measure": asked.measure, "figure": kind}
    return views.link(urlencode(query | ({"less": asked.base} if asked.base else {})))
