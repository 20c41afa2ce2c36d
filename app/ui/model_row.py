"""The head of the page: which model runs for this visitor, and the choice of another."""

from __future__ import annotations

from collections.abc import Iterator

import gradio as gr

from app.serving.requests import Chosen, Prompt
from app.serving.service import ModelService
from app.settings import LENT_SECONDS, ModelChoice
from app.ui import html
from app.ui.events import AT_ONCE, INTERNAL, Shown
from app.ui.runs import Runs, visitor_of
from app.ui.said import in_both
from app.ui.state import PageState
from app.ui.words import word
from lampe.errors import InputError, LampeError

_TOKENS, _ANSWER = 8192, 48  # of the question whose time is told before there is one
_PRECISIONS = [(name, bits) for bits, name in html.PRECISIONS.items()]


class ModelRow:
    """The components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    state : PageState
        Set to a model that was loaded.
    """

    def __init__(self, service: ModelService, state: PageState) -> None:
        self.service, self.state, self.runs = service, state, Runs(service.presence)
        settings = service.settings
        self._ids = {ModelChoice(name, 4).name: name for name in settings.offered}
        self.header = gr.HTML(html.header(settings.own, settings.borrowed))
        self.lent = gr.HTML(visible=settings.borrowed, elem_id="lent")
        with gr.Accordion(word("models"), open=False, elem_id="models"):
            if settings.why:
                gr.HTML(html.note(settings.why))
            with gr.Row(elem_classes="model-choice"):
                anything = ", or any model id of the Hugging Face Hub" if settings.allow_any_model else ""
                name = gr.Dropdown(
                    list(self._ids),
                    value=next(iter(self._ids)),
                    allow_custom_value=settings.allow_any_model,
                    label=f"Model{anything}",
                    elem_id="model-name",
                )
                bits = gr.Radio(_PRECISIONS, value=settings.bits, label=word("precision"), elem_id="model-bits")
            with gr.Row(elem_classes="actions"):
                load = gr.Button(word("load"), variant="primary", elem_id="model-load")
                halt = gr.Button(word("stop"), variant="stop", elem_id="model-stop")
            self.status = gr.HTML(elem_id="model-status")
        shown = [self.status, self.header, state.model, state.chosen, state.label]
        if settings.borrowed:
            said = [state.loaded.change, state.chosen.change]
            gr.on(said, self.say_what_is_lent, state.chosen, self.lent, **INTERNAL)
        load.click(self.take, [name, bits, state.model], shown, **INTERNAL)
        halt.click(self.runs.stop, **AT_ONCE)

    def say_what_is_lent(self, chosen: Chosen) -> str:
        """What is to be known where a GPU is lent for each question."""
        needs = self.service.needs(Prompt([0] * _TOKENS, _TOKENS, (0, _TOKENS), 0), _ANSWER, chosen)
        assert needs is not None
        lent = needs.lent or 0.0
        told = in_both(
            f"This Space borrows a GPU for each question, out of the {LENT_SECONDS} s that a visitor without an "
            f"account has in a day: up to {lent:.0f} s for one about {_TOKENS:,} tokens. What was read is gone when "
            "the answer is there, so a follow-up reads the text again.",
            f"本 Space 每次提问借用一块 GPU，计入无账号访客每日的 {LENT_SECONDS} 秒：约 {_TOKENS:,} 个词元的一问最多 "
            f"{lent:.0f} 秒。回答完成后，已读内容不保留，追问会重新阅读全文。",
        )
        return f'<p class="caption">{told}</p>'

    def take(self, name: str, bits: int, now: ModelChoice, request: gr.Request) -> Iterator[Shown]:
        """Load a model; the visitor's own stays as it is until that has come to an end."""
        try:
            named = (name or "").strip()
            if not named:
                raise InputError("There is no model named: choose one.")
            choice = ModelChoice(self._ids.get(named, named), bits)
            with self.runs.started(request) as stop:
                for update in self.service.prepare(Chosen(choice), stop, visitor_of(request)):
                    yield {self.status: html.status(update)}
            if stop.is_set():
                yield {self.status: html.note(f"Stopped. {now.name} stays.")}
                return
            yield {
                self.status: html.note(f"{choice.name} answers now: in this window of yours, in all tabs."),
                self.header: html.header(choice, self.service.settings.borrowed),
                self.state.model: choice,
                **self.state.choose(Chosen(choice)),
            }
        except LampeError as error:
            yield {self.status: html.message(f"{error} Nothing has changed for you: {now.name} stays.")}
