"""SelfExtend: far tokens in groups that share a position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Method, mapped
from lampe.positions import IndexMap, PositionMap, Region, Role


@dataclass(frozen=True)
class SelfExtend(Method):
    """Distances below `near` are exact; beyond, `group` tokens share a position, moved to follow on from the near ones.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    near : int
        W, the neighbour window, in tokens.
    group : int or None
        G, tokens that share a position. None: 1 within the window, and beyond it the least with
        ``W + (l − W)/G ≤ ⅔·W₀``, the upper end of what the authors advise (a half to two thirds).
    """

    key: ClassVar[str] = "selfextend"
    title: ClassVar[str] = "SelfExtend"
    source: ClassVar[str] = "Jin et al., ICML 2024, arXiv 2401.01325"

    near: int
    group: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("near", 1, 2 * self.window // 3 - 1)
        if self.group is not None:
            self._whole("group", 1)

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, max(1, min(1024, window // 8)))

    @property
    def reach(self) -> int | None:
        if self.group is None:
            return None
        return self.near + (self.window - self.near) * self.group

    def group_of(self, length: int) -> int:
        """G for a planned length."""
        if self.group is not None:
            return self.group
        if length <= self.window:
            return 1
        return -(-(length - self.near) // (2 * self.window // 3 - self.near))

    def candidates(self) -> list[Method]:
        return self._with(near=(512, 1024, 1536), group=(None, 2, 4))

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        near, group = self.near, self.group_of(length)
        shift = near - near // group
        return mapped(
            length,
            end,
            (length - 1) // group + shift + 1,
            near,
            Region("Near", Role.NEAR, 0, near),
            Region("Groups", Role.COMPRESSED, near, None, IndexMap(1, group, offset=shift), IndexMap(1, group)),
        )
