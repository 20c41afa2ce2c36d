"""Threads that work for all visitors, one thing after the other, and what they tell while they do."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from functools import partial
from typing import Any

Tell = Callable[[Any], None]
"""Passes an event on to whoever asked for the work."""

_BEAT = 0.5  # seconds between two looks for a Stop


class Computing:
    """One thread that does all work of a kind, and ends with the program: a daemon, unlike an executor's.

    All of the model's work is done in one. OpenMP keeps workers for each thread that has computed, and with more of
    them than processors all of them sleep between operations: a token then takes twice the time.

    Parameters
    ----------
    name : str
        The thread's.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._name, self._starting = name, threading.Lock()
        self.thread = self._thread()

    def start(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a function called there, after what was started before."""
        future: Future[Any] = Future()
        self._work.put((future, partial(function, *args)))
        with self._starting:
            if not self.thread.is_alive():  # whatever has ended it
                self.thread = self._thread()
        return future

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """The same, waiting for what it returns or raises."""
        return self.start(function, *args).result()

    def stream(
        self,
        work: Callable[[Tell], Any],
        stop: threading.Event,
        meanwhile: Any = None,
        ended: Callable[[], None] = lambda: None,
    ) -> Generator[Any, None, Any]:
        """Have ``work(tell)`` called there; yields what it tells, and returns what it returns.

        Parameters
        ----------
        work : callable
            Looks at `stop` by itself. Its exception is raised here.
        stop : threading.Event
            Set if the consumer leaves, who then waits for the work's end.
        meanwhile : optional
            For work that may be long in saying something, or never look at `stop`: what was last told, at first this,
            is repeated while nothing comes, and a Stop ends the waiting at once.
        ended : callable
            Called when the work has ended, whether or not anybody still listens.
        """
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        future = self.start(work, events.put)
        future.add_done_callback(lambda _: ended())
        future.add_done_callback(lambda _: events.put(events))  # which nobody else tells: it ends the loop below
        try:
            while True:
                try:
                    event = events.get(timeout=_BEAT if meanwhile else None)
                except queue.Empty:
                    event = meanwhile
                if meanwhile and stop.is_set():
                    return None
                if event is events:
                    break
                meanwhile = meanwhile and event
                yield event
            return future.result()
        except GeneratorExit:  # the visitor has left
            stop.set()
            if not meanwhile:
                wait([future])
            raise
        finally:
            del future  # its error holds this frame, which holds what was computed with

    def slices(
        self, work: Callable[[Tell], Iterator[Any]], stop: threading.Event, turn: Callable[[], Iterator[Any]],
        ended: Callable[[], None],
    ) -> Generator[Any, None, None]:  # fmt: skip
        """Have the steps of ``work(tell)`` made there, each in a turn of its own; yields what they tell and give.

        Parameters
        ----------
        work : callable
            See `stream`.
        stop : threading.Event
        turn : callable
            Waits before each step, and yields what there is to say of that.
        ended : callable
            Called after each step.
        """
        telling: list[Tell] = []  # the present step's
        steps = work(lambda event: telling[0](event))

        def step(tell: Tell) -> Any:
            telling[:] = [tell]
            return next(steps, steps)  # which is what no step gives: the end

        with closing(steps):  # type: ignore[type-var]
            while True:
                yield from turn()
                event = yield from self.stream(step, stop, ended=ended)
                if event is steps:
                    return
                yield event

    def _thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while True:
            future, work = self._work.get()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            del future, work  # what was computed with mustn't be held until the next work comes
