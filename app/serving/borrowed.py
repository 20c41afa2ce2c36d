"""Models on a GPU that is lent for each job and taken back after it (ZeroGPU).

The package `spaces` forks a process for a job, or takes an earlier one again, gives it a GPU, pickles what goes there
and what comes back, and ends it when the time that was asked for is over. That is the visitor's, who has some minutes a
day. So a job is plain data, nothing that it reads stays, its time is reckoned from earlier jobs', and what it says is
packed by us.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from app.serving.answering import Answer, LookBack
from app.serving.evidence import Evidence
from app.serving.jobs import Job
from app.serving.models import Loaded, bytes_for, out_of_memory
from app.serving.reports import Needs, Update
from app.serving.requests import Chosen
from app.serving.testing import Tests
from app.serving.visitors import Visitor
from app.serving.waiting_line import WaitingLine
from app.settings import LENT_SECONDS, ModelChoice, Settings
from app.web.log import print_place
from lampe.errors import InputError, LampeError
from lampe.inference.prefill import PromptReader, chunk_for
from lampe.inference.speed import Speed
from lampe.models.load import LoadError, load
from lampe.needle import Result

_SPARE = 1.5  # times what a job is thought to take is asked for
_SHORTEST = 15.0  # seconds
# Until the first jobs are done: 2.5 times what a whole H200 takes (benchmarks/gpu.jsonl), of which a share is lent, and
# for a new process to have the weights there and the backend checked.
_PER_BYTE, _PAIR, _TOKEN = 2.5e-14, 3e-9, 0.12
_START, _START_PER_BYTE = 5.0, 1e-9
_ABORTED = "GPU task aborted"
"""What `spaces` says of a process that has ended before its work: its time was over, or it died."""
_MOST_OF_IT = 0.7  # of its time: a process that has ended after it was ended for it


@dataclass
class _Estimate:
    """Seconds that jobs are thought to take with a model: to begin with, and as `Job.seconds` has it."""

    start: float
    speed: Speed

    def asked(self, job: Job) -> int:
        """For how many a job asks for the GPU."""
        return math.ceil(max(_SHORTEST, self.start + _SPARE * job.seconds(self.speed)))

    def learn(self, thought: float, took: float) -> None:
        """What a job took is what the next is thought to take, half and half with what was thought before."""
        self._scale((1 + min(4.0, max(0.25, took / thought))) / 2)

    def was_too_short(self, job: Job, seconds: int, begun: bool) -> None:
        """Such a job asks for twice as many next time."""
        if begun:
            self._scale(max(1.0, (2 * seconds - self.start) / (_SPARE * job.seconds(self.speed))))
        else:
            self.start += seconds

    def _scale(self, factor: float) -> None:
        token, pair, answer = (factor * one for one in (self.speed.token, self.speed.pair, self.speed.answer))
        self.speed = replace(self.speed, token=token, pair=pair, answer=answer)


class Borrowed:
    """The runner of a Space on ZeroGPU: see `app.serving.service.Runner`.

    Models are loaded when it is made, which is to be in the main thread, after `spaces` was imported and before the
    app is launched: only there is a model "on the GPU" while none is.

    Raises
    ------
    lampe.LoadError
        If the deployment's own model can't be had; what else is offered is refused to who chooses it.
    """

    def __init__(self, settings: Settings) -> None:
        import spaces  # type: ignore[import-not-found]  # which is there, and only there, where GPUs are lent

        # transformers' pool of threads would be where no model is "on the GPU".
        os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
        self._loaded: dict[ModelChoice, Loaded] = {}
        self._refused: dict[ModelChoice, LoadError] = {}
        for model_id in settings.offered:
            choice = ModelChoice(model_id, settings.bits)
            try:
                self._loaded[choice] = Loaded(choice, *load(model_id, settings.bits))
            except LoadError as error:
                if choice == settings.own:
                    raise
                self._refused[choice] = error
        self.estimates = {choice: _guess(loaded.model) for choice, loaded in self._loaded.items()}
        self._line = WaitingLine(len(self._loaded) * 1000)  # for each visitor's share: nobody waits in it
        models = self._loaded

        def work(job: Job, speed: Speed, seconds: int) -> Iterator[bytes]:
            yield from _packed(models[job.choice], job, speed)

        self._work = spaces.GPU(duration=lambda job, speed, seconds: seconds)(work)

    @property
    def speeds(self) -> dict[ModelChoice, Speed]:
        return {choice: estimate.speed for choice, estimate in self.estimates.items()}

    def model(self, choice: ModelChoice) -> Any:
        """The model itself, which can be looked at, and not run."""
        return self._of(choice).model

    def needs(self, job: Answer, visitor: Visitor | None) -> Needs | None:
        """See `Runner.needs`."""
        memory, estimate = bytes_for(self.model(job.choice), job.longest), self.estimates[job.choice]
        return Needs(job.seconds(estimate.speed), memory, 0, estimate.asked(job))

    def prepare(self, chosen: Chosen, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """See `Runner.prepare`: nothing can be loaded later."""
        self._of(chosen.model)
        yield from ()

    def measured(self, choice: ModelChoice, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """See `Runner.measured`: no visitor's time is spent on that."""
        self._of(choice)
        yield from ()

    def answer(self, job: Answer, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update]:
        """See `Runner.answer`; stopped, the last update has what was written, and no report."""
        last = Update("Waiting")
        with closing(self._run(job, stop, visitor)) as events:
            for event in events:
                last = event
                yield event
        if last.report:
            return
        if not stop.is_set():  # `spaces` may end the job after that of somebody who stops
            raise InputError("The GPU was taken back before the end. What was written until then stays: ask again.")
        yield replace(last, stage="Stopped")

    def look_back(self, job: LookBack, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Evidence]:
        """See `Runner.look_back`: what was read for the answer is gone."""
        raise InputError(
            "Where an answer looked is found together with it here, for the GPU is given back after each question: "
            "choose it among the options, and ask again."
        )
        yield

    def test(self, job: Tests, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Result]:
        """See `Runner.test`: as many tests at once as half of what is lent has time for."""
        left = job
        while left.cells and not stop.is_set():
            self._of(job.choice)
            estimate = self.estimates[job.choice]
            batch = left.first(estimate.speed, (LENT_SECONDS / 2 - estimate.start) / _SPARE)
            done = left
            for event in self._run(batch, stop, visitor):
                yield event
                if isinstance(event, Result):
                    left = left.without(event.cell)
            if left is done and not stop.is_set():
                raise InputError("The GPU was taken back before the end. The tests that were done stay: go on with it.")

    def _of(self, choice: ModelChoice) -> Loaded:
        if choice in self._refused:
            raise self._refused[choice]
        if choice not in self._loaded:
            names = ", ".join(f"{one.name} in {one.bits} bits" for one in self._loaded)
            raise InputError(
                f"{choice.name} in {choice.bits} bits isn't loaded here. This Space borrows its GPU for each question, "
                f"so it has its models from the start: {names}."
            )
        return self._loaded[choice]

    def _run(self, job: Job, stop: threading.Event, visitor: Visitor | None) -> Generator[Any, None, None]:
        """A job's events as they come.

        Raises
        ------
        InputError
            If it would take too long, the visitor has no time left, the GPU can't be had or was taken back.
        LampeError
            What the job itself raised.
        """
        self._of(job.choice)
        estimate = self.estimates[job.choice]
        seconds, speed = estimate.asked(job), estimate.speed
        if seconds > LENT_SECONDS:
            raise InputError(
                f"This would take about {seconds} s of a GPU, and {LENT_SECONDS} s are lent at a time here. "
                "Nothing was run: take a shorter text or a shorter answer."
            )
        started, event = None, None
        with self._line.join(visitor):
            yield Update(f"Waiting for a GPU, to have it for {seconds} s")
            if stop.is_set():
                return
            try:
                with closing(self._work(job, speed, seconds)) as packs:
                    for pack in packs:
                        started = started or time.monotonic()
                        for event in pickle.loads(pack):
                            if isinstance(event, LampeError):
                                raise event
                            yield event
                        if stop.is_set():
                            return
            except LampeError:
                raise
            except Exception as error:
                title, message = getattr(error, "title", ""), str(getattr(error, "message", error))
                had = time.monotonic() - started if started else 0.0
                short = message == _ABORTED and (not started or had > _MOST_OF_IT * (seconds - estimate.start))
                if short:
                    estimate.was_too_short(job, seconds, begun=bool(started))
                raise InputError(_sentence(title, message, seconds, short)) from error
        if started and (done := _done(job, event)):
            estimate.learn(done.seconds(speed), time.monotonic() - started)


