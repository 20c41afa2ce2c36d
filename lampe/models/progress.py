"""How far the loading of a model has come, told to whoever asked for it instead of to the terminal."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import transformers

# One load at a time: `quiet` switches logging and progress bars, which belong to the whole process.
LOADING = threading.RLock()


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Parameters
    ----------
    stage : str
        What is being done, for people: "Fetching SmolLM2-135M-Instruct", "Checking", "Converting", "Loading".
    done, total : int
        In `unit`. Within a stage `done` never falls; it reaches `total` at the end. Total 0 means: not known.
    unit : str
        "bytes", "steps" or "tensors".
    """

    stage: str
    done: int
    total: int
    unit: str


ProgressCallback = Callable[[Progress], None]
"""Called now and then, from the thread that loads. What it raises ends the work."""


def ignore(_: Progress) -> None:
    """A callback for those who don't ask."""


@contextlib.contextmanager
def quiet(progress: ProgressCallback | None = None) -> Iterator[None]:
    """Nothing of the libraries' on the terminal, for one thread at a time; loaded tensors are told to `progress`.

    What is kept silent: the progress bars of transformers, and bitsandbytes' advice to install a package that would
    then ask the Hub for kernels.
    """
    from transformers import modeling_gguf_pytorch_utils as gguf_loading  # slow to import

    report = progress or ignore

    def bar(_: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return counted(args[0]) if kwargs.get("desc") == "Loading weights" else transformers.logging.EmptyTqdm(*args)

    def counted(items: Any) -> Iterator[Any]:
        for done, item in enumerate(items):
            report(Progress("Loading", done, len(items), "tensors"))
            yield item
        report(Progress("Loading", len(items), len(items), "tensors"))

    advice = logging.getLogger("bitsandbytes")
    with LOADING:
        before = advice.level, transformers.logging.set_tqdm_hook(bar), gguf_loading.tqdm
        advice.setLevel(logging.ERROR)
        gguf_loading.tqdm = transformers.logging.EmptyTqdm  # the one bar that no hook reaches
        try:
            yield
        finally:
            level, hook, gguf_loading.tqdm = before
            advice.setLevel(level)
            transformers.logging.set_tqdm_hook(hook)
