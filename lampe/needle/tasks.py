"""What is hidden, asked and expected: the kinds of needles."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lampe.errors import InputError

_ADJECTIVES = [
    "amber",
    "broken",
    "copper",
    "crooked",
    "distant",
    "faded",
    "frozen",
    "gilded",
    "green",
    "hollow",
    "ivory",
    "little",
    "marble",
    "narrow",
    "old",
    "painted",
    "purple",
    "quiet",
    "red",
    "rusty",
    "silver",
    "striped",
    "velvet",
    "wooden",
]
_NOUNS = [
    "anchor",
    "barrel",
    "bell",
    "bridge",
    "candle",
    "chapel",
    "clock",
    "compass",
    "door",
    "drawer",
    "fountain",
    "gate",
    "kettle",
    "key",
    "ladder",
    "lantern",
    "mirror",
    "piano",
    "ship",
    "suitcase",
    "tower",
    "trumpet",
    "umbrella",
    "wheel",
]


class NeedleError(InputError):
    """A test that can't be made; the message says why and what to change."""


@dataclass(frozen=True)
class Needles:
    """What one cell hides and asks.

    Parameters
    ----------
    sentences : tuple of str
        The first goes to the cell's depth, the others anywhere.
    question : str
    prefix : str
        The answer's first words, given to the model.
    expected : tuple of str
        What the answer has to contain.
    """

    sentences: tuple[str, ...]
    question: str
    prefix: str
    expected: tuple[str, ...]

    def score(self, answer: str) -> float:
        """The share of what was expected that stands in the answer, each by itself and not as a part of a word."""
        found = [re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer, re.IGNORECASE) for value in self.expected]
        return sum(map(bool, found)) / len(found)


@dataclass(frozen=True)
class Task:
    """A kind of test.

    Parameters
    ----------
    name : str
    about : str
        One line for people.
    key : "words", "number" or None
        What a value is filed under; None has a single value and no key.
    value : "number" or "uuid"
    keys, values, asked : int
        Keys hidden, values hidden under each key, and keys asked for.
    """

    name: str
    about: str
    key: Literal["words", "number"] | None = "words"
    value: Literal["number", "uuid"] = "number"
    keys: int = 1
    values: int = 1
    asked: int = 1

    def draw(self, rng: random.Random, unlike: str = "") -> Needles:
        """Keys and values of one cell; none of them stands in `unlike`, the haystack."""
        seen = unlike.casefold()

        def fresh(make: Callable[[], str]) -> str:
            for _ in range(1000):
                drawn = make()
                if drawn not in taken and drawn.casefold() not in seen:
                    taken.add(drawn)
                    return drawn
            raise NeedleError("This haystack holds every key that could be drawn; take another text.")

        taken: set[str] = set()
        make_value = _VALUES[self.value]
        if self.key is None:
            value = fresh(lambda: make_value(rng))
            return Needles(
                (f"The pass key is {value}. Remember it: {value} is the pass key.",),
                "What is the pass key?",
                "The pass key is",
                (value,),
            )
        make_key = _KEYS[self.key]
        filed = {
            fresh(lambda: make_key(rng)): [fresh(lambda: make_value(rng)) for _ in range(self.values)]
            for _ in range(self.keys)
        }
        return file_needles(filed, self.asked, "number" if self.value == "number" else "code")


def file_needles(filed: dict[str, list[str]], asked: int = 1, kind: str = "number") -> Needles:
    """The sentences, question and answer of values filed under keys; the first `asked` keys are asked for.

    Parameters
    ----------
    filed : mapping of key to its values
    asked : int
    kind : str
        What a value is called.
    """
    sentences = tuple(
        f"The secret {kind} of the {key} is {value}." if len(values) == 1
        else f"One of the secret {kind}s of the {key} is {value}."
        for key, values in filed.items()
        for value in values
    )  # fmt: skip
    keys = list(filed)[:asked]
    expected = tuple(value for key in keys for value in filed[key])
    named = f"the {keys[0]}" if asked == 1 else ", ".join(f"the {key}" for key in keys[:-1]) + f" and the {keys[-1]}"
    if len(expected) == 1:
        return Needles(
            sentences, f"What is the secret {kind} of {named}?", f"The secret {kind} of {named} is", expected
        )
    return Needles(
        sentences, f"What are all the secret {kind}s of {named}?", f"The secret {kind}s of {named} are", expected
    )


_KEYS: dict[str, Callable[[random.Random], str]] = {
    "words": lambda rng: f"{rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}",
    "number": lambda rng: f"locker {rng.randrange(10_000, 100_000)}",
}
_VALUES: dict[str, Callable[[random.Random], str]] = {
    "number": lambda rng: str(rng.randrange(1_000_000, 10_000_000)),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
}

TASKS = {
    task.name: task
    for task in (
        Task("single", "one number under a name of two words"),
        Task("numbers", "one number under a number", key="number"),
        Task("uuid", "one identifier under a name of two words", value="uuid"),
        Task("multi-key", "one number asked for, three others hidden as distractors", keys=4),
        Task("multi-value", "four numbers under one name, all asked for", values=4),
        Task("multi-query", "three numbers under three names, all asked for", keys=3, asked=3),
        Task("passkey", "one pass key", key=None),
    )
}
