"""What the benchmarks share: where they ran, paired runs, and rows that are kept as they come."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache

import lampe
from benchmarks.three_pass import three_pass
from lampe.inference.prefill import chunk_for, read
from lampe.methods import Constant, Method
from lampe.models.memory import cache_bytes
from lampe.patching.patch import applied

TIMED = lampe.LampeConfig(8192, 512, 200, Constant(2048))
"""What the speed of a prompt is measured with: mapped from 4k tokens on, where the default's own preset isn't."""

_TOKENS = 4  # made in a turn
_ROOM = 256  # tokens that an answer is planned to have


def machine() -> dict[str, Any]:
    """Where and with what this ran."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    packages = ("torch", "transformers", "bitsandbytes")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()} {device}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


class Rows:
    """A benchmark's rows in a file beside it: kept one by one, so that a run that was cut off goes on from there.

    Parameters
    ----------
    name : str
        The file's, without its ending; None keeps nothing (a `--quick` run, whose figures say nothing).
    fresh : bool
        Forget what the file holds.
    """

    def __init__(self, name: str | None, fresh: bool = False) -> None:
        self._file = Path(__file__).with_name(f"{name}.jsonl") if name else None
        self.rows: list[dict[str, Any]] = []
        print(json.dumps(machine()), flush=True)
        if self._file and self._file.exists() and not fresh:
            self.rows = [json.loads(line) for line in self._file.read_text(encoding="utf-8").splitlines()]
        elif self._file:
            self._file.write_text("", encoding="utf-8")

    def has(self, **what: Any) -> bool:
        """Whether this was measured already; prints it again then."""
        for row in self.rows:
            if what.items() <= row.items():
                print(_line(row), "(kept)", flush=True)
                return True
        return False

    def add(self, **row: Any) -> None:
        self.rows.append(row)
        print(_line(row), flush=True)
        if self._file:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "on": machine()}) + "\n")


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing kept: shows that it runs")
    parser.add_argument("--fresh", action="store_true", help="forget all rows of the file first")
    return parser


