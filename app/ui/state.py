"""What the tabs of one visitor's page share."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from app.serving.requests import Chosen
from app.settings import Settings


@dataclass(frozen=True)
class PageState:
    """One visitor's.

    Parameters
    ----------
    model : gr.State of ModelChoice
        What runs.
    chosen : gr.State of Chosen
        The same with LaMPE's settings.
    lengths : gr.State of (int, int) or None
        Tokens of the prompt in the tab that was used last, and those that it is planned for: the map follows it.
    attention : gr.State of Attention or None
        Where the last answer's attention went.
    pair : gr.State of (LampeConfig, length, query, key) or None
        A pair of tokens that the map is to show, under these settings.
    """

    model: gr.State
    chosen: gr.State
    lengths: gr.State
    attention: gr.State
    pair: gr.State

    @classmethod
    def of(cls, settings: Settings) -> PageState:
        """A new visitor's, within the page's `Blocks`."""
        own = settings.own
        return cls(gr.State(own), gr.State(Chosen(own)), gr.State(None), gr.State(None), gr.State(None))
