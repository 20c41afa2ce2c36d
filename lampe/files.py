"""Files of JSON that somebody else may have written: read as dataclasses, checked, and refused in a sentence.

msgspec checks the types that a dataclass declares, and says where in a file another one stands.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from lampe.errors import InputError
from lampe.methods import Curve, Method, ScaledSigmoid, curve_of, method_class

T = TypeVar("T")

GREATEST = 10**8
"""No window, and no count of tokens, is greater."""
Count = Annotated[int, msgspec.Meta(ge=0, le=GREATEST)]
"""A whole number up to `GREATEST`."""
Size = Annotated[int, msgspec.Meta(ge=1, le=GREATEST)]
"""The same, and at least 1."""
Words = Annotated[str, msgspec.Meta(max_length=1000)]
"""A text that is shown."""

REFUSALS = (ValueError, KeyError, TypeError, RecursionError)
"""What reading JSON and making objects of it raises where something is wrong with it."""


def decoded(data: bytes) -> dict[str, Any]:
    """The object that a text of JSON is.

    Raises
    ------
    ValueError, RecursionError
        If it isn't one.
    """
    return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=dict[str, Any])  # Windows' editors' mark


def checked(kind: type[T], given: Any) -> T:
    """An object of a dataclass from what JSON has for it; what the dataclass doesn't know is left out.

    Raises
    ------
    ValueError
        If a field is missing or of another type, or the dataclass refuses it; the message says which.
    """
    return msgspec.convert(given, kind, dec_hook=_own)


def _own(kind: type, given: Any) -> Any:
    """For the one type that is no dataclass."""
    if kind is not Curve:
        raise NotImplementedError(kind)
    return curve_of(msgspec.convert(given, Size | ScaledSigmoid))


def method_of(given: dict[str, Any]) -> Method:
    """A method from an object with its key as `method`, and its `settings`.

    Raises
    ------
    MethodError, KeyError
        If there is none.
    """
    return method_class(given["method"]).from_settings(given["settings"])


def reason(error: BaseException) -> str:
    """One of `REFUSALS` in words."""
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else f"{error!s:.200}"


def read_lines(
    path: Path, make: Callable[[dict[str, Any]], T], what: str, refusal: type[InputError], whole: bool = True
) -> list[tuple[T, dict[str, Any]]]:
    """The rows of a file of JSON lines, and the object on the line of each.

    Parameters
    ----------
    path : Path
    make : callable
        Makes a row of an object, or raises one of `REFUSALS`.
    what : str
        What a row is called.
    refusal : type of InputError
    whole : bool
        Whether the last line must end with a line break, as where further ones are to be appended.

    Raises
    ------
    InputError
        A `refusal`, if a line is no row; the message names the line, and the file stays as it is.
    OSError
        If it can't be read.
    """
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        raise refusal(f"{path.name} isn't text in UTF-8. Name another file.") from None
    found = []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            if whole and not line.endswith(b"\n"):
                raise ValueError("it ends before its end")
            given = decoded(line)
            found.append((make(given), given))
        except REFUSALS as error:
            raise refusal(
                f"Line {number} of {path.name} is no {what} ({reason(error)}). Remove that line, or name another "
                "file; the other lines are used as they are."
            ) from error
    return found


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Append an object to a file of JSON lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def output_never_fails() -> None:
    """Have what is printed written with escapes where a file or pipe has no letter for a sign, as on Windows."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
