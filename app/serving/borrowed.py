"""Models on a GPU that is lent for each job and taken back after it (ZeroGPU).

The package `spaces` forks a process for a job, gives it a GPU, pickles what goes there and what comes back, and ends it
when the time that was asked for is over, which is the visitor's: they have some minutes a day. So a job is plain data,
nothing that it reads stays, its time is reckoned from earlier jobs', and what it says is packed by us.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from app.serving.answering import Answer, LookBack
from app.serving.evidence import Evidence
from app.serving.jobs import Job
from app.serving.models import Loaded
from app.serving.prompt_memory import bytes_for, enough_memory
from app.serving.reports import Needs, Update
from app.serving.requests import Chosen
from app.serving.testing import Tests
from app.serving.visitors import Visitor
from app.settings import LENT_SECONDS, ModelChoice, Settings
from lampe.errors import InputError, LampeError
from lampe.inference.prefill import GPU_CHUNK, PromptReader
from lampe.inference.speed import Speed
from lampe.models.load import load
from lampe.needle import Result

_START = 8.0  # seconds, for a new process to have the weights on its GPU, and the backend checked there
_SPARE = 1.5  # times what a job is thought to take is asked for
_SHORTEST = 15.0
_MOST_OF_IT = 0.7  # of its time: a process that ends after it was ended for it
# Until the first job was timed: 2.5 times what a whole H200 takes (benchmarks/gpu.jsonl), of which a share is lent.
_PER_BYTE, _PAIR, _TOKEN = 2.5e-14, 3e-9, 0.12


class Borrowed:
    """The runner of a Space on ZeroGPU: see `app.serving.service.Runner`.

    Models are loaded when it is made, which is to be in the main thread, after `spaces` was imported and before the
    app is launched: only there is a model "on the GPU" while none is.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        import spaces  # type: ignore[import-not-found]  # which is there, and only there, where GPUs are lent

        self._loaded: dict[ModelChoice, Loaded] = {}
        for model_id in settings.offered:
            choice = ModelChoice(model_id, settings.bits)
            self._loaded[choice] = Loaded(choice, *load(model_id, settings.bits))
        self.speeds = {choice: _guess(loaded.model) for choice, loaded in self._loaded.items()}
        models = self._loaded

        def work(job: Job, speed: Speed, seconds: float) -> Iterator[bytes]:
            yield from _packed(models[job.choice], job, speed)

        self._work = spaces.GPU(duration=lambda job, speed, seconds: seconds)(work)

    def model(self, choice: ModelChoice) -> Any:
        """The model itself, which can be looked at, and not run."""
        return self._of(choice).model

    def needs(self, job: Answer, visitor: Visitor | None) -> Needs | None:
        """See `Runner.needs`."""
        seconds = job.seconds(self.speeds[job.choice])
        return Needs(seconds, bytes_for(self.model(job.choice), job.longest), 0, self._asked(job))

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
        with closing(self._run(job, stop)) as events:
            for event in events:
                last = event
                yield event
        if stop.is_set() and not last.report:
            yield replace(last, stage="Stopped")

    def look_back(self, job: LookBack, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Evidence]:
        """See `Runner.look_back`: what was read for the answer is gone."""
        raise InputError(
            "Where an answer looked is found together with it here, for the GPU is given back after each question: "
            "choose it among the options, and ask again."
        )
        yield

    def test(self, job: Tests, stop: threading.Event, visitor: Visitor | None) -> Iterator[Update | Result]:
        """See `Runner.test`: as many tests at once as there is time for."""
        left = job
        while left.cells and not stop.is_set():
            batch = left.first(self.speeds[job.choice], (LENT_SECONDS / 2 - _START) / _SPARE)
            for event in self._run(batch, stop):
                yield event
                if isinstance(event, Result):
                    left = left.without(event.cell)

    def _of(self, choice: ModelChoice) -> Loaded:
        if choice not in self._loaded:
            names = ", ".join(f"{one.name} in {one.bits} bits" for one in self._loaded)
            raise InputError(
                f"{choice.name} in {choice.bits} bits isn't loaded here. This Space borrows its GPU for each question, "
                f"so it has its models from the start: {names}."
            )
        return self._loaded[choice]

    def _asked(self, job: Job) -> float:
        """Seconds of the GPU that a job asks for."""
        return max(_SHORTEST, _START + _SPARE * job.seconds(self.speeds[job.choice]))

    def _run(self, job: Job, stop: threading.Event) -> Generator[Any, None, None]:
        """A job's events as they come.

        Raises
        ------
        InputError
            If it would take too long, the visitor has no time left, the GPU can't be had or was taken back.
        LampeError
            What the job itself raised.
        """
        self._of(job.choice)
        seconds, speed = self._asked(job), self.speeds[job.choice]
        if seconds > LENT_SECONDS:
            raise InputError(
                f"This would take about {seconds:.0f} s of a GPU, and {LENT_SECONDS} s are lent at a time here. "
                "Nothing was run: take a shorter text or a shorter answer."
            )
        yield Update(f"Waiting for a GPU, to have it for {seconds:.0f} s")
        started, ended = None, False
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
            ended = True
        except LampeError:
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("gradio", "spaces"):
                raise
            title, message = getattr(error, "title", ""), str(getattr(error, "message", error))
            had = time.monotonic() - started if started else 0.0
            cut_off = title == _CUT_OFF and had > _MOST_OF_IT * (seconds - _START)
            if cut_off:
                self._learn(job, 2 * job.seconds(speed))
            raise InputError(_sentence(title, message, seconds, cut_off)) from error
        if ended and started is not None:
            self._learn(job, time.monotonic() - started)

    def _learn(self, job: Job, took: float) -> None:
        """What a job took is what the next is thought to take, half and half with what was thought before."""
        speed = self.speeds[job.choice]
        factor = (1 + min(4.0, max(0.25, took / job.seconds(speed)))) / 2
        self.speeds[job.choice] = replace(
            speed, token=speed.token * factor, pair=speed.pair * factor, answer=speed.answer * factor
        )


_CUT_OFF = "ZeroGPU worker error"
"""What `spaces` calls a process that has ended before its work; so it calls one that failed, too."""


def _guess(model: Any) -> Speed:
    size = sum(weight.nbytes for weight in model.parameters())
    return Speed(size * _PER_BYTE, _PAIR, _TOKEN, GPU_CHUNK)


def _packed(loaded: Loaded, job: Job, speed: Speed) -> Iterator[bytes]:
    """In the process that has the GPU: a job's events, those of each step together; what it refuses is one of them."""
    told: list[Any] = []
    nobody = threading.Event()  # sets this one: a job here is ended by closing it
    try:
        with enough_memory(job.longest):
            for step in job.steps(loaded, speed, PromptReader(loaded.model), nobody, told.append):
                yield pickle.dumps([*told, step])
                told.clear()
    except LampeError as error:
        yield pickle.dumps([*told, error])


def _sentence(title: str, message: str, seconds: float, cut_off: bool) -> str:
    """What `spaces` says, for whoever asked."""
    if cut_off:
        return (
            f"The GPU was taken back before the end: it was lent for {seconds:.0f} s. What was written until then "
            "stays; ask again, and more time is asked for."
        )
    if title == _CUT_OFF:
        return f"The process that had the GPU has ended ({message}). Nothing was answered: ask again."
    said = message.strip().rstrip(".")
    return f"{title or 'ZeroGPU'}: {said}. Nothing was answered; the rest of the page works without a GPU."
