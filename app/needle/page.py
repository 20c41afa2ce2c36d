"""The tab "Needle test": one test, a grid of them, and what came of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.limits import MAX_MAP_LENGTH, whole_number
from app.map.figures import Frame, distance_figure, regions_figure
from app.needle import figures, views
from app.needle.forms import MOST_METHODS, READY, SOURCES, checked_grid, haystack_of, numbers, own_needle
from app.needle.results import FILES, GridResults, opened
from app.results.figures import heat_figure
from app.results.recorded import offered, recorded
from app.serving.reports import Update
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.ui.downloads import saves
from app.ui.events import AT_ONCE, INTERNAL, LATEST, Shown
from app.ui.figure import as_plot
from app.ui.html import caption, message, note, side_by_side, status
from app.ui.runs import Runs, measuring, visitor_of
from app.ui.state import PageState
from lampe.errors import InputError, LampeError
from lampe.methods import METHODS, LampeConfig
from lampe.needle import TASKS, Cell

ROWS = "needles"
"""Which of the rows that come with the app are shown before there are others."""

# Plotly tells of clicks by an event of its own, on an element that is made anew with each result.
_CLICKS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-point]');
  if (button) trigger('select', {point: button.dataset.point});
});
document.addEventListener('pointerover', (event) => {
  const plot = event.target.closest && event.target.closest('#plot-needle .js-plotly-plot');
  if (plot && !plot.dataset.clicks) {
    plot.dataset.clicks = 'told';
    plot.on('plotly_click', (click) => trigger('select', {point: click.points[0].customdata}));
  }
});
"""


