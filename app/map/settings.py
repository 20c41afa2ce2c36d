"""What the position map page shows: its settings, checked, as a link and as files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal
from urllib.parse import urlencode

import lampe
from app.limits import MAX_MAP_LENGTH, whole_number
from app.map.figures import BINS, Frame
from lampe.errors import InputError
from lampe.methods import METHODS, Constant, LampeConfig, Method, MethodError, ScaledSigmoid, method_class
from lampe.methods.lampe import rescaled
from lampe.positions import PositionMap, plain_map

MOST_BESIDE = 5
CUSTOM = "custom"
"""The model of nobody: a window of one's own, with Llama-3's curve rescaled to it."""

ZOOMS = ("Whole text", "In × 4", "Out × 4", "Head border", "Tail border", "Stair steps")

Kind = Literal["lampe", "uniform", "plain"]
MODELS = {
    "SmolLM2": "smollm2",
    "Llama-2": "llama2",
    "Llama-3": "llama3",
    "Mistral": "mistral",
    "Llama-3.1": "llama3.1",
    "custom": CUSTOM,
}
"""By their names for people: keys of `lampe.PRESETS`, and a model of one's own."""

KINDS: dict[str, Kind] = {
    "LaMPE": "lampe",
    "One uniform region (multi-grained off)": "uniform",
    "Plain RoPE (without LaMPE)": "plain",
}


