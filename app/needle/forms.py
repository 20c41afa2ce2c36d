"""What people fill in for needle tests, checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from app.limits import MAX_CHARACTERS, MAX_MAP_LENGTH, too_long, whole_number
from lampe.errors import InputError
from lampe.methods import method_class
from lampe.needle import HAYSTACKS, Cell, Haystack, Needles, file_needles, grid

SOURCES = {
    "Python's language reference": "reference",
    "Filler sentences": "filler",
    'The text in "Ask a document"': "document",
}
MOST_METHODS = 6
"""Of one grid: as many heat maps can be compared at a glance."""
MOST_TESTS = 400


class Ready(NamedTuple):
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
    InputError
        If a part is no number.
    """
    found = []
    for part in str(text or "").replace(";", ",").split(","):
        if part.strip():
            try:
                found.append(kind(part.strip()))
            except ValueError:
                raise InputError(f"{name}: {part.strip()!r:.40} is not a number. Write them as {example}.") from None
    return found


def own_needle(key: str, value: str) -> Needles | None:
    """A needle that a person wrote; None where both are empty.

    Raises
    ------
    InputError
        If only one of them is given, or one is too long.
    """
    key, value = (key or "").strip(), (value or "").strip()
    if not key and not value:
        return None
    if not key or not value:
        raise InputError("A needle of your own needs both: what the number belongs to, and the number.")
    if len(key) > 200 or len(value) > 200:
        raise InputError("The needle is too long: at most 200 characters for each part.")
    return file_needles({key: [value]})


def checked_grid(task: str, lengths: Any, depths: Any, methods: Any, trials: Any, seed: Any) -> list[Cell]:
    """The cells of a grid as a person or a program asks for it.

    Raises
    ------
    InputError, MethodError, NeedleError
        If it is none, or too large.
    """
    if not (isinstance(lengths, list) and isinstance(depths, list) and isinstance(methods, list)):
        raise InputError("Lengths, depths and methods must be lists.")
    for name, some in (("lengths", lengths), ("depths", depths), ("methods", methods)):
        if len(some) > MOST_TESTS:
            raise InputError(f"This grid has {len(some):,} {name}; at most {MOST_TESTS} tests are run here.")
    tokens = [whole_number("A prompt length", length) for length in lengths]
    for depth in depths:
        if isinstance(depth, bool) or not isinstance(depth, int | float):
            raise InputError(f"A depth must be a number from 0 to 1, not {depth!r:.40}.")
    count = whole_number("The number of trials", trials)
    if max(tokens, default=0) > MAX_MAP_LENGTH:
        raise InputError(f"A prompt length is at most {MAX_MAP_LENGTH:,} tokens.")
    named = {method_class(method).key for method in methods}
    if len(named) > MOST_METHODS:
        raise InputError(f"This grid has {len(named)} methods; at most {MOST_METHODS} are compared at once here.")
    if count < 1:
        raise InputError(f"The number of trials must be at least 1, not {count}.")
    tests = len(set(tokens)) * len(depths) * len(methods) * count
    if tests > MOST_TESTS:
        raise InputError(
            f"This grid has {tests:,} tests; at most {MOST_TESTS} are run here. The command line has no limit."
        )
    return grid(task, tokens, [float(depth) for depth in depths], methods, count, whole_number("The seed", seed))


def given_haystack(text: Any) -> Haystack:
    """A text of the visitor's own to hide in.

    Raises
    ------
    InputError, NeedleError
        If it is no text, or longer than is counted here.
    """
    if not isinstance(text, str):
        raise InputError("The haystack must be text.")
    if len(text) > MAX_CHARACTERS:
        raise InputError(too_long(text))
    return Haystack.named("document", text)


def haystack_of(source: str, document: str) -> Haystack:
    """The text to hide in."""
    return given_haystack(document) if source == "document" else HAYSTACKS[source]()
