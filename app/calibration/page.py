"""The tab "Calibration": a preset's sweep in figures; a preset file is opened, looked at, and used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

import lampe
from app.calibration import views as calibration_views
from app.calibration.figures import chosen_figure, loss_figure, needle_figure
from app.errors import AskError
from app.serving.requests import Chosen
from app.serving.service import Session
from app.settings import ModelChoice
from app.ui import html as views
from app.ui.downloads import QUIET
from app.ui.figure import as_plot
from lampe.calibration import CalibratedPreset, read_preset
from lampe.errors import LampeError

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
    AskError, CalibrationError
        If it is none, or too large to be drawn.
    """
    preset = read_preset(path)
    if len(preset.measured) > MOST_POINTS:
        raise AskError(
            f"This preset has {len(preset.measured):,} measured points; at most {MOST_POINTS:,} are drawn here. "
            "`lampe.load_preset` takes it as it is."
        )
    return preset


def fitting(preset: CalibratedPreset, own: lampe.LampeConfig, model: ModelChoice) -> tuple[lampe.LampeConfig, str]:
    """The preset's settings for the model here, and what is to be said before it is run with them.

    Raises
    ------
    AskError
        If it was made for another window.
    """
    if preset.config.window != own.window:
        raise AskError(
            f"This preset is for a window of {preset.config.window:,} tokens, and {model.name} has {own.window:,}: its "
            "mapping lengths mean nothing here. Run the app with the model it was made for."
        )
    source = preset.source
    if (source.model, source.bits) != (model.name, model.bits):
        words = f"In use. It was measured on {source.model} in {source.bits} bits; here runs {model.name} in "
        return replace(preset.config, basis="family"), f"{words}{model.bits} bits."
    return preset.config, "In use: answers, needle tests and the position map follow it."


def build_calibration_tab(
    session: Session, demo: gr.Blocks, model: gr.State, chosen: gr.State, in_use: gr.HTML, back: gr.Button
) -> None:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    session : Session
    demo : gr.Blocks
        The page.
    model : gr.State of ModelChoice
        What this visitor runs.
    chosen : gr.State of Chosen
        The same with LaMPE's settings; its LaMPE settings are set.
    in_use : gr.HTML
        Says so, above the tabs.
    back : gr.Button
        Beside it: back to the model's own mapping.
    """
    # Layout

    shown = gr.State(None)  # the preset of the figures, and its file's name
    with gr.Row(elem_classes="columns map-page"):
        with gr.Column(scale=2, min_width=300, elem_classes="map-controls"):
            gr.HTML(
                '<p class="sentence">Which mapping length suits which input? A calibration tries several at each input '
                "length, on text and with hidden numbers, and fits a curve to the best.</p>"
            )
            with gr.Row(elem_classes="points"):
                upload = gr.UploadButton("Open a preset file", size="sm", file_types=[".json"], type="filepath")
                own = gr.Button("Show the model's own", size="sm")
            use = gr.Button("Run with the opened preset", variant="primary", visible=False, elem_id="calibration-use")
            message = gr.HTML(elem_id="calibration-message")
        with gr.Column(scale=6, min_width=320):
            sentence = gr.HTML(elem_id="calibration-sentence")
            with gr.Column(visible=False) as figures:
                gr.HTML("<h2>1 · Chosen mapping lengths</h2>")
                curve = gr.Plot(
                    show_label=False, label="Best mapping length by input length", elem_id="plot-calibration-chosen"
                )
                with gr.Row(elem_classes="planes"):
                    with gr.Column(min_width=320) as of_loss:
                        gr.HTML("<h2>2 · Loss against m</h2>")
                        loss = gr.Plot(
                            show_label=False, label="Loss against mapping length", elem_id="plot-calibration-loss"
                        )
                        gr.HTML(
                            '<p class="caption">Where a line is least, that mapping length reads this input best. The '
                            "rightmost point of an input within the window is plain RoPE: nothing mapped.</p>"
                        )
                    with gr.Column(min_width=320) as of_needles:
                        gr.HTML("<h2>3 · Needles against m</h2>")
                        needles = gr.Plot(
                            show_label=False, label="Needles against mapping length", elem_id="plot-calibration-needles"
                        )
                        gr.HTML('<p class="caption">● all found &nbsp; ○ some &nbsp; × none</p>')
                table = gr.HTML(elem_id="calibration-table")
                every = gr.HTML(elem_id="calibration-every")
                origin = gr.HTML(elem_id="calibration-origin")

    # Handlers

    def show(preset: CalibratedPreset | None, name: str, words: str = "", model: str = "") -> list[Any]:
        """A preset's figures; the model's own has no name. Without a preset, that this model has none."""
        if preset is None:
            blank = [None, words, "", calibration_views.no_sweep(model), gr.Column(visible=False)]
            return [*blank, *[gr.skip()] * 7, gr.Button(visible=False)]
        plots = loss_figure(preset), needle_figure(preset)
        return [
            (preset, name) if name else None, words, calibration_views.provenance(preset),
            calibration_views.sentence(preset), gr.Column(visible=True),
            as_plot(chosen_figure(preset), "lampe-calibration"),
            *(gr.Column(visible=plot is not None) for plot in plots),
            *(gr.skip() if plot is None else as_plot(plot, "lampe-sweep") for plot in plots),
            calibration_views.chosen_table(preset), calibration_views.sweep_table(preset),
            gr.Button(visible=bool(name)),
        ]  # fmt: skip

    drawn_in = [
        shown, message, origin, sentence, figures, curve, of_loss, of_needles, loss, needles, table, every, use,
    ]  # fmt: skip

    def show_own(chosen: Chosen) -> list[Any]:
        try:
            return show(shipped(session.config(Chosen(chosen.model))), "", model=chosen.model.name)
        except LampeError as error:
            return [gr.skip(), views.message(str(error)), *[gr.skip()] * (len(drawn_in) - 2)]

    def open_file(path: str) -> list[Any]:
        name = Path(path).name
        try:
            return show(opened(path), name, views.note(f"{name} is open. Nothing runs with it yet."))
        except (LampeError, OSError) as error:
            return [gr.skip(), views.message(str(error)), *[gr.skip()] * (len(drawn_in) - 2)]

    def use_it(given: tuple[CalibratedPreset, str], chosen: Chosen) -> list[Any]:
        preset, name = given
        try:
            config, words = fitting(preset, session.config(Chosen(chosen.model)), chosen.model)
        except LampeError as error:
            return [gr.skip(), gr.skip(), gr.skip(), views.message(str(error))]
        line = calibration_views.in_use(config, name)
        return [replace(chosen, config=config), gr.Button(visible=True), line, views.note(words)]

    # Events

    demo.load(show_own, chosen, drawn_in, **QUIET)
    model.change(show_own, chosen, drawn_in, **QUIET)
    own.click(show_own, chosen, drawn_in, **QUIET)
    upload.upload(open_file, upload, drawn_in, **QUIET)
    use.click(use_it, [shown, chosen], [chosen, back, in_use, message], **QUIET)
    back.click(lambda: "", None, message, queue=False, **QUIET)