class NeedleTab:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    demo : gr.Blocks
        The page.
    tab : gr.Tab
        This one of it: what was recorded is drawn when it is opened.
    document : gr.Textbox
        The text of "Ask a document".
    state : PageState
        Its `lengths` and `pair` are set.
    """

    def __init__(
        self, service: ModelService, demo: gr.Blocks, tab: gr.Tab, document: gr.Textbox, state: PageState
    ) -> None:
        self.service, self.document, self.state, self.runs = service, document, state, Runs(service.presence)
        self.results, self.placed, self.seen = gr.State(GridResults()), gr.State(), gr.State(False)
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=3, min_width=300):
                self._lay_out_form()
            with gr.Column(scale=5, min_width=320):
                self.status = gr.HTML(elem_id="needle-status")
                self._lay_out_recorded()
                self._lay_out_one()
                self._lay_out_grid()
                self.file = gr.DownloadButton(visible="hidden", elem_id="needle-file")
        tab.select(self.show_recorded, self.seen, [self.seen, self.before], **AT_ONCE)
        self._wire_one(demo)
        self._wire_grid()

    # Layout

    def _lay_out_form(self) -> None:
        with gr.Group():
            sources = list(SOURCES.items())
            self.source = gr.Radio(sources, value="reference", label="Hide it in", elem_id="needle-source")
            self.task = gr.Radio(list(TASKS), value="single", label="Kind of needle", elem_id="needle-task")
            self.methods = gr.Dropdown(
                [(method.title, key) for key, method in METHODS.items()], value=["rope", "lampe"], multiselect=True,
                max_choices=MOST_METHODS, label=f"Read by (up to {MOST_METHODS})", elem_id="needle-methods",
            )  # fmt: skip
            self.seed = gr.Number(0, label="Seed", elem_id="needle-seed")
        self.common = [self.source, self.task, self.methods, self.seed]
        with gr.Tabs() as self.kinds:
            with gr.Tab("One test", id="one"):
                self.length = gr.Number(12_288, label="Prompt length (tokens)", elem_id="needle-length")
                self.depth = gr.Slider(0, 1, 0.5, step=0.05, label="Depth of the needle", elem_id="needle-depth")
                with gr.Row():
                    drawn: dict[str, Any] = {"placeholder": "drawn by the seed", "min_width": 140}
                    self.key = gr.Textbox(label="Your own needle: the number of the…", **drawn)
                    self.value = gr.Textbox(label="is", **drawn)
                self.one = gr.Button("Hide it and ask", variant="primary", elem_id="needle-one")
            with gr.Tab("A grid", id="grid"):
                with gr.Row(elem_classes="points"):
                    self.ready = [gr.Button(choice.label, size="sm") for choice in READY]
                self.lengths = gr.Textbox("2048, 4096", label="Prompt lengths (tokens)", elem_id="needle-lengths")
                self.depths = gr.Textbox("0.1, 0.5, 0.9", label="Depths", elem_id="needle-depths")
                self.trials = gr.Number(1, label="Trials for each", elem_id="needle-trials")
                self.time = gr.HTML(elem_id="needle-time")
                self.many = gr.Button("Run the grid, or go on with it", variant="primary", elem_id="needle-grid")
                with gr.Row(elem_classes="points"):
                    self.estimate = gr.Button("How long will it take?", size="sm")
                    self.clear = gr.Button("Forget its results", size="sm")
        self.halt = gr.Button("Stop", variant="stop", elem_id="needle-stop")

    def _lay_out_recorded(self) -> None:
        self.there = ROWS in offered()
        with gr.Column(visible=self.there, elem_id="needle-recorded") as self.recorded:
            if self.there:
                gr.HTML(views.before(recorded(ROWS), ROWS, offered()[ROWS].command))
            self.before = gr.Plot(show_label=False, label="Recorded: share found by length and depth")

    def _lay_out_one(self) -> None:
        with gr.Column() as self.of_one:
            self.answers = gr.HTML(elem_id="needle-answers")
            self.place = gr.HTML(elem_id="needle-place")
            self.to_map = gr.Button("See its place in the position map", size="sm", visible=False)
            with gr.Row(elem_classes="planes"):
                label = "The needle's distance and mapped position"
                self.distance = gr.Plot(show_label=False, label=label, min_width=320, elem_id="plot-needle-distance")
                self.plane = gr.Plot(show_label=False, label="The needle among the attention regions", min_width=280)
            words = "LaMPE's map of this prompt. The diamond is the needle, as the prompt's last token sees it."
            gr.HTML(caption(words))

    def _lay_out_grid(self) -> None:
        with gr.Column(visible=False) as self.of_many:
            hidden: dict[str, Any] = {"show_label": False, "visible": False}
            self.heat = gr.Plot(label="Share found by length and depth", elem_id="plot-needle", **hidden)
            self.apart = gr.Plot(label="LaMPE's share less the other's", elem_id="plot-needle-apart", **hidden)
            self.details = gr.HTML(elem_id="needle-details")
            self.table = gr.HTML(elem_id="needle-table")
            with gr.Row(elem_classes="points"):
                self.save_buttons = {name: gr.Button(name, size="sm") for name in FILES}
                self.upload = gr.UploadButton("Open a result file", size="sm", file_types=[".jsonl"], type="filepath")
            self.points = gr.HTML(elem_id="needle-points", js_on_load=_CLICKS)

    # Events

    def _wire_one(self, demo: gr.Blocks) -> None:
        state = self.state
        given = [
            *self.common, self.length, self.depth, self.key, self.value, self.document, state.chosen, state.label,
        ]  # fmt: skip
        tested = [
            self.status, self.recorded, self.answers, self.place, self.to_map, self.placed, self.distance, self.plane,
        ]  # fmt: skip
        self.one.click(self.run_one, given, tested, **INTERNAL)
        place = [self.length, self.depth, self.state.chosen]
        drawn = [self.status, self.distance, self.plane]
        gr.on([demo.load, self.state.chosen.change], self.show_place, place, drawn, **INTERNAL)
        moved = [self.length.change, self.depth.change]
        gr.on(moved, self.move, place, [*drawn, self.state.lengths], **LATEST)
        self.to_map.click(lambda placed: placed, self.placed, self.state.pair, **INTERNAL)
        self.kinds.select(self.show_kind, None, [self.of_one, self.of_many], **LATEST)
        self.halt.click(self.runs.stop, **AT_ONCE)

    def _wire_grid(self) -> None:
        chosen, results = self.state.chosen, self.results
        filled = [self.status, self.recorded, results, self.heat, self.apart, self.points, self.table]
        asked: list[Any] = [chosen, results, self.lengths, self.depths, self.trials, self.methods, self.task, self.seed]
        changed = [part.change for part in asked if part is not results]
        gr.on([self.state.loaded.change, *changed], self.tell_time, asked, self.time, **LATEST)
        form = [self.lengths, self.depths, self.trials, self.document]
        given = [results, *self.common, *form, chosen, self.state.label]
        ran = self.many.click(self.run_grid, given, filled, **INTERNAL)
        ran.then(self.tell_time, asked, self.time, **INTERNAL)
        self.estimate.click(self.measure_time, asked, self.time, **INTERNAL)
        self.clear.click(self.forget, None, [*filled, self.details], **AT_ONCE)
        self.points.select(self.look, results, self.details, **AT_ONCE)
        self.upload.upload(self.open_file, self.upload, [*filled, self.details], **INTERNAL)
        for button, choice in zip(self.ready, READY, strict=True):
            button.click(lambda values=choice[1:]: values, None, [self.lengths, self.depths, self.trials], **AT_ONCE)
        for name, button in self.save_buttons.items():
            saves(button, [results], partial(self.in_file, name), self.file, self.status, self.service.desk)

    # What was recorded

    def show_recorded(self, seen: bool) -> Shown:
        """The heat maps of another day's grid, at the view's first opening."""
        if seen or not self.there:
            return {self.seen: True}
        rows = recorded(ROWS)
        return {self.seen: True, self.before: as_plot(heat_figure(rows, rows.tasks[0], "score"), "recorded")}

    # One test

    def run_one(
        self, source: str, task: str, methods: list[str], seed: float, length: float, depth: float, key: str,
        value: str, text: str, chosen: Chosen, label: str, request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Hide a needle, ask for it with each method, and show the answers as they come."""
        cards, places = [], ""
        try:
            self.state.check(chosen, label)
            with self.runs.started(request) as stop:
                config = self.service.config(chosen)
                tokens, drawn = whole_number("The prompt length", length), whole_number("The seed", seed)
                cells = [Cell(task, tokens, float(depth), method, seed=drawn) for method in dict.fromkeys(methods)]
                if not 1 <= len(cells) <= MOST_METHODS:
                    raise InputError(f"Choose one to {MOST_METHODS} methods that read the text.")
                haystack, needle = haystack_of(source, text), own_needle(key, value)
                for event in self.service.needles(haystack, cells, needle, stop, chosen, visitor_of(request)):
                    if isinstance(event, Update):
                        yield {self.status: status(event)}
                        continue
                    cards.append(views.card(event))
                    ran = self.service.method(event.method, chosen).position_map(event.length)
                    places += views.place(event, ran)
                    yield {
                        self.status: "",
                        self.recorded: gr.Column(visible=False),
                        self.answers: side_by_side(cards),
                        self.place: places,
                        self.to_map: gr.Button(visible=True),
                        self.placed: (config, event.length, event.length - 1, event.place),
                        **self._maps(config, event.length, event.place),
                    }
                yield {self.status: note("Stopped." if stop.is_set() else "Done.")}
        except LampeError as error:
            yield {self.status: message(str(error))}  # earlier results stay

    def _maps(self, config: LampeConfig, length: int, needle: int) -> Shown:
        """Figures 1 and 2 of LaMPE's map of a prompt, with the needle in them."""
        position_map = config.position_map(length)
        plane = regions_figure(position_map, Frame.whole(position_map), needle=needle)
        distance = distance_figure(position_map, config.window, needle=needle)
        return {
            self.distance: as_plot(distance, "lampe-needle-distance"),
            self.plane: as_plot(plane, "lampe-needle-regions"),
        }

    def show_place(self, length: float, depth: float, chosen: Chosen) -> Shown:
        """The same before the test: about where the needle will be."""
        try:
            tokens = whole_number("The prompt length", length)
            if not 1 <= tokens <= MAX_MAP_LENGTH:
                raise InputError(f"The prompt length is from 1 to {MAX_MAP_LENGTH:,} tokens.")
            return {self.status: "", **self._maps(self.service.config(chosen), tokens, round(depth * (tokens - 1)))}
        except LampeError as error:
            return {self.status: message(str(error))}

    def move(self, length: float, depth: float, chosen: Chosen) -> Shown:
        """Another place: the map follows it."""
        shown = self.show_place(length, depth, chosen)
        return shown | ({self.state.lengths: (int(length), int(length))} if self.plane in shown else {})

    def show_kind(self, tab: gr.SelectData) -> Shown:
        """What comes of one test, or of a grid."""
        one = tab.index == 0
        return {self.of_one: gr.Column(visible=one), self.of_many: gr.Column(visible=not one)}

    # A grid

    def run_grid(
        self, results: GridResults, source: str, task: str, methods: list[str], seed: float, lengths: str, depths: str,
        trials: float, text: str, chosen: Chosen, label: str, request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Run what a grid still lacks, and show the results as they come."""
        try:
            self.state.check(chosen, label)
            with self.runs.started(request) as stop:
                wanted = self._wanted(lengths, depths, trials, methods, task, seed)
                haystack, model = haystack_of(source, text), chosen.model
                ran_with, asked = {"model": model.name, "bits": model.bits}, self.service.methods_of(wanted, chosen)
                results = results.going_on(task, haystack.name, ran_with, asked)
                missing = results.missing(wanted)
                done = len(wanted) - len(missing)
                run = self.service.needles(haystack, missing, None, stop, chosen, visitor_of(request))
                for event in run if missing else ():
                    if isinstance(event, Update):
                        yield {self.status: status(event) + note(f"{done} of {len(wanted)} tests done")}
                        continue
                    done, results = done + 1, replace(results, rows=(*results.rows, event))
                    yield self._show(results, wanted)
                words = "Stopped: run it again to go on." if stop.is_set() else f"Done: {len(wanted)} tests."
                yield {self.status: note(words), **self._show(results, wanted)}
        except LampeError as error:
            yield {self.status: message(str(error))}

    def _wanted(
        self, lengths: str, depths: str, trials: float, methods: list[str], task: str, seed: float
    ) -> list[Cell]:
        tokens = numbers("Prompt lengths", lengths, int, "2048, 4096")
        places = numbers("Depths", depths, float, "0.1, 0.5, 0.9")
        return checked_grid(task, tokens, places, methods, trials, seed)

    def _show(self, results: GridResults, wanted: list[Cell] | None = None) -> Shown:
        """The heat maps, with a blank for what is still to come, the buttons of their points, and the table."""
        rows = results.rows
        cells = [*(result.cell for result in rows), *(wanted or [])]
        less = figures.differences(rows)
        return {
            self.results: results,
            self.recorded: gr.Column(visible=False) if rows else gr.skip(),
            self.heat: gr.Plot(as_plot(figures.heat(rows, cells), "lampe-needles"), visible=bool(rows)),
            self.apart: gr.Plot(as_plot(less, "lampe-needles-apart") if less else None, visible=bool(less)),
            self.points: views.point_buttons(rows),
            self.table: views.table(rows),
        }

    def tell_time(self, chosen: Chosen, results: GridResults, *asked: Any) -> str:
        """How many tests are left to do of what the settings make, and how long they take here, if it is known."""
        try:
            cells = results.missing(self._wanted(*asked))
            return views.time(len(cells), self.service.time_for(cells, chosen))
        except LampeError as error:
            return message(str(error))

    def measure_time(self, chosen: Chosen, request: gr.Request, *asked: Any) -> Iterator[str]:
        """The same after this machine's speed was measured."""
        words = ""
        for words in measuring(self.service.measured, self.runs)(chosen, request):
            yield words
        if not words:
            yield self.tell_time(chosen, *asked)

    def look(self, results: GridResults, event: gr.EventData) -> str:
        """What came of the point that was clicked."""
        asked = event._data.get("point") if isinstance(event._data, dict) else None
        tests = (tests for point, tests in figures.by_point(results.rows).items() if str(point) == asked)
        return views.details(next(tests, []))

    def forget(self, request: gr.Request) -> Shown:
        """No results any more."""
        try:
            self.runs.check_idle(request)
        except InputError as error:
            return {self.status: message(str(error))}
        return {self.status: "", self.details: "", **self._show(GridResults())}

    def open_file(self, path: str, request: gr.Request) -> Shown:
        """The results of a file that a visitor brings."""
        try:
            self.runs.check_idle(request)
            results = opened(Path(path))
        except LampeError as error:
            return {self.status: message(str(error))}
        rows, ran = results.rows, results.ran_with
        words = f"{len(rows)} results opened: {ran['model']} in {ran['bits']} bits, task {rows[0].task!r}."
        return {self.status: note(words), self.details: "", **self._show(results)}

    def in_file(self, kind: str, results: GridResults) -> tuple[str, str]:
        """What a button saves: a file's name and its text."""
        if not results.rows:
            raise InputError("There are no results yet: run a grid first.")
        ending, content = FILES[kind]
        return f"lampe-needles.{ending}", content(results)
