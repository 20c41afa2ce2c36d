"""Jet-Long: groups whose size follows from the input length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Method, mapped
from lampe.positions import IndexMap, PositionMap, Region, Role


@dataclass(frozen=True)
class JetLong(Method):
    """SelfExtend's groups with ``G = ⌈l/W₀⌉`` and without its shift at the border; plain RoPE within the window.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    near : int
        w₀, distances below which are exact, in tokens.
    """

    key: ClassVar[str] = "jetlong"
    title: ClassVar[str] = "Jet-Long"
    source: ClassVar[str] = "Jet-Long, NVIDIA 2026"

    near: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("near", 1, self.window)

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, max(1, window // 16))

    def candidates(self) -> list[Method]:
        return self._with(near=[self.window // part for part in (64, 32, 16, 8, 4, 2)])

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        group = -(-length // self.window)
        return mapped(
            length,
            end,
            max((length - 1) // group, self.near - 1) + 1,
            self.near,
            Region("Near", Role.NEAR, 0, self.near),
            Region("Groups", Role.COMPRESSED, self.near, None, IndexMap(1, group), IndexMap(1, group)),
        )
