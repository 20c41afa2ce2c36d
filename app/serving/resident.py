"""Models in this process: one is loaded, visitors take turns with it, and what they have read stays for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from app.serving.answering import Answer, LookBack
from app.serving.computing import Computing, Tell
from app.serving.document_cache import DocumentCache
from app.serving.evidence import Evidence
from app.serving.jobs import Job
from app.serving.models import Loaded, Models, bytes_for, enough_memory
from app.serving.reports import GETTING_READY, Needs, Update, telling
from app.serving.requests import Chosen, Variant
from app.serving.testing import Tests
from app.serving.texts import Texts
from app.serving.visitors import Visitor
from app.serving.waiting_line import Ticket, WaitingLine
from app.settings import ModelChoice, Settings
from lampe.errors import InputError
from lampe.inference.prefill import PromptReader
from lampe.inference.speed import Speed, measure, measured_tokens
from lampe.models.memory import free_bytes
from lampe.needle import Result

_ALONE = 120.0  # seconds that another model than the deployment's own may keep that one waiting
_LOOK = 0.5  # seconds between two looks for a Stop while waiting


class _Stopped(Exception):
    """Somebody has stopped what hasn't begun."""


class Resident:
    """The runner of a machine that has its models to itself: see `app.serving.service.Runner`.

    Parameters
    ----------
    settings : Settings
    models : Models
    texts : Texts
        For what is fetched before anybody's turn.
    documents : DocumentCache

    Attributes
    ----------
    line : WaitingLine
        Where jobs wait for the model.
    computing : Computing
        The thread that does all its work.
    """

    def __init__(self, settings: Settings, models: Models, texts: Texts, documents: DocumentCache) -> None:
        self.settings, self.models, self.texts, self.documents = settings, models, texts, documents
        self.speeds: dict[ModelChoice, Speed] = {}
        self.line = WaitingLine()
        self.computing = Computing("model")
        self._setting_aside = threading.Lock()

    def model(self, choice: ModelChoice) -> Any:
        """The model, fetched and loaded unless it is the loaded one.

        Raises
        ------
        lampe.LoadError, lampe.UnsupportedModelError
        """
        return self.computing(self.models.load, choice).model

    def needs(self, job: Answer, visitor: Visitor | None) -> Needs | None:
        """See `Runner.needs`."""
        loaded, speed = self.models.loaded, self.speeds.get(job.choice)
        if loaded is None or loaded.choice != job.choice:
            return None
        variant, plan = job.request.variant, (loaded, *job.plan)
        kept = self.documents.reusable(visitor, variant, plan, job.prompt.ids, job.position_map)
        return Needs(job.seconds(speed, kept) if speed else None, bytes_for(loaded.model, job.longest), kept)

    def prepare(self, chosen: Chosen, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """See `Runner.prepare`."""
        choice = self.models.choice(chosen)
        # Its config may have to be fetched, and its weights, before anybody's turn is used for it.
        yield from self.texts.fetching(chosen, lambda _: self.models.settled(chosen), stop)
        fetch = partial(self.models.fetch, choice, stopped=stop.is_set)
        yield from self.texts.fetching(chosen, telling(fetch), stop, weights=True)
        if not stop.is_set():
            with suppress(_Stopped), self.line.join(visitor, choice) as ticket:
                yield from self._loaded(ticket, choice, stop)

    def measured(self, choice: ModelChoice, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """See `Runner.measured`."""
        if choice not in self.speeds:
            with suppress(_Stopped), self.line.join(visitor, choice) as ticket:
                yield from self._ready(ticket, choice, stop)

    def answer(self, job: Answer, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """See `Runner.answer`; what is read is kept for the visitor's next question, until they have left."""
        self.documents.enter(visitor)
        with suppress(_Stopped), self.line.join(visitor, job.choice) as ticket:
            loaded = yield from self._ready(ticket, job.choice, stop, job)
            # A conversation that has outgrown its plan is planned again, and read again: its keys lie elsewhere.
            variant, plan = job.request.variant, (loaded, *job.plan)
            before = self.documents.plan_of(visitor, variant) if job.request.earlier and len(plan) > 1 else None
            if before and before[:-1] == plan[:-1] and before[-1] < job.planned:
                job = replace(job, outgrown=before[-1])
            with enough_memory(job.length), self._reader(loaded, visitor, variant, plan) as reader:
                yield from self._in_turns(ticket, job, loaded, reader, stop)

    def look_back(self, job: LookBack, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Evidence]:
        """See `Runner.look_back`: its tokens are run once more, on what was kept of the text or read again."""
        variant = job.attention.request.variant

        def held(loaded: Loaded) -> bool:
            return self.documents.plan_of(visitor, variant) == (loaded, *job.plan)  # else it is read again

        with suppress(_Stopped), self.line.join(visitor, job.choice) as ticket:
            loaded = yield from self._ready(ticket, job.choice, stop, job, held)
            with enough_memory(job.longest), self._reader(loaded, visitor, variant, (loaded, *job.plan)) as reader:
                yield from self._in_turns(ticket, job, loaded, reader, stop)

    def test(self, job: Tests, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Result]:
        """See `Runner.test`."""
        with suppress(_Stopped), self.line.join(visitor, job.choice) as ticket:
            while job.cells and not stop.is_set():  # again where others had another model loaded between two tests
                loaded = yield from self._ready(ticket, job.choice, stop, job)
                going = self._in_turns(ticket, job, loaded, PromptReader(loaded.model), stop)
                del loaded  # nothing here may hold it while others have another one loaded
                with enough_memory(job.longest), closing(going) as events:
                    for event in events:
                        yield event
                        if isinstance(event, Result):
                            job = job.without(event.cell)
                            if ticket.blocks:
                                break
                del going, events
                ticket.bytes = 0
                ticket.give_back(rest=True)

    def _seconds(self, job: Job) -> float | None:
        """None before this machine's speed was measured."""
        speed = self.speeds.get(job.choice)
        return job.seconds(speed) if speed else None

    # On the way to the model

    def _ready(
        self, ticket: Ticket, choice: ModelChoice, stop: threading.Event, job: Job | None = None,
        held: Callable[[Loaded], bool] = lambda _: False,
    ) -> Generator[Update, None, Loaded]:  # fmt: skip
        """The model loaded, this machine's speed with it measured, and memory set aside.

        The job is what is to be done then; `held` says whether the keys and values that it needs are there already.

        Raises
        ------
        InputError
            If there is never memory enough, or the work would take longer than is allowed here.
        """
        if job:
            ticket.seconds = partial(self._seconds, job)
        while True:
            loaded = yield from self._loaded(ticket, choice, stop)
            if choice not in self.speeds:
                yield from self._turn(ticket, stop)
                yield Update("Measuring this machine's speed")
                with enough_memory(measured_tokens(loaded.model)):
                    timing = partial(_measured, loaded.model, stop)
                    speed = yield from self.computing.stream(timing, stop, ended=ticket.give_back)
                if speed is None:
                    raise _Stopped
                self.speeds[choice] = speed
            self._check_time(ticket.seconds())
            if self._set_aside(ticket, loaded.model, job.longest if job and not held(loaded) else 0):
                return loaded
            ticket.give_back(rest=True)
            yield Update("Waiting for memory that others' texts take")
            if stop.wait(_LOOK):
                raise _Stopped

    def _loaded(self, ticket: Ticket, choice: ModelChoice, stop: threading.Event) -> Generator[Update, None, Loaded]:
        """Wait for one's turn, and for the model."""
        yield from self._turn(ticket, stop)
        # Also where it is loaded: another load that somebody stopped may still be under way.
        load = partial(self.models.load, choice, stopped=stop.is_set)
        loaded = yield from self.computing.stream(telling(load), stop, GETTING_READY, ticket.give_back)
        if loaded is None:
            raise _Stopped
        return loaded

    def _turn(self, ticket: Ticket, stop: threading.Event, last: Update | None = None) -> Iterator[Update]:
        """Wait for a place, unless it is stopped while nothing of it lies in memory.

        Meanwhile what was last told of the run, if anything, stays in sight.
        """
        while not ticket.wait(_LOOK):
            if stop.is_set() and not ticket.begun:
                raise _Stopped
            ahead = ticket.ahead
            if last:
                yield replace(last, waiting=len(ahead))
                continue
            seconds = [seconds for one in ahead if one.begun and (seconds := one.seconds()) is not None]
            other = any(one.kind != ticket.kind for one in ahead)  # which ends before this begins
            yield Update(
                f"Waiting for the model: {len(ahead)} before you", seconds_left=sum(seconds) if other else None
            )

    def _in_turns(
        self, ticket: Ticket, job: Job, loaded: Loaded, reader: PromptReader, stop: threading.Event
    ) -> Generator[Any, None, None]:
        """The steps of a job in the model's thread, each in its visitor's turn; what they tell and give.

        Raises
        ------
        InputError
            If it isn't done with the deployment's own model, has had long, and others wait for that one.
        """
        last: Update | None = None

        def turn() -> Iterator[Update]:
            if ticket.kind != self.settings.own and ticket.blocks and time.monotonic() - begun > _ALONE:
                raise InputError(
                    f"Others wait for {self.settings.own.name} in {self.settings.own.bits} bits, which answers here by "
                    f"default: this ran for more than {_ALONE / 60:.0f} minutes and was ended. Take a shorter text, or "
                    "try again when it is quieter."
                )
            yield from self._turn(ticket, stop, last)

        begun = time.monotonic()
        work = partial(job.steps, loaded, self.speeds[job.choice], reader, stop)
        with closing(self.computing.slices(work, stop, turn, ticket.give_back)) as events:
            for event in events:
                if isinstance(event, Update):
                    last = event
                    if event.run_left is not None:
                        ticket.seconds = partial(float, event.run_left)
                yield event

    @contextmanager
    def _reader(
        self, loaded: Loaded, visitor: Visitor | None, variant: Variant, plan: tuple[Any, ...]
    ) -> Iterator[PromptReader]:
        """What a visitor has read under a plan, or a new reader; kept for their next question, unless it failed."""
        reader = self.documents.take(visitor, variant, plan) or PromptReader(loaded.model)
        sound = True
        try:
            yield reader
        except Exception:
            sound = False  # it may have failed between two layers
            raise
        finally:
            if sound:
                self.documents.put(visitor, variant, plan, reader)

    def _check_time(self, seconds: float | None) -> None:
        """Refuse what would take longer than is allowed here."""
        limit = self.settings.max_minutes
        if seconds is not None and seconds > limit * 60:
            raise InputError(
                f"This would take about {seconds / 60:,.0f} minutes here; the limit is {limit}. Nothing was run: take "
                "a shorter text, a shorter answer or fewer tests, or raise MAX_MINUTES where you run the app."
            )

    def _set_aside(self, ticket: Ticket, model: Any, tokens: int) -> bool:
        """Set memory aside for the keys and values of so many tokens; whether there is enough beside what others have.

        Raises
        ------
        InputError
            If there wouldn't be enough without the others either.
        """
        needed = bytes_for(model, tokens)
        if not needed:
            return True
        with self._setting_aside:
            others = self.line.bytes - ticket.bytes
            if free_bytes(model.device) < needed + others <= free_bytes(model.device) + self.documents.bytes:
                self.documents.shrink(0)  # what others have read can be read again
            free = free_bytes(model.device)
            enough = needed + others <= free
            ticket.bytes = needed if enough else 0
        if not enough and not others:
            raise InputError(
                f"{tokens:,} tokens take about {needed / 1e6:,.0f} MB of memory here, and {free / 1e6:,.0f} MB are "
                f"free: at most {free // bytes_for(model, 1):,} tokens fit now. Nothing was run: take a shorter text."
            )
        return enough


def _measured(model: Any, stop: threading.Event, tell: Tell) -> Speed | None:
    return measure(model, stop=stop.is_set)
