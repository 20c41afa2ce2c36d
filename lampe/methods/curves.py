"""The mapping length as a function of the input length: LaMPE's scaled sigmoid, or a constant.

Source: LaMPE, arXiv 2508.02308, section 3.2.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

from lampe.methods.method import MethodError


class Curve(ABC):
    """A mapping length for each input length."""

    @abstractmethod
    def __call__(self, length: int) -> int:
        """The mapping length, in positions, for `length` input tokens; not clamped to them or to a window."""

    @abstractmethod
    def bound(self, window: int) -> int:
        """What no mapping length exceeds in a window of so many tokens, in positions."""

    @abstractmethod
    def settings(self) -> Any:
        """What JSON has for it; `curve_of` reads it."""


@dataclass(frozen=True)
class Constant(Curve):
    """The same mapping length for every input.

    Parameters
    ----------
    mapping_length : int
        m, in positions.

    Raises
    ------
    MethodError
        If it is less than 1.
    TypeError
        If it isn't a whole number.
    """

    mapping_length: int

    def __post_init__(self) -> None:
        try:
            m = operator.index(self.mapping_length)  # numpy's integers become Python's
        except TypeError:
            raise TypeError(f"mapping must be a whole number, not {self.mapping_length!r}.") from None
        if m < 1:
            raise MethodError(f"The mapping length must be at least 1 position, not {m}.")
        object.__setattr__(self, "mapping_length", m)

    def __call__(self, length: int) -> int:
        return self.mapping_length

    def bound(self, window: int) -> int:
        return min(self.mapping_length, window)

    def settings(self) -> int:
        return self.mapping_length


@dataclass(frozen=True)
class ScaledSigmoid(Curve):
    """``m(l) = ⌊maximum / (1 + e^−(slope·l + intercept))⌋``.

    Parameters
    ----------
    maximum : float
        Greatest mapping length L, in positions (paper: three quarters of the window).
    slope, intercept : float
        a (per token) and b of the fitted curve.
    short_length : int
        Inputs of fewer tokens than this take `short_mapping` instead of the curve.
    short_mapping : int or None
        The constant for short inputs; None uses the curve everywhere.

    Raises
    ------
    MethodError
        If a number is not finite, or `maximum` or `short_mapping` is not positive.
    """

    maximum: float
    slope: float
    intercept: float
    short_length: int = 0
    short_mapping: int | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.maximum, self.slope, self.intercept)):
            raise MethodError("A scaled sigmoid needs finite numbers for maximum, slope and intercept.")
        if self.maximum < 1:
            raise MethodError(f"The greatest mapping length must be at least 1 position, not {self.maximum:g}.")
        if self.short_mapping is not None and self.short_mapping < 1:
            raise MethodError(f"The short mapping length must be at least 1 position, not {self.short_mapping}.")

    def __call__(self, length: int) -> int:
        if self.short_mapping is not None and length < self.short_length:
            return self.short_mapping
        x = self.slope * length + self.intercept
        # Both branches are the same function; each is written so that its exponential can't overflow.
        share = 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
        return math.floor(self.maximum * share)

    def bound(self, window: int) -> int:
        return window

    def settings(self) -> dict[str, Any]:
        return asdict(self)


def curve_of(given: Any) -> Curve:
    """A curve itself, or from what JSON has for it: an object is a scaled sigmoid, a number a constant.

    Raises
    ------
    MethodError, TypeError
        If it is neither.
    """
    if isinstance(given, Curve):
        return given
    if not isinstance(given, dict):
        return Constant(given)
    try:
        return ScaledSigmoid(**given)
    except TypeError as error:
        raise MethodError(f"These aren't settings of a scaled sigmoid: {error}.") from error
