"""A region of a position map, cut into rectangles of (query, key) pairs that one kernel call computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from lampe.attention.backends import Backend
from lampe.positions import Region


class Shape(Enum):
    """Which pairs of a tile attend: t and u are the row and column within it."""

    FULL = "all"
    CAUSAL = "u ≤ t"
    ANTICAUSAL = "u ≥ t"
    BAND = "t ≤ u ≤ t + columns − rows"
    WINDOW = "t + columns − rows − left ≤ u ≤ t + columns − rows"


@dataclass(frozen=True)
class Tile:
    """A rectangle of pairs: query and key indices as half-open ranges. CAUSAL and ANTICAUSAL are square."""

    query: tuple[int, int]
    key: tuple[int, int]
    shape: Shape
    left: int | None = None  # of a window; None has no end


def tiles(region: Region, first: int, stop: int, backend: Backend = Backend.CPU) -> Iterator[Tile]:
    """Cut a region into tiles, for the queries ``first … stop − 1`` and all keys up to each of them.

    The tiles of all regions of a map together hold each causal pair of those queries exactly once.
    """
    if region.upper is not None and region.upper <= region.lower:
        return
    windows = backend is Backend.FLASH
    if region.block > 1:
        yield from _chunk_tiles(region, first, stop, windows)
        return
    if windows:
        yield from _window(region, first, stop)
        return
    lower, upper, end = region.lower, stop if region.upper is None else region.upper, stop
    row = max(first, lower)
    # As many queries as fill whole blocks of a band are one tile.
    masked = backend in (Backend.CPU, Backend.PLAIN)
    if region.upper is not None and (rows := band_rows(upper - lower, masked)):
        stop -= max(0, stop - max(row, upper - 1)) // rows * rows
    # Queries that see the text's start in this region: their keys begin at 0 and end `lower` before them.
    if row < min(stop, upper):
        yield from _trapezoid(row, min(stop, upper), 0, row - lower)
        row = min(stop, upper)
    # The others see a band: each row's keys begin one later than the last one's.
    while row < stop:
        rows = min(upper - lower, stop - row)
        start = row - upper + 1
        yield from _trapezoid(row, row + rows, start + rows - 1, row - lower)
        if rows > 1:
            yield Tile((row, row + rows - 1), (start, start + rows - 1), Shape.ANTICAUSAL)
        row += rows
    if stop < end:
        yield Tile((stop, end), (stop - upper + 1, end - lower), Shape.BAND)


def band_rows(width: int, masked: bool) -> int:
    """Queries in a block of a band of so many keys for each; 0 where it isn't cut into such blocks.

    `masked`: whether the kernel takes a mask.
    """
    if not masked:
        return width - 1  # a block's keys are then two triangles
    # The CPU kernel takes a triangle of less than 512 rows for a square: a mask over narrow blocks wastes less, as
    # long as there aren't too many keys for it.
    return 64 if width <= 4096 else 0


def _window(region: Region, first: int, stop: int) -> Iterator[Tile]:
    """All of a region's queries and keys as one window. Rows without a key are left out: their sum would be +∞."""
    row = max(first, region.lower)
    if row < stop:
        key = 0 if region.upper is None else max(0, row - region.upper + 1)
        left = None if region.upper is None else region.upper - 1 - region.lower
        single = stop - row == 1
        yield Tile((row, stop), (key, stop - region.lower), Shape.FULL if single else Shape.WINDOW, left)


def _trapezoid(row: int, stop: int, key: int, diagonal: int) -> Iterator[Tile]:
    """Keys from `key` on; the first row ends with key `diagonal`, each further row one later."""
    if stop - row == 1:
        yield Tile((row, stop), (key, diagonal + 1), Shape.FULL)
        return
    if key < diagonal:
        yield Tile((row, stop), (key, diagonal), Shape.FULL)
    yield Tile((row, stop), (diagonal, diagonal + stop - row), Shape.CAUSAL)


def _chunk_tiles(region: Region, first: int, stop: int, windows: bool) -> Iterator[Tile]:
    """The same for regions measured in chunks: all queries of one chunk see the same chunks of keys."""
    row = first
    while row < stop:
        end = min(stop, (row // region.block + 1) * region.block)
        key, last = region.key_span(row)
        if region.lower == 0:  # the query's own chunk is among them, and there keys end at the query
            if windows and end - row > 1:
                yield Tile((row, end), (key, end), Shape.WINDOW)
            else:
                yield from _trapezoid(row, end, key, row)
        elif key < last:
            yield Tile((row, end), (key, last), Shape.FULL)
        row = end
