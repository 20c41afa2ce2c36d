"""Cells of a grid spread over several models: on one machine's GPUs or on many machines, by Ray.

Each actor loads a model once; the process that asks writes the rows. An actor that is lost is started again, and what
it was at is done again, a limited number of times.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from lampe.errors import LampeError, first_line
from lampe.files import append_line

Unit = TypeVar("Unit")
Row = TypeVar("Row")
Work = Callable[[Unit], Iterable[Row]]
"""What is done to one unit: gives its rows."""

LOCAL = "local"
ATTEMPTS = 3
_REACH = 10  # seconds to a machine's answer


class ClusterError(LampeError):
    """A cluster that can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Cluster:
    """Where work is spread to.

    Parameters
    ----------
    address : str
        Of a running Ray cluster, as "10.0.0.1:6379", or "auto"; "local" starts one on this machine.
    actors : int or None
        Models at once; by default as many as its GPUs hold, and one for each machine where there is no GPU.
    gpus : float
        For each model; 0 computes on CPUs.
    """

    address: str = LOCAL
    actors: int | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class Failed(Generic[Unit]):
    """A unit that gave no rows.

    Parameters
    ----------
    unit : object
    why : str
    """

    unit: Unit
    why: str


class Failures:
    """What failed in a run: told, and kept with its reason in a file beside the results.

    Beside and not among them, because the same command tries it again; each run begins the file anew.

    Parameters
    ----------
    results : Path
        As "needle.jsonl"; the file is then "needle.failed".

    Attributes
    ----------
    units : set
    """

    def __init__(self, results: Path) -> None:
        self.file, self.units = results.with_suffix(".failed"), set[Any]()
        self.file.unlink(missing_ok=True)

    def add(self, failed: Failed[Any], named: str) -> None:
        """One more, and what it is called."""
        self.units.add(failed.unit)
        unit = msgspec.to_builtins(failed.unit, enc_hook=str)
        append_line(self.file, {"failed": named, "why": failed.why, "unit": unit})
        print(f"{named} failed: {failed.why} (kept in {self.file})", file=sys.stderr)


def spread(
    cluster: Cluster, make: Callable[[int], Work[Unit, Row]], units: Sequence[Unit], attempts: int = ATTEMPTS
) -> Iterator[tuple[Unit, list[Row]] | Failed[Unit]]:
    """Do the units, each by whichever model is free.

    Parameters
    ----------
    cluster : Cluster
    make : callable
        Called once in each actor, with the threads that it may use: loads the model and gives what does a unit. It and
        the units are sent to other processes, so they hold plain data.
    units : sequence
        Hashable.
    attempts : int
        After how many lost actors a unit is given up.

    Yields
    ------
    (unit, list of rows), or Failed
        As they end. What a unit's own work raises isn't tried again.

    Raises
    ------
    ClusterError
        If Ray isn't here, no cluster answers, it has too few GPUs, or no actor can load the model.
    """
    if not units:
        return
    with _connected(cluster.address) as ray:
        count, threads = room(ray, cluster, len(units))
        numbers = iter(range(10**9))

        def started() -> Any:
            options = {"num_gpus": cluster.gpus, "num_cpus": threads, "name": f"{ACTOR}{next(numbers)}"}
            return ray.remote(**options)(_Actor).remote(make, threads)

        actors = [started() for _ in range(count)]
        try:
            ray.get([actor.ready.remote() for actor in actors])
        except ray.exceptions.RayError as error:
            raise ClusterError(f"No model could be loaded on the cluster: {_cause(error)}") from error
        yield from _done(ray, actors, started, deque(units), attempts)


ACTOR = "lampe-model-"
"""Of an actor's name; a number follows."""


def _done(
    ray: Any, idle: list[Any], started: Callable[[], Any], waiting: deque[Any], attempts: int
) -> Iterator[tuple[Any, list[Any]] | Failed[Any]]:
    """The loop: each free actor has the next unit."""
    running: dict[Any, tuple[Any, Any]] = {}
    lost: Counter[Any] = Counter()
    while waiting or running:
        while waiting and idle:
            unit, actor = waiting.popleft(), idle.pop()
            running[actor.work.remote(unit)] = unit, actor
        (ended, *_), _ = ray.wait(list(running), num_returns=1)
        unit, actor = running.pop(ended)
        try:
            rows = ray.get(ended)
        except ray.exceptions.RayTaskError as error:  # what the work raised, and would again
            idle.append(actor)
            yield Failed(unit, _cause(error))
        except ray.exceptions.RayError as error:  # the actor is gone, with its process or its machine
            lost[unit] += 1
            idle.append(started())
            if lost[unit] < attempts:
                waiting.append(unit)
            else:
                yield Failed(unit, f"the process that read it was lost {attempts} times ({_cause(error)})")
        else:
            idle.append(actor)
            yield unit, rows


class _Actor:
    """One model, in a process of its own."""

    def __init__(self, make: Callable[[int], Work[Any, Any]], threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._work = make(threads)

    def ready(self) -> bool:
        return True

    def work(self, unit: Any) -> list[Any]:
        return list(self._work(unit))


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            'Ray isn\'t here, which spreads work over several models: pip install "lampe-lab[cluster]", or leave --ray '
            "out."
        ) from error
    own: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        _reach(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **own)
    except Exception as error:  # by version and address: ConnectionError, ValueError, RuntimeError, its own
        raise ClusterError(
            f"No Ray cluster answers at {address!r} ({first_line(error)}). Start one there with `ray start --head`, or "
            "give --ray no address: then one is started on this machine."
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Open a connection to a host and port, and close it: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH).close()


def room(ray: Any, cluster: Cluster, units: int) -> tuple[int, int]:
    """How many actors, and how many threads each.

    Raises
    ------
    ClusterError
        If they have no room.
    """
    there = ray.cluster_resources()
    cpus, gpus = int(there.get("CPU", 1)), there.get("GPU", 0.0)
    if cluster.gpus > gpus:
        raise ClusterError(
            f"Each model is to have {cluster.gpus:g} GPUs, and the cluster has {gpus:g}. Take fewer with "
            "--gpus-per-model; 0 computes on CPUs."
        )
    machines = sum(node["Alive"] for node in ray.nodes())
    most = int(gpus // cluster.gpus) if cluster.gpus else cpus
    wanted = cluster.actors or (most if cluster.gpus else machines)
    if wanted > most:
        raise ClusterError(f"The cluster has room for {most} models of this size, not for {wanted}: see --actors.")
    count = min(wanted, units)
    return count, max(1, cpus // count)


def _cause(error: BaseException) -> str:
    """What was raised in another process, in a line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return first_line(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if "Error: " in line and not line.startswith(("ray.", "The actor died"))]
    return (raised or lines or [type(error).__name__])[-1]
