"""Dual chunk attention: positions within chunks, and capped between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from lampe.methods.method import Method, mapped
from lampe.positions import ChunkMap, IndexMap, PositionMap, Region, Role


@dataclass(frozen=True)
class DualChunk(Method):
    """Keys count within chunks of ``s = c − w`` tokens. A query sees its own chunk and the one before at exact
    distances, up to ``c``, and all earlier chunks from one and the same far position.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    span : int
        c, the greatest position of a query, in tokens.
    local : int
        w, distances up to which are exact everywhere, in tokens.
    """

    key: ClassVar[str] = "dca"
    title: ClassVar[str] = "Dual Chunk Attention"
    source: ClassVar[str] = "An et al., ICML 2024, arXiv 2402.17463"

    span: int
    local: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self._whole("span", 2, self.window)
        self._whole("local", 1, self.span - 1)

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, max(2, 3 * window // 4), max(1, window // 8))

    def candidates(self) -> list[Method]:
        shares = (self.window // 2, 3 * self.window // 4, self.window)
        return self._with(span=shares, local=(self.window // 16, self.window // 8))

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        chunk = self.span - self.local
        far = min(2 * chunk - 1, self.span)
        keys = ChunkMap(chunk, chunk)
        greatest = far if length > 2 * chunk else min(far, length - 1)
        return mapped(
            length,
            end,
            greatest + 1,
            min(chunk, self.local + 1),
            Region("Own chunk", Role.NEAR, 0, 1, keys, keys, block=chunk),
            Region("Chunk before", Role.FAR, 1, 2, ChunkMap(chunk, self.span, chunk), keys, block=chunk),
            Region("Earlier chunks", Role.COMPRESSED, 2, None, IndexMap(0, offset=far), keys, block=chunk),
        )
