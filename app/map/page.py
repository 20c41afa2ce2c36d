"""The tab "Position map": its controls, one handler that redraws all of it, links and files."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr
import plotly.graph_objects as go

import lampe
from app.errors import AskError
from app.map import figures, method_figures
from app.map import more_figures as map_figures
from app.map.settings import (
    CUSTOM,
    KINDS,
    MOST_BESIDE,
    POINTS,
    SENTENCE,
    MapView,
    Point,
    as_csv,
    as_json,
    curve_text,
)
from app.serving.computing import with_progress
from app.serving.reports import Attention
from app.serving.requests import Chosen
from app.serving.service import Session
from app.ui import html as views
from app.ui.downloads import QUIET, saves
from app.ui.figure import COLOURS, as_plot
from lampe.errors import LampeError
from lampe.inference.prompt import pieces
from lampe.methods import METHODS, LampeConfig, ScaledSigmoid

MODELS = {
    "SmolLM2": "smollm2",
    "Llama-2": "llama2",
    "Llama-3": "llama3",
    "Mistral": "mistral",
    "Llama-3.1": "llama3.1",
    "custom": CUSTOM,
}
_SHORT_TEXT_TOKENS = 400


def own_view(config: LampeConfig) -> MapView:
    """The view of the settings that answers and needle tests run with."""
    name = next((name for name, preset in lampe.PRESETS.items() if preset == config), None)
    if name:
        return MapView.of(name)
    view = MapView(CUSTOM, window=config.window, head=config.head, tail=config.tail, scale=config.attention_scale)
    if not isinstance(config.mapping, ScaledSigmoid):
        return replace(view, mapping=config.mapping(config.window))
    return view if config.basis == "rescaled" else replace(view, curve=curve_text(config.mapping))


@dataclass(frozen=True)
class Drawn:
    """One view's figures and words."""

    figures: dict[str, tuple[str, go.Figure]]  # by element: title and figure
    captions: dict[str, str]
    sentence: str
    numbers: str
    row: str


def draw(view: MapView) -> Drawn:
    """All that the tab shows of a view."""
    position_map, config, big = view.position_map, view.config, view.big
    own = replace(view, planned=None)
    curves = {"these settings": lambda length: replace(own, length=length).position_map.mapping_length}
    for name, key in MODELS.items():
        if key not in (CUSTOM, view.model):
            curves[name] = partial(_mapping_length, lampe.PRESETS[key])
    longest = max(view.length, 262_144)
    drawn = {
        "distance": (
            "1 · Relative distance → mapped position",
            figures.distance_figure(position_map, config.window, big),
        ),
        **{
            f"regions-{figures.FRAMES.index(name)}": (
                f"2 · Attention regions: {name}",
                figures.regions_figure(position_map, frame, big),
            )
            for name, frame in figures.frames(position_map).items()
        },
        "matrix": ("3 · Mapped-position matrix", map_figures.matrix_figure(position_map, view.frame, big)),
        "curve": ("4 · Mapping length", map_figures.curve_figure(position_map, config.window, curves, longest, big)),
        "row": ("5 · One query token's row", map_figures.row_figure(position_map, view.row, big)),
    }
    captions = {
        "distance": views.distance_caption(view, position_map),
        "regions": views.regions_caption(position_map),
        "matrix": views.matrix_caption(position_map, view.frame),
        "curve": views.curve_caption(view, position_map),
    }
    return Drawn(
        drawn,
        captions,
        views.map_sentence(position_map, config, plain=view.kind == "plain"),
        views.numbers_table(view, position_map),
        views.map_table(position_map, view.row),
    )


def _mapping_length(config: LampeConfig, length: int) -> int:
    return config.position_map(length).mapping_length


def standalone(view: MapView) -> str:
    """The whole view as one HTML file that needs no network: plotly's script is in it."""
    drawn = draw(view)
    parts = ""
    for number, (name, (title, figure)) in enumerate(drawn.figures.items()):
        body = figure.to_html(full_html=False, include_plotlyjs=not number, config={"displaylogo": False})
        parts += f"<section><h2>{escape(title)}</h2>{body}{drawn.captions.get(name.removesuffix('-0'), '')}</section>"
    chips = "".join(f".region-{role}{{background:{colour}}}" for role, colour in COLOURS.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LaMPE position map</title>'
        '<meta name="viewport" content="width=device-width"><style>body{font-family:system-ui,sans-serif;'
        "max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2733}table{border-collapse:collapse}"
        "th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid #d8dde4}"
        f".chip{{display:inline-block;width:.8em;height:.8em;margin-right:.4em}}{chips}</style></head><body>"
        f"<h1>LaMPE position map</h1>{drawn.sentence}{parts}{drawn.row}{drawn.numbers}</body></html>"
    )


