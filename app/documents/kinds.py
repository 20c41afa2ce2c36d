"""The kinds of files that are read, told by their ending and held against their content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

from app.documents.sandbox.caps import PACKED_BYTES, TEXT_BYTES
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
    max_bytes : int
        Largest file.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    max_bytes: int


KINDS = (
    Kind("txt", "a text file", (".txt",), TEXT_BYTES),
    Kind("md", "a Markdown file", (".md", ".markdown"), TEXT_BYTES),
    Kind("html", "an HTML file", (".html", ".htm", ".xhtml"), TEXT_BYTES),
    Kind("pdf", "a PDF", (".pdf",), PACKED_BYTES),
    Kind("docx", "a Word document", (".docx",), PACKED_BYTES),
    Kind("epub", "an EPUB", (".epub",), PACKED_BYTES),
)
EXTENSIONS = tuple(ending for kind in KINDS for ending in kind.endings)
MAX_BYTES = max(kind.max_bytes for kind in KINDS)

_ZIP = b"PK\x03\x04"
_SIGNATURES = (
    (b"%PDF-", "a PDF"),
    (_ZIP, "a zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, or one with a password"),
    (b"{\\rtf", "an RTF file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF87a", "a GIF picture"),
    (b"GIF89a", "a GIF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
)
_HTML = (b"<!doctype html", b"<html")


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
    found = next((what for signature, what in _SIGNATURES if data.startswith(signature)), None)
    if kind.name == "pdf":
        right = b"%PDF-" in data[:1024]
    elif kind.name in ("docx", "epub"):
        right = data.startswith(_ZIP)
    else:
        right = found is None
    if right:
        return
    if found is None and data[:256].lstrip().lower().startswith(_HTML):
        found = "a web page"
    wanted = "plain text" if kind.max_bytes == TEXT_BYTES else kind.title
    said = f": by its content it is {found}" if found else " by its content"
    raise InputError(f"{name} isn't {wanted}{said}. {_advice(kind, found)}")


def _advice(kind: Kind, found: str | None) -> str:
    if found == "a PDF":
        return "Give it the ending .pdf and upload it again."
    if found == "a web page":
        return "Give it the ending .html and upload it again."
    if found and "Office" in found:
        return "Open it, save it as .docx without a password, and upload that."
    if found == "a zip archive":
        return "Upload the document itself, with the ending that it should have."
    if found and "picture" in found:
        return "Pictures have no text here; run OCR (text recognition) on it first."
    return f"Open it in the program that made it and save it as {kind.endings[0]}."