def seconds(run: Callable[[], Any]) -> float:
    """How long a run takes, until the device has done it."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def paired(runs: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, Any]:
    """Each run's seconds, one after the other in turn, and its ratio to the first run of the same turn.

    A run of a minute needs no warm-up, and other programs hardly disturb it: see `turns_at`. Each turn begins with
    another run, because one that follows a greedy one is the slower.

    Parameters
    ----------
    runs : mapping of name to a function that does the work and gives its seconds
    repeats : int
        Turns that count; one more goes before them as a warm-up where more than one counts.

    Returns
    -------
    dict
        For each name: `seconds` (median), `spread` (least and greatest), and `ratio` with `ratio_spread`.
    """
    _keep_freed_memory()
    names = list(runs)
    base, warm_up = names[0], repeats > 1
    orders = [names[turn % len(names) :] + names[: turn % len(names)] for turn in range(repeats + warm_up)]
    return _summary([{name: runs[name]() for name in order} for order in orders][warm_up:], base)


def _summary(turns: list[dict[str, float]], base: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in turns[0]:
        times = [turn[name] for turn in turns]
        ratios = [turn[name] / turn[base] for turn in turns]
        result[name] = {
            "seconds": median(times),
            "spread": [min(times), max(times)],
            "ratio": median(ratios),
            "ratio_spread": [min(ratios), max(ratios)],
        }
    return {"runs": {base: result[base], **result}, "repeats": len(turns)}


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: giving it back and taking it again makes a run up to a fifth slower, by chance."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def turns_at(length: int, repeats: int) -> int:
    """Turns of a whole model's prefill: one from 16k tokens on, where a run takes a minute; more of short ones."""
    return repeats * max(1, 4096 // length) if length < 16_384 else 1


def variants(model: Any) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Ways to run one loaded model."""
    return {
        "plain": nullcontext,
        "LaMPE": lambda: lampe.patch(model, TIMED),
        "YaRN": lambda: yarn(model),
        "three passes": lambda: three_pass(model, TIMED),
    }


@contextmanager
def yarn(model: Any) -> Iterator[None]:
    """Twice the window by transformers' own YaRN: what another way of reading on costs."""
    config = model.config.__class__.from_dict(model.config.to_dict())
    window = config.max_position_embeddings
    theta = config.rope_parameters["rope_theta"]
    config.rope_parameters = {
        "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": window, "rope_theta": theta,
    }  # fmt: skip
    own = model.model.rotary_emb
    model.model.rotary_emb = type(own)(config).to(own.inv_freq.device)
    try:
        yield
    finally:
        model.model.rotary_emb = own


def prefill(model: Any, ids: torch.Tensor, chunk: int | None = None) -> DynamicCache:
    """Read a text, without logits for all but its last token."""
    cache = DynamicCache(config=model.config)
    for _ in read(model, cache, ids, chunk=chunk or ids.shape[1]):
        pass
    return cache


def reading_and_tokens(
    model: Any, ways: Mapping[str, Method], length: int, repeats: int, token_turns: int
) -> dict[str, dict[str, Any]]:
    """A text read in chunks, and tokens made after it, under several methods in turn.

    Each method reads one chunk before any reads the next, and is compared with the first by the median of the chunks:
    what else the machine does in a minute falls on all alike, and what stalls one of them on none. They hold a cache
    each meanwhile.

    Parameters
    ----------
    model : transformers model
    ways : mapping of name to Method
        The first is what the others are compared with.
    length : int
        Tokens of the text.
    repeats, token_turns : int
        Turns of the whole reading, and of a few tokens; a warm-up goes before them as in `paired`, and where the text
        is read once, its first chunk.

    Returns
    -------
    dict
        "reading" and "a token", each as `paired` gives it, of a reading the seconds of all chunks together; on a GPU
        "reading" has also the most memory that was taken beyond weights and cache, in MB.
    """
    ids, held, on_gpu = random_ids(model, length), cache_bytes(model.config, length), model.device.type == "cuda"
    left: dict[str, int] = {}  # bytes that a method's reading keeps from one chunk to the next
    beyond: dict[str, int] = {}
    caches: dict[str, Any] = {}

    def chunk(way: str, reading: Iterator[int]) -> float:
        with applied(model, ways[way]) as patched:
            if patched:  # with room for what is made: a plan that it would outgrow is made anew for each token
                patched.plan(length + _ROOM, length)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            taken = seconds(partial(next, reading))
        del patched  # with it goes what the last pass kept for its report
        if on_gpu:
            most = left.get(way, 0) + torch.cuda.max_memory_allocated() - before
            beyond[way] = max(beyond.get(way, 0), round((most - held) / 1e6))
            left[way] = left.get(way, 0) + torch.cuda.memory_allocated() - before
        return taken

    def reading(chunks: int) -> list[dict[str, float]]:
        for kept in (caches, left, beyond):
            kept.clear()
        caches.update({way: DynamicCache(config=model.config) for way in ways})
        readings = {way: read(model, caches[way], ids) for way in ways}
        names = list(ways)
        orders = (names[turn % len(names) :] + names[: turn % len(names)] for turn in range(chunks))
        return [{way: chunk(way, readings[way]) for way in order} for order in orders]

    def token(way: str) -> float:
        with applied(model, ways[way]):
            step = partial(model, ids[:, :1], past_key_values=caches[way], logits_to_keep=1)
            step()
            return seconds(lambda: [step() for _ in range(_TOKENS)]) / _TOKENS

    _keep_freed_memory()
    chunks = -(-length // chunk_for(model))
    reading(chunks if repeats > 1 else 1)
    turns = [turn for _ in range(repeats) for turn in reading(chunks)]
    whole = _summary(turns, next(iter(ways)))
    for way, found in whole["runs"].items():
        found["seconds"] = sum(turn[way] for turn in turns) / repeats
    whole["repeats"] = repeats
    with torch.inference_mode():
        made = paired({way: partial(token, way) for way in ways}, token_turns)
    return {"reading": {"beyond_mb": beyond, **whole} if on_gpu else whole, "a token": made}


def random_ids(model: Any, length: int) -> torch.Tensor:
    """Token ids: what they are doesn't change what reading them costs."""
    generator = torch.Generator().manual_seed(length)
    return torch.randint(model.config.vocab_size, (1, length), generator=generator).to(model.device)


def _line(row: dict[str, Any]) -> str:
    what = ", ".join(f"{key} {value}" for key, value in row.items() if key not in ("runs", "repeats", "on"))
    runs = "; ".join(
        f"{name} {one['seconds'] * 1e3:,.1f} ms"
        + (f", {one['ratio']:.3f} ×" if number else "")
        + (f" ({one['ratio_spread'][0]:.3f}–{one['ratio_spread'][1]:.3f})" if number and row["repeats"] > 1 else "")
        for number, (name, one) in enumerate(row.get("runs", {}).items())
    )
    return f"{what}: {runs}" if runs else what