FILES = {"CSV": ("csv", as_csv), "JSON": ("json", as_json), "One HTML file": ("html", standalone)}


def build_map_tab(
    session: Session, demo: gr.Blocks, tabs: gr.Tabs, chosen: gr.State, tokens: gr.State, attention: gr.State,
    pair: gr.State,
) -> None:  # fmt: skip
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    session : Session
        For the tokenizer of the short text, and the loaded model's settings.
    demo, tabs
        The page and its tabs: a link opens this one.
    chosen : gr.State of Chosen
        What this visitor runs.
    tokens : gr.State of (int, int) or None
        Tokens of the prompt in another tab, and those it is planned for.
    attention : gr.State of Attention or None
        Where the last answer's attention went.
    pair : gr.State of (LampeConfig, length, query, key) or None
        A pair of tokens to be shown, under these settings.
    """
    start = MapView()

    # Layout

    with gr.Row(elem_classes="columns map-page"):
        with gr.Column(scale=2, min_width=300, elem_classes="map-controls"):
            with gr.Row(elem_classes="points"):
                points = [gr.Button(point.label, size="sm") for point in POINTS]
            look = gr.HTML(elem_id="map-look")
            message = gr.HTML(elem_id="map-message")
            with gr.Group():
                slider = gr.Slider(
                    6, 20, math.log2(start.length), step=0.01, label="Input length (slider)", elem_id="map-slider",
                    elem_classes="bare", buttons=[],
                )  # fmt: skip
                length = gr.Number(start.length, label="Input length (tokens)", elem_id="map-length")
                planned = gr.Number(
                    None, label="Planned for (tokens)", elem_id="map-planned",
                    info="Room for an answer and further questions. Empty: for the input itself.",
                )  # fmt: skip
                follow = gr.Checkbox(True, label="Follow the prompt of the other tabs", elem_id="map-follow")
            with gr.Group():
                model = gr.Radio(
                    list(MODELS.items()), value=start.model, label="Model: window and curve", elem_id="map-model"
                )
                window = gr.Number(start.window, label="Window (tokens)", visible=False, elem_id="map-window")
                own_curve = gr.Textbox(
                    "", label="Its curve: L, a, b", placeholder="Llama-3's, rescaled to the window", visible=False,
                    elem_id="map-own-curve", max_length=200,
                )  # fmt: skip
                with gr.Row():
                    head = gr.Number(start.head, label="Head", min_width=90, elem_id="map-head")
                    tail = gr.Number(start.tail, label="Tail", min_width=90, elem_id="map-tail")
                mapping = gr.Number(
                    None, label="Fixed mapping length", elem_id="map-mapping",
                    info="Dynamic mapping off. Empty: what the model's preset has, a curve or a constant.",
                )  # fmt: skip
                kind = gr.Radio(list(KINDS.items()), value=start.kind, label="Map", elem_id="map-kind")
                scale = gr.Number(
                    start.scale, label="Attention scale", elem_id="map-scale",
                    info=f"The authors' scripts use {lampe.REFERENCE_ATTENTION_SCALE:.4g}; it moves no position.",
                )  # fmt: skip
            big = gr.Checkbox(False, label="Presentation size", elem_id="map-big")
            with gr.Row(elem_classes="points"):
                save_buttons = {name: gr.Button(name, size="sm") for name in FILES}
            link = gr.HTML(elem_id="map-link")
            file = gr.DownloadButton(visible="hidden", elem_id="map-file")
        with gr.Column(scale=6, min_width=320):
            sentence = gr.HTML(elem_id="map-sentence")
            gr.HTML("<h2>1 · Relative distance → mapped position</h2>")
            distance = gr.Plot(show_label=False, label="Relative distance to mapped position", elem_id="plot-distance")
            distance_caption = gr.HTML()
            gr.HTML("<h2>2 · Attention regions: query × key</h2>")
            with gr.Row(elem_classes="planes"):
                planes = []
                for number, name in enumerate(figures.FRAMES):
                    with gr.Column(min_width=280, visible=not number) as column:
                        gr.HTML(f"<h3>{name}</h3>")
                        plot = gr.Plot(
                            show_label=False, label=f"Attention regions, {name}", elem_id=f"plot-regions-{number}"
                        )
                    planes.append((column, plot))
            regions_caption = gr.HTML(elem_id="regions-caption")
            gr.HTML("<h2>3 · Mapped-position matrix</h2>")
            with gr.Row(elem_classes="window"):
                at_query = gr.Number(0, label="Query in the middle", min_width=120, elem_id="map-at-query")
                at_key = gr.Number(0, label="Key in the middle", min_width=120, elem_id="map-at-key")
                across = gr.Number(None, label="Tokens across (empty: all)", min_width=120, elem_id="map-across")
            with gr.Row(elem_classes="points"):
                zooms = [gr.Button(name, size="sm") for name in ZOOMS]
            heat = gr.Plot(show_label=False, label="Matrix of mapped positions", elem_id="plot-matrix")
            matrix_caption = gr.HTML(elem_id="matrix-caption")
            gr.HTML("<h2>4 · Mapping length m(l)</h2>")
            curve = gr.Plot(show_label=False, label="Mapping length against input length", elem_id="plot-curve")
            curve_caption = gr.HTML()
            gr.HTML("<h2>5 · One query token's row</h2>")
            query = gr.Number(None, label="Query token i (empty: the last)", elem_id="map-query")
            row = gr.Plot(show_label=False, label="One query's mapped positions along the text", elem_id="plot-row")
            row_table = gr.HTML(elem_id="map-table")
            short = gr.Textbox(
                "", label="A short text, token by token", lines=2, max_lines=4, elem_id="map-short",
                placeholder=f"Paste up to {_SHORT_TEXT_TOKENS} tokens: their number becomes the input length.",
            )  # fmt: skip
            strip = gr.HTML(elem_id="map-strip")
            gr.HTML("<h2>Methods compared</h2>")
            beside = gr.Dropdown(
                [(method.title, key) for key, method in METHODS.items() if key != LampeConfig.key],
                value=[],
                multiselect=True,
                max_choices=MOST_BESIDE,
                label=f"Beside these settings, by their authors' rule for the window (up to {MOST_BESIDE})",
                elem_id="map-beside",
            )
            with gr.Column(visible=False) as compared:
                together = gr.Plot(show_label=False, label="Several methods' positions", elem_id="plot-methods")
                apart = gr.Plot(show_label=False, label="Several methods' attention regions", elem_id="plot-planes")
                formulas = gr.HTML(elem_id="map-formulas")
            gr.HTML("<h2>Every number</h2>")
            numbers = gr.HTML(elem_id="map-numbers")
            with gr.Column(visible=False) as measured:
                gr.HTML("<h2>6 · Measured: where the attention of the last answer went</h2>")
                measured_query = gr.Slider(0, 1, 0, step=1, label="Query token of the run", elem_id="map-run-query")
                shares = gr.Plot(
                    show_label=False, label="Measured attention by layer and region", elem_id="plot-shares"
                )
                shares_table = gr.HTML(elem_id="map-shares")
                open_run = gr.Button("Open the map of this run", size="sm")

    controls: dict[str, Any] = {
        "model": model, "length": length, "planned": planned, "window": window, "head": head, "tail": tail,
        "mapping": mapping, "curve": own_curve, "scale": scale, "kind": kind, "query": query, "across": across,
        "at_query": at_query, "at_key": at_key, "big": big, "beside": beside,
    }  # fmt: skip

    # Handlers

    def redraw(*values: Any) -> list[Any]:
        try:
            view = MapView.checked(**dict(zip(controls, values, strict=True)))
        except LampeError as error:
            return [views.message(str(error)), *[gr.skip()] * (len(drawn_in) - 1)]
        drawn = draw(view)
        plots = {name: as_plot(figure, f"lampe-{name}") for name, (_, figure) in drawn.figures.items()}
        shown: list[Any] = []
        for number in range(len(planes)):
            plot = plots.get(f"regions-{number}")
            shown += [gr.Column(visible=plot is not None), gr.skip() if plot is None else plot]
        return [
            "", drawn.sentence, plots["distance"], drawn.captions["distance"], *shown, drawn.captions["regions"],
            plots["matrix"], drawn.captions["matrix"], plots["curve"], drawn.captions["curve"], plots["row"],
            drawn.row, drawn.numbers, views.map_link(view), gr.Number(visible=view.model == CUSTOM),
            gr.Textbox(visible=view.model == CUSTOM), *compare(view),
        ]  # fmt: skip

    def compare(view: MapView) -> list[Any]:
        """Other methods beside these settings, where some are chosen."""
        if not view.beside:
            return [gr.Column(visible=False), gr.skip(), gr.skip(), gr.skip()]
        given = view.methods, view.length
        return [
            gr.Column(visible=True), as_plot(method_figures.curves_figure(*given, view.big), "lampe-methods"),
            as_plot(method_figures.planes_figure(*given, view.big), "lampe-planes"),
            method_figures.formulas_table(*given),
        ]  # fmt: skip

    drawn_in = [
        message, sentence, distance, distance_caption, *(part for plane in planes for part in plane), regions_caption,
        heat, matrix_caption, curve, curve_caption, row, row_table, numbers, link, window, own_curve,
        compared, together, apart, formulas,
    ]  # fmt: skip

    def set_controls(view: MapView) -> list[Any]:
        return [_slider(view.length), *(_shown(getattr(view, name)) for name in controls)]

    def choose_model(name: str) -> list[Any]:
        if name == CUSTOM:  # goes on from what is there
            return [gr.skip()] * 5 + [""]
        view = MapView.of(name)
        return [view.window, view.head, view.tail, None, "", ""]

    def take_point(point: Point) -> Any:
        def take(size: bool, chosen: Chosen) -> Iterator[list[Any]]:
            preset = point.changes.get("model", start.model)
            base = MapView() if preset == CUSTOM else MapView.of(preset)
            view = replace(base, **point.changes, big=size)
            text = gr.skip() if "length" in point.changes else SENTENCE
            try:
                if text == SENTENCE:
                    for update in with_progress(partial(session.tokenizer, chosen)):
                        yield [gr.skip()] * (len(controls) + 3) + [views.status(update)]
                    view = replace(view, length=len(_tokens(session, chosen, text)))
            except LampeError as error:
                yield [gr.skip()] * (len(controls) + 3) + [views.message(str(error))]
                return
            yield [*set_controls(view), False, text, f'<p class="look">{escape(point.look)}</p>']

        return take

    def follow_prompt(prompt: tuple[int, int] | None, on: bool) -> Any:
        if not on:
            return [gr.skip()] * 3
        end, planned = prompt or (start.length, start.length)
        return end, _slider(end), planned if planned > end else None

    def short_text(text: str, chosen: Chosen, *values: Any) -> Iterator[dict[Any, Any]]:
        """A new short text sets the input length."""
        if not text.strip():
            yield {strip: ""}
            return
        try:
            for update in with_progress(partial(session.tokenizer, chosen)):
                yield {strip: views.status(update)}
            count = len(_tokens(session, chosen, text))
        except LampeError as error:
            yield {strip: views.message(str(error))}
            return
        shown = show_strip(text, chosen, *values)
        yield {length: count, slider: _slider(count), planned: None, follow: False, strip: shown}

    def show_strip(text: str, chosen: Chosen, *values: Any) -> Any:
        """The short text's tokens under the present settings."""
        if not text.strip() or not session.tokenizer_ready(chosen):
            return gr.skip() if text.strip() else ""
        try:
            tokens = _tokens(session, chosen, text)
            own = {"length": len(tokens), "planned": None}
            view = MapView.checked(**dict(zip(controls, values, strict=True)) | own)
        except LampeError as error:
            return views.message(str(error))
        return views.token_strip(view.position_map, view.row, tokens)

    def new_run(run: Attention | None, size: bool) -> list[Any]:
        """What the last answer left: its section, with the first of its queries."""
        if run is None:
            return [gr.Column(visible=False), gr.skip(), gr.skip(), gr.skip()]
        last = max(1, len(run.queries) - 1)
        return [gr.Column(visible=True), gr.Slider(maximum=last, value=0), *show_attention(run, 0, size)]

    def show_attention(run: Attention | None, number: float, size: bool) -> list[Any]:
        if run is None:
            return [gr.skip(), gr.skip()]
        number = min(int(number or 0), len(run.queries) - 1)
        regions = run.position_map.regions
        figure = map_figures.shares_figure(regions, run.layers, run.shares[number].float().numpy(), size)
        return [as_plot(figure, "lampe-attention"), views.shares_table(run, number)]

    def run_settings(run: Attention | None, size: bool) -> list[Any]:
        if run is None:
            return [gr.skip()] * (len(controls) + 2)
        assert isinstance(run.method, LampeConfig)  # the page keeps LaMPE's alone
        ran = run.position_map
        planned = ran.length if ran.length > ran.end else None
        view = replace(own_view(run.method), length=ran.end, planned=planned, big=size)
        return [*set_controls(view), False]

    def show_pair(pair: tuple[LampeConfig, int, int, int] | None, size: bool) -> list[Any]:
        """The part of the plane around a pair, under the settings that it was read with."""
        if pair is None:
            return [gr.skip()] * (len(controls) + 4)
        config, length, query, key = pair
        across = min(length, 4096)
        view = replace(own_view(config), length=length, across=across, at_query=query, at_key=key, big=size)
        return [*set_controls(view), False, gr.Tabs(selected="map"), None]

    def use(chosen: Chosen, length: Any, planned: Any, size: bool) -> list[Any]:
        """Other settings for runs: the map has them at once."""
        return set_controls(replace(own_view(session.config(chosen)), length=length, planned=planned, big=size))

    def in_file(name: str) -> Any:
        ending, content = FILES[name]

        def make(*values: Any) -> tuple[str, str]:
            view = MapView.checked(**dict(zip(controls, values, strict=True)))
            if content is standalone:
                _count_large_file()
            return f"lampe-map-{view.model}-{view.length}.{ending}", content(view)

        return make

    def from_link(request: gr.Request) -> list[Any]:
        given = {name: value for name, value in dict(request.query_params).items() if name in controls}
        try:
            view, problems = MapView.from_link(given) if given else (own_view(session.config()), [])
        except LampeError:
            view, problems = start, []
        return [
            *set_controls(view), not given, views.message(" ".join(problems)) if problems else "",
            gr.Tabs(selected="map") if given else gr.skip(),
        ]  # fmt: skip

    # Events

    settings = list(controls.values())
    set_by = [slider, *settings]
    draws: dict[str, Any] = {"fn": redraw, "inputs": settings, "outputs": drawn_in, **QUIET}
    gr.on([control.change for control in settings], **draws, trigger_mode="always_last", queue=False)
    stripped: dict[str, Any] = {"fn": show_strip, "inputs": [short, chosen, *settings], "outputs": strip, **QUIET}
    gr.on([short.change, *(c.change for c in settings)], **stripped, trigger_mode="always_last", queue=False)
    demo.load(from_link, None, [*set_by, follow, look, tabs], **QUIET).then(**draws, queue=False)
    # The last of quick changes counts; what a point or a link said doesn't hold any more.
    moved: dict[str, Any] = {"queue": False, "trigger_mode": "always_last", **QUIET}
    slider.input(lambda x: (round(2**x), None, False, ""), slider, [length, planned, follow, look], **moved)
    length.input(lambda n: (_slider(n), None, False, ""), length, [slider, planned, follow, look], **moved)
    planned.input(lambda: (False, ""), None, [follow, look], **moved)
    model.input(choose_model, model, [window, head, tail, mapping, own_curve, look], **moved)
    followed = {"fn": follow_prompt, "inputs": [tokens, follow], "outputs": [length, slider, planned], **QUIET}
    gr.on([tokens.change, follow.input], **followed, queue=False)
    outputs = [*set_by, follow, short, look]
    slow: list[Any] = []  # the point that has to wait for a tokenizer; another one ends it
    for button, point in sorted(zip(points, POINTS, strict=True), key=lambda pair: "length" in pair[1].changes):
        taken = button.click(take_point(point), [big, chosen], outputs, cancels=slow, **QUIET)
        slow = slow or [taken]
    short.input(
        short_text,
        [short, chosen, *settings],
        [length, slider, planned, follow, strip],
        trigger_mode="always_last",
        **QUIET,
    )
    for button, name in zip(zooms, ZOOMS, strict=True):
        button.click(_zoom(name, list(controls)), settings, [across, at_query, at_key], queue=False, **QUIET)
    for name, button in save_buttons.items():
        saves(button, settings, in_file(name), file, message)
    attention.change(new_run, [attention, big], [measured, measured_query, shares, shares_table], queue=False, **QUIET)
    measures = {"fn": show_attention, "inputs": [attention, measured_query, big], "outputs": [shares, shares_table]}
    gr.on([measured_query.input, big.change], **measures, **moved)
    pair.change(show_pair, [pair, big], [*set_by, follow, tabs, pair], **QUIET)
    open_run.click(run_settings, [attention, big], [*set_by, follow], **QUIET)
    chosen.change(use, [chosen, length, planned, big], set_by, **QUIET)