@dataclass(frozen=True)
class MapSettings:
    """The settings of the page; a link carries the ones that aren't the default.

    Parameters
    ----------
    model : str
        Key of `lampe.PRESETS`, or "custom": whose window and curve.
    length : int
        Input length in tokens: where the prompt ends.
    window : int
        In tokens; a custom model's only, a preset has its own.
    head, tail : int
        In tokens.
    mapping : int or None
        A fixed mapping length in positions; None takes it from the model's curve.
    curve : str or None
        A custom model's curve, as `curve_text` writes it; None is Llama-3's, rescaled to the window.
    scale : float
        Attention scale: the factor on the logits. It moves no position.
    kind : "lampe", "uniform" or "plain"
        LaMPE, one uniformly compressed region (the paper's ablation), or plain RoPE.
    query : int or None
        The query token whose row is drawn; None, or one beyond the text, is the last.
    across : int or None
        Tokens along each side of the matrix; None is the whole text.
    at_query, at_key : int
        The pair in the middle of the matrix, where it isn't the whole text's.
    big : bool
        Presentation size.
    planned : int or None
        The length that the input is planned for, with an answer and further questions; None is its own.
    beside : tuple of str
        The keys of further methods that are drawn beside LaMPE, by their authors' rule for the window.
    """

    model: str = "smollm2"
    length: int = 12_000
    window: int = 8192
    head: int = 512
    tail: int = 200
    mapping: int | None = None
    curve: str | None = None
    scale: float = 1.0
    kind: Kind = "lampe"
    query: int | None = None
    across: int | None = None
    at_query: int = 0
    at_key: int = 0
    big: bool = False
    planned: int | None = None
    beside: tuple[str, ...] = ()

    @classmethod
    def checked(cls, **given: Any) -> MapSettings:
        """The settings as a page or a link gives them: numbers may be floats, text or missing.

        Raises
        ------
        LampeError
            If a setting is none, or all of them together allow no map; the message is for the person.
        """
        view = cls(**{name: _value(name, value) for name, value in given.items()})
        for method in view.methods if view.beside else ():
            method.position_map(view.length)  # a window can be too small for a method
        if view.kind != "plain":
            check(view.config, view.planned or view.length, chosen=view.mapping is not None)
            _ = view.position_map
        return view

    @classmethod
    def of(cls, model: str) -> MapSettings:
        """The view of a preset's own sizes."""
        preset = lampe.PRESETS[model]
        return cls(model=model, window=preset.window, head=preset.head, tail=preset.tail)

    @classmethod
    def running(cls, config: LampeConfig) -> MapSettings:
        """The settings that answers and needle tests run with."""
        name = next((name for name, preset in lampe.PRESETS.items() if preset == config), None)
        if name:
            return cls.of(name)
        view = cls(CUSTOM, window=config.window, head=config.head, tail=config.tail, scale=config.attention_scale)
        if not isinstance(config.mapping, ScaledSigmoid):
            return replace(view, mapping=config.mapping(config.window))
        return view if config.basis == "rescaled" else replace(view, curve=curve_text(config.mapping))

    @classmethod
    def from_link(cls, parameters: Mapping[str, str]) -> tuple[MapSettings, list[str]]:
        """A link's settings; one that can't be used keeps its default, with a sentence about it."""
        view, problems = cls(), []
        for name in (field.name for field in fields(cls) if field.name in parameters):
            try:
                value = _value(name, parameters[name])
            except InputError as error:
                problems.append(f"The link's {name} isn't used. {error}")
                continue
            # The model is the first: what follows changes its sizes.
            view = cls.of(value) if name == "model" and value != CUSTOM else replace(view, **{name: value})
        if view.model != CUSTOM:
            view = replace(view, window=lampe.PRESETS[view.model].window, curve=None)
        try:
            return cls.checked(**asdict(view)), problems
        except InputError as error:
            return cls(), [*problems, f"The link's settings don't go together, so the page has its own. {error}"]

    @property
    def link(self) -> str:
        """The query string that brings this view back."""
        default = MapSettings() if self.model == CUSTOM else replace(MapSettings.of(self.model), window=self.window)
        values = asdict(self)
        given = {name: value for name, value in values.items() if value != getattr(default, name)}
        if self.beside:
            given["beside"] = ",".join(self.beside)
        return "?" + urlencode({"model": self.model} | {k: int(v) if v is True else v for k, v in given.items()})

    @property
    def config(self) -> LampeConfig:
        """What these settings ask of the library."""
        base = rescaled(self.window) if self.model == CUSTOM else lampe.PRESETS[self.model]
        if self.model == CUSTOM and self.curve:
            base = replace(base, mapping=_curve(self.curve), basis="given")
        head, tail = (self.head, self.tail) if self.kind == "lampe" else (0, 0)
        mapping = base.mapping if self.mapping is None else Constant(self.mapping)
        basis = base.basis if self.mapping is None else "given"
        return LampeConfig(base.window, head, tail, mapping, self.scale, basis=basis)

    @property
    def methods(self) -> list[Method]:
        """These settings, and the methods beside them."""
        return [self.config, *(METHODS[key].for_window(self.config.window) for key in self.beside)]

    @property
    def position_map(self) -> PositionMap:
        """The map these settings make, as the engine would run it."""
        if self.kind == "plain":
            return plain_map(self.length)
        return lampe.position_map(self.config, self.planned or self.length, self.length)

    @property
    def frame(self) -> Frame:
        """The part of the plane that the matrix shows."""
        if self.across is None or self.across >= self.length:
            return Frame.whole(self.position_map)
        return Frame.around(self.at_query, self.at_key, self.across, self.length)

    @property
    def row(self) -> int:
        """The query token whose row is drawn: the last where the chosen one lies beyond the text."""
        last = self.length - 1
        return last if self.query is None else min(self.query, last)

    def zoomed(self, name: str) -> tuple[int | None, int, int]:
        """Another part of the matrix, one of `ZOOMS`: its tokens across, and the query and key in its middle."""
        frame, position_map, last = self.frame, self.position_map, self.length - 1
        query, key = (sum(side) // 2 for side in (frame.queries, frame.keys))
        if name == "Whole text":
            return None, 0, 0
        if name.endswith("border"):
            distance = position_map.head if name.startswith("Head") else self.length - position_map.tail
            query = max(0, last - 32)
            return min(64, self.length), query, max(0, query - distance)
        if name == "Stair steps":  # about eight positions of Middle
            tokens = 8 * self.length // max(1, position_map.mapping_length)
            return min(max(32, tokens), BINS, self.length), last, last // 2
        if name == "Out × 4":
            across = 4 * frame.across
            return (None, 0, 0) if across >= self.length else (across, query, key)
        if self.across is None:  # the whole plane's middle is blank or nearly so: go in where attention is
            query, key = last, last // 2
        return min(frame.across, max(16, frame.across // 4)), query, key


_RANGES = {
    "length": ("The input length", 1, MAX_MAP_LENGTH, "tokens"),
    "planned": ("The planned length", 1, MAX_MAP_LENGTH, "tokens"),
    "window": ("The window", 1, MAX_MAP_LENGTH, "tokens"),
    "head": ("Head", 0, MAX_MAP_LENGTH, "tokens"),
    "tail": ("Tail", 0, MAX_MAP_LENGTH, "tokens"),
    "mapping": ("The mapping length", 1, MAX_MAP_LENGTH, "positions"),
    "query": ("The query token", 0, MAX_MAP_LENGTH - 1, ""),
    "across": ("The number of tokens across", 1, MAX_MAP_LENGTH, "tokens"),
    "at_query": ("The query in the middle", 0, MAX_MAP_LENGTH - 1, ""),
    "at_key": ("The key in the middle", 0, MAX_MAP_LENGTH - 1, ""),
}
_OPTIONAL = ("planned", "mapping", "curve", "query", "across")
_CHOICES = {"model": (*lampe.PRESETS, CUSTOM), "kind": tuple(KINDS.values())}


def _value(name: str, value: Any) -> Any:
    """One setting, from whatever stands for it."""
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise InputError(f"The {name} must be one of {', '.join(_CHOICES[name])}, not {value!r:.60}.")
        return value
    if name == "big":
        if value not in (True, False, "0", "1"):
            raise InputError(f"Presentation size is 1 or 0, not {value!r:.60}.")
        return value in (True, "1")
    if name == "beside":
        return _keys(value)
    if value in (None, ""):
        if name in _OPTIONAL:
            return None
        named = _RANGES[name][0] if name in _RANGES else "The attention scale"
        raise InputError(f"{named} is empty: it needs a number.")
    if name == "curve":
        return curve_text(_curve(value))
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise InputError(f"{value!r:.60} is not a number.") from None
    if name == "scale":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10:
            raise InputError(f"The attention scale must be a number above 0 and at most 10, not {value!r}.")
        return float(value)
    title, least, most, unit = _RANGES[name]
    number = whole_number(title, value)
    if not least <= number <= most:
        raise InputError(f"{title} must be {least:,} to {most:,}{unit and ' '}{unit}, not {f'{number:,}':.40}.")
    return number


def _keys(value: Any) -> tuple[str, ...]:
    """Keys of methods, as a page (a list) or a link (between commas) gives them."""
    given = [part for part in value.split(",") if part] if isinstance(value, str) else value or []
    if not isinstance(given, list | tuple):
        raise InputError(f"Methods are named by their keys, not by {value!r:.80}.")
    try:
        keys = tuple(method_class(key).key for key in given[: MOST_BESIDE + 1])
    except MethodError as error:
        raise InputError(str(error)) from None
    if len(keys) > MOST_BESIDE or len(set(keys)) < len(keys):
        raise InputError(f"At most {MOST_BESIDE} different methods are drawn beside LaMPE, not {value!r:.80}.")
    return keys


def curve_text(curve: ScaledSigmoid) -> str:
    """A curve's numbers between commas: L, a, b, and where short inputs have a constant, below which length and it."""
    numbers = [curve.maximum, curve.slope, curve.intercept]
    if curve.short_mapping is not None:
        numbers += [curve.short_length, curve.short_mapping]
    return ", ".join(map(repr, numbers))


def _curve(text: Any) -> ScaledSigmoid:
    try:
        maximum, slope, intercept, *short = (float(part) for part in text.split(","))
        if len(short) not in (0, 2):
            raise ValueError("it has as many numbers as no curve has")
        return ScaledSigmoid(maximum, slope, intercept, *(whole_number("A short input's length", n) for n in short))
    except (ValueError, OverflowError, AttributeError) as error:
        raise InputError(
            f"{text!r:.80} is no curve ({error!s:.120}). Write L, a and b between commas: 6144, 0.0001, -2.5 is one."
        ) from error


def check(config: LampeConfig, length: int, chosen: bool) -> None:
    """Refuse a mapping length that leaves Middle no position.

    A curve may do so for inputs within the window, which then are plain RoPE's; not beyond it, nor a constant, nor a
    mapping length that a person has `chosen`.

    Raises
    ------
    InputError
    """
    curve = config.mapping
    m = min(max(1, curve(length)), config.window)
    if config.head + config.tail >= m and (chosen or isinstance(curve, Constant) or length > config.window):
        raise InputError(
            f"Head + Tail ({config.head + config.tail:,}) must be less than the mapping length ({m:,}): no positions "
            "would be left for Middle. Make Head or Tail smaller, or the mapping length greater."
        )
