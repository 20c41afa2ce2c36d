"""The line above the tabs: which mapping LaMPE runs with, and the published one at one press."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import gradio as gr

from app.serving.requests import Chosen
from app.ui.events import AT_ONCE, INTERNAL, Shown
from app.ui.html import as_published, glossary, message
from app.ui.state import PageState
from app.ui.words import word
from lampe.errors import LampeError
from lampe.methods import LampeConfig


class MappingRow:
    """The components and events, within the page's `Blocks`.

    Parameters
    ----------
    published : callable
        The authors' mapping for a chosen model.
    state : PageState
        Its LaMPE settings are set.

    Attributes
    ----------
    in_use : gr.HTML
        The line.
    back : gr.Button
        Leads back to the model's own mapping: shown while another one is in use.
    """

    def __init__(self, published: Callable[[Chosen], LampeConfig], state: PageState) -> None:
        self.published, self.state = published, state
        with gr.Row(elem_classes="mapping-row"):
            gr.HTML(glossary(), elem_id="glossary")
            publish = gr.Button(word("as_published"), size="sm", elem_id="as-published")
            self.back = gr.Button(word("own_mapping"), size="sm", visible=False, elem_id="mapping-back")
        self.in_use = gr.HTML(elem_id="preset-in-use")
        given, shown = [state.chosen, state.label], [state.chosen, state.label, self.back, self.in_use]
        # Both are queued: else nothing hears of the new state.
        publish.click(self.publish, given, shown, **INTERNAL)
        self.back.click(self.leave, given, shown, **INTERNAL)
        state.model.change(lambda: self.show(""), None, shown[2:], **AT_ONCE)

    def show(self, line: str) -> Shown:
        """What is in use instead of the model's own mapping; nothing if that is."""
        return {self.in_use: line, self.back: gr.Button(visible=bool(line))}

    def publish(self, chosen: Chosen, label: str) -> Shown:
        """Answers, needle tests and the map follow the paper's mapping lengths from now on."""
        try:
            self.state.check(chosen, label)
            config = self.published(chosen)
        except LampeError as error:
            return {self.in_use: message(str(error))}
        return self.state.choose(replace(chosen, config=config)) | self.show(as_published(config))

    def leave(self, chosen: Chosen, label: str) -> Shown:
        """They follow the model's own again."""
        try:
            self.state.check(chosen, label)
        except LampeError as error:
            return {self.in_use: message(str(error))}
        return self.state.choose(Chosen(chosen.model)) | self.show("")
