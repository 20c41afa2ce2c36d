"""One model for many visitors: their line, the thread that computes, and work that tells how far it is."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from app.serving.reports import Update
from lampe.models.load import Progress


class Place:
    """A request's place in a `Line`.

    Attributes
    ----------
    seconds : callable
        How long it will take, about, from now on or from its turn on; None while nobody knows.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self.seconds: Callable[[], float | None] = lambda: None

    def before(self, seconds: float) -> list[Place]:
        """Those who are still before it, after waiting at most so many seconds."""
        line = self._line
        with line.moved:
            if line.waiting[0] is not self:
                line.moved.wait(seconds)
            return list(line.waiting)[: line.waiting.index(self)]


class Line:
    """First come, first served: requests wait here for the one model."""

    def __init__(self) -> None:
        self.waiting: deque[Place] = deque()
        self.moved = threading.Condition()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the end."""
        mine = Place(self)
        with self.moved:
            self.waiting.append(mine)
        try:
            yield mine
        finally:
            with self.moved:
                self.waiting.remove(mine)
                self.moved.notify_all()


class Computing:
    """One thread that does all of the model's work, and ends with the program: a daemon, unlike an executor's.

    OpenMP keeps workers for each thread that has computed, and with more of them than processors all of them sleep
    between operations: a token then takes twice the time.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="model", daemon=True).start()

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a function called there, after what was started before."""
        future: Future[Any] = Future()
        self._work.put((future, partial(function, *args)))
        return future

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same, waiting for what it returns or raises."""
        return self.start(function, *args).result()

    def _run(self) -> None:
        while True:
            future, work = self._work.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del future, work  # what was computed with mustn't be held until the next work comes


def with_progress(work: Callable[..., Any], stop: threading.Event | None = None) -> Iterator[Update]:
    """Run ``work(progress=…)`` in a thread and yield what it reports; its exception is raised here.

    A Stop ends the waiting; whether it ends the work is the work's to say.
    """
    reports: queue.Queue[Progress | None] = queue.Queue()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work(progress=reports.put)
        except BaseException as error:
            failure.append(error)
        finally:
            reports.put(None)

    threading.Thread(target=run, daemon=True).start()
    update = Update("Getting the model ready")
    while not (stop and stop.is_set()):
        try:
            report = reports.get(timeout=0.5)
        except queue.Empty:
            yield update  # somebody else's load is under way, or this stage has nothing to count
            continue
        if report is None:
            break
        update = Update(report.stage, report.done, report.total, report.unit)
        yield update
    if failure and not (stop and stop.is_set()):
        raise failure.pop()  # it holds this frame, which mustn't hold it: a model's weights may hang on it
