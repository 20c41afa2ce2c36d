"""How long Stop takes: the longest time in which a run doesn't look whether it is to end.

    python -m benchmarks.stop [--quick] [--fresh]

Runs what the page runs, on 16k tokens: measuring the speed, reading and answering a question, looking back for its
passages, reading and answering a needle test. A Stop can come at any moment, so what counts is the longest time between
two looks in each stage. Then each run is made again, shorter, and stopped as each stage begins, to see that it ends.
The rows are kept in stop.jsonl beside this file. About ten minutes on two cores.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from app.ask.examples import EXAMPLES
from app.serving.requests import Request
from app.serving.service import ModelService
from app.serving.start import start
from app.settings import Settings
from benchmarks.measure import Rows, arguments
from lampe.needle import HAYSTACKS, Cell

TOKENS, SHORT = 16_384, 600


class Watched(threading.Event):
    """A Stop that notes when it is looked at.

    Attributes
    ----------
    stage : str
        What is going on.
    longest : dict of str to float
        For each stage, the most seconds between two looks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage = ""
        self.longest: dict[str, float] = {}
        self._last = time.perf_counter()

    def is_set(self) -> bool:
        now = time.perf_counter()
        self.longest[self.stage] = max(self.longest.get(self.stage, 0), now - self._last)
        self._last = now
        return super().is_set()


def main() -> None:
    given = arguments(__doc__).parse_args()
    length = SHORT if given.quick else TOKENS
    rows = Rows(None if given.quick else "stop", fresh=True)  # the stages rest on one another
    service = start(replace(Settings.from_environment({}), max_input_tokens=2 * TOKENS, kept_bytes=0))
    service.model()
    for what, stages in _watched(service, length).items():
        for stage, longest in stages.items():
            rows.add(run=what, stage=stage, tokens=length, measured="without a look", seconds=round(longest, 3))
    for what, stage, took in _stopped(service, min(length, 2 * SHORT)):
        rows.add(run=what, stage=stage, tokens=min(length, 2 * SHORT), measured="a Stop", seconds=round(took, 3))
    print(f"Stop takes {max(row['seconds'] for row in rows.rows):.2f} s at most here.")


def _runs(service: ModelService, length: int) -> dict[str, Callable[[threading.Event], Iterator[Any]]]:
    """What a visitor may start, each with its Stop."""
    tokenizer, example = service.texts.tokenizer(), EXAMPLES[1]
    ids = tokenizer(example.text)["input_ids"]
    text = tokenizer.decode(list(islice(cycle(ids), length)))
    request = Request(text, example.question, "lampe", 16)
    cells = [Cell("single", length, 0.5, "lampe")]
    found: list[Any] = []

    def ask(stop: threading.Event) -> Iterator[Any]:
        for update in service.ask(request, stop):
            found[:] = [update.attention] if update.attention else found
            yield update

    return {
        "speed": lambda stop: service.measured(stop=stop),
        "question": ask,
        "passages": lambda stop: service.evidence(found[0], stop),
        "needle": lambda stop: service.needles(HAYSTACKS["reference"](), cells, stop=stop),
    }


def _watched(service: ModelService, length: int) -> dict[str, dict[str, float]]:
    """Each run to its end, with the longest time between two looks in each of its stages."""
    longest = {}
    for what, begin in _runs(service, length).items():
        stop = Watched()
        for update in begin(stop):
            stop.stage = getattr(update, "stage", "") or stop.stage
        longest[what] = {stage: took for stage, took in stop.longest.items() if stage}
    return longest


def _stopped(service: ModelService, length: int) -> Iterator[tuple[str, str, float]]:
    """Each run stopped once in each of its stages, with the seconds until it ended."""
    for what, begin in _runs(service, length).items():
        stages: list[str] = []
        while True:
            stop, pressed = threading.Event(), 0.0
            for update in begin(stop):
                stage = getattr(update, "stage", "")
                if not pressed and stage and stage != "Done" and stage not in stages:
                    stages.append(stage)
                    pressed = time.perf_counter()
                    stop.set()
            if not pressed:
                break
            yield what, stages[-1], time.perf_counter() - pressed


if __name__ == "__main__":
    main()
