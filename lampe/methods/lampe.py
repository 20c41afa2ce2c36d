"""LaMPE: the mapping length from the input length, and the distances mapped into it in three regions.

Source: LaMPE, arXiv 2508.02308, sections 3.2 (mapping length) and 3.3 (multi-grained positions).
"""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from lampe.methods.method import Method, MethodError, checked_end
from lampe.positions import IndexMap, PositionMap, Region, Role, plain_map


@dataclass(frozen=True)
class ScaledSigmoid:
    """Mapping length as a function of input length: ``m(l) = ⌊maximum / (1 + e^−(slope·l + intercept))⌋``.

    Parameters
    ----------
    maximum : float
        Greatest mapping length L, in positions (paper: three quarters of the window).
    slope, intercept : float
        a (per token) and b of the fitted curve.
    short_length : int
        Inputs of fewer tokens than this take `short_mapping` instead of the curve.
    short_mapping : int or None
        The constant for short inputs; None uses the curve everywhere.

    Raises
    ------
    ValueError
        If a number is not finite, or `maximum` or `short_mapping` is not positive.
    """

    maximum: float
    slope: float
    intercept: float
    short_length: int = 0
    short_mapping: int | None = None

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.maximum, self.slope, self.intercept)):
            raise MethodError("A scaled sigmoid needs finite numbers for maximum, slope and intercept.")
        if self.maximum < 1:
            raise MethodError(f"The greatest mapping length must be at least 1 position, not {self.maximum:g}.")
        if self.short_mapping is not None and self.short_mapping < 1:
            raise MethodError(f"The short mapping length must be at least 1 position, not {self.short_mapping}.")

    def __call__(self, length: int) -> int:
        """The mapping length, in positions, for `length` input tokens."""
        if self.short_mapping is not None and length < self.short_length:
            return self.short_mapping
        x = self.slope * length + self.intercept
        # Both branches are the same function; each is written so that its exponential can't overflow.
        share = 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
        return math.floor(self.maximum * share)


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
    mapping : ScaledSigmoid or int
        The mapping length as a function of the input length, or a fixed one, in positions.
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
    mapping: ScaledSigmoid | int
    attention_scale: float = 1.0
    basis: str = field(default="given", kw_only=True, compare=False)

    def __post_init__(self) -> None:
        for name in ("window", "head", "tail", "mapping"):
            value = getattr(self, name)
            if not isinstance(value, ScaledSigmoid):
                try:
                    object.__setattr__(self, name, operator.index(value))  # numpy's integers become Python's
                except TypeError:
                    raise TypeError(f"{name} must be a whole number, not {value!r}.") from None
        if self.basis not in BASES:
            raise MethodError(f"What a mapping rests on is one of {', '.join(BASES)}, not {self.basis!r:.40}.")
        if self.window < 1:
            raise MethodError(f"The window must be at least 1 token, not {self.window}.")
        if self.head < 0 or self.tail < 0:
            raise MethodError(f"Head ({self.head}) and Tail ({self.tail}) can't be negative.")
        if isinstance(self.mapping, int) and self.mapping < 1:
            raise MethodError(f"The mapping length must be at least 1 position, not {self.mapping}.")
        if not (math.isfinite(self.attention_scale) and self.attention_scale > 0):
            raise MethodError(f"The attention scale must be a positive number, not {self.attention_scale}.")

    @property
    def doubt(self) -> str:
        return BASES[self.basis] if self.basis in ("family", "rescaled") else ""

    @classmethod
    def for_window(cls, window: int) -> Self:
        """Llama-3's published curve stretched to another window, for a model that nobody has calibrated."""
        from lampe.presets import rescaled  # presets are values of this class

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
        from lampe.presets import config_for

        return cls.like(config_for(model_or_config))

    @classmethod
    def like(cls, other: Method) -> Self:
        """This class with the settings of another LaMPE."""
        return cls(**{field.name: getattr(other, field.name) for field in fields(other)})

    def settings(self) -> dict[str, Any]:
        given = asdict(self)
        del given["basis"]
        return given

    @classmethod
    def from_settings(cls, given: Any) -> Self:
        if isinstance(given, dict) and isinstance(given.get("mapping"), dict):
            try:
                given = {**given, "mapping": ScaledSigmoid(**given["mapping"])}
            except TypeError as error:
                raise MethodError(f"These aren't settings of a scaled sigmoid: {error}.") from error
        return super().from_settings(given)

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
        curve = self.mapping
        return min(curve if isinstance(curve, int) else curve(length), length, self.window)


@dataclass(frozen=True)
class PaperLampe(LampeConfig):
    """LaMPE with the published curve of a model's family, or else Llama-3's stretched to its window.

    The fields are those of `LampeConfig`.
    """

    key: ClassVar[str] = "lampe-paper"
    title: ClassVar[str] = "LaMPE, as published"

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        from lampe.presets import published

        config = published(model_or_config)
        assert isinstance(config.mapping, ScaledSigmoid)
        return cls.like(replace(config, mapping=replace(config.mapping, short_length=0, short_mapping=None)))


@dataclass(frozen=True)
class ReleasedLampe(LampeConfig):
    """LaMPE as its authors' scripts run it: sharper logits, and one mapping length for all short inputs.

    The fields are those of `LampeConfig`.
    """

    key: ClassVar[str] = "lampe-released"
    title: ClassVar[str] = "LaMPE, as released"
    source: ClassVar[str] = "github.com/scar-on/LaMPE"

    @classmethod
    def for_window(cls, window: int) -> Self:
        from lampe.presets import rescaled

        return cls._released(rescaled(window, short=True))

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        from lampe.presets import published

        return cls._released(published(model_or_config, short=True))

    @classmethod
    def _released(cls, config: LampeConfig) -> Self:
        from lampe.presets import REFERENCE_ATTENTION_SCALE

        return cls.like(replace(config, attention_scale=REFERENCE_ATTENTION_SCALE))
