"""The head of the page: which model runs for this visitor, and the choice of another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.errors import AskError
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.settings import ModelChoice
from app.ui import html as views
from app.ui.downloads import QUIET
from app.ui.runs import Runs
from lampe.errors import LampeError

_PRECISIONS = {name: bits for bits, name in views.PRECISIONS.items()}


def build_model_row(service: ModelService, demo: gr.Blocks, model: gr.State, chosen: gr.State, visitors: int) -> None:
    """The components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    demo : gr.Blocks
        The page.
    model : gr.State of ModelChoice
        Set to a model that was loaded; so is `chosen`.
    chosen : gr.State of Chosen
    visitors : int
        How many may wait in the service's line at once.
    """
    settings, runs = service.settings, Runs(demo)
    names = [ModelChoice(name, 4).name for name in settings.offered]

    # Layout

    header = gr.HTML(views.header(settings.own))
    with gr.Accordion("Another model or precision", open=False, elem_id="models"):
        with gr.Row(elem_classes="model-choice"):
            name = gr.Dropdown(
                names,
                value=names[0],
                allow_custom_value=settings.allow_any_model,
                label="Model" + (", or any model id of the Hugging Face Hub" if settings.allow_any_model else ""),
                elem_id="model-name",
            )
            bits = gr.Radio(list(_PRECISIONS.items()), value=settings.bits, label="Precision", elem_id="model-bits")
        with gr.Row(elem_classes="actions"):
            load = gr.Button("Load it", variant="primary", elem_id="model-load")
            halt = gr.Button("Stop", variant="stop", elem_id="model-stop")
        status = gr.HTML(elem_id="model-status")

    # Handlers

    def take(name: str, bits: int, now: ModelChoice, request: gr.Request) -> Iterator[list[Any]]:
        """Load a model; the visitor's own stays as it is until that has come to an end."""
        try:
            if not (name or "").strip():
                raise AskError("There is no model named: choose one.")
            named = {ModelChoice(one, 4).name: one for one in settings.offered}
            choice = ModelChoice(named.get(name.strip(), name.strip()), bits)
            with runs.started(request) as stop:
                for update in service.prepare(Chosen(choice), stop):
                    yield [views.status(update), *[gr.skip()] * 3]
            if stop.is_set():
                yield [views.note(f"Stopped. {now.name} stays."), *[gr.skip()] * 3]
                return
            words = f"{choice.name} answers now: in this window of yours, in all tabs."
            yield [views.note(words), views.header(choice), choice, Chosen(choice)]
        except LampeError as error:
            yield [views.message(f"{error} Nothing has changed for you: {now.name} stays."), *[gr.skip()] * 3]

    # Events

    outputs = [status, header, model, chosen]
    load.click(take, [name, bits, model], outputs, concurrency_limit=visitors, **QUIET)
    halt.click(runs.stop, queue=False, **QUIET)
