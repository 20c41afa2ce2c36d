"""What is fuzzed, each as a function of bytes; run as a module it is one target's process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["app", "lampe", "pypdf"]):
    from app.documents import worker
    from app.documents.document import Found, tidied
    from app.documents.formats.docx import read_docx
    from app.documents.formats.epub import read_epub
    from app.documents.formats.markup import read_html
    from app.documents.formats.pdf import read_pdf
    from app.documents.formats.plain import read_markdown, read_plain
    from app.web.gate import check_values
    from app.web.refused import Refused
    from lampe.errors import InputError
from tests.app import samples


def _read(reader: Callable[[bytes], Found]) -> Callable[[bytes], None]:
    """A reader whose every failure is a sentence."""

    def target(data: bytes) -> None:
        with suppress(InputError):
            samples.holds(tidied(reader(data)))

    return target


def _pdf(data: bytes) -> None:
    """Only pypdf may fail in ways that nobody foresaw: the process that reads files catches that."""
    with suppress(InputError):
        samples.holds(worker.parsed(read_pdf, data))


def _document(data: bytes) -> None:
    """The XML in a Word file."""
    members = samples.docx_members("") | {"word/document.xml": data}
    _read(read_docx)(samples.zipped(members))


def _chapter(data: bytes) -> None:
    """A chapter of a book, its contents and its package."""
    members = samples.epub_members({"a.xhtml": "x"}, nav="x")
    names = ("OEBPS/text/a.xhtml", "OEBPS/nav.xhtml", "OEBPS/book.opf")
    members |= {name: given for name, given in zip(names, data.split(b"\x00", 2), strict=False) if given}
    _read(read_epub)(samples.zipped(members))


def _call(data: bytes) -> None:
    """A call's body, whose values are counted."""
    with suppress(Refused):
        check_values(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "txt": _read(read_plain),
    "md": _read(read_markdown),
    "html": _read(read_html),
    "pdf": _pdf,
    "docx": _read(read_docx),
    "docx-xml": _document,
    "epub": _read(read_epub),
    "epub-xml": _chapter,
    "call": _call,
}


if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
