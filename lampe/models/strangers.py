"""What somebody else's tokenizer may do with a text: only what takes time and memory by the text's length.

A tokenizer.json brings regular expressions, which may never end, and replacements, which may make a text a thousand
times as long. For a model that somebody else has named, the expressions are those of tokenizers that are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
        # DeepSeek V3 cuts three times
        "[一-龥぀-ゟ゠-ヿ]+",
        rf"{_MARKS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_ENDINGS}",
        r"\p{N}{1,3}",
        r"\p{N}",
        r"\d",
        r"\d{1,3}",
        r"[0-9]",
        r"\s+",
        " {2,}",
        "[\r\n]",
        r"[\r\n]",
    }
)
"""Expressions that take time by the length of the text alone (a test holds each to it)."""


def check_tokenizer(name: str, path: Path) -> None:
    """Refuse a tokenizer.json that a text could be too much for.

    Parameters
    ----------
    name : str
        The model's, for the message.
    path : Path

    Raises
    ------
    LoadError
        If it brings an expression that isn't known, makes a text longer, or can't be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = list(_parts([content.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")]))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise LoadError(
            f"{name}'s tokenizer.json can't be read, so it isn't run here. Choose another model."
        ) from error
    for part in parts:
        pattern = part.get("pattern")
        if isinstance(pattern, dict) and (expression := pattern.get("Regex")) is not None and expression not in KNOWN:
            raise LoadError(
                f"{name}'s tokenizer cuts a text by an expression that isn't known here ({expression!r:.80}), and one "
                "may take for ever. Choose another model, or ask whoever runs this to offer it (MODEL_IDS)."
            )
        if part.get("type") == "Replace" and len(str(part.get("content"))) > max(1, len(_replaced(pattern))):
            raise LoadError(
                f"{name}'s tokenizer makes a text longer before it cuts it, without a bound. Choose another model, or "
                "ask whoever runs this to offer it (MODEL_IDS)."
            )


def _parts(given: Any) -> Iterator[dict[str, Any]]:
    """All that stands in it under a name."""
    if isinstance(given, dict):
        yield given
    for inside in given.values() if isinstance(given, dict) else given if isinstance(given, list) else ():
        yield from _parts(inside)


def _replaced(pattern: Any) -> str:
    return str(pattern.get("String", "")) if isinstance(pattern, dict) else ""
