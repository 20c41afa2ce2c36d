"""What a sweep measures: points (a length mapped in one way), and the evaluations of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from lampe.positions import LampeConfig
from lampe.reading import CHUNK


class CalibrationError(ValueError):
    """A calibration that can't be done; the message says why and what to change."""


@dataclass(frozen=True)
class Point:
    """An input length and the way it is mapped.

    Parameters
    ----------
    length : int
        l, in tokens.
    mapping_length : int
        m, in positions; l itself is plain RoPE.
    head, tail : int
        s₁ and s₂, in tokens.
    attention_scale : float
    """

    length: int
    mapping_length: int
    head: int
    tail: int
    attention_scale: float = 1.0

    def config(self, window: int) -> LampeConfig:
        """The same for `lampe.patch`."""
        return LampeConfig(window, self.head, self.tail, self.mapping_length, self.attention_scale)


@dataclass(frozen=True)
class Evaluation(Point):
    """One thing to be measured at a point: the loss on a window of the text, or one needle.

    Parameters
    ----------
    kind : str
        "loss" or "needle".
    start : int or None
        A loss: the window's first token in the text.
    hidden, asked : int or None
        A needle: how many are hidden together, and the number of the one that is asked for, from 0.
    seed : int or None
        The needles' chance.
    """

    kind: str = "loss"
    start: int | None = None
    hidden: int | None = None
    asked: int | None = None
    seed: int | None = None

    @property
    def point(self) -> Point:
        """The point that this belongs to."""
        return Point(self.length, self.mapping_length, self.head, self.tail, self.attention_scale)


def check_lengths(lengths: Iterable[int]) -> None:
    """Refuse lengths that no curve can be fitted to.

    Raises
    ------
    CalibrationError
        If there are fewer than three different ones.
    """
    different = sorted(set(lengths))
    if len(different) < 3:
        named = " and ".join(f"{length:,}" for length in different) or "none"
        raise CalibrationError(
            f"A curve needs at least three different input lengths, and there is {named}: name more, as in "
            "2048,4096,8192."
        )


def default_lengths(window: int) -> tuple[int, ...]:
    """Input lengths from a quarter of the window to twice the window, in tokens."""
    return tuple(window * quarters // 4 for quarters in (1, 2, 4, 6, 8))


OBJECTIVES = ("perplexity", "needle", "both")


def evaluations(
    point: Point, objective: str, windows: int, needles: int, seed: int, text_tokens: int
) -> list[Evaluation]:
    """All that is measured at a point, in the order in which it is read.

    The n windows of a text end at n even steps through it, at the same tokens for every length: what differs between
    two lengths is how much the model has read, not what it is asked. The needles lie in one text, which is read once.

    Parameters
    ----------
    point : Point
    objective : str
        One of `OBJECTIVES`.
    windows, needles, seed : int
    text_tokens : int
        Tokens of the text.
    """
    found = []
    if objective != "needle":
        for number in range(windows):
            end = (number + 1) * (text_tokens // windows)
            found.append(Evaluation(**asdict(point), kind="loss", start=end - point.length))
    if objective != "perplexity":
        for number in range(needles):
            found.append(Evaluation(**asdict(point), kind="needle", hidden=needles, asked=number, seed=seed))
    return found


def work(evaluation: Evaluation, window: int) -> float:
    """What an evaluation costs, in tokens of a short text: attention makes a token dearer the later it comes.

    Of a needle's prompt but the first, only the question is read, and what stands before it in the same chunk.
    """

    def read(tokens: float) -> float:
        return tokens + tokens * tokens / window

    kept = max(0, evaluation.length - CHUNK / 2) if evaluation.asked else 0
    return read(evaluation.length) - read(kept)


def coarse_mappings(length: int, window: int, head: int, tail: int, steps: int = 7) -> list[int]:
    """The mapping lengths that a length is tried with first: a geometric grid, and the greatest one possible.

    The grid is the same for all lengths, from an eighth of the window to the window: half octaves with 7 steps. The
    greatest is the length itself (no mapping), or the window where the length exceeds it.
    """
    greatest = min(length, window)
    grid = [round(window / 8 * 8 ** (step / (steps - 1))) for step in range(steps)]
    return [m for m in grid if head + tail < m <= 0.9 * greatest] + [greatest]


def refined_mappings(costs: dict[int, float]) -> list[int]:
    """Mapping lengths to try next: halfway, by ratio, between the best one and those tried beside it.

    Parameters
    ----------
    costs : dict of mapping length to cost
    """
    tried = sorted(costs)
    best = tried.index(min(tried, key=costs.__getitem__))
    beside = itertools.pairwise(tried[max(0, best - 1) : best + 2])
    between = [round(math.sqrt(low * high)) for low, high in beside if high > low * 1.1]
    return [m for m in between if m not in costs]
