"""What people fill in for needle tests, checked, and the files that results are taken home in."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from app.errors import AskError
from app.limits import MAX_CHARACTERS, too_long, whole_number
from app.map.settings import MAX_MAP_LENGTH
from lampe.methods import method_class
from lampe.needle import HAYSTACKS, Cell, Haystack, Needles, Result, file_needles, grid, read_rows, row_of

SOURCES = {
    "Python's language reference": "reference",
    "Filler sentences": "filler",
    'The text in "Ask a document"': "document",
}
MOST_METHODS = 6
"""Of one grid: as many heat maps can be compared at a glance."""
MOST_TESTS = 400
MOST_ROWS_BYTES = 5_000_000


@dataclass(frozen=True)
class Ready:
    """A grid worth running, ready made."""

    label: str
    lengths: str
    depths: str
    trials: int


READY = (
    Ready("Inside the window, 4k", "4096", "0.1, 0.5, 0.9", 1),
    Ready("Past the window, 12k", "12288", "0.1, 0.9", 1),
    Ready("A full grid, about ten minutes on two cores", "2048, 4096, 8192, 12288", "0.1, 0.35, 0.65, 0.9", 1),
)


def numbers(name: str, text: str, kind: Any, example: str) -> list[Any]:
    """A list of numbers as people type it, like the example.

    Raises
    ------
    AskError
        If a part is no number.
    """
    found = []
    for part in str(text or "").replace(";", ",").split(","):
        if part.strip():
            try:
                found.append(kind(part.strip()))
            except ValueError:
                raise AskError(f"{name}: {part.strip()!r:.40} is not a number. Write them as {example}.") from None
    return found


def own_needle(key: str, value: str) -> Needles | None:
    """A needle that a person wrote; None where both are empty.

    Raises
    ------
    AskError
        If only one of them is given, or one is too long.
    """
    key, value = (key or "").strip(), (value or "").strip()
    if not key and not value:
        return None
    if not key or not value:
        raise AskError("A needle of your own needs both: what the number belongs to, and the number.")
    if len(key) > 200 or len(value) > 200:
        raise AskError("The needle is too long: at most 200 characters for each part.")
    return file_needles({key: [value]})


def checked_grid(task: str, lengths: Any, depths: Any, methods: Any, trials: Any, seed: Any) -> list[Cell]:
    """The cells of a grid as a person or a program asks for it.

    Raises
    ------
    AskError, MethodError, NeedleError
        If it is none, or too large.
    """
    if not (isinstance(lengths, list) and isinstance(depths, list) and isinstance(methods, list)):
        raise AskError("Lengths, depths and methods must be lists.")
    tokens = [whole_number("A prompt length", length) for length in lengths]
    for depth in depths:
        if isinstance(depth, bool) or not isinstance(depth, int | float):
            raise AskError(f"A depth must be a number from 0 to 1, not {depth!r:.40}.")
    count = whole_number("The number of trials", trials)
    if max(tokens, default=0) > MAX_MAP_LENGTH:
        raise AskError(f"A prompt length is at most {MAX_MAP_LENGTH:,} tokens.")
    named = {method_class(method).key for method in methods}
    if len(named) > MOST_METHODS:
        raise AskError(f"This grid has {len(named)} methods; at most {MOST_METHODS} are compared at once here.")
    tests = len(set(tokens)) * len(depths) * len(methods) * count
    if tests > MOST_TESTS:
        raise AskError(
            f"This grid has {tests:,} tests; at most {MOST_TESTS} are run here. The command line has no limit."
        )
    return grid(task, tokens, [float(depth) for depth in depths], methods, count, whole_number("The seed", seed))


def given_haystack(text: Any) -> Haystack:
    """A text of the visitor's own to hide in.

    Raises
    ------
    AskError, NeedleError
        If it is no text, or longer than is counted here.
    """
    if not isinstance(text, str):
        raise AskError("The haystack must be text.")
    if len(text) > MAX_CHARACTERS:
        raise AskError(too_long(text))
    return Haystack.named("document", text)


def haystack_of(source: str, document: str) -> Haystack:
    """The text to hide in."""
    return given_haystack(document) if source == "document" else HAYSTACKS[source]()


def as_jsonl(results: Sequence[Result], ran_with: Mapping[str, Any]) -> str:
    return "".join(row_of(result, ran_with) for result in results)


def as_csv(results: Sequence[Result], ran_with: Mapping[str, Any]) -> str:
    text = io.StringIO()
    lines = csv.writer(text)
    names = [field.name for field in fields(Result)]
    lines.writerow([*names, *ran_with])
    for result in results:
        values = (getattr(result, name) for name in names)
        cells = [" | ".join(value) if isinstance(value, tuple) else value for value in values]
        lines.writerow([*cells, *ran_with.values()])
    return text.getvalue()


FILES = {"CSV": ("csv", as_csv), "JSONL": ("jsonl", as_jsonl)}


def opened(path: Path) -> tuple[list[Result], dict[str, Any]]:
    """The results in a file that a visitor brings, and the model and bits that they ran with.

    Raises
    ------
    AskError, NeedleError
        If it is too large, empty, or not such a file.
    """
    if path.stat().st_size > MOST_ROWS_BYTES:
        raise AskError(f"This file is larger than {MOST_ROWS_BYTES / 1e6:.0f} MB; no grid here makes such a one.")
    try:
        rows = read_rows(path)
    except UnicodeDecodeError:
        raise AskError("This file isn't text, so it holds no results.") from None
    if not rows:
        raise AskError("This file is empty: it holds no results.")
    results, (first, *others) = [result for result, _ in rows], [ran_with for _, ran_with in rows]
    if any(other != first for other in others) or len({(r.task, r.haystack) for r in results}) > 1:
        raise AskError("This file mixes results of several models, tasks or texts; a file of one of each can be shown.")
    settings = {(r.method, r.length, r.mapping_length, r.head, r.tail, r.attention_scale) for r in results}
    if len(settings) > len({(method, length) for method, length, *_ in settings}):
        raise AskError("This file mixes results of several settings of a method; a file of one of each can be shown.")
    points = len({r.length for r in results}) * len({r.depth for r in results})
    if points > MOST_TESTS:
        raise AskError(f"This file has {points:,} points of length and depth; at most {MOST_TESTS} can be drawn.")
    return results, first
