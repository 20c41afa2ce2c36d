"""Ready examples: our own sample texts, each with a fact hidden in it and the question for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from app.ui.words import WORDS

SAMPLES = files("app") / "assets" / "samples"
ANSWERS = Path(str(SAMPLES / "recorded.json"))


@dataclass(frozen=True)
class Example:
    """A sample text with a hidden fact.

    Parameters
    ----------
    word : str
        Names what the button says: see `app.ui.words`.
    file : str
        In app/assets/samples.
    fact, question, answer : str
        The sentence put into the text, what to ask, and what a right answer contains.
    depth : float
        Where the fact goes, as a share of the text's paragraphs.
    mapped : bool
        Whether it is longer than the default model's window: then LaMPE finds the fact, and plain RoPE doesn't. Inside
        the window the default maps nothing, and both find it.
    """

    word: str
    file: str
    fact: str
    question: str
    answer: str
    depth: float
    mapped: bool

    @property
    def label(self) -> str:
        """What the button says in English."""
        return WORDS.translations["en"][self.word]

    @property
    def text(self) -> str:
        """The sample with its fact in it, as a paragraph of its own."""
        paragraphs = (SAMPLES / self.file).read_text(encoding="utf-8").strip().split("\n\n")
        place = round(len(paragraphs) * self.depth)
        return "\n\n".join([*paragraphs[:place], self.fact, *paragraphs[place:]])


EXAMPLES = (
    Example(
        "example_inside", "night-museum.txt", "The secret number of the old safe is 4739216.",
        "What is the secret number of the old safe?", "4739216", 0.25, mapped=False,
    ),
    Example(
        "example_past", "island-almanac.txt", "The secret number of the red lantern is 8203571.",
        "What is the secret number of the red lantern?", "8203571", 0.3, mapped=True,
    ),
)  # fmt: skip


def recorded_answers() -> dict[str, Any]:
    """The embedded model's answers to the examples, as `python -m benchmarks.first_look` has written them."""
    return json.loads(ANSWERS.read_text(encoding="utf-8"))
