"""What somebody else's tokenizer may do with a text: only what takes time and memory by the text's length.

A tokenizer.json brings regular expressions, which may never end, and steps that make a text a thousand times as long.
For a model that somebody else has named, its parts are those of the usual tokenizers of causal models, each within
bounds, and the expressions are known ones. It is looked at before it is built, for an expression may be hard to compile
too, and once more as it was built, for what was fetched may be read in other ways.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

import msgspec

from lampe.models.embedded import LoadError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDINGS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_MARKS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""


def _words(letters: str, digits: str, others: str) -> str:
    """The way of cutting that GPT-4's tokenizer began: contractions, words, digits, marks, spaces."""
    return rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}| ?{others}+[\r\n]*|{_ENDINGS}"


def _cased(contractions: str, digits: str) -> str:
    """The same with words cut where small letters are followed by capitals."""
    first = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{contractions}"
    second = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{contractions}"
    return rf"{first}|{second}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_ENDINGS}"


KNOWN = frozenset(
    {
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        _words(r"\p{L}", r"\p{N}{1,3}", r"[^\s\p{L}\p{N}]"),  # Llama 3
        _words(r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]"),  # Qwen 2
        _words(r"[\p{L}\p{M}]", r"\p{N}", r"[^\s\p{L}\p{M}\p{N}]"),  # Qwen 3.5
        _cased(f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),  # GPT-4o
        _cased("", r"\p{N}"),  # Mistral's Tekken
        r"\s?\p{L}+",  # DeepSeek Coder cuts several times
        r"\s?\p{P}+",
        "[一-龥ࠀ-一가-\ud7ff]+",
        "[一-龥぀-ゟ゠-ヿ]+",  # and DeepSeek V3
        rf"{_MARKS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_ENDINGS}",
        r"\p{N}{1,3}",
        r"\p{N}",
        r"\d",
        r"\d{1,3}",
        r"[0-9]",
        r"\s+",
        " {2,}",
        "[\r\n]",  # the two characters themselves
        r"[\r\n]",
    }
)
"""Expressions that take time by the length of the text alone (a test holds each to it)."""


_Few = Annotated[str, msgspec.Meta(max_length=8)]
_Word = Annotated[str, msgspec.Meta(max_length=1000)]


class _Part(msgspec.Struct, tag_field="type"):
    """A step of a tokenizer; what isn't named here of its fields makes nothing longer or slower."""


class _Pattern(msgspec.Struct):
    Regex: str | None = None
    String: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] | None = None


class _ByteLevel(_Part, tag="ByteLevel"): ...


class _Nfc(_Part, tag="NFC"): ...


class _Nfd(_Part, tag="NFD"): ...


class _Nfkc(_Part, tag="NFKC"): ...


class _Nfkd(_Part, tag="NFKD"): ...


class _Lowercase(_Part, tag="Lowercase"): ...


class _Prepend(_Part, tag="Prepend"):
    prepend: _Few


class _Replace(_Part, tag="Replace"):
    pattern: _Pattern
    content: str

    def __post_init__(self) -> None:
        if len(self.content) > len(self.pattern.String or " "):
            raise ValueError("it makes a text longer")


class _Split(_Part, tag="Split"):
    pattern: _Pattern


class _Digits(_Part, tag="Digits"): ...


class _Metaspace(_Part, tag="Metaspace"):
    replacement: _Few


class _Strip(_Part, tag="Strip"): ...


class _ByteFallback(_Part, tag="ByteFallback"): ...


class _Fuse(_Part, tag="Fuse"): ...


class _Special(msgspec.Struct):
    ids: Annotated[list[int], msgspec.Meta(max_length=8)]


class _Template(_Part, tag="TemplateProcessing"):
    single: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=8)]
    pair: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=16)]
    special_tokens: dict[str, _Special]

    def __post_init__(self) -> None:
        if any(Counter(next(iter(piece), "") for piece in one)["Sequence"] > 2 for one in (self.single, self.pair)):
            raise ValueError("it repeats a text")


_Normalizer = _Nfc | _Nfd | _Nfkc | _Nfkd | _Lowercase | _Prepend | _Replace
_Cutter = _ByteLevel | _Split | _Digits | _Metaspace
_Processor = _ByteLevel | _Template
_Decoder = _ByteLevel | _Metaspace | _Replace | _Strip | _ByteFallback | _Fuse


class _Normalizers(_Part, tag="Sequence"):
    normalizers: Annotated[list[_Normalizer], msgspec.Meta(max_length=8)]


class _Cutters(_Part, tag="Sequence"):
    pretokenizers: Annotated[list[_Cutter], msgspec.Meta(max_length=8)]


class _Processors(_Part, tag="Sequence"):
    processors: Annotated[list[_Processor], msgspec.Meta(max_length=4)]


class _Decoders(_Part, tag="Sequence"):
    decoders: Annotated[list[_Decoder], msgspec.Meta(max_length=8)]


class _Added(msgspec.Struct):
    content: _Word


class _Bpe(msgspec.Struct):
    """Byte-pair encoding: others take the square of a long word's length, or more."""

    vocab: dict[_Word, int]
    type: Literal["BPE"] = "BPE"
    unk_token: _Word | None = None
    continuing_subword_prefix: _Few | None = None
    end_of_word_suffix: _Few | None = None


class _Tokenizer(msgspec.Struct):
    model: _Bpe
    normalizer: _Normalizers | _Normalizer | None = None
    pre_tokenizer: _Cutters | _Cutter | None = None
    post_processor: _Processors | _Processor | None = None
    decoder: _Decoders | _Decoder | None = None
    added_tokens: Annotated[list[_Added], msgspec.Meta(max_length=20_000)] = []


def check_tokenizer(name: str, content: str | bytes) -> None:
    """Refuse a tokenizer that a text could be too much for.

    Parameters
    ----------
    name : str
        The model's, for the message.
    content : str or bytes
        Of a tokenizer.json.

    Raises
    ------
    LoadError
        If a part of it isn't a usual one within bounds, or brings an expression that isn't known.
    """
    try:
        found = msgspec.json.decode(content, type=_Tokenizer)
        for parts in (found.normalizer, found.pre_tokenizer, found.post_processor, found.decoder):
            _check(parts)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are of the first
        raise LoadError(
            f"{name}'s tokenizer isn't one of the usual kinds, and an unusual one may take for ever ({error!s:.120}). "
            "Choose another model, or ask whoever runs this to offer it (MODEL_IDS)."
        ) from error


def _check(parts: Any) -> None:
    """Of steps in a row: known expressions, and what may make a text longer once at most."""
    inside = getattr(parts, parts.__struct_fields__[0]) if parts is not None and parts.__struct_fields__ else None
    steps = inside if isinstance(inside, list) and not isinstance(parts, _Template) else [parts]
    for step in steps:
        pattern = getattr(step, "pattern", None)
        if pattern is not None and (pattern.Regex is None) == (pattern.String is None):
            raise ValueError("a pattern is an expression or a string")
        if pattern is not None and pattern.Regex is not None and pattern.Regex not in KNOWN:
            raise ValueError(f"its expression {pattern.Regex!r:.60} isn't a known one")
    kinds = Counter(type(step) for step in steps if not isinstance(step, _Replace | _Split | _Digits))
    if repeated := [kind for kind, count in kinds.items() if count > 1]:
        raise ValueError(f"{repeated[0].__struct_config__.tag} stands in it more than once")
