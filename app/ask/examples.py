"""Ready examples: our own sample texts, each with a fact hidden in it and the question for it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

SAMPLES = files("app") / "assets" / "samples"


@dataclass(frozen=True)
class Example:
    """A sample text with a hidden fact.

    Parameters
    ----------
    label : str
        What the button says.
    file : str
        In app/assets/samples.
    fact, question, answer : str
        The sentence put into the text, what to ask, and what a right answer contains.
    depth : float
        Where the fact goes, as a share of the text's paragraphs.
    """

    label: str
    file: str
    fact: str
    question: str
    answer: str
    depth: float

    @property
    def text(self) -> str:
        """The sample with its fact in it, as a paragraph of its own."""
        paragraphs = (SAMPLES / self.file).read_text(encoding="utf-8").strip().split("\n\n")
        place = round(len(paragraphs) * self.depth)
        return "\n\n".join([*paragraphs[:place], self.fact, *paragraphs[place:]])


EXAMPLES = (
    Example(
        "4,000 tokens: a museum at night",
        "night-museum.txt",
        "The secret number of the old safe is 4739216.",
        "What is the secret number of the old safe?",
        "4739216",
        0.25,
    ),
    Example(
        "12,000 tokens: a year on an island",
        "island-almanac.txt",
        "The secret number of the red lantern is 8203571.",
        "What is the secret number of the red lantern?",
        "8203571",
        0.3,
    ),
)
