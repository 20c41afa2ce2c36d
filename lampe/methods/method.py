"""What every method is: settings, a position map for an input length, and perhaps other frequencies."""

from __future__ import annotations

import contextlib
import itertools
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Self

from lampe.errors import InputError
from lampe.families import window_of
from lampe.positions import PositionMap, Region, plain_map


class MethodError(InputError):
    """A method that isn't known, or settings that it can't have; the message says what would do."""


@dataclass(frozen=True)
class Frequencies:
    """How a model's rotary frequencies are changed: what transformers' functions are asked for.

    Parameters
    ----------
    rope_type : str
        A key of transformers' `ROPE_INIT_FUNCTIONS`: "linear", "dynamic" or "yarn".
    factor : float
        Its factor.
    length : int
        The input length that "dynamic" takes its base for, in tokens.
    window : int
        W₀ in tokens.
    """

    rope_type: str
    factor: float
    length: int
    window: int

    @property
    def stretch(self) -> float:
        """How many times as far positions may go as in training."""
        if self.rope_type == "dynamic":
            return self.factor * self.length / self.window - (self.factor - 1)
        return self.factor


@dataclass(frozen=True)
class Method(ABC):
    """A way to give a RoPE model the positions of a long input, without training.

    Each method is a frozen dataclass of its settings. A setting that is None is chosen for each input length, by the
    rule of the method's authors.

    Parameters
    ----------
    window : int
        W₀, the pretraining window in tokens, before any scaling of RoPE.

    Attributes
    ----------
    key : str
        Its key in `lampe.METHODS`, in rows and in commands.
    title : str
        Its name for people.
    source : str
        The paper or post that it comes from.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]

    window: int

    def __post_init__(self) -> None:
        self._whole("window", 1)

    @classmethod
    @abstractmethod
    def for_window(cls, window: int) -> Self:
        """The settings that its authors' published rule gives for a window."""

    @classmethod
    def for_model(cls, model_or_config: Any) -> Self:
        """The settings for a model, or for its config.

        Raises
        ------
        ValueError
            If the config doesn't say how long the pretraining window is.
        """
        return cls.for_window(window_of(model_or_config))

    @property
    def attention_scale(self) -> float:
        """Factor on the attention logits."""
        return 1.0

    @property
    def reach(self) -> int | None:
        """The longest input, in tokens, whose positions all stay where the model was trained; None has no end."""
        return None

    @property
    def doubt(self) -> str:
        """What is to be said wherever the settings are shown; empty where nothing is."""
        return ""

    def settings(self) -> dict[str, Any]:
        """The settings as JSON has them; `from_settings` reads them."""
        return asdict(self)

    @classmethod
    def from_settings(cls, given: Any) -> Self:
        """The inverse of `settings`.

        Raises
        ------
        MethodError
            If a setting is unknown, missing, or out of its domain.
        """
        if not isinstance(given, dict):
            raise MethodError(f"The settings of {cls.title} are an object with names and values, not {given!r:.40}.")
        names = {field.name for field in fields(cls)}
        if unknown := sorted(map(str, set(given) - names)):
            raise MethodError(f"{cls.title} has no setting {unknown[0]!r:.40}; it has {', '.join(sorted(names))}.")
        try:
            return cls(**given)
        except TypeError as error:
            raise MethodError(f"These aren't settings of {cls.title}: {error}.") from error

    @abstractmethod
    def position_map(self, length: int, end: int | None = None) -> PositionMap:
        """The position map of one input, or of a prompt that ends before the length it was planned for.

        Parameters
        ----------
        length : int
            Planned length in tokens: the prompt's own, or more for an answer and further questions.
        end : int, optional
            Where the prompt ends, in tokens; by default at `length`.

        Raises
        ------
        ValueError
            If `length` or `end` is less than 1, or `end` more than `length`.
        """

    def frequencies(self, length: int) -> Frequencies | None:
        """The rotary frequencies for a planned length, in tokens; None leaves the model its own."""
        return None

    def candidates(self) -> list[Method]:
        """Settings worth trying where the method is tuned: these, and others if it has any."""
        return [self]

    def beyond(self, length: int) -> str:
        """A sentence for an input that is longer than the method's reach, in tokens; empty for others."""
        if self.reach is None or length <= self.reach:
            return ""
        return f"{self.title} reaches {self.reach:,} tokens with these settings, and this input has {length:,}."

    # What the methods share

    def _with(self, **values: Iterable[Any]) -> list[Method]:
        """These settings, and all combinations of the values that are possible."""
        found: list[Method] = [self]
        for chosen in itertools.product(*values.values()):
            with contextlib.suppress(ValueError):
                found.append(replace(self, **dict(zip(values, chosen, strict=True))))
        return list(dict.fromkeys(found))

    def _whole(self, name: str, least: int, most: int | None = None) -> None:
        """Check a setting that counts something; numpy's integers become Python's."""
        value = getattr(self, name)
        try:
            value = operator.index(value)
        except TypeError:
            raise TypeError(f"{name} must be a whole number, not {value!r}") from None
        if value < least or (most is not None and value > most):
            limits = f"at least {least:,}" if most is None else f"from {least:,} to {most:,}"
            raise MethodError(f"{name} must be {limits} for {self.title}, not {value:,}.")
        object.__setattr__(self, name, value)

    def _factor(self, name: str) -> None:
        """Check a setting that stretches: 1 or more, or None."""
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, not {value!r:.40}")
        if not 1 <= value <= 1000:
            raise MethodError(f"{name} must be from 1 to 1,000 for {self.title}, not {value:g}.")
        object.__setattr__(self, name, float(value))


def checked_end(length: int, end: int | None) -> int:
    """Where a prompt ends that was planned for a length; see `Method.position_map`."""
    end = length if end is None else end
    if min(length, end) < 1:
        raise MethodError(f"An input has at least 1 token, not {min(length, end)}.")
    if end > length:
        raise MethodError(
            f"The prompt has {end:,} tokens, and the plan is for {length:,}: plan for at least as many as it has."
        )
    return end


def plain(length: int, end: int | None) -> PositionMap:
    """The map of plain RoPE for a prompt; see `Method.position_map`."""
    return replace(plain_map(length), end=checked_end(length, end))


def mapped(length: int, end: int | None, positions: int, near: int, *regions: Region) -> PositionMap:
    """A map in several regions, or plain RoPE where none but the near one takes part.

    Parameters
    ----------
    length, end : int
        See `Method.position_map`.
    positions : int
        One more than the greatest relative position within `length`.
    near : int
        Distances less than this are exact, in tokens.
    regions : Region
    """
    if length <= near or positions >= length:
        return plain(length, end)
    return PositionMap(length, positions, near - 1, 0, regions, checked_end(length, end))
