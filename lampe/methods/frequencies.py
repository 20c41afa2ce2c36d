"""Methods that leave the distances as they are and slow the rotation: transformers computes their frequencies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Frequencies, Method, plain
from lampe.positions import PositionMap


@dataclass(frozen=True)
class _Slowed(Method):
    """Plain RoPE with other frequencies.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    factor : float or None
        How many times as slow, or as far. None: the planned length in windows, and nothing within the window.

    Attributes
    ----------
    rope_type : str
        Transformers' name for such frequencies.
    """

    rope_type: ClassVar[str]

    factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._factor("factor")

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window)

    @property
    def reach(self) -> int | None:
        return None if self.factor is None else math.floor(self.window * self.factor)

    def candidates(self) -> list[Method]:
        return self._with(factor=(None, 1.5, 2.0, 3.0, 4.0, 8.0))

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        return plain(length, end)

    def frequencies(self, length: int) -> Frequencies | None:
        stretch = self._stretch(length)
        return Frequencies(self.rope_type, stretch, self.window, self.window) if stretch > 1 else None

    def _stretch(self, length: int) -> float:
        return max(1.0, length / self.window) if self.factor is None else self.factor


@dataclass(frozen=True)
class PositionInterpolation(_Slowed):
    """All frequencies ÷ `factor`: positions are pressed into the window. The fields are `window` and `factor`."""

    key: ClassVar[str] = "pi"
    title: ClassVar[str] = "Position interpolation"
    source: ClassVar[str] = "Chen et al. 2023, arXiv 2306.15595"
    rope_type: ClassVar[str] = "linear"


@dataclass(frozen=True)
class Yarn(_Slowed):
    """Fast frequencies stay, slow ones are divided by `factor`, and the logits are sharpened.

    The fields are `window` and `factor`.
    """

    key: ClassVar[str] = "yarn"
    title: ClassVar[str] = "YaRN"
    source: ClassVar[str] = "Peng et al., ICLR 2024, arXiv 2309.00071"
    rope_type: ClassVar[str] = "yarn"


@dataclass(frozen=True)
class Ntk(_Slowed):
    """RoPE's base times ``α^(D/(D−2))``, with which the slowest of the D dimensions rotates α times as slowly.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    factor : float or None
        α, at every length. None: the planned length in windows, and nothing within the window.
    """

    key: ClassVar[str] = "ntk"
    title: ClassVar[str] = "NTK-aware"
    source: ClassVar[str] = "bloc97, r/LocalLLaMA, June 2023"
    rope_type: ClassVar[str] = "dynamic"

    factor: float | None = 4.0

    def frequencies(self, length: int) -> Frequencies | None:
        stretch = self._stretch(length)
        # Transformers' "dynamic" is this formula, with α = length/window where its own factor is 1.
        return Frequencies("dynamic", 1.0, round(stretch * self.window), self.window) if stretch > 1 else None


@dataclass(frozen=True)
class DynamicNtk(Method):
    """NTK-aware with ``α = factor·l/W₀ − (factor − 1)``: nothing within the window, more the longer the input.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    factor : float
    """

    key: ClassVar[str] = "dynamic-ntk"
    title: ClassVar[str] = "Dynamic NTK"
    source: ClassVar[str] = "emozilla, r/LocalLLaMA, July 2023"

    factor: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor is None:
            raise TypeError("factor must be a number, not None")
        self._factor("factor")

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window)

    def candidates(self) -> list[Method]:
        return self._with(factor=(1.0, 1.5, 2.0, 3.0, 4.0, 8.0))

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        return plain(length, end)

    def frequencies(self, length: int) -> Frequencies | None:
        return Frequencies("dynamic", self.factor, length, self.window) if length > self.window else None
