"""The methods, each a frozen dataclass of its settings; `METHODS` is the only list of them.

To add one: a file here with a class of `Method`, and a line in `METHODS`. It then runs through the tests, and can
be chosen by its key wherever methods are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lampe.methods.ablations import FixedLampe, HeadlessLampe, TaillessLampe, UniformLampe
from lampe.methods.compositions import LampeNtk, LampeYarn
from lampe.methods.curves import Constant, Curve, ScaledSigmoid, curve_of
from lampe.methods.dca import DualChunk
from lampe.methods.frequencies import DynamicNtk, Ntk, PositionInterpolation, Yarn
from lampe.methods.jetlong import JetLong
from lampe.methods.lampe import BASES, PRESETS, LampeConfig, rescaled
from lampe.methods.method import Frequencies, Method, MethodError
from lampe.methods.published import REFERENCE_ATTENTION_SCALE, PaperLampe, ReleasedLampe
from lampe.methods.rerope import LeakyReRope, ReRope
from lampe.methods.rope import Rope
from lampe.methods.selfextend import SelfExtend
from lampe.methods.string import String
from lampe.positions import PositionMap

_CLASSES: tuple[type[Method], ...] = (
    Rope,
    LampeConfig,
    PaperLampe,
    ReleasedLampe,
    FixedLampe,
    UniformLampe,
    HeadlessLampe,
    TaillessLampe,
    SelfExtend,
    JetLong,
    ReRope,
    LeakyReRope,
    String,
    DualChunk,
    PositionInterpolation,
    Ntk,
    DynamicNtk,
    Yarn,
    LampeYarn,
    LampeNtk,
)


def registry(classes: Iterable[type[Method]]) -> dict[str, type[Method]]:
    """Methods by their keys.

    Raises
    ------
    MethodError
        If two have one key or one title.
    """
    found: dict[str, type[Method]] = {}
    for method in classes:
        for other in found.values():
            if other.key == method.key or other.title == method.title:
                raise MethodError(
                    f"{other.__name__} and {method.__name__} have the same key or title ({method.key!r}, "
                    f"{method.title!r}): rows and pages couldn't tell them apart. Give one of them another."
                )
        found[method.key] = method
    return found


METHODS = registry(_CLASSES)
"""Each method's class by its key, in the order in which they are listed."""


def method_class(key: str) -> type[Method]:
    """The class of a method.

    Raises
    ------
    MethodError
        If no method has this key.
    """
    if not isinstance(key, str) or key not in METHODS:  # a program may send anything
        raise MethodError(f"There is no method {key!r:.40}; the methods are {', '.join(METHODS)}.")
    return METHODS[key]


def methods_for(
    keys: Iterable[str], model_or_config: Any, given: Mapping[str, Method] | None = None
) -> dict[str, Method]:
    """The methods that are named, each as it is given, or with its own settings for a model.

    Parameters
    ----------
    keys : iterable of str
    model_or_config : transformers model or its config
    given : mapping of key to Method, optional

    Raises
    ------
    MethodError
        If no method has a key.
    """
    classes = {key: method_class(key) for key in keys}
    return {key: (given or {}).get(key) or method.for_model(model_or_config) for key, method in classes.items()}


def position_map(method: Method, length: int, end: int | None = None) -> PositionMap:
    """A method's position map for one input; see `Method.position_map` and, for LaMPE's formulas, `LampeConfig`."""
    return method.position_map(length, end)


__all__ = [
    "BASES",
    "METHODS",
    "PRESETS",
    "REFERENCE_ATTENTION_SCALE",
    "Constant",
    "Curve",
    "Frequencies",
    "LampeConfig",
    "Method",
    "MethodError",
    "PaperLampe",
    "ReleasedLampe",
    "Rope",
    "ScaledSigmoid",
    "curve_of",
    "method_class",
    "methods_for",
    "position_map",
    "registry",
    "rescaled",
]
