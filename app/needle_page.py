"""The tab "Needle test": one test, a grid of them, and their files."""

from __future__ import annotations

import csv
import io
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

import lampe
from app import needle_views, views
from app.checks import MAX_CHARACTERS, AskError, too_long, whole_number
from app.reports import Update
from app.session import Session
from app.sheet import as_plot
from lampe.needle import HAYSTACKS, TASKS, Cell, Haystack, Needles, Result, file_needles, grid, read_results
from lampe.positions import plain_map

SOURCES = {
    "Python's language reference": "reference",
    "Filler sentences": "filler",
    'The text in "Ask a document"': "document",
}
METHODS = {"Plain RoPE": "rope", "LaMPE": "lampe"}
MOST_TESTS = 400
MOST_ROWS_BYTES = 5_000_000
_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Ready:
    """A grid worth running, ready made."""

    label: str
    lengths: str
    depths: str
    trials: int


READY = (
    Ready("Inside the window, 4k", "4096", "0.1, 0.5, 0.9", 1),
    Ready("Past the window, 12k", "12288", "0.1, 0.9", 1),
    Ready("A full grid", "2048, 4096, 8192, 12288", "0.1, 0.5, 0.9", 1),
)


def numbers(name: str, text: str, kind: Any) -> list[Any]:
    """A list of numbers as people type it.

    Raises
    ------
    AskError
        If a part is no number.
    """
    found = []
    for part in str(text or "").replace(";", ",").split(","):
        if part.strip():
            try:
                found.append(kind(part.strip()))
            except ValueError:
                raise AskError(f"{name}: {part.strip()!r:.40} is not a number. Write them as 0.1, 0.5, 0.9.") from None
    return found


def own_needle(key: str, value: str) -> Needles | None:
    """A needle that a person wrote; None where both are empty.

    Raises
    ------
    AskError
        If only one of them is given, or one is too long.
    """
    key, value = (key or "").strip(), (value or "").strip()
    if not key and not value:
        return None
    if not key or not value:
        raise AskError("A needle of your own needs both: what the number belongs to, and the number.")
    if len(key) > 200 or len(value) > 200:
        raise AskError("The needle is too long: at most 200 characters for each part.")
    return file_needles({key: [value]})


def checked_grid(task: str, lengths: Any, depths: Any, methods: Any, trials: Any, seed: Any) -> list[Cell]:
    """The cells of a grid as a person or a program asks for it.

    Raises
    ------
    AskError, NeedleError
        If it is none, or too large.
    """
    if not (isinstance(lengths, list) and isinstance(depths, list) and isinstance(methods, list)):
        raise AskError("Lengths, depths and methods must be lists.")
    tokens = [whole_number("A prompt length", length) for length in lengths]
    for depth in depths:
        if isinstance(depth, bool) or not isinstance(depth, int | float):
            raise AskError(f"A depth must be a number from 0 to 1, not {depth!r:.40}.")
    count = whole_number("The number of trials", trials)
    tests = len(set(tokens)) * len(depths) * len(methods) * count
    if tests > MOST_TESTS:
        raise AskError(
            f"This grid has {tests:,} tests; at most {MOST_TESTS} are run here. The command line has no limit."
        )
    return grid(task, tokens, [float(depth) for depth in depths], methods, count, whole_number("The seed", seed))


def given_haystack(text: Any) -> Haystack:
    """A text of the visitor's own to hide in.

    Raises
    ------
    AskError, NeedleError
        If it is no text, or longer than is counted here.
    """
    if not isinstance(text, str):
        raise AskError("The haystack must be text.")
    if len(text) > MAX_CHARACTERS:
        raise AskError(too_long(text))
    return Haystack.named("document", text)


def haystack_of(source: str, document: str) -> Haystack:
    """The text to hide in."""
    return given_haystack(document) if source == "document" else HAYSTACKS[source]()


def as_jsonl(results: Sequence[Result]) -> str:
    return "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)


