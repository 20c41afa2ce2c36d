"""What is fuzzed, each as a function of bytes; run as a module it is one target's process.

Only what reads the bytes is imported there, and instrumented.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pkgutil import resolve_name
from typing import Any

Target = Callable[[bytes], object]


def _file(reader: str) -> Target:
    """A file of a kind, whose every failure is a sentence."""
    read, tidied, error, samples = _the(reader, *_USED)

    def target(data: bytes) -> None:
        with suppress(error):
            samples.holds(tidied(read(data)))

    return target


def _pdf() -> Target:
    """Only pypdf may fail in ways that nobody foresaw: the process that reads files catches that."""
    read, parsed, error, samples = _the(_FORMATS + "pdf:read_pdf", "app.documents.document:parsed", *_USED[1:])

    def target(data: bytes) -> None:
        with suppress(error):
            samples.holds(parsed(read, data))

    return target


def _document() -> Target:
    """The XML in a Word file."""
    target, (samples,) = _file(_FORMATS + "docx:read_docx"), _the(_USED[-1])
    return lambda data: target(samples.zipped(samples.docx_members("") | {"word/document.xml": data}))


def _book() -> Target:
    """A book's chapter, its contents and its package, with a zero byte between them."""
    target, (samples,) = _file(_FORMATS + "epub:read_epub"), _the(_USED[-1])
    names = ("OEBPS/text/a.xhtml", "OEBPS/nav.xhtml", "OEBPS/book.opf")

    def members(data: bytes) -> dict[str, Any]:
        given = zip(names, data.split(b"\x00", 2), strict=False)
        return samples.epub_members({"a.xhtml": "x"}, nav="x") | {name: part for name, part in given if part}

    return lambda data: target(samples.zipped(members(data)))


def _call() -> Target:
    """A call's body, whose values are counted."""
    check, refused = _the("app.web.checks:check_values", "app.web.checks:Refused")

    def target(data: bytes) -> None:
        with suppress(refused):
            check(data)

    return target


def _the(*names: str) -> list[Any]:
    return [resolve_name(name) for name in names]


_FORMATS = "app.documents.formats."
_USED = ("app.documents.document:tidied", "lampe.errors:InputError", "tests.app.samples")
TARGETS: dict[str, Callable[[], Target]] = {
    "txt": lambda: _file(_FORMATS + "plain:read_plain"),
    "md": lambda: _file(_FORMATS + "plain:read_markdown"),
    "html": lambda: _file(_FORMATS + "markup:read_html"),
    "pdf": _pdf,
    "docx": lambda: _file(_FORMATS + "docx:read_docx"),
    "docx-xml": _document,
    "epub": lambda: _file(_FORMATS + "epub:read_epub"),
    "epub-xml": _book,
    "call": _call,
}


def main() -> None:
    import atheris

    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["app", "lampe.errors", "pypdf"]):
        target = TARGETS[name]()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
