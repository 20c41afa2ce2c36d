"""The kinds of files that are read: the one table of them, and a file's ending and content held against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from app.limits import PACKED_BYTES, TEXT_BYTES
from lampe.errors import InputError


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Parameters
    ----------
    name, title : str
        For programs, and for people with its article.
    endings : tuple of str
        In lower case, with the dot.
    reader : str
        "module:function": from a file's bytes to `Found`. Only the process that reads a file imports it.
    max_bytes : int
        Largest file.
    signature : bytes
        What stands in the first 1,024 bytes; empty for text, which begins with no other format's signature.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    reader: str
    max_bytes: int = TEXT_BYTES
    signature: bytes = b""


_ZIP = b"PK\x03\x04"
_FORMATS = "app.documents.formats."
KINDS = (
    Kind("txt", "a text file", (".txt",), _FORMATS + "plain:read_plain"),
    Kind("md", "a Markdown file", (".md", ".markdown"), _FORMATS + "plain:read_markdown"),
    Kind("html", "an HTML file", (".html", ".htm", ".xhtml"), _FORMATS + "markup:read_html"),
    Kind("pdf", "a PDF", (".pdf",), _FORMATS + "pdf:read_pdf", PACKED_BYTES, b"%PDF-"),
    Kind("docx", "a Word document", (".docx",), _FORMATS + "docx:read_docx", PACKED_BYTES, _ZIP),
    Kind("epub", "an EPUB", (".epub",), _FORMATS + "epub:read_epub", PACKED_BYTES, _ZIP),
)
EXTENSIONS = tuple(ending for kind in KINDS for ending in kind.endings)
MAX_BYTES = max(kind.max_bytes for kind in KINDS)

_OTHERS: tuple[tuple[bytes | tuple[bytes, ...], str, str], ...] = (
    (b"%PDF-", "a PDF", "Give it the ending .pdf and upload it again."),
    (_ZIP, "a zip archive", "Upload the document itself, with the ending that it should have."),
    (b"\xd0\xcf\x11\xe0", "an old Office file, or one with a password", "Save it as .docx without a password."),
    (b"{\\rtf", "an RTF file", "Open it in a word processor, save it as .docx, and upload that."),
    (
        (b"\x89PNG", b"\xff\xd8\xff", b"GIF8"),
        "a picture",
        "Pictures have no text here; run OCR (text recognition) on it first.",
    ),
)
_WEB_PAGES = (b"<!doctype html", b"<html")


def kind_of(name: str) -> Kind:
    """The kind that a file's ending says.

    Raises
    ------
    InputError
        If it is none that is read here.
    """
    ending = PurePath(name).suffix.lower()
    for kind in KINDS:
        if ending in kind.endings:
            return kind
    raise InputError(
        f"{name} isn't a file that is read here, which are {', '.join(EXTENSIONS[:-1])} and {EXTENSIONS[-1]}; save "
        "its text as one of them and upload that."
    )


def check_content(name: str, kind: Kind, data: bytes) -> None:
    """Hold a file's first bytes against its ending.

    Raises
    ------
    InputError
        If it is empty, or its ending lies.
    """
    if not data.strip():
        raise InputError(f"{name} is empty.")
    found, advice = next(((what, advice) for start, what, advice in _OTHERS if data.startswith(start)), ("", ""))
    if kind.signature in data[:1024] if kind.signature else not found:
        return
    if not found and data[:256].lstrip().lower().startswith(_WEB_PAGES):
        found, advice = "a web page", "Give it the ending .html and upload it again."
    said = f": by its content it is {found}" if found else " by its content"
    advice = advice or f"Open it in the program that made it and save it as {kind.endings[0]}."
    raise InputError(f"{name} isn't {kind.title if kind.signature else 'plain text'}{said}. {advice}")
