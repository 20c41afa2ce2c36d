"""What a sweep measures: points (a length mapped in one way), and the evaluations of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from lampe.errors import InputError
from lampe.files import Count, Size
from lampe.methods import Constant, LampeConfig


class CalibrationError(InputError):
    """A calibration that can't be done; the message says why and what to change."""


@dataclass(frozen=True)
class SweepPoint:
    """An input length and the way it is mapped.

    Parameters
    ----------
    length : int
        l, in tokens.
    mapping_length : int
        m, in positions; l itself is plain RoPE: the model runs unpatched.
    head, tail : int
        s₁ and s₂, in tokens.
    attention_scale : float
    """

    length: Size
    mapping_length: Size
    head: Count
    tail: Count
    attention_scale: float = 1.0

    def config(self, window: int) -> LampeConfig:
        """The same for `lampe.patch`."""
        return LampeConfig(window, self.head, self.tail, Constant(self.mapping_length), self.attention_scale)


@dataclass(frozen=True)
class Evaluation(SweepPoint):
    """One thing to be measured at a point: the loss on a window of the text, or one needle hidden in it.

    Parameters
    ----------
    kind : str
        "loss" or "needle".
    text_window : int
        The number of the window, from 0: see `window_end`.
    hidden : int
        Needles that are hidden together in it; 0 for the text alone, as the paper reads it.
    asked : int or None
        The number of the needle that is asked for, from 0; None for a loss.
    seed : int
        Of the needles.
    """

    kind: Literal["loss", "needle"] = "loss"
    text_window: Count = 0
    hidden: Count = 0
    asked: Count | None = None
    seed: Count = 0

    @property
    def point(self) -> SweepPoint:
        """The point that this belongs to."""
        return SweepPoint(self.length, self.mapping_length, self.head, self.tail, self.attention_scale)

    @property
    def reading(self) -> Evaluation:
        """Equal for evaluations that share a read: the loss of a window with its needles, and each of those."""
        return replace(self, kind="loss", asked=None)


def window_end(number: int, text_tokens: int) -> int:
    """Where a window of the text ends: at the same token for every length, and spread evenly however many there are.

    What differs between two lengths is then how much the model has read, not what it is asked.
    """
    return math.floor(text_tokens * ((number + 1) * _GOLDEN % 1))


_GOLDEN = (math.sqrt(5) - 1) / 2


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


def evaluations(point: SweepPoint, objective: str, windows: int, needles: int, seed: int) -> list[Evaluation]:
    """All that is measured at a point, in the order in which it is read: each window is read once.

    Parameters
    ----------
    point : SweepPoint
    objective : str
        One of `OBJECTIVES`.
    windows, needles, seed : int
        Windows of the text, and needles in each.
    """
    found = []
    for number in range(windows):
        hidden = 0 if objective == "perplexity" else needles
        reading = Evaluation(**asdict(point), text_window=number, hidden=hidden, seed=seed if hidden else 0)
        if objective != "needle":
            found.append(reading)
        found += [replace(reading, kind="needle", asked=asked) for asked in range(hidden)]
    return found


_ASKING = 60  # tokens of a question and its answer


def work(evaluation: Evaluation, window: int) -> float:
    """What an evaluation costs, in tokens of a short text: attention makes a token dearer the later it comes.

    The first of a window reads it, the others read a question.
    """
    first = evaluation.kind == "loss" or not evaluation.asked
    tokens = evaluation.length if first else _ASKING
    return tokens * (1 + (evaluation.length if not first else evaluation.length / 2) * 2 / window)


def coarse_mappings(length: int, window: int, head: int, tail: int, steps: int = 7) -> list[int]:
    """The mapping lengths that a length is tried with first: a geometric grid, and the greatest ones possible.

    The grid is the same for all lengths, from an eighth of the window to the window: half octaves with 7 steps. Then
    come the window, where the length exceeds it, and the length itself: not mapped.
    """
    grid = [round(window / 8 * 8 ** (step / (steps - 1))) for step in range(steps)]
    inside = [m for m in grid if head + tail < m <= 0.9 * min(length, window)]
    return list(dict.fromkeys([*inside, min(length, window), length]))


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
