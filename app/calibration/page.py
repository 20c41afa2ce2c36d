"""The tab "Calibration": a preset's sweep in figures; a preset file is opened, looked at, and used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gradio as gr

import lampe
from app.calibration import views
from app.calibration.figures import chosen_figure, loss_figure, needle_figure
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.settings import ModelChoice
from app.ui.events import AT_ONCE, INTERNAL, Shown
from app.ui.figure import as_plot, plot
from app.ui.html import message, note
from app.ui.mapping_row import MappingRow
from app.ui.state import PageState
from lampe.calibration import CalibratedPreset, read_preset
from lampe.errors import InputError, LampeError

SHIPPED = {"smollm2": Path(__file__).parents[2] / "assets" / "smollm2.json"}
"""The sweeps that `lampe.PRESETS` rest on, by their keys; those of the paper's models weren't published."""
MOST_POINTS = 2000


def shipped(config: lampe.LampeConfig) -> CalibratedPreset | None:
    """The preset that a configuration of `lampe.PRESETS` comes from."""
    name = next((name for name, preset in lampe.PRESETS.items() if preset == config), None)
    return read_preset(SHIPPED[name]) if name in SHIPPED and not config.doubt else None


def opened(path: str) -> CalibratedPreset:
    """A preset that a visitor brings.

    Raises
    ------
    InputError, CalibrationError
        If it is none, or too large to be drawn.
    """
    preset = read_preset(path)
    if len(preset.measured) > MOST_POINTS:
        raise InputError(
            f"This preset has {len(preset.measured):,} measured points; at most {MOST_POINTS:,} are drawn here. "
            "`lampe.load_preset` takes it as it is."
        )
    return preset


def fitting(preset: CalibratedPreset, own: lampe.LampeConfig, model: ModelChoice) -> tuple[lampe.LampeConfig, str]:
    """The preset's settings for the model here, and what is to be said before it is run with them.

    Raises
    ------
    InputError
        If it was made for another window.
    """
    if preset.config.window != own.window:
        raise InputError(
            f"This preset is for a window of {preset.config.window:,} tokens, and {model.name} has {own.window:,}: its "
            "mapping lengths mean nothing here. Run the app with the model it was made for."
        )
    source = preset.source
    if (source.model, source.bits) != (model.name, model.bits):
        words = f"In use. It was measured on {source.model} in {source.bits} bits; here runs {model.name} in "
        return replace(preset.config, basis="family"), f"{words}{model.bits} bits."
    return preset.config, "In use: answers, needle tests and the position map follow it."


class CalibrationTab:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    demo : gr.Blocks
        The page.
    state : PageState
        Its LaMPE settings are set.
    mapping : MappingRow
        Says so, above the tabs, and leads back.
    """

    def __init__(self, service: ModelService, demo: gr.Blocks, state: PageState, mapping: MappingRow) -> None:
        self.service, self.state, self.mapping = service, state, mapping
        self.opened = gr.State(None)  # the preset of the figures and its file's name, where it isn't the model's own
        with gr.Row(elem_classes="columns map-page"):
            with gr.Column(scale=2, min_width=300, elem_classes="map-controls"):
                gr.HTML(
                    '<p class="sentence">Which mapping length suits which input? A calibration tries several at each '
                    "input length, on text and with hidden numbers, and fits a curve to the best.</p>"
                )
                with gr.Row(elem_classes="points"):
                    self.upload = gr.UploadButton(
                        "Open a preset file", size="sm", file_types=[".json"], type="filepath"
                    )
                    self.own = gr.Button("Show the model's own", size="sm")
                self.use = gr.Button(
                    "Run with the opened preset", variant="primary", visible=False, elem_id="calibration-use"
                )
                self.message = gr.HTML(elem_id="calibration-message")
            with gr.Column(scale=6, min_width=320):
                self.sentence = gr.HTML(elem_id="calibration-sentence")
                with gr.Column(visible=False) as self.figures:
                    self._lay_out_figures()
        self._wire(demo)

    def _lay_out_figures(self) -> None:
        gr.HTML("<h2>1 · Chosen mapping lengths</h2>")
        self.curve = plot("Best mapping length by input length", "plot-calibration-chosen")
        with gr.Row(elem_classes="planes"):
            with gr.Column(min_width=320) as self.of_loss:
                gr.HTML("<h2>2 · Loss against m</h2>")
                self.loss = plot("Loss against mapping length", "plot-calibration-loss")
                gr.HTML(
                    '<p class="caption">Where a line is least, that mapping length reads this input best. Each '
                    "one's rightmost point is plain RoPE, nothing mapped: past the window it lies far above.</p>"
                )
            with gr.Column(min_width=320) as self.of_needles:
                gr.HTML("<h2>3 · Needles against m</h2>")
                self.needles = plot("Needles against mapping length", "plot-calibration-needles")
                gr.HTML('<p class="caption">● all found &nbsp; ○ some &nbsp; × none</p>')
        self.table = gr.HTML(elem_id="calibration-table")
        self.every = gr.HTML(elem_id="calibration-every")
        self.origin = gr.HTML(elem_id="calibration-origin")

    def _wire(self, demo: gr.Blocks) -> None:
        drawn = [
            self.opened, self.message, self.origin, self.sentence, self.figures, self.curve, self.of_loss,
            self.of_needles, self.loss, self.needles, self.table, self.every, self.use,
        ]  # fmt: skip
        gr.on([demo.load, self.state.model.change, self.own.click], self.show_own, self.state.chosen, drawn, **INTERNAL)
        self.upload.upload(self.open_file, self.upload, drawn, **INTERNAL)
        mapping = [self.state.chosen, self.state.label, self.mapping.back, self.mapping.in_use, self.message]
        self.use.click(self.use_it, [self.opened, self.state.chosen, self.state.label], mapping, **INTERNAL)
        self.mapping.back.click(lambda: "", None, self.message, **AT_ONCE)

    def show_own(self, chosen: Chosen) -> Shown:
        """The sweep behind the model's own preset."""
        try:
            preset = shipped(self.service.config(Chosen(chosen.model)))
        except LampeError as error:
            return {self.message: message(str(error))}
        own: Shown = {self.opened: None, self.message: "", self.use: gr.Button(visible=False)}
        if preset:
            return self._show(preset) | own
        nothing = {self.origin: "", self.figures: gr.Column(visible=False)}
        return own | nothing | {self.sentence: views.no_sweep(chosen.model.name)}

    def open_file(self, path: str) -> Shown:
        """A preset that a visitor brings, to be looked at."""
        name = Path(path).name
        try:
            preset = opened(path)
        except (LampeError, OSError) as error:
            return {self.message: message(str(error))}
        words = note(f"{name} is open. Nothing runs with it yet.")
        shown = {self.opened: (preset, name), self.message: words, self.use: gr.Button(visible=True)}
        return self._show(preset) | shown

    def use_it(self, given: tuple[CalibratedPreset, str] | None, chosen: Chosen, label: str) -> Shown:
        """Answers, needle tests and the map follow the opened preset from now on."""
        try:
            self.state.check(chosen, label)
            if given is None:
                raise InputError("The server has forgotten the file that was opened: open it again.")
            preset, name = given
            config, words = fitting(preset, self.service.config(Chosen(chosen.model)), chosen.model)
        except LampeError as error:
            return {self.message: message(str(error))}
        shown = self.mapping.show(views.in_use(config, name))
        return self.state.choose(replace(chosen, config=config)) | {self.message: note(words), **shown}

    def _show(self, preset: CalibratedPreset) -> Shown:
        shown: Shown = {
            self.origin: views.provenance(preset),
            self.sentence: views.sentence(preset),
            self.figures: gr.Column(visible=True),
            self.curve: as_plot(chosen_figure(preset), "lampe-calibration"),
            self.table: views.chosen_table(preset),
            self.every: views.sweep_table(preset),
        }
        for column, room, figure in (
            (self.of_loss, self.loss, loss_figure(preset)),
            (self.of_needles, self.needles, needle_figure(preset)),
        ):
            shown[column] = gr.Column(visible=figure is not None)
            shown |= {room: as_plot(figure, "lampe-sweep")} if figure else {}
        return shown
