"""LaMPE without one of its parts: what each of them is worth (arXiv 2508.02308, its ablations)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from lampe.methods.curves import Constant
from lampe.methods.lampe import LampeConfig


@dataclass(frozen=True)
class _Ablation(LampeConfig):
    """LaMPE's own settings for a model, with one part taken away."""

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls.like(cls._without(LampeConfig.for_window(window)))

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        return cls.like(cls._without(LampeConfig.for_model(model_or_config)))

    @classmethod
    @abstractmethod
    def _without(cls, config: LampeConfig) -> LampeConfig:
        """The settings without the part."""


@dataclass(frozen=True)
class FixedLampe(_Ablation):
    """Dynamic mapping off: three quarters of the window at every length. The fields are those of `LampeConfig`."""

    key: ClassVar[str] = "lampe-fixed"
    title: ClassVar[str] = "LaMPE, fixed m"

    @classmethod
    def _without(cls, config: LampeConfig) -> LampeConfig:
        return replace(config, mapping=Constant(max(1, 3 * config.window // 4)))


@dataclass(frozen=True)
class UniformLampe(_Ablation):
    """Multi-grained positions off: one region, compressed uniformly. The fields are those of `LampeConfig`."""

    key: ClassVar[str] = "lampe-uniform"
    title: ClassVar[str] = "LaMPE, one uniform region"

    @classmethod
    def _without(cls, config: LampeConfig) -> LampeConfig:
        return replace(config, head=0, tail=0)


@dataclass(frozen=True)
class HeadlessLampe(_Ablation):
    """Without Head. The fields are those of `LampeConfig`."""

    key: ClassVar[str] = "lampe-headless"
    title: ClassVar[str] = "LaMPE without Head"

    @classmethod
    def _without(cls, config: LampeConfig) -> LampeConfig:
        return replace(config, head=0)


@dataclass(frozen=True)
class TaillessLampe(_Ablation):
    """Without Tail. The fields are those of `LampeConfig`."""

    key: ClassVar[str] = "lampe-tailless"
    title: ClassVar[str] = "LaMPE without Tail"

    @classmethod
    def _without(cls, config: LampeConfig) -> LampeConfig:
        return replace(config, tail=0)