def _shown(value: Any) -> Any:
    """A setting as its control has it."""
    return list(value) if isinstance(value, tuple) else value


_LARGE_FILES_AN_HOUR = 60  # each is 6 MB, and gradio keeps its copy for an hour
_large_files: deque[float] = deque(maxlen=_LARGE_FILES_AN_HOUR)


def _count_large_file() -> None:
    """Keep visitors from filling the server's disk."""
    now = time.monotonic()
    if len(_large_files) == _LARGE_FILES_AN_HOUR and now - _large_files[0] < 3600:
        raise AskError(f"This server has made {_LARGE_FILES_AN_HOUR} HTML files within an hour; try again later.")
    _large_files.append(now)


ZOOMS = ("Whole text", "In × 4", "Out × 4", "Head border", "Tail border", "Stair steps")


def _zoom(name: str, names: list[str]) -> Any:
    """A button's part of the matrix, from the part that is shown."""

    def zoom(*values: Any) -> tuple[Any, Any, Any]:
        try:
            view = MapView.checked(**dict(zip(names, values, strict=True)))
        except LampeError:
            return gr.skip(), gr.skip(), gr.skip()  # the redraw has said what is wrong
        frame, position_map = view.frame, view.position_map
        last = view.length - 1
        query, key = (sum(side) // 2 for side in (frame.queries, frame.keys))
        if name == "Whole text":
            return None, 0, 0
        if name.endswith("border"):
            head, tail = view.position_map.head, view.position_map.tail
            distance = head if name.startswith("Head") else view.length - tail
            query = max(0, last - 32)
            return min(64, view.length), query, max(0, query - distance)
        if name == "Stair steps":  # about eight positions of Middle
            tokens = 8 * view.length // max(1, position_map.mapping_length)
            return min(max(32, tokens), map_figures.BINS, view.length), last, last // 2
        if name == "Out × 4":
            across = 4 * frame.across
            return (None, 0, 0) if across >= view.length else (across, query, key)
        if view.across is None:  # the whole plane's middle is blank or nearly so: go in where attention is
            query, key = last, last // 2
        return min(frame.across, max(16, frame.across // 4)), query, key

    return zoom


def _slider(length: Any) -> Any:
    """Where the slider stands for an input length."""
    if not isinstance(length, int | float) or length < 1:
        return gr.skip()
    return round(min(20.0, max(6.0, math.log2(length))), 2)


def _tokens(session: Session, chosen: Chosen, text: str) -> list[str]:
    """A short text's tokens as text."""
    if len(text) > 20 * _SHORT_TEXT_TOKENS:
        raise AskError(
            f"This text has {len(text):,} characters; here each token is drawn, so at most {20 * _SHORT_TEXT_TOKENS:,} "
            'are read. Longer ones belong in "Ask a document", and the map follows them.'
        )
    found = pieces(session.tokenizer(chosen), text)
    if len(found) > _SHORT_TEXT_TOKENS:
        raise AskError(
            f"This text has {len(found):,} tokens; here each one is drawn, so the limit is {_SHORT_TEXT_TOKENS}. "
            'Longer ones belong in "Ask a document", and the map follows them.'
        )
    return found
