"""STRING: the farthest distances are given the positions of nearer ones, which training met more often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Method, mapped
from lampe.positions import IndexMap, PositionMap, Region, Role


@dataclass(frozen=True)
class String(Method):
    """Distances below `shift` are exact; those from it on are moved nearer, so that the first of them is `near`.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    near : int
        W, the position that the distance `shift` is given.
    shift : int or None
        S, in tokens. None: a third of the window, and past the window ``(l + W)/2``, with which exact and moved
        distances go equally far. Beyond ``2·W₀ − W`` tokens no S keeps both within the window.
    """

    key: ClassVar[str] = "string"
    title: ClassVar[str] = "STRING"
    source: ClassVar[str] = "An et al., ICLR 2025, arXiv 2410.18745"

    near: int
    shift: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("near", 0, self.window // 2)
        if self.shift is not None:
            self._whole("shift", max(1, self.near), self.window)

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, min(128, window // 8))

    @property
    def reach(self) -> int:
        return self.window + (self.window if self.shift is None else self.shift) - self.near

    def shift_of(self, length: int) -> int:
        """S for a planned length."""
        if self.shift is not None:
            return self.shift
        least = max(1, self.near, self.window // 3)
        return least if length <= self.window else max(least, (length + self.near + 1) // 2)

    def candidates(self) -> list[Method]:
        return self._with(near=(32, 128, 512), shift=(None, self.window // 3, self.window))

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        shift = self.shift_of(length)
        return mapped(
            length,
            end,
            max(shift, length - shift + self.near),
            shift,
            Region("Near", Role.NEAR, 0, shift),
            Region("Moved", Role.FAR, shift, None, IndexMap(offset=self.near - shift)),
        )