def _done(job: Job, last: Any) -> Job | None:
    """The job as it came to be, which may be shorter than it was asked for; None if it didn't come to its end."""
    if not isinstance(job, Answer):
        return job if isinstance(last, Result) else None
    if not last.report:
        return None
    return replace(job, request=replace(job.request, max_new_tokens=max(1, last.report.new_tokens)))


def _guess(model: Any) -> _Estimate:
    size = sum(weight.nbytes for weight in model.parameters())
    return _Estimate(_START + size * _START_PER_BYTE, Speed(size * _PER_BYTE, _PAIR, _TOKEN, chunk_for(model)))


def _packed(loaded: Loaded, job: Job, speed: Speed) -> Iterator[bytes]:
    """In the process that has the GPU: a job's events, those of each step together; what goes wrong is one of them.

    `spaces` would log an exception's message, which may quote a visitor, and give up the process.
    """
    told: list[Any] = []
    nobody = threading.Event()  # sets this one: a job here is ended by closing it
    try:
        for step in job.steps(loaded, speed, PromptReader(loaded.model), nobody, told.append):
            yield pickle.dumps([*told, step])
            told.clear()
    except LampeError as error:
        yield pickle.dumps([*told, error])
    except Exception as error:
        if out_of_memory(error):
            said = f"The GPU that is lent hasn't enough memory for {job.longest:,} tokens: take a shorter text."
        else:
            print_place()
            said = f"Something went wrong on the GPU ({type(error).__name__}). This one wasn't answered: ask again."
        yield pickle.dumps([*told, InputError(said)])


def _sentence(title: str, message: str, seconds: int, too_short: bool) -> str:
    """What `spaces` says, for whoever asked."""
    if too_short:
        return (
            f"The GPU was taken back before the end: it was lent for {seconds} s. What was written until then "
            "stays; ask again, and more time is asked for."
        )
    if message == _ABORTED:
        return "The process that had the GPU has ended. What was written until then stays: ask again."
    said = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", message).strip().rstrip(".")  # without Markdown's links
    return f"{title or 'ZeroGPU'}: {said}. This one wasn't answered; the rest of the page works without a GPU."