def as_csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    names = [field.name for field in fields(Result)]
    lines.writerow(names)
    for result in results:
        values = (getattr(result, name) for name in names)
        lines.writerow([" | ".join(value) if isinstance(value, tuple) else value for value in values])
    return text.getvalue()


FILES = {"CSV": ("csv", as_csv), "JSONL": ("jsonl", as_jsonl)}


def build_needle_tab(session: Session, stops: dict[str, threading.Event], document: gr.Textbox, visitors: int) -> None:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    session : Session
    stops : dict
        Each visitor's Stop, by session hash.
    document : gr.Textbox
        The text of "Ask a document".
    visitors : int
        How many may wait in the session's line at once, where they see their place.
    """

    # Layout

    kept = gr.State([])
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=3, min_width=300):
            with gr.Group():
                source = gr.Radio(list(SOURCES.items()), value="reference", label="Hide it in", elem_id="needle-source")
                task = gr.Radio(list(TASKS), value="single", label="Kind of needle", elem_id="needle-task")
                methods = gr.CheckboxGroup(
                    list(METHODS.items()), value=list(METHODS.values()), label="Read by", elem_id="needle-methods"
                )
                seed = gr.Number(0, label="Seed", elem_id="needle-seed")
            with gr.Tabs():
                with gr.Tab("One test"):
                    length = gr.Number(4096, label="Prompt length (tokens)", elem_id="needle-length")
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
                    many = gr.Button("Run the grid, or go on with it", variant="primary", elem_id="needle-grid")
                    clear = gr.Button("Forget its results", size="sm")
            halt = gr.Button("Stop", variant="stop", elem_id="needle-stop")
        with gr.Column(scale=5, min_width=320):
            status = gr.HTML(elem_id="needle-status")
            with gr.Row(elem_classes="answers"):
                answers = [gr.HTML(elem_id=f"needle-answer-{method}") for method in METHODS.values()]
            place = gr.HTML(elem_id="needle-place")
            heat = gr.Plot(
                show_label=False, label="Share found by length and depth", elem_id="plot-needle", visible=False
            )
            table = gr.HTML(elem_id="needle-table")
            details = gr.HTML(elem_id="needle-details")
            with gr.Row(elem_classes="points"):
                saves = {name: gr.Button(name, size="sm") for name in FILES}
                opened = gr.UploadButton("Open a result file", size="sm", file_types=[".jsonl"], type="filepath")
            file = gr.DownloadButton(visible="hidden", elem_id="needle-file")

    # Handlers

    def started(request: gr.Request) -> threading.Event:
        name = request.session_hash or ""
        if name in stops and not stops[name].is_set():
            raise AskError("Something of yours is running already: stop it first, or wait until it has ended.")
        stops[name] = threading.Event()
        return stops[name]

    def run_one(
        source: str, task: str, methods: list[str], seed: float, length: float, depth: float, key: str, value: str,
        text: str, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        shown: dict[str, str] = {}
        where = ""
        try:
            stop = started(request)
            try:
                cells = [
                    Cell(task, _tokens(length), float(depth), method, seed=whole_number("The seed", seed))
                    for method in methods
                ]
                if not cells:
                    raise AskError("Choose at least one of plain RoPE and LaMPE.")
                haystack, needle = haystack_of(source, text), own_needle(key, value)
                for event in session.needles(haystack, cells, needle, stop):
                    if isinstance(event, Update):
                        yield [views.status(event), *_cards(shown), where]
                        continue
                    shown[event.method] = needle_views.card(event)
                    plain = event.method == "rope"
                    ran = plain_map(event.length) if plain else session.config().position_map(event.length)
                    where += needle_views.place(event, ran)
                yield [views.note("Stopped." if stop.is_set() else "Done."), *_cards(shown), where]
            finally:
                stop.set()
        except (ValueError, lampe.LoadError) as error:
            yield [views.message(str(error)), *_cards(shown), where]

    def run_grid(
        results: list[Result], source: str, task: str, methods: list[str], seed: float, lengths: str, depths: str,
        trials: float, text: str, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        results = list(results)
        try:
            stop = started(request)
            try:
                places = numbers("Prompt lengths", lengths, int), numbers("Depths", depths, float)
                wanted = checked_grid(task, *places, methods, trials, seed)
                haystack = haystack_of(source, text)
                done = {result.cell for result in results if result.haystack == haystack.name}
                missing = [cell for cell in wanted if cell not in done]
                ran = 0
                for event in session.needles(haystack, missing, stop=stop) if missing else ():
                    if isinstance(event, Update):
                        tests = f"{len(wanted) - len(missing) + ran} of {len(wanted)} tests done"
                        yield [views.status(event) + views.note(tests), *[gr.skip()] * 4]
                        continue
                    ran += 1
                    results.append(event)
                    yield ["", *shown(results)]
                words = "Stopped: run it again to go on." if stop.is_set() else f"Done: {len(wanted)} tests."
                yield [views.note(words), *shown(results)]
            finally:
                stop.set()
        except (ValueError, lampe.LoadError) as error:
            yield [views.message(str(error)), *[gr.skip()] * 4]

    def shown(results: list[Result]) -> list[Any]:
        cells = [result.cell for result in results]
        plot = gr.Plot(as_plot(needle_views.heat(results, cells), "lampe-needles"), visible=bool(results))
        return [results, plot, needle_views.table(results), needle_views.details(results)]

    def stop_run(request: gr.Request) -> None:
        if event := stops.get(request.session_hash or ""):
            event.set()

    def open_file(path: str) -> list[Any]:
        try:
            if Path(path).stat().st_size > MOST_ROWS_BYTES:
                raise AskError(
                    f"This file is larger than {MOST_ROWS_BYTES / 1e6:.0f} MB; no grid here makes such a one."
                )
            try:
                results = read_results(Path(path))
            except UnicodeDecodeError:
                raise AskError("This file isn't text, so it holds no results.") from None
            if not results:
                raise AskError("This file is empty: it holds no results.")
            return [views.note(f"{len(results)} results opened."), *shown(results)]
        except ValueError as error:
            return [views.message(str(error)), *[gr.skip()] * 4]
        finally:
            Path(path).unlink(missing_ok=True)

    def save(name: str) -> Any:
        ending, content = FILES[name]

        def make(results: list[Result]) -> Iterator[Any]:
            if not results:
                yield None, views.message("There are no results yet: run a grid first.")
                return
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"lampe-needles.{ending}"
                path.write_text(content(results), encoding="utf-8")
                yield str(path), gr.skip()

        return make

    # Events

    common = [source, task, methods, seed]
    runs: dict[str, Any] = {"concurrency_limit": visitors, **_QUIET}
    one.click(run_one, [*common, length, depth, key, value, document], [status, *answers, place], **runs)
    filled = [status, kept, heat, table, details]
    many.click(run_grid, [kept, *common, lengths, depths, trials, document], filled, **runs)
    halt.click(stop_run, queue=False, **_QUIET)
    clear.click(lambda: ["", [], gr.Plot(visible=False), "", ""], None, filled, queue=False, **_QUIET)
    opened.upload(open_file, opened, filled, **_QUIET)
    for button, choice in zip(ready, READY, strict=True):
        values = (choice.lengths, choice.depths, choice.trials)
        button.click(lambda values=values: values, None, [lengths, depths, trials], queue=False, **_QUIET)
    for name, button in saves.items():
        made = button.click(save(name), kept, [file, status], **_QUIET)
        made.then(js="() => setTimeout(() => document.querySelector('#needle-file')?.click(), 300)", **_QUIET)


def _cards(shown: dict[str, str]) -> list[str]:
    return [shown.get(method, "") for method in METHODS.values()]


def _tokens(length: Any) -> int:
    return whole_number("The prompt length", length)
