"""A position map as data for the browser, which evaluates its regions itself and so needs no request to draw them."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from lampe.positions import ChunkMap, IndexMap, PositionMap, RealMap

POSITIONS = (files("app") / "assets" / "positions.js").read_text(encoding="utf-8")
"""What evaluates it there, to stand before a component's own script."""


def map_data(position_map: PositionMap) -> list[Any]:
    """A map as JSON: ``[m, [role, lower, upper, block, query map, key map], …]``, for `positions.js`.

    An index map is ``[numerator, denominator, origin, offset]``, one in fractions ``["r", divisor, origin, offset]``,
    one within chunks ``["c", chunk, greatest, offset]``.
    """
    regions = [
        [region.role.value, region.lower, region.upper, region.block, *map(_index, (region.query_map, region.key_map))]
        for region in position_map.regions
    ]
    return [position_map.mapping_length, *regions]


def _index(positions: Any) -> list[Any]:
    match positions:
        case IndexMap(numerator, denominator, origin, offset):
            return [numerator, denominator, origin, offset]
        case RealMap(divisor, origin, offset):
            return ["r", divisor, origin, offset]
        case ChunkMap(chunk, greatest, offset):
            return ["c", chunk, greatest, offset]
    raise TypeError(f"{positions!r} isn't drawn by the browser yet: tell app/ui/map_data.py and positions.js how.")
