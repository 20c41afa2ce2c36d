"""The line above the tabs: which mapping LaMPE runs with, and the published one at one press."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from app.calibration import views as calibration_views
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.ui import html as views
from app.ui.downloads import QUIET
from lampe.errors import LampeError


def build_mapping_row(service: ModelService, model: gr.State, chosen: gr.State) -> tuple[gr.HTML, gr.Button]:
    """The components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    model : gr.State of ModelChoice
        What this visitor runs.
    chosen : gr.State of Chosen
        The same with LaMPE's settings, which are set.

    Returns
    -------
    (gr.HTML, gr.Button)
        The line, and the button that leads back to the model's own mapping: shown while another one is in use.
    """
    with gr.Row(elem_classes="mapping-row"):
        published = gr.Button("LaMPE as published", size="sm", elem_id="as-published")
        back = gr.Button("Back to this model's own mapping", size="sm", visible=False, elem_id="mapping-back")
    in_use = gr.HTML(elem_id="preset-in-use")

    def publish(chosen: Chosen) -> list[Any]:
        """Answers, needle tests and the map follow the paper's mapping lengths from now on."""
        try:
            config = service.published(chosen)
            return [replace(chosen, config=config), gr.Button(visible=True), calibration_views.as_published(config)]
        except LampeError as error:
            return [gr.skip(), gr.skip(), views.message(str(error))]

    def leave(chosen: Chosen) -> list[Any]:
        return [Chosen(chosen.model), gr.Button(visible=False), ""]

    shown = [chosen, back, in_use]
    published.click(publish, chosen, shown, **QUIET)
    back.click(leave, chosen, shown, **QUIET)  # queued: else nothing hears that the state has changed
    model.change(lambda: [gr.Button(visible=False), ""], None, [back, in_use], queue=False, **QUIET)
    return in_use, back
