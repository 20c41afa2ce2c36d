"""ReRoPE and Leaky ReRoPE: distances stop growing, or grow more slowly, beyond a window of exact ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Method, mapped
from lampe.positions import IndexMap, PositionMap, RealMap, Region, Role


@dataclass(frozen=True)
class ReRope(Method):
    """Distances below `near` are exact, all others are `near`.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    near : int
        w, in tokens.
    """

    key: ClassVar[str] = "rerope"
    title: ClassVar[str] = "ReRoPE"
    source: ClassVar[str] = "Su, kexue.fm/archives/9708, 2023"

    near: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("near", 1, self.window - 1)

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, max(1, min(512, window // 2)))

    def candidates(self) -> list[Method]:
        return self._with(near=[self.window // part for part in (32, 16, 8, 4, 2)])

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        near = self.near
        return mapped(
            length,
            end,
            near + 1,
            near,
            Region("Near", Role.NEAR, 0, near),
            Region("Far", Role.COMPRESSED, near, None, IndexMap(0, offset=near), IndexMap(0)),
        )


@dataclass(frozen=True)
class LeakyReRope(Method):
    """Distances below `near` are exact; beyond, a token adds the fraction 1/`slowdown` of a position.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    near : int
        w, in tokens.
    slowdown : float or None
        k, tokens to a position. None: so that the farthest distance stays just below the window, and at least 1.
    """

    key: ClassVar[str] = "leaky-rerope"
    title: ClassVar[str] = "Leaky ReRoPE"
    source: ClassVar[str] = "Su, kexue.fm/archives/9708, 2023"

    near: int
    slowdown: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("near", 1, self.window - 2)
        self._factor("slowdown")

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, max(1, min(512, window // 2)))

    @property
    def reach(self) -> int | None:
        if self.slowdown is None:
            return None
        return self.near + math.floor((self.window - 1 - self.near) * self.slowdown) + 1

    def slowdown_of(self, length: int) -> float:
        """k for a planned length."""
        if self.slowdown is not None:
            return self.slowdown
        return max(1.0, (length - 1 - self.near) / (self.window - 1 - self.near))

    def candidates(self) -> list[Method]:
        return self._with(near=[self.window // part for part in (32, 16, 8, 4, 2)])

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        near, slowdown = self.near, self.slowdown_of(length)
        return mapped(
            length,
            end,
            near + math.ceil((length - 1 - near) / slowdown - 1e-9) + 1,
            near,
            Region("Near", Role.NEAR, 0, near),
            Region("Slowed", Role.COMPRESSED, near, None, RealMap(slowdown, near, float(near)), RealMap(slowdown)),
        )
