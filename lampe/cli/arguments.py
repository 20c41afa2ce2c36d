"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lampe.files import REFUSALS, decoded, method_of, reason
from lampe.methods import Method, MethodError
from lampe.needle import HAYSTACKS, Haystack, NeedleError


def add_model(parser: argparse.ArgumentParser, positional: bool = False) -> None:
    about = "a Hub id or a folder (default: the embedded model)"
    if positional:
        parser.add_argument("model", nargs="?", help=about)
    else:
        parser.add_argument("--model", help=about)
    parser.add_argument("--bits", type=int, choices=(4, 16), default=4)


def list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """A type for argparse: values between commas."""

    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part.strip()]

    parse.__name__ = f"list of {getattr(kind, '__name__', 'values')}"
    return parse


def read_settings(path: Path) -> Method:
    """A method with the settings that a file has, as JSON with `method` and `settings`.

    Raises
    ------
    MethodError
        If the file has none.
    """
    try:
        return method_of(decoded(path.read_bytes()))
    except REFUSALS as error:
        raise MethodError(
            f"{path.name} has no settings of a method ({reason(error)}). `lampe tune` writes such files."
        ) from error


def text_named(name: str, known: dict[str, Callable[[], Haystack]] = HAYSTACKS) -> Haystack:
    """A text by its name, or that of a file."""
    if name in known:
        return known[name]()
    data = Path(name).read_bytes()
    try:
        return Haystack.named(Path(name).name, data.decode("utf-8"))
    except UnicodeDecodeError:
        raise NeedleError(f"{name} isn't plain text in UTF-8.") from None
