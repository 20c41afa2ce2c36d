"""The tab "Position map": its controls, one handler that redraws all of it, links and files."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr

import lampe
from app.map import drawing, figures, method_figures, views
from app.map.live import live_data, live_panel
from app.map.more_figures import shares_figure
from app.map.scenes import SCENES, SENTENCE, Scene
from app.map.settings import CUSTOM, KINDS, MODELS, MOST_BESIDE, ZOOMS, MapSettings
from app.serving.reports import Attention
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.serving.visitors import Visitor
from app.ui.downloads import saves
from app.ui.events import AT_ONCE, INTERNAL, LATEST, Shown
from app.ui.figure import as_plot, plot
from app.ui.html import message, status
from app.ui.runs import visitor_of
from app.ui.state import PageState
from lampe.errors import InputError, LampeError
from lampe.inference.prompt import pieces
from lampe.methods import METHODS, LampeConfig

MOST_TOKENS = 400  # of the short text, whose tokens are drawn each
_MOST_CHARACTERS = 20 * MOST_TOKENS
_AROUND_A_PAIR = 4096  # tokens across
_SEEN = "(_, ...given) => [document.querySelector('#view-map-button[aria-selected=true]') !== null, ...given]"
"""Whether this view is open: the browser knows first."""


class MapTab:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
        For the tokenizer of the short text, and the loaded model's settings.
    demo, tabs, tab
        The page, its tabs, and this one of them: a link opens it.
    state : PageState
        Which the map follows.
    """

    def __init__(self, service: ModelService, demo: gr.Blocks, tabs: gr.Tabs, tab: gr.Tab, state: PageState) -> None:
        self.service, self.tabs, self.tab, self.state, self.start = service, tabs, tab, state, MapSettings()
        self._under_way: set[tuple[Visitor, str]] = set()
        self._lock = threading.Lock()
        self.plots: dict[str, gr.Plot] = {}  # as `drawing.draw` names them
        self.words: dict[str, gr.HTML] = {}
        with gr.Row(elem_classes="columns map-page"):
            with gr.Column(scale=2, min_width=300, elem_classes="map-controls"):
                self._lay_out_controls()
            with gr.Column(scale=6, min_width=320):
                self._lay_out_figures()
                self._lay_out_comparison()
                gr.HTML("<h2>Every number</h2>")
                self.words["numbers"] = gr.HTML(elem_id="map-numbers")
                self._lay_out_measured()
        self.controls: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(MapSettings)}
        self._set = [self.slider, self.follow, *self.controls.values()]  # what `_controls` sets
        self._wire_drawing(demo)
        self._wire_controls()
        self._wire_runs()

    # Layout

    def _lay_out_controls(self) -> None:
        start = self.start
        with gr.Row(elem_classes="points"):
            self.scenes = [gr.Button(scene.label, size="sm") for scene in SCENES]
        self.look = gr.HTML(elem_id="map-look")
        self.message = gr.HTML(elem_id="map-message")
        with gr.Group():
            self.slider = gr.Slider(
                6, 20, math.log2(start.length), step=0.01, label="Input length (slider)", elem_id="map-slider",
                elem_classes="bare", buttons=[],
            )  # fmt: skip
            self.length = gr.Number(start.length, label="Input length (tokens)", elem_id="map-length")
            self.planned = gr.Number(
                None, label="Planned for (tokens)", elem_id="map-planned",
                info="Room for an answer and further questions. Empty: for the input itself.",
            )  # fmt: skip
            self.follow = gr.Checkbox(True, label="Follow the prompt of the other tabs", elem_id="map-follow")
        with gr.Group():
            named = list(MODELS.items())
            self.model = gr.Radio(named, value=start.model, label="Model: window and curve", elem_id="map-model")
            self.window = gr.Number(start.window, label="Window (tokens)", visible=False, elem_id="map-window")
            self.curve = gr.Textbox(
                "", label="Its curve: L, a, b", placeholder="Llama-3's, rescaled to the window", visible=False,
                elem_id="map-own-curve", max_length=200,
            )  # fmt: skip
            with gr.Row():
                self.head = gr.Number(start.head, label="Head", min_width=90, elem_id="map-head")
                self.tail = gr.Number(start.tail, label="Tail", min_width=90, elem_id="map-tail")
            self.mapping = gr.Number(
                None, label="Fixed mapping length", elem_id="map-mapping",
                info="Dynamic mapping off. Empty: what the model's preset has, a curve or a constant.",
            )  # fmt: skip
            self.kind = gr.Radio(list(KINDS.items()), value=start.kind, label="Map", elem_id="map-kind")
            self.scale = gr.Number(
                start.scale, label="Attention scale", elem_id="map-scale",
                info=f"The authors' scripts use {lampe.REFERENCE_ATTENTION_SCALE:.4g}; it moves no position.",
            )  # fmt: skip
        self.big = gr.Checkbox(False, label="Presentation size", elem_id="map-big")
        with gr.Row(elem_classes="points"):
            self.save_buttons = {name: gr.Button(name, size="sm") for name in drawing.FILES}
        self.link = gr.HTML(elem_id="map-link")
        self.file = gr.DownloadButton(visible="hidden", elem_id="map-file")
        self.seen = gr.Checkbox(False, visible="hidden")
        self.drawn = gr.Textbox("", visible="hidden")  # the settings of the figures that are there

    def _lay_out_figures(self) -> None:
        self.live = live_panel()
        self.words["sentence"] = gr.HTML(elem_id="map-sentence")
        gr.HTML("<h2>1 · Relative distance → mapped position</h2>")
        self.plots["distance"] = plot("Relative distance to mapped position", "plot-distance")
        self.words["distance"] = gr.HTML()
        gr.HTML("<h2>2 · Attention regions: query × key</h2>")
        self.planes: dict[str, gr.Column] = {}
        with gr.Row(elem_classes="planes"):
            for number, name in enumerate(figures.FRAMES):
                with gr.Column(min_width=280, visible=not number) as self.planes[f"regions-{number}"]:
                    gr.HTML(f"<h3>{name}</h3>")
                    label = f"Attention regions, {name}"
                    self.plots[f"regions-{number}"] = plot(label, f"plot-regions-{number}")
        self.words["regions"] = gr.HTML(elem_id="regions-caption")
        gr.HTML("<h2>3 · Mapped-position matrix</h2>")
        with gr.Row(elem_classes="window"):
            self.at_query = gr.Number(0, label="Query in the middle", min_width=120, elem_id="map-at-query")
            self.at_key = gr.Number(0, label="Key in the middle", min_width=120, elem_id="map-at-key")
            self.across = gr.Number(None, label="Tokens across (empty: all)", min_width=120, elem_id="map-across")
        with gr.Row(elem_classes="points"):
            self.zooms = [gr.Button(name, size="sm") for name in ZOOMS]
        self.plots["matrix"] = plot("Matrix of mapped positions", "plot-matrix")
        self.words["matrix"] = gr.HTML(elem_id="matrix-caption")
        gr.HTML("<h2>4 · Mapping length m(l)</h2>")
        self.plots["curve"] = plot("Mapping length against input length", "plot-curve")
        self.words["curve"] = gr.HTML()
        gr.HTML("<h2>5 · One query token's row</h2>")
        self.query = gr.Number(None, label="Query token i (empty: the last)", elem_id="map-query")
        self.plots["row"] = plot("One query's mapped positions along the text", "plot-row")
        self.words["row"] = gr.HTML(elem_id="map-table")
        self.short = gr.Textbox(
            "", label="A short text, token by token", lines=2, max_lines=4, elem_id="map-short",
            placeholder=f"Paste up to {MOST_TOKENS} tokens: their number becomes the input length.",
        )  # fmt: skip
        self.strip = gr.HTML(elem_id="map-strip")

    def _lay_out_comparison(self) -> None:
        gr.HTML("<h2>Methods compared</h2>")
        self.beside = gr.Dropdown(
            [(method.title, key) for key, method in METHODS.items() if key != LampeConfig.key],
            value=[],
            multiselect=True,
            max_choices=MOST_BESIDE,
            label=f"Beside these settings, by their authors' rule for the window (up to {MOST_BESIDE})",
            elem_id="map-beside",
        )
        with gr.Column(visible=False) as self.compared:
            self.plots["methods"] = plot("Several methods' positions", "plot-methods")
            self.plots["planes"] = plot("Several methods' attention regions", "plot-planes")
            self.words["formulas"] = gr.HTML(elem_id="map-formulas")

    def _lay_out_measured(self) -> None:
        with gr.Column(visible=False) as self.measured:
            gr.HTML("<h2>6 · Measured: where the attention of the last answer went</h2>")
            self.run_query = gr.Slider(0, 1, 0, step=1, label="Query token of the run", elem_id="map-run-query")
            self.shares = plot("Measured attention by layer and region", "plot-shares")
            self.shares_table = gr.HTML(elem_id="map-shares")
            self.open_run = gr.Button("Open the map of this run", size="sm")

    # Events

    def _wire_drawing(self, demo: gr.Blocks) -> None:
        settings = list(self.controls.values())
        drawn = [
            self.message, self.live, *self.words.values(), *self.plots.values(), *self.planes.values(), self.link,
            self.window, self.curve, self.compared, self.strip, self.drawn,
        ]  # fmt: skip
        # Drawn where it is seen: whoever opens another view isn't sent these figures.
        changed = [control.change for control in settings]
        strip = [self.short, self.state.chosen, *settings]
        seen: dict[str, Any] = {"inputs": [self.seen, self.drawn, *strip], "outputs": drawn, "js": _SEEN}
        gr.on([self.tab.select, *changed], self.redraw, **seen, **LATEST)
        demo.load(self.from_link, None, [*self._set, self.look], **INTERNAL).then(self.redraw, **seen, **AT_ONCE)
        self.short.change(self.show_strip, strip, self.strip, **LATEST)
        for button, name in zip(self.zooms, ZOOMS, strict=True):
            button.click(partial(self.zoom, name), settings, [self.across, self.at_query, self.at_key], **AT_ONCE)
        for name, button in self.save_buttons.items():
            saves(button, settings, partial(self.in_file, name), self.file, self.message, self.service.desk)

    def _wire_controls(self) -> None:
        # What a scene or a link said doesn't hold any more.
        lengths = [self.length, self.slider, self.planned, self.follow, self.look]
        self.slider.release(self.slide, self.slider, lengths, **LATEST)
        self.length.input(self.set_length, self.length, lengths, **LATEST)
        self.planned.input(lambda: (False, ""), None, [self.follow, self.look], **LATEST)
        sizes = [self.window, self.head, self.tail, self.mapping, self.curve, self.look]
        self.model.input(self.choose_model, self.model, sizes, **LATEST)
        following = [self.state.lengths.change, self.follow.input]
        gr.on(following, self.follow_prompt, [self.state.lengths, self.follow], lengths[:3], **AT_ONCE)
        outputs = [*self._set, self.short, self.look]
        scenes = sorted(zip(self.scenes, SCENES, strict=True), key=lambda pair: "length" in pair[1].changes)
        slow: list[Any] = []  # the scene that has to wait for a tokenizer; another one ends it
        for button, scene in scenes:
            show, given = partial(self.show_scene, scene), [self.big, self.state.chosen]
            shown = button.click(show, given, outputs, cancels=slow, **INTERNAL)
            slow = slow or [shown]
        given = [self.short, self.state.chosen, *self.controls.values()]
        read = [self.length, self.slider, self.planned, self.follow, self.strip]
        self.short.input(self.read_short, given, read, trigger_mode="always_last", **INTERNAL)

    def _wire_runs(self) -> None:
        state, shown = self.state, [self.shares, self.shares_table]
        section = [self.measured, self.run_query, *shown]
        state.attention.change(self.new_run, [state.attention, self.big], section, **AT_ONCE)
        looking = [self.run_query.input, self.big.input]
        gr.on(looking, self.show_attention, [state.attention, self.run_query, self.big], shown, **LATEST)
        pair = [*self._set, self.tabs, state.pair]
        state.pair.change(self.show_pair, [state.pair, self.big], pair, **INTERNAL)
        self.open_run.click(self.run_settings, [state.attention, self.big], self._set, **INTERNAL)
        given = [state.chosen, self.length, self.planned, self.big]
        state.chosen.change(self.follow_settings, given, self._set, **INTERNAL)

    def _controls(self, settings: MapSettings) -> Shown:
        values = {control: getattr(settings, name) for name, control in self.controls.items()}
        return values | {self.beside: list(settings.beside), self.slider: _at(settings.length)}

    def _checked(self, values: tuple[Any, ...], **instead: Any) -> MapSettings:
        """The settings that the controls show."""
        return MapSettings.checked(**dict(zip(self.controls, values, strict=True)) | instead)

    # Drawing

    def redraw(self, request: gr.Request, seen: bool, drawn: str, text: str, chosen: Chosen, *values: Any) -> Shown:
        """All figures, captions and numbers, where this view is open and they aren't those of these settings; settings
        that allow no map leave them as they are."""
        if not seen:
            return {self.message: gr.skip()}
        try:
            settings = self._checked(values)
            if repr(settings) == drawn:
                return {self.message: ""}
            visitor = visitor_of(request)
            under_way = visitor, repr(settings)
            with self._lock:
                if under_way in self._under_way:  # the same is being drawn for them: controls change together
                    return {self.message: gr.skip()}
                self._under_way.add(under_way)
            try:
                with self.service.desk.turn(visitor):
                    shown = self._redrawn(settings)
            finally:
                self._under_way.discard(under_way)
            return shown | {self.strip: self.show_strip(text, chosen, *values), self.drawn: repr(settings)}
        except LampeError as error:
            return {self.message: message(str(error))}

    def _redrawn(self, settings: MapSettings) -> Shown:
        drawn, custom = drawing.draw(settings), settings.model == CUSTOM
        words, plots = drawn.words, {name: figure for name, (_, figure) in drawn.figures.items()}
        if settings.beside:
            methods, length, big = settings.methods, settings.length, settings.big
            plots["methods"] = method_figures.curves_figure(methods, length, big)
            plots["planes"] = method_figures.planes_figure(methods, length, big)
            words["formulas"] = views.formulas_table(methods, length)
        return {
            self.message: "",
            self.live: gr.HTML(data=live_data(settings)),
            **{self.words[name]: text for name, text in words.items()},
            **{self.plots[name]: as_plot(figure, f"lampe-{name}") for name, figure in plots.items()},
            **{column: gr.Column(visible=name in plots) for name, column in self.planes.items()},
            self.link: views.map_link(settings),
            self.window: gr.Number(visible=custom),
            self.curve: gr.Textbox(visible=custom),
            self.compared: gr.Column(visible=bool(settings.beside)),
        }

    def zoom(self, name: str, *values: Any) -> tuple[Any, Any, Any]:
        """A button's part of the matrix, from the part that is shown."""
        try:
            return self._checked(values).zoomed(name)
        except LampeError:
            return gr.skip(), gr.skip(), gr.skip()  # the redraw has said what is wrong

    def in_file(self, name: str, *values: Any) -> tuple[str, str]:
        """What a button saves: a file's name and its text."""
        ending, content = drawing.FILES[name]
        settings = self._checked(values)
        return f"lampe-map-{settings.model}-{settings.length}.{ending}", content(settings)

    def from_link(self, request: gr.Request) -> Shown:
        """The settings that the page's address asks for; without any, the loaded model's own."""
        given = {name: value for name, value in dict(request.query_params).items() if name in self.controls}
        try:
            own = self.service.config()
            settings, problems = MapSettings.from_link(given) if given else (MapSettings.running(own), [])
        except LampeError:
            settings, problems = self.start, []
        # What the page has from its start isn't told again: each would be a change to it. An empty number is: gradio
        # begins with 0 there.
        before = self._controls(self.start)
        told = ((control, value) for control, value in self._controls(settings).items())
        shown = {control: value for control, value in told if value is None or value != before[control]}
        if problems:
            shown[self.look] = message(" ".join(problems))
        return shown | {self.follow: not given}

    # Controls that set others

    def slide(self, place: float) -> Shown:
        return {self.length: round(2**place), **self._left()}

    def set_length(self, length: Any) -> Shown:
        return {self.slider: _at(length), **self._left()}

    def _left(self) -> Shown:
        """A person has chosen the length."""
        return {self.planned: None, self.follow: False, self.look: ""}

    def choose_model(self, name: str) -> Shown:
        """Another model's window, Head and Tail; a custom one goes on from what is there."""
        if name == CUSTOM:
            return {self.look: ""}
        settings = MapSettings.of(name)
        sizes = {self.window: settings.window, self.head: settings.head, self.tail: settings.tail}
        return sizes | {self.mapping: None, self.curve: "", self.look: ""}

    def show_scene(self, scene: Scene, big: bool, chosen: Chosen) -> Iterator[Shown]:
        """A button's view; one without a length is that of a sentence, token by token."""
        settings = replace(scene.settings, big=big)
        short: Shown = {}
        try:
            if "length" not in scene.changes:
                for update in self.service.texts.fetched(chosen):
                    yield {self.look: status(update)}
                settings = replace(settings, length=len(self._tokens(chosen, SENTENCE)))
                short = {self.short: SENTENCE}
        except LampeError as error:
            yield {self.look: message(str(error))}
            return
        look = f'<p class="look">{escape(scene.look)}</p>'
        yield self._controls(settings) | short | {self.follow: False, self.look: look}

    def follow_prompt(self, lengths: tuple[int, int] | None, follow: bool) -> Shown:
        """The length of the prompt in another tab."""
        if not follow:
            return {self.length: gr.skip()}
        end, planned = lengths or (self.start.length, self.start.length)
        return {self.length: end, self.slider: _at(end), self.planned: planned if planned > end else None}

    def follow_settings(self, chosen: Chosen, length: Any, planned: Any, big: bool) -> Shown:
        """Other settings for runs: the map has them at once."""
        settings = MapSettings.running(self.service.config(chosen))
        return self._controls(replace(settings, length=length, planned=planned, big=big))

    # The short text

    def read_short(self, text: str, chosen: Chosen, *values: Any) -> Iterator[Shown]:
        """A new short text sets the input length."""
        if not text.strip():
            yield {self.strip: ""}
            return
        try:
            for update in self.service.texts.fetched(chosen):
                yield {self.strip: status(update)}
            count = len(self._tokens(chosen, text))
        except LampeError as error:
            yield {self.strip: message(str(error))}
            return
        lengths = {self.length: count, self.slider: _at(count), self.planned: None, self.follow: False}
        yield lengths | {self.strip: self.show_strip(text, chosen, *values)}

    def show_strip(self, text: str, chosen: Chosen, *values: Any) -> Any:
        """The short text's tokens under the present settings."""
        if not text.strip() or not self.service.texts.ready(chosen):
            return gr.skip() if text.strip() else ""
        try:
            tokens = self._tokens(chosen, text)
            settings = self._checked(values, length=len(tokens), planned=None)
        except LampeError as error:
            return message(str(error))
        return views.token_strip(settings.position_map, settings.row, tokens)

    def _tokens(self, chosen: Chosen, text: str) -> list[str]:
        """A short text's tokens as text.

        Raises
        ------
        InputError
            If it has more than `MOST_TOKENS` tokens, or so many characters that it is sure to.
        """
        elsewhere = 'Longer ones belong in "Ask a document", and the map follows them.'
        if len(text) > _MOST_CHARACTERS:
            raise InputError(
                f"This text has {len(text):,} characters; here each token is drawn, so at most {_MOST_CHARACTERS:,} "
                f"are read. {elsewhere}"
            )
        found = pieces(self.service.texts.tokenizer(chosen), text)
        if len(found) > MOST_TOKENS:
            raise InputError(
                f"This text has {len(found):,} tokens; here each one is drawn, so the limit is {MOST_TOKENS}. "
                f"{elsewhere}"
            )
        return found

    # What was run

    def new_run(self, run: Attention | None, big: bool) -> Shown:
        """What the last answer left: its section, with the first of its queries."""
        if run is None:
            return {self.measured: gr.Column(visible=False)}
        figure, table = self.show_attention(run, 0, big)
        slider = gr.Slider(maximum=max(1, len(run.queries) - 1), value=0)
        section = {self.measured: gr.Column(visible=True), self.run_query: slider}
        return section | {self.shares: figure, self.shares_table: table}

    def show_attention(self, run: Attention | None, number: float, big: bool) -> tuple[Any, Any]:
        """Where one query's attention went: figure and table."""
        if run is None:
            return gr.skip(), gr.skip()
        number = min(int(number or 0), len(run.queries) - 1)
        figure = shares_figure(run.position_map.regions, run.layers, run.shares[number].float().numpy(), big)
        return as_plot(figure, "lampe-attention"), views.shares_table(run, number)

    def run_settings(self, run: Attention | None, big: bool) -> Shown:
        """The map that the last answer ran on."""
        if run is None:
            return {self.follow: gr.skip()}
        assert isinstance(run.method, LampeConfig)  # the page keeps LaMPE's alone
        ran = run.position_map
        planned = ran.length if ran.length > ran.end else None
        settings = replace(MapSettings.running(run.method), length=ran.end, planned=planned, big=big)
        return self._controls(settings) | {self.follow: False}

    def show_pair(self, pair: tuple[LampeConfig, int, int, int] | None, big: bool) -> Shown:
        """The part of the plane around a pair, under the settings that it was read with."""
        if pair is None:
            return {self.state.pair: gr.skip()}
        config, length, query, key = pair
        across = min(length, _AROUND_A_PAIR)
        settings = replace(MapSettings.running(config), length=length, across=across, at_query=query, at_key=key)
        shown = {self.follow: False, self.tabs: gr.Tabs(selected=self.tab.id), self.state.pair: None}
        return self._controls(replace(settings, big=big)) | shown


def _at(length: Any) -> Any:
    """Where the slider stands for an input length."""
    if not isinstance(length, int | float) or length < 1:
        return gr.skip()
    return round(min(20.0, max(6.0, math.log2(length))), 2)
