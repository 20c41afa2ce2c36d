"""LaMPE: the mapping length from the input length, and the distances mapped into it in three regions.

Source: LaMPE, arXiv 2508.02308, sections 3.2 (mapping length) and 3.3 (multi-grained positions).
"""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from lampe.families import family_of, measured_on, window_of
from lampe.methods.curves import Constant, Curve, ScaledSigmoid, curve_of
from lampe.methods.method import Method, MethodError, checked_end
from lampe.positions import IndexMap, PositionMap, Region, Role, plain_map

BASES = {
    "measured": "measured on this model",
    "family": "an estimate: measured on other weights of this family",
    "rescaled": "not calibrated for this model",
    "given": "given",
}
"""What a mapping rests on, in words. Only what was measured on a model's own weights is calibrated for it."""


@dataclass(frozen=True)
class LampeConfig(Method):
    """LaMPE, with the mapping lengths that are best known for a model.

    Parameters
    ----------
    window : int
        W₀, the pretraining window in tokens, before any scaling of RoPE. No mapping length exceeds it.
    head, tail : int
        s₁ and s₂, in tokens. The paper finds s₁ from W₀/16 to W₀/8 and s₂ from 8 to 1024 good.
    mapping : Curve
        The mapping length as a function of the input length. A whole number becomes a `Constant`.
    attention_scale : float
        Factor on the attention logits. 1 is the paper's text; the authors' scripts use
        `REFERENCE_ATTENTION_SCALE`.
    basis : str
        One of `BASES`: what the mapping rests on. It moves no position, and doesn't tell configurations apart.

    Raises
    ------
    ValueError
        If a size is negative or zero where it can't be, or the attention scale isn't positive.
    TypeError
        If a size isn't a whole number.
    """

    key: ClassVar[str] = "lampe"
    title: ClassVar[str] = "LaMPE"
    source: ClassVar[str] = "arXiv 2508.02308"

    head: int
    tail: int
    mapping: Curve
    attention_scale: float = 1.0
    basis: str = field(default="given", kw_only=True, compare=False)

    def __post_init__(self) -> None:
        for name in ("window", "head", "tail"):
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, operator.index(value))  # numpy's integers become Python's
            except TypeError:
                raise TypeError(f"{name} must be a whole number, not {value!r}.") from None
        object.__setattr__(self, "mapping", curve_of(self.mapping))
        if self.basis not in BASES:
            raise MethodError(f"What a mapping rests on is one of {', '.join(BASES)}, not {self.basis!r:.40}.")
        if self.window < 1:
            raise MethodError(f"The window must be at least 1 token, not {self.window}.")
        if self.head < 0 or self.tail < 0:
            raise MethodError(f"Head ({self.head}) and Tail ({self.tail}) can't be negative.")
        if not (math.isfinite(self.attention_scale) and self.attention_scale > 0):
            raise MethodError(f"The attention scale must be a positive number, not {self.attention_scale}.")

    @property
    def doubt(self) -> str:
        return BASES[self.basis] if self.basis in ("family", "rescaled") else ""

    @classmethod
    def for_window(cls, window: int) -> Self:
        """Llama-3's published curve rescaled to another window, for a model that nobody has calibrated."""
        return cls.like(rescaled(window))

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        """The preset of a model's family, or the rescaled curve when it has none; `basis` says which.

        Parameters
        ----------
        model_or_config : transformers model or its config

        Raises
        ------
        ValueError
            If the config doesn't say how long the pretraining window is.
        """
        family = family_of(model_or_config)
        if family is None:
            return cls.like(rescaled(window_of(model_or_config)))
        basis = "measured" if measured_on(family, model_or_config) else "family"
        return cls.like(replace(PRESETS[family], basis=basis))

    @classmethod
    def like(cls, other: Method) -> Self:
        """This class with the settings of another LaMPE."""
        return cls(**{field.name: getattr(other, field.name) for field in fields(other)})

    def settings(self) -> dict[str, Any]:
        given = asdict(self) | {"mapping": self.mapping.settings()}
        del given["basis"]
        return given

    def candidates(self) -> list[Method]:
        """Constant mapping lengths, from an eighth of the window to all of it; `calibrate` fits a curve."""
        return self._with(mapping=[round(self.window / 8 * 8 ** (step / 6)) for step in range(7)])

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        """The position map of one input length, or of a prompt that ends before the length it was planned for.

        LaMPE applies when ``head + tail < m < length``; otherwise the map is plain RoPE. The mapping length m is
        clamped to the planned length (nothing is stretched) and to the window. A Head or Tail of 0 tokens is no region;
        without both, one region is compressed uniformly. Middle is
        ``(head + ⌊c·(i − head)⌋) − ⌊c·j⌋`` with ``c = (m − head − tail)/(length − head − tail)``: the paper's
        ``⌊c·(d − head)⌋ + head`` or one more (section 3.3), written as a rotation of query and key apart.

        A plan has two lengths, so that what was read of a document serves several questions on it. `length` alone sets
        m and c; Tail is ``d ≥ end − tail``, where positions go on by one a token from ``head + ⌈c·(end − tail −
        head)⌉``. With ``end = length`` this is the paper's map. No query before ``end − tail`` depends on `end`.

        Parameters
        ----------
        length : int
            Planned length in tokens: the prompt's own, or more for an answer and further questions.
        end : int, optional
            Where the prompt ends, in tokens; by default at `length`.

        Raises
        ------
        ValueError
            If `length` or `end` is less than 1, `end` more than `length`, or not more than Head + Tail where distances
            are compressed.
        """
        end = checked_end(length, end)
        m, head, tail = self.mapping_length(length), self.head, self.tail
        if not head + tail < m < length:
            return replace(plain_map(length, head, tail), end=end)
        if end <= head + tail:
            raise MethodError(
                f"The prompt ends after {end:,} tokens, within Head + Tail ({head:,} + {tail:,}), so Tail would begin "
                f"inside Head: plan so short a prompt for its own length, or take a smaller Head or Tail."
            )
        # Middle's stretch of distances and the positions left for it: c = slots / tokens.
        slots, tokens = m - head - tail, length - head - tail
        border = end - tail  # the distance at which Tail begins
        # Rounded up, s₁ + ⌈c·(e − s₂ − s₁)⌉: the least position there that Middle never exceeds before it.
        position = head - (head - border) * slots // tokens
        regions = (
            Region("Head", Role.NEAR, 0, head + 1),
            Region(
                "Middle",
                Role.COMPRESSED,
                head + 1 if head else 0,
                border if tail else None,
                IndexMap(slots, tokens, origin=head, offset=head),
                IndexMap(slots, tokens),
            ),
            Region("Tail", Role.END, border, None, IndexMap(offset=position - border)),
        )
        # Without a Head, distance 0 is Middle's, which gives it the same position.
        return PositionMap(length, m, head, tail, regions[not head : 2 + bool(tail)], end)

    def mapping_length(self, length: int) -> int:
        """The mapping length m for an input length, clamped to it and to the window; in positions."""
        return min(self.mapping(length), length, self.window)


