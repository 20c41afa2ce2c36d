"""The cells of a grid, and the prompt of each."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lampe.inference.prompt import around, encode_all
from lampe.methods import MethodError, method_class
from lampe.needle.haystacks import TokenizedHaystack
from lampe.needle.tasks import TASKS, NeedleError, Needles


@dataclass(frozen=True)
class Cell:
    """One point of a grid.

    Parameters
    ----------
    task : str
        Key of `TASKS`.
    length : int
        Tokens of the whole prompt, template included.
    depth : float
        0 to 1: where the needle goes, as a share of the haystack's tokens.
    method : str
        A key of `lampe.METHODS`.
    trial, seed : int
        With task, length and depth they make the needle: methods see the same one.
    """

    task: str
    length: int
    depth: float
    method: str
    trial: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", float(self.depth))  # 1 and 1.0 draw the same needle
        if self.task not in TASKS:
            raise NeedleError(f"The task must be one of {', '.join(TASKS)}, not {self.task!r}.")
        try:
            method_class(self.method)
        except MethodError as error:
            raise NeedleError(str(error)) from None
        if not 0 <= self.depth <= 1:  # nor NaN
            raise NeedleError(f"A depth is from 0 (the text's start) to 1 (its end), not {self.depth}.")
        if self.length < 1:
            raise NeedleError(f"The length must be at least 1 token, not {self.length}.")

    def rng(self) -> random.Random:
        """A random generator seeded by the cell, the same on any machine."""
        return random.Random(f"{self.seed} {self.task} {self.length} {self.depth} {self.trial}")


def grid(
    task: str, lengths: Iterable[int], depths: Iterable[float], methods: Iterable[str], trials: int, seed: int = 0
) -> list[Cell]:
    """All cells of a grid, short ones first.

    Raises
    ------
    NeedleError
        If there are none, or one is impossible.
    """
    cells = [
        Cell(task, length, depth, method, trial, seed)
        for length in sorted(set(lengths))
        for method in dict.fromkeys(methods)
        for depth in dict.fromkeys(depths)
        for trial in range(trials)
    ]
    if not cells:
        raise NeedleError("This grid has no cells: name at least one length, one depth, one method and one trial.")
    return cells


@dataclass(frozen=True)
class NeedlePrompt:
    """A haystack with its needles in it, as tokens.

    Parameters
    ----------
    ids : list of int
    needles : Needles
    spans : tuple of (int, int)
        Where each of the needles' sentences lies in `ids`: first token, one past the last.
    repeated : bool
        Whether the text was too short and had to be repeated.
    """

    ids: list[int]
    needles: Needles
    spans: tuple[tuple[int, int], ...]
    repeated: bool


def hide(tokenized: TokenizedHaystack, needles: Needles, length: int, depth: float, rng: random.Random) -> NeedlePrompt:
    """A prompt of exactly `length` tokens with the first needle at `depth` and the others anywhere.

    Raises
    ------
    NeedleError
        If needles, question and template alone are longer.
    """
    frame = around(tokenized.tokenizer, needles.question, needles.prefix)
    sentences = encode_all(tokenized.tokenizer, [f" {sentence}" for sentence in needles.sentences])
    count = _room(length, frame, sentences)
    places = [tokenized.place(depth, count), *(tokenized.place(rng.random(), count) for _ in sentences[1:])]
    ids, spans, repeated = _filled(tokenized, count, frame[0], sentences, places)
    return NeedlePrompt([*ids, *frame[1]], needles, tuple(spans), repeated)


def hide_all(tokenized: TokenizedHaystack, needles: Sequence[Needles], length: int, stop: int) -> list[NeedlePrompt]:
    """A prompt for each of several needles, all of which are hidden, at even depths; one of them is asked for.

    The prompts are the same up to the question: what is read for one serves the others. The one with the longest
    question has `length` tokens, the others a few less.

    Parameters
    ----------
    tokenized : TokenizedHaystack
    needles : sequence of Needles
        Each of one sentence.
    length : int
    stop : int
        The haystack's token before which the text ends; see `TokenizedHaystack.window`.

    Raises
    ------
    NeedleError
        If needles, question and template alone are longer.
    """
    frames = [around(tokenized.tokenizer, one.question, one.prefix) for one in needles]
    sentences = encode_all(tokenized.tokenizer, [f" {one.sentences[0]}" for one in needles])
    longest = max(frames, key=lambda frame: len(frame[1]))
    count = _room(length, longest, sentences)
    tokenized = tokenized.window(stop, count)
    places = [tokenized.place((number + 0.5) / len(needles), count) for number in range(len(needles))]
    ids, spans, repeated = _filled(tokenized, count, longest[0], sentences, places)
    return [
        NeedlePrompt([*ids, *after], one, (span,), repeated)
        for one, (_, after), span in zip(needles, frames, spans, strict=True)
    ]


def _room(length: int, frame: tuple[list[int], list[int]], sentences: Sequence[list[int]]) -> int:
    """The tokens of a prompt that are left for the haystack."""
    least = sum(map(len, frame)) + sum(map(len, sentences))
    if least >= length:
        raise NeedleError(
            f"The needle, its question and the chat template alone have {least:,} tokens, so a prompt of {length:,} "
            f"can't hold them: take a length of more than {least:,}, or a shorter needle."
        )
    return length - least


def _filled(
    tokenized: TokenizedHaystack, count: int, before: list[int], sentences: Sequence[list[int]], places: Sequence[int]
) -> tuple[list[int], list[tuple[int, int]], bool]:
    """The haystack's first `count` tokens with sentences in it: all tokens, each sentence's span, and `repeated`."""
    body, repeated = tokenized.take(count)
    ids, spans, done = list(before), [(0, 0)] * len(places), 0
    for number in sorted(range(len(places)), key=places.__getitem__):
        ids += body[done : places[number]]
        done = places[number]
        spans[number] = len(ids), len(ids) + len(sentences[number])
        ids += sentences[number]
    return [*ids, *body[done:]], spans, repeated


def prompt_of(tokenized: TokenizedHaystack, cell: Cell) -> NeedlePrompt:
    """The prompt of a cell: its needle drawn, and hidden."""
    rng = cell.rng()
    needles = TASKS[cell.task].draw(rng, unlike=tokenized.haystack.text)
    return hide(tokenized, needles, cell.length, cell.depth, rng)
