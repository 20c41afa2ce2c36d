"""The tab "Needle test": one test, a grid of them, and what came of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from app.errors import AskError
from app.limits import whole_number
from app.map.figures import Frame, distance_figure, regions_figure
from app.map.settings import MAX_MAP_LENGTH
from app.needle import views as needle_views
from app.needle.forms import (
    FILES,
    MOST_METHODS,
    READY,
    SOURCES,
    checked_grid,
    haystack_of,
    numbers,
    opened,
    own_needle,
)
from app.serving.reports import Update
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.ui import html as views
from app.ui.downloads import QUIET, saves
from app.ui.figure import as_plot
from app.ui.runs import Runs, measuring
from lampe.errors import LampeError
from lampe.methods import METHODS, LampeConfig
from lampe.needle import TASKS, Cell, Result

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


def build_needle_tab(
    service: ModelService, demo: gr.Blocks, document: gr.Textbox, chosen: gr.State, tokens: gr.State, pair: gr.State,
    visitors: int,
) -> None:  # fmt: skip
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    demo : gr.Blocks
        The page.
    document : gr.Textbox
        The text of "Ask a document".
    chosen : gr.State of Chosen
        What this visitor runs.
    tokens : gr.State of (int, int)
        Set to the prompt's length: the map follows it.
    pair : gr.State of (LampeConfig, length, query, key) or None
        Set to the needle whose place the map is to show.
    visitors : int
        How many may wait in the service's line at once, where they see their place.
    """

    runs = Runs(demo)
    measure = measuring(service, runs)

    # Layout

    # Results of one task, text, model and LaMPE setting: what a heat map can put side by side.
    kept, ran_with, placed = gr.State([]), gr.State({}), gr.State()
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=3, min_width=300):
            with gr.Group():
                source = gr.Radio(list(SOURCES.items()), value="reference", label="Hide it in", elem_id="needle-source")
                task = gr.Radio(list(TASKS), value="single", label="Kind of needle", elem_id="needle-task")
                methods = gr.Dropdown(
                    [(method.title, key) for key, method in METHODS.items()],
                    value=["rope", "lampe"],
                    multiselect=True,
                    max_choices=MOST_METHODS,
                    label=f"Read by (up to {MOST_METHODS})",
                    elem_id="needle-methods",
                )
                seed = gr.Number(0, label="Seed", elem_id="needle-seed")
            with gr.Tabs() as kinds:
                with gr.Tab("One test"):
                    length = gr.Number(12_288, label="Prompt length (tokens)", elem_id="needle-length")
                    depth = gr.Slider(0, 1, 0.5, step=0.05, label="Depth of the needle", elem_id="needle-depth")
                    with gr.Row():
                        key = gr.Textbox(
                            label="Your own needle: the number of the…", placeholder="drawn by the seed", min_width=140
                        )
                        value = gr.Textbox(label="is", placeholder="drawn by the seed", min_width=140)
                    one = gr.Button("Hide it and ask", variant="primary", elem_id="needle-one")
                with gr.Tab("A grid"):
                    with gr.Row(elem_classes="points"):
                        ready = [gr.Button(choice.label, size="sm") for choice in READY]
                    lengths = gr.Textbox("2048, 4096", label="Prompt lengths (tokens)", elem_id="needle-lengths")
                    depths = gr.Textbox("0.1, 0.5, 0.9", label="Depths", elem_id="needle-depths")
                    trials = gr.Number(1, label="Trials for each", elem_id="needle-trials")
                    time = gr.HTML(elem_id="needle-time")
                    many = gr.Button("Run the grid, or go on with it", variant="primary", elem_id="needle-grid")
                    with gr.Row(elem_classes="points"):
                        estimate = gr.Button("How long will it take?", size="sm")
                        clear = gr.Button("Forget its results", size="sm")
            halt = gr.Button("Stop", variant="stop", elem_id="needle-stop")
        with gr.Column(scale=5, min_width=320):
            status = gr.HTML(elem_id="needle-status")
            with gr.Column() as of_one:
                answers = gr.HTML(elem_id="needle-answers")
                place = gr.HTML(elem_id="needle-place")
                to_map = gr.Button("See its place in the position map", size="sm", visible=False)
                with gr.Row(elem_classes="planes"):
                    distance = gr.Plot(
                        show_label=False,
                        label="The needle's distance and mapped position",
                        min_width=320,
                        elem_id="plot-needle-distance",
                    )
                    plane = gr.Plot(show_label=False, label="The needle among the attention regions", min_width=280)
                gr.HTML(
                    "<p class=\"caption\">LaMPE's map of this prompt. The diamond is the needle, as the prompt's last "
                    "token sees it.</p>"
                )
            with gr.Column(visible=False) as of_many:
                heat = gr.Plot(
                    show_label=False, label="Share found by length and depth", elem_id="plot-needle", visible=False
                )
                apart = gr.Plot(
                    show_label=False, label="LaMPE's share less the other's", elem_id="plot-needle-apart", visible=False
                )
                details = gr.HTML(elem_id="needle-details")
                table = gr.HTML(elem_id="needle-table")
                with gr.Row(elem_classes="points"):
                    save_buttons = {name: gr.Button(name, size="sm") for name in FILES}
                    upload = gr.UploadButton("Open a result file", size="sm", file_types=[".jsonl"], type="filepath")
                points = gr.HTML(elem_id="needle-points", js_on_load=_CLICKS)
            file = gr.DownloadButton(visible="hidden", elem_id="needle-file")

    # Handlers

    def run_one(
        source: str, task: str, methods: list[str], seed: float, length: float, depth: float, key: str, value: str,
        text: str, chosen: Chosen, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        shown: dict[str, str] = {}
        where = ""
        found: Result | None = None

        def now(words: str) -> list[Any]:
            cards = views.side_by_side(list(shown.values()))
            if found is None:
                return [words, cards, where, gr.Button(visible=False), None, gr.skip(), gr.skip()]
            pair = config, found.length, found.length - 1, found.place
            return [words, cards, where, gr.Button(visible=True), pair, *maps(config, found.length, found.place)]

        try:
            with runs.started(request) as stop:
                config = service.config(chosen)
                cells = [
                    Cell(task, _tokens(length), float(depth), method, seed=whole_number("The seed", seed))
                    for method in dict.fromkeys(methods)
                ]
                if not 1 <= len(cells) <= MOST_METHODS:
                    raise AskError(f"Choose one to {MOST_METHODS} methods that read the text.")
                haystack, needle = haystack_of(source, text), own_needle(key, value)
                for event in service.needles(haystack, cells, needle, stop, chosen):
                    if isinstance(event, Update):
                        yield [views.status(event), *[gr.skip()] * (len(tested) - 1)]
                        continue
                    found = event
                    shown[event.method] = needle_views.card(event)
                    ran = service.method(event.method, chosen).position_map(event.length)
                    where += needle_views.place(event, ran)
                    yield now("")
                words = views.note("Stopped." if stop.is_set() else "Done.")
                yield now(words) if found else [words, *[gr.skip()] * (len(tested) - 1)]
        except LampeError as error:
            yield [views.message(str(error)), *[gr.skip()] * (len(tested) - 1)]  # earlier results stay

    def maps(config: LampeConfig, length: int, needle: int) -> list[Any]:
        """Figures 1 and 2 of LaMPE's map of a prompt, with the needle in them."""
        position_map = config.position_map(length)
        return [
            as_plot(distance_figure(position_map, config.window, needle=needle), "lampe-needle-distance"),
            as_plot(regions_figure(position_map, Frame.whole(position_map), needle=needle), "lampe-needle-regions"),
        ]

    def moved(length: float, depth: float, chosen: Chosen) -> list[Any]:
        """The same before the test: about where the needle will be."""
        try:
            tokens = _tokens(length)
            if not 1 <= tokens <= MAX_MAP_LENGTH:
                raise AskError(f"The prompt length is from 1 to {MAX_MAP_LENGTH:,} tokens.")
            return ["", *maps(service.config(chosen), tokens, round(depth * (tokens - 1))), (tokens, tokens)]
        except LampeError as error:
            return [views.message(str(error)), gr.skip(), gr.skip(), gr.skip()]

    def wanted_cells(
        lengths: str, depths: str, trials: float, methods: list[str], task: str, seed: float
    ) -> list[Cell]:
        tokens = numbers("Prompt lengths", lengths, int, "2048, 4096")
        places = tokens, numbers("Depths", depths, float, "0.1, 0.5, 0.9")
        return checked_grid(task, *places, methods, trials, seed)

    def run_grid(
        results: list[Result], of: dict[str, Any], source: str, task: str, methods: list[str], seed: float,
        lengths: str, depths: str, trials: float, text: str, chosen: Chosen, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        results = list(results)
        try:
            with runs.started(request) as stop:
                own = {"model": chosen.model.name, "bits": chosen.model.bits}
                wanted = wanted_cells(lengths, depths, trials, methods, task, seed)
                haystack = haystack_of(source, text)
                if results and (results[0].task, results[0].haystack, of) != (task, haystack.name, own):
                    raise AskError(
                        f"The results below are of the task {results[0].task!r} in {results[0].haystack!r}, read by "
                        f"{of['model']} in {of['bits']} bits. Save them and forget them first: a heat map shows one "
                        "task, text and model."
                    )
                now = service.methods_of(wanted, chosen)
                if others := {result.method for result in results if not result.ran_by(now)}:
                    names = " and ".join(METHODS[key].title for key in others)
                    raise AskError(
                        f"The results of {names} below were read with other settings than those that would run now. "
                        "Save them and forget them first: a heat map shows one setting of a method."
                    )
                done = {result.cell for result in results}
                missing = [cell for cell in wanted if cell not in done]
                ran = 0
                for event in service.needles(haystack, missing, stop=stop, chosen=chosen) if missing else ():
                    if isinstance(event, Update):
                        tests = f"{len(wanted) - len(missing) + ran} of {len(wanted)} tests done"
                        yield [views.status(event) + views.note(tests), *[gr.skip()] * (len(filled) - 1)]
                        continue
                    ran += 1
                    results.append(event)
                    yield [gr.skip(), *shown(results, own, wanted)]
                words = "Stopped: run it again to go on." if stop.is_set() else f"Done: {len(wanted)} tests."
                yield [views.note(words), *shown(results, own, wanted)]
        except LampeError as error:
            yield [views.message(str(error)), *[gr.skip()] * (len(filled) - 1)]

    def shown(results: list[Result], of: dict[str, Any], wanted: list[Cell] | None = None) -> list[Any]:
        """The heat maps, with a blank for what is still to come, the buttons of their points, and the table."""
        cells = [*(result.cell for result in results), *(wanted or [])]
        plot = gr.Plot(as_plot(needle_views.heat(results, cells), "lampe-needles"), visible=bool(results))
        less = needle_views.differences(results)
        apart = gr.Plot(as_plot(less, "lampe-needles-apart") if less else None, visible=bool(less))
        return [results, of, plot, apart, needle_views.point_buttons(results), needle_views.table(results)]

    def tell_time(chosen: Chosen, results: list[Result], *asked: Any) -> str:
        """How many tests are left to do of what the settings make, and how long they take here, if it is known."""
        try:
            done = {result.cell for result in results}
            cells = [cell for cell in wanted_cells(*asked) if cell not in done]
            return needle_views.time(len(cells), service.time_for(cells, chosen))
        except LampeError as error:
            return views.message(str(error))

    def measure_time(chosen: Chosen, request: gr.Request, *values: Any) -> Iterator[str]:
        words = ""
        for words in measure(chosen, request):
            yield words
        if not words:
            yield tell_time(chosen, *values)  # as it was asked

    def look(results: list[Result], event: gr.EventData) -> str:
        """What came of the point that was clicked."""
        asked = event._data.get("point") if isinstance(event._data, dict) else None
        tests = (tests for point, tests in needle_views.by_point(results).items() if str(point) == asked)
        return needle_views.details(next(tests, []))

    def show_kind(tab: gr.SelectData) -> list[Any]:
        """What comes of one test, or of a grid."""
        return [gr.Column(visible=tab.value == "One test"), gr.Column(visible=tab.value != "One test")]

    def forget(request: gr.Request) -> list[Any]:
        try:
            runs.check_idle(request)
        except AskError as error:
            return [views.message(str(error)), *[gr.skip()] * len(filled)]
        return ["", [], {}, gr.Plot(visible=False), gr.Plot(visible=False), "", "", ""]

    def open_file(path: str, request: gr.Request) -> list[Any]:
        try:
            runs.check_idle(request)
            results, of = opened(Path(path))
            words = f"{len(results)} results opened: {of['model']} in {of['bits']} bits, task {results[0].task!r}."
            return [views.note(words), *shown(results, of), ""]
        except LampeError as error:
            return [views.message(str(error)), *[gr.skip()] * len(filled)]

    def in_file(name: str) -> Any:
        ending, content = FILES[name]

        def make(results: list[Result], of: dict[str, Any]) -> tuple[str, str]:
            if not results:
                raise AskError("There are no results yet: run a grid first.")
            return f"lampe-needles.{ending}", content(results, of)

        return make

    # Events

    common = [source, task, methods, seed]
    running: dict[str, Any] = {"concurrency_limit": visitors, **QUIET}
    tested = [status, answers, place, to_map, placed, distance, plane]
    one.click(run_one, [*common, length, depth, key, value, document, chosen], tested, **running)
    moves: dict[str, Any] = {"queue": False, "trigger_mode": "always_last", **QUIET}
    placed_by = [length, depth, chosen]
    gr.on([demo.load, chosen.change], lambda *values: moved(*values)[:3], placed_by, [status, distance, plane], **QUIET)
    gr.on([length.change, depth.change], moved, placed_by, [status, distance, plane, tokens], **moves)
    to_map.click(lambda placed: placed, placed, pair, **QUIET)
    filled = [status, kept, ran_with, heat, apart, points, table]
    asked: list[Any] = [chosen, kept, lengths, depths, trials, methods, task, seed]
    gr.on([demo.load, *(part.change for part in [chosen, *asked[2:]])], tell_time, asked, time, **moves)
    ran = many.click(run_grid, [kept, ran_with, *common, lengths, depths, trials, document, chosen], filled, **running)
    ran.then(tell_time, asked, time, **QUIET)
    estimate.click(measure_time, asked, time, **running)
    kinds.select(show_kind, None, [of_one, of_many], **moves)
    halt.click(runs.stop, queue=False, **QUIET)
    clear.click(forget, None, [*filled, details], queue=False, **QUIET)
    points.select(look, kept, details, queue=False, **QUIET)
    upload.upload(open_file, upload, [*filled, details], **QUIET)
    for button, choice in zip(ready, READY, strict=True):
        values = (choice.lengths, choice.depths, choice.trials)
        button.click(lambda values=values: values, None, [lengths, depths, trials], queue=False, **QUIET)
    for name, button in save_buttons.items():
        saves(button, [kept, ran_with], in_file(name), file, status)


def _tokens(length: Any) -> int:
    return whole_number("The prompt length", length)
