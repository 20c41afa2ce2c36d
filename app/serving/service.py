"""The one loaded model, and what a visitor may ask of it. No gradio here: generators of plain values."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import lampe
from app.documents.reading import Files
from app.serving.answering import Answer, LookBack
from app.serving.evidence import Evidence
from app.serving.models import Models
from app.serving.presence import Presence
from app.serving.reports import Attention, Needs, Update
from app.serving.requests import Chosen, Prompt, Request
from app.serving.speed import Countdown
from app.serving.testing import Tests, hidden
from app.serving.texts import Texts
from app.serving.visitors import Visitor
from app.serving.waiting_line import WaitingLine
from app.settings import ModelChoice, Settings
from lampe import needle
from lampe.errors import InputError
from lampe.inference.speed import Speed
from lampe.methods import LampeConfig, Method, PaperLampe
from lampe.needle import Cell, Haystack, Needles, Result


class Runner(Protocol):
    """Does jobs on models, for one visitor after the other or for several at once.

    What it yields comes as it is done. A `stop` that is set ends a job within a layer's prefill or a token, with what
    there is, or within a step where the work is far away. It raises InputError for what can't be run here, and
    lampe.LoadError or lampe.UnsupportedModelError where a model can't be had or patched.
    """

    @property
    def speeds(self) -> Mapping[ModelChoice, Speed]:
        """As far as they are known."""

    def model(self, choice: ModelChoice) -> Any:
        """The model itself."""

    def needs(self, job: Answer, visitor: Visitor | None) -> Needs | None:
        """What a job takes here; None while the model isn't loaded."""

    def prepare(self, chosen: Chosen, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """Have a model ready, and what was ready before only if this one can be had."""

    def measured(self, choice: ModelChoice, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """Have the speed known."""

    def answer(self, job: Answer, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """Answer; the last update has the report, unless it was stopped before anything was read."""

    def look_back(self, job: LookBack, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Evidence]:
        """Find where an answer looked."""

    def test(self, job: Tests, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Result]:
        """Run needle tests."""


@dataclass
class ModelService:
    """What visitors share: it checks what they ask, makes a job of it, and has its runner do that.

    `app.serving.start.start` makes one. In all its methods `chosen` is what answers, by default the deployment's own.
    Once `stop` is set a run ends within a layer's prefill or a token, with what it has: before the prefill without an
    update, without evidence, without a result for the test under way. What is read for a `visitor` may be kept for
    their next question, until they have left; for None nothing is kept.

    Parameters
    ----------
    settings : Settings
    models : Models
    texts : Texts
        What needs no model.
    desk : WaitingLine
        Where short work waits that needs no model: figures, tokens.
    runner : Runner
        Where models are, and who has them when.
    presence : Presence
        Who is here; of those who have left nothing stays.
    files : Files
        That visitors upload.
    """

    settings: Settings
    models: Models
    texts: Texts
    desk: WaitingLine
    runner: Runner
    presence: Presence = field(default_factory=Presence)
    files: Files = field(default_factory=Files)

    # What a visitor has chosen

    def config(self, chosen: Chosen | None = None) -> lampe.LampeConfig:
        """See `Models.settled`."""
        return self.models.settled(chosen)

    def method(self, key: str, chosen: Chosen | None = None) -> Method:
        """A method with the settings that run: LaMPE's as `config` has them, others by their authors' rule.

        Raises
        ------
        InputError, lampe.LoadError, lampe.MethodError
        """
        return self.config(chosen) if key == LampeConfig.key else self.models.method(key, self.models.choice(chosen))

    def methods_of(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> dict[str, Method]:
        """The methods of some cells by their keys, as `method` has them."""
        return {key: self.method(key, chosen) for key in dict.fromkeys(cell.method for cell in cells)}

    def published(self, chosen: Chosen) -> LampeConfig:
        """LaMPE with the curve that its authors published for the chosen model, or else Llama-3's stretched to it.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return LampeConfig.like(self.models.method(PaperLampe.key, self.models.choice(chosen)))

    def model(self, chosen: Chosen | None = None) -> Any:
        """The model, fetched and loaded if need be.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
        """
        return self.runner.model(self.models.choice(chosen))

    # What a question takes

    def needs(
        self, prompt: Prompt, max_new_tokens: int, chosen: Chosen | None = None, visitor: Visitor | None = None,
        look: bool = False,
    ) -> Needs | None:  # fmt: skip
        """What LaMPE's longest answer to a prompt takes here; None while the model isn't loaded.

        What is kept for the visitor isn't read again; for `look` see `Request`.
        """
        request = Request("", "", max_new_tokens=max_new_tokens, chosen=chosen, look=look)
        return self.runner.needs(Answer(self.models.choice(chosen), request, prompt, self.config(chosen)), visitor)

    def time_for(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> float | None:
        """About how many seconds these tests will take here; None before this machine's speed was measured."""
        speed = self.runner.speeds.get(self.models.choice(chosen))
        return Countdown(speed, cells).total if speed else None

    # What waits for the model

    def prepare(self, chosen: Chosen, stop: threading.Event, visitor: Visitor | None = None) -> Iterator[Update]:
        """Make a model ready to answer, in turn with all else.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
            Nothing has changed for the visitor.
        """
        self.models.choice(chosen)
        yield from self.runner.prepare(chosen, stop, visitor)

    def measured(
        self, chosen: Chosen | None = None, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Iterator[Update]:
        """Have the model loaded and this machine's speed with it measured, if that hasn't been done yet.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
        """
        yield from self.runner.measured(self.models.choice(chosen), stop or threading.Event(), visitor)

    def ask(
        self, request: Request, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Iterator[Update]:
        """Answer a question about a text; yields what there is to show as it comes.

        Raises
        ------
        InputError
            A request that can't be run; nothing was done.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        choice, stop = self.models.choice(request.chosen), stop or threading.Event()
        prompt = yield from self.texts.prompt(request, stop, visitor)
        if prompt is not None:
            job = Answer(choice, request, prompt, self.method(request.method, request.chosen))
            yield from self.runner.answer(job, stop, visitor)

    def evidence(
        self, attention: Attention, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Iterator[Update | Evidence]:
        """Where an answer looked, from its attention.

        Yields
        ------
        Update
            What is being done; then the `Evidence`.
        """
        job = LookBack(self.models.choice(attention.request.chosen), attention)
        yield from self.runner.look_back(job, stop or threading.Event(), visitor)

    def needles(
        self,
        haystack: Haystack,
        cells: Sequence[Cell],
        own: Needles | None = None,
        stop: threading.Event | None = None,
        chosen: Chosen | None = None,
        visitor: Visitor | None = None,
    ) -> Iterator[Update | Result]:
        """Run needle tests; yields what there is to show as it comes, and each result.

        With needles of the visitor's `own`, these are hidden in all cells in place of those that each draws.

        Raises
        ------
        InputError
            If a cell is beyond the limit.
        NeedleError
            If a prompt can't be made.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        choice, stop = self.models.choice(chosen), stop or threading.Event()
        longest = max(cell.length for cell in cells)
        if longest > self.settings.max_input_tokens:
            raise InputError(
                f"The limit here is {self.settings.max_input_tokens:,} tokens, and the longest prompt would have "
                f"{longest:,}. Nothing was run: take shorter ones, or raise MAX_INPUT_TOKENS where you run the app."
            )
        yield from self.texts.fetched(chosen, stop)
        if stop.is_set():
            return
        make = partial(hidden, own) if own else needle.prompt_of
        tokenized = self.texts.haystack(haystack, cells, make, chosen, visitor)
        job = Tests(choice, tokenized, tuple(cells), self.methods_of(cells, chosen), own)
        yield from self.runner.test(job, stop, visitor)