# The fits are those of the authors' code (`remap_uselen`), with its head and tail of 512 and 200 tokens.
_LLAMA3 = ScaledSigmoid(6204.409324666837, 0.00010493097327094324, -2.466638011138158, 8192, 1536)

PRESETS: dict[str, LampeConfig] = {
    "llama2": LampeConfig(
        4096, 512, 200, ScaledSigmoid(2489.1055552214357, 8.673006440952035e-05, -0.648012322406978, 8192, 1536)
    ),
    "llama3": LampeConfig(8192, 512, 200, _LLAMA3),
    "mistral": LampeConfig(32768, 512, 200, replace(_LLAMA3, maximum=24576)),
    "llama3.1": LampeConfig(
        131072, 512, 200, ScaledSigmoid(82358.52413056031, 4.505261149632588e-05, -2.788576860718702)
    ),
    # Our sweep in assets/smollm2.json: the whole window, at every length; no curve costs less.
    "smollm2": LampeConfig(8192, 512, 200, Constant(8192)),
}
"""The configurations published for families of models, and ours; `lampe.families` tells which a model is of."""


def rescaled(window: int, short: bool = False) -> LampeConfig:
    """Llama-3's curve rescaled to another window, for a model that nobody has calibrated.

    Parameters
    ----------
    window : int
        W₀ in tokens. The greatest mapping length is three quarters of it, the slope goes with 1/W₀, and Head
        and Tail keep the share of the window they have in Llama-3's preset (1/16 and about 1/41).
    short : bool
        Whether inputs shorter than the window take one mapping length, as in the authors' code.
    """
    base = PRESETS["llama3"]
    scale = window / base.window
    # A window of one token still holds one position.
    curve = ScaledSigmoid(max(1.0, 0.75 * window), _LLAMA3.slope / scale, _LLAMA3.intercept)
    if short and _LLAMA3.short_mapping:
        least = max(1, round(_LLAMA3.short_mapping * scale))
        curve = replace(curve, short_length=round(_LLAMA3.short_length * scale), short_mapping=least)
    # Rounded down: in a window of a few tokens the mapping length is then still more than both.
    return LampeConfig(window, int(base.head * scale), int(base.tail * scale), curve, basis="rescaled")
