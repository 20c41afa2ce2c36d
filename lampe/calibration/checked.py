"""Data of our own kinds, read from files that somebody else may have written."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, TypeVar

from lampe.methods import Curve

Kind = TypeVar("Kind")

_TYPES: dict[str, Any] = {
    **{"int": int, "float": float | int, "bool": bool, "str": str, "None": type(None)},
    "Curve": Curve,
}
_LONGEST, _GREATEST = 1000, 10**8  # characters of a text; no window, and no count of tokens, is greater


def checked(kind: type[Kind], given: Any) -> Kind:
    """An object of a dataclass whose fields are numbers, texts and flags, or None where the field may be.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a field is missing, of another type, or not finite; or if the dataclass itself refuses it.
    """
    if not isinstance(given, dict):
        raise TypeError(f"{given!r:.40} is no object with fields")
    values: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]
        value, types = given[field.name], str(field.type).split(" | ")
        # Python takes True for 1 as well.
        if not isinstance(value, tuple(_TYPES[name] for name in types)) or (
            isinstance(value, bool) and "bool" not in types
        ):
            raise TypeError(f"{field.name} must be {field.type}, not {value!r:.40}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{field.name} must be finite")
        if isinstance(value, int) and not 0 <= value <= _GREATEST:
            raise ValueError(f"{field.name} must be from 0 to {_GREATEST:,}")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError(f"{field.name} must have at most {_LONGEST:,} characters")
        if field.name in ("length", "mapping_length") and value == 0:
            raise ValueError(f"{field.name} must be at least 1")
        values[field.name] = value
    return kind(**values)
