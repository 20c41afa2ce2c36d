"""What the tabs of one visitor's page share."""

from __future__ import annotations

import hashlib

import gradio as gr

from app.serving.requests import Chosen
from app.settings import ModelChoice
from app.ui.events import Shown
from lampe.errors import InputError


class PageState:
    """One visitor's, within the page's `Blocks`.

    Attributes
    ----------
    own : ModelChoice
        What is chosen at first.
    model : gr.State of ModelChoice
        What runs.
    chosen : gr.State of Chosen
        The same with LaMPE's settings.
    label : gr.Textbox
        What the page itself says that is chosen: it goes with each run, and is held against `chosen`.
    lengths : gr.State of (int, int) or None
        Tokens of the prompt in the tab that was used last, and those that it is planned for: the map follows it.
    attention : gr.State of Attention or None
        Where the last answer's attention went.
    loaded : gr.State of bool
        Whether the page is there: what listens to its change is started once, when it is.
    pair : gr.State of (LampeConfig, length, query, key) or None
        A pair of tokens that the map is to show, under these settings.
    """

    def __init__(self, own: ModelChoice) -> None:
        self.own = own
        self.model, self.chosen = gr.State(own), gr.State(Chosen(own))
        self.label = gr.Textbox("", visible="hidden", elem_id="chosen")
        self.lengths, self.attention, self.loaded, self.pair = (gr.State(first) for first in (None, None, False, None))

    def choose(self, chosen: Chosen) -> Shown:
        """This is what runs from now on, and the page knows it."""
        return {self.chosen: chosen, self.label: self._label(chosen)}

    def check(self, chosen: Chosen, label: str) -> None:
        """Refuse to run what isn't what the page says: the server forgets a page that was left for long, or with its
        own end, and the page doesn't know.

        Raises
        ------
        InputError
        """
        if label != self._label(chosen):
            raise InputError(
                "This page was left for so long that the server has forgotten what was chosen in it. Nothing was run: "
                "reload it, and choose again."
            )

    def _label(self, chosen: Chosen) -> str:
        """Tells one choice from another; nothing for that at first."""
        return "" if chosen == Chosen(self.own) else hashlib.sha256(repr(chosen).encode()).hexdigest()[:16]
