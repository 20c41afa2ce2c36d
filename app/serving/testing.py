"""Needle tests as they run for visitors: what there is to show of each step."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from app.serving.computing import Tell
from app.serving.models import Loaded
from app.serving.reports import Update
from app.serving.speed import Countdown
from app.settings import ModelChoice
from lampe import needle
from lampe.inference.prefill import PromptReader
from lampe.inference.speed import Speed
from lampe.methods import Method
from lampe.needle import Cell, Needles, Result, TokenizedHaystack, to_read


@dataclass(frozen=True)
class Tests:
    """Needle tests to be run: see `Job`.

    Parameters
    ----------
    choice : ModelChoice
    haystack : TokenizedHaystack
    cells : sequence of Cell
    methods : mapping of key to Method
        What each runs with.
    own : Needles, optional
        Hidden in all cells in place of one that each draws.
    """

    choice: ModelChoice
    haystack: TokenizedHaystack
    cells: Sequence[Cell]
    methods: Mapping[str, Method]
    own: Needles | None = None

    @property
    def longest(self) -> int:
        return max(cell.length for cell in self.cells)

    def first(self, speed: Speed, seconds: float) -> Tests:
        """As many of them as take so many seconds, in the order in which they run; one at least."""
        cells = list(to_read(self.cells, speed.chunk))
        count = next((n for n in range(2, len(cells) + 1) if Countdown(speed, cells[:n]).total > seconds), None)
        return replace(self, cells=cells[: count - 1] if count else cells)

    def without(self, done: Cell) -> Tests:
        """Those that are left after one."""
        return replace(self, cells=[cell for cell in self.cells if cell != done])

    def seconds(self, speed: Speed) -> float:
        return Countdown(speed, self.cells).total

    def steps(
        self, loaded: Loaded, speed: Speed, reader: PromptReader, stop: threading.Event, tell: Tell
    ) -> Iterator[Update | Result]:
        """See `Job.steps`; each test reads with a reader of its own."""
        make = partial(hidden, self.own) if self.own else needle.prompt_of
        countdown = Countdown(speed, self.cells)
        steps = needle.steps(loaded.model, self.haystack, self.cells, self.methods, stop.is_set, make)
        with closing(steps) as events:  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Result):
                    yield event
                    continue
                left = countdown(*event)
                yield Update("Reading", event.tokens, event.cell.length, "tokens", seconds_left=left, run_left=left)


def hidden(own: needle.Needles, tokenized: TokenizedHaystack, cell: Cell) -> needle.NeedlePrompt:
    """The prompt of a cell with a needle of the visitor's own."""
    return needle.hide(tokenized, own, cell.length, cell.depth, cell.rng())
