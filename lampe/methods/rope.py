"""The model as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Method, plain
from lampe.positions import PositionMap


@dataclass(frozen=True)
class Rope(Method):
    """Plain RoPE: every distance is its own position, trained or not."""

    key: ClassVar[str] = "rope"
    title: ClassVar[str] = "Plain RoPE"
    source: ClassVar[str] = "RoFormer, arXiv 2104.09864"

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window)

    @property
    def reach(self) -> int:
        return self.window

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        return plain(length, end)
