"""LaMPE with the curves that its authors published: as their paper has it, and as their scripts run it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from lampe.families import OURS, family_of
from lampe.methods.curves import ScaledSigmoid
from lampe.methods.lampe import LampeConfig, rescaled

REFERENCE_ATTENTION_SCALE = (0.1 * math.log(2) + 1) ** 2
"""Factor on the logits in the authors' evaluation scripts, which scale cos and sin of both query and key."""


def published(model_or_config: Any, short: bool = False) -> LampeConfig:
    """The authors' curve for a model's family, or else Llama-3's rescaled to its window.

    Parameters
    ----------
    model_or_config : transformers model or its config
    short : bool
        With the authors' one mapping length for short inputs, where they have it; see `rescaled`.
    """
    config = LampeConfig.for_model(model_or_config)
    theirs = config.basis != "rescaled" and family_of(model_or_config) not in OURS
    return config if theirs else rescaled(config.window, short)


@dataclass(frozen=True)
class PaperLampe(LampeConfig):
    """LaMPE with the published curve of a model's family, or else Llama-3's rescaled to its window.

    The fields are those of `LampeConfig`.
    """

    key: ClassVar[str] = "lampe-paper"
    title: ClassVar[str] = "LaMPE, as published"

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
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
        return cls._released(rescaled(window, short=True))

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        return cls._released(published(model_or_config, short=True))

    @classmethod
    def _released(cls, config: LampeConfig) -> Self:
        return cls.like(replace(config, attention_scale=REFERENCE_ATTENTION_SCALE))
