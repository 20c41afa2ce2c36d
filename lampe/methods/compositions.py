"""A region map over changed frequencies: LaMPE's paper calls the two orthogonal, and never tried them together."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from lampe.methods.curves import Constant
from lampe.methods.lampe import LampeConfig
from lampe.methods.method import Frequencies, Method, MethodError
from lampe.positions import PositionMap


@dataclass(frozen=True)
class _LampeOver(Method):
    """LaMPE over slowed frequencies: each takes over a part of the stretch from the window to the input length.

    Beyond the window the frequencies take ``f = (l/W₀)^share``, and LaMPE treats the model as one with the window
    f·W₀, whose mapping lengths are f times as long. Within the window it is LaMPE alone.

    Parameters
    ----------
    window : int
        W₀ in tokens.
    lampe : LampeConfig
        For the window W₀.
    share : float
        From 0, LaMPE alone, to 1, the frequencies alone.
    """

    lampe: LampeConfig
    share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.share <= 1:
            raise MethodError(f"share must be from 0 to 1 for {self.title}, not {self.share}.")
        if self.lampe.window != self.window:
            raise MethodError(f"LaMPE's window is {self.lampe.window:,} tokens, and {self.title}'s {self.window:,}.")

    @classmethod
    def for_window(cls, window: int) -> Self:
        return cls(window, LampeConfig.for_window(window))

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        lampe = LampeConfig.for_model(model_or_config)
        return cls(lampe.window, lampe)

    def settings(self) -> dict[str, Any]:
        return {"window": self.window, "lampe": self.lampe.settings(), "share": self.share}

    @classmethod
    def from_settings(cls, given: Any) -> Self:
        if isinstance(given, dict) and "lampe" in given:
            given = {**given, "lampe": LampeConfig.from_settings(given["lampe"])}
        return super().from_settings(given)

    @property
    def attention_scale(self) -> float:
        return self.lampe.attention_scale

    @property
    def doubt(self) -> str:
        return self.lampe.doubt

    def stretch(self, length: int) -> float:
        """f, what the frequencies are slowed by for a planned length."""
        return max(1.0, length / self.window) ** self.share

    def candidates(self) -> list[Method]:
        return self._with(share=(0.0, 0.25, 0.5, 0.75, 1.0))

    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        stretch = self.stretch(length)
        window = int(self.window * stretch)
        m = self.lampe.mapping_length(max(1, int(length / stretch)))
        mapping = Constant(max(1, int(m * stretch)))
        return replace(self.lampe, window=window, mapping=mapping).position_map(length, end)

    def frequencies(self, length: int) -> Frequencies | None:
        stretch = self.stretch(length)
        return self._slowed(stretch) if stretch > 1 else None

    @abstractmethod
    def _slowed(self, stretch: float) -> Frequencies:
        """The frequencies that are `stretch` times as slow."""


@dataclass(frozen=True)
class LampeYarn(_LampeOver):
    """LaMPE over YaRN's frequencies; the fields are `window`, `lampe` and `share`."""

    key: ClassVar[str] = "lampe+yarn"
    title: ClassVar[str] = "LaMPE + YaRN"
    source: ClassVar[str] = "this project, from arXiv 2508.02308 and 2309.00071"

    def _slowed(self, stretch: float) -> Frequencies:
        return Frequencies("yarn", stretch, self.window, self.window)


@dataclass(frozen=True)
class LampeNtk(_LampeOver):
    """LaMPE over NTK-aware frequencies; the fields are `window`, `lampe` and `share`."""

    key: ClassVar[str] = "lampe+ntk"
    title: ClassVar[str] = "LaMPE + NTK"
    source: ClassVar[str] = "this project, from arXiv 2508.02308 and bloc97's NTK-aware RoPE"

    def _slowed(self, stretch: float) -> Frequencies:
        return Frequencies("dynamic", 1.0, round(stretch * self.window), self.window)
