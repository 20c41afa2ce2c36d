"""Work on a model as plain data: whatever process holds the model can do it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Protocol

from app.serving.computing import Tell
from app.serving.models import Loaded
from app.settings import ModelChoice
from lampe.inference.prefill import PromptReader
from lampe.inference.speed import Speed


class Job(Protocol):
    """An answer, a look back at one, or needle tests."""

    @property
    def choice(self) -> ModelChoice:
        """The model that it is for."""

    @property
    def longest(self) -> int:
        """Tokens that it needs memory for at once: of its longest prompt, and what is written after it."""

    def seconds(self, speed: Speed) -> float:
        """How long it takes at some speed, if it is as long as it may be."""

    def steps(
        self, loaded: Loaded, speed: Speed, reader: PromptReader, stop: threading.Event, tell: Tell
    ) -> Iterator[Any]:
        """Do it in steps; others may use the model between two.

        Parameters
        ----------
        loaded : Loaded
            Not patched.
        speed : Speed
            For the time left.
        reader : PromptReader
            Empty, or with what it holds of an earlier prompt under the same plan.
        stop : threading.Event
            Ends it within a layer, or after a token.
        tell : callable
            Takes what is worth telling within a step.

        Yields
        ------
        Update or what comes of it
            After each chunk that is read, and each so many tokens.
        """
