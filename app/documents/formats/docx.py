"""Word documents: a zip archive with the text in XML."""

from __future__ import annotations

import re
from posixpath import dirname, join, normpath

from app.documents.document import Found, Part
from app.documents.formats.archive import Archive, Reader, read_xml
from app.documents.formats.blocks import Block, parts_of
from lampe.errors import InputError

_USUAL_MAIN = "word/document.xml"
_SKIPPED = frozenset(("Fallback", "moveFrom", "del"))  # what stands there twice, and what was deleted
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_HEADING = re.compile(r"heading ?([1-9])$", re.IGNORECASE)


def read_docx(data: bytes) -> Found:
    """Paragraphs, tables as lines with tabs, footnotes at the end; headings are the parts' labels."""
    archive = Archive(data)
    if "META-INF/container.xml" in archive:
        raise InputError("This file isn't a Word document: by its content it is an EPUB. Give it the ending .epub.")
    main = _main(archive)
    folder = dirname(main)
    styles = _Styles()
    if join(folder, "styles.xml") in archive:
        read_xml(archive.read(join(folder, "styles.xml")), styles)
    body = _Body(styles)
    read_xml(archive.read(main), body)
    if not body.is_document:
        raise InputError("This file isn't a Word document by its content, but another Office file. Save it as .docx.")
    parts = parts_of(body.blocks, "Beginning" if any(block.level for block in body.blocks) else "Text")
    for kind, label in (("footnote", "Footnotes"), ("endnote", "Endnotes")):
        name = join(folder, f"{kind}s.xml")
        wanted = body.notes[kind]
        if wanted and name in archive:
            notes = _Body(styles, kind)
            read_xml(archive.read(name), notes)
            lines = [f"[{sign}] {text}\n" for key, sign in wanted.items() if (text := notes.note(key))]
            parts += [Part(label, "".join(lines) + "\n")] if lines else []
    return Found(parts, [])


def _main(archive: Archive) -> str:
    """The member that holds the text, as the archive itself says."""
    targets = _Main()
    if "_rels/.rels" in archive:
        read_xml(archive.read("_rels/.rels"), targets)
    name = targets.name or _USUAL_MAIN
    if name not in archive:
        raise InputError(
            "This file isn't a Word document by its content. Open it where it was made and save it as .docx."
        )
    return name


class _Main(Reader):
    name: str | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "Relationship" and attributes.get("Type", "").endswith("/officeDocument"):
            self.name = normpath(attributes.get("Target", "")).lstrip("/")


class _Styles(Reader):
    """Which paragraph styles are headings, by their outline level or name, their own or one that they are based on."""

    def __init__(self) -> None:
        self._levels: dict[str, int] = {}
        self._bases: dict[str, str] = {}
        self._style = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("val", "")
        if name == "style":
            self._style = attributes.get("styleId", "")
        elif name == "basedOn":
            self._bases[self._style] = value
        elif name == "outlineLvl":
            self._levels[self._style] = outline_level(value)
        elif name == "name" and (heading := _HEADING.match(value)):
            self._levels.setdefault(self._style, int(heading[1]))

    def level(self, style: str) -> int:
        seen: set[str] = set()
        while style not in self._levels and style in self._bases and style not in seen:
            seen.add(style)
            style = self._bases[style]
        heading = _HEADING.match(style)
        return self._levels.get(style, int(heading[1]) if heading else 0)


def outline_level(value: str) -> int:
    """A heading's level from 1; 0 for body text, which Word writes as 9."""
    return int(value) + 1 if value in ("0", "1", "2", "3", "4", "5", "6", "7", "8") else 0


class _Paragraph:
    def __init__(self) -> None:
        self.level = 0
        self.pieces: list[str] = []


class _Body(Reader):
    """Paragraphs and rows in their order.

    Parameters
    ----------
    styles : _Styles
    kind : str
        "footnote" or "endnote" where it is those that are read.

    Attributes
    ----------
    blocks : list of Block
    notes : dict
        For each kind of notes: their keys, and the signs that stand for them in the text.
    is_document : bool
        Whether the XML is a Word document's at all.
    """

    def __init__(self, styles: _Styles, kind: str = "") -> None:
        self.blocks: list[Block] = []
        self.notes: dict[str, dict[str, str]] = {"footnote": {}, "endnote": {}}
        self.is_document = False
        self._styles = styles
        self._kind = kind
        self._note_blocks: dict[str, list[Block]] = {}
        self._open: list[_Paragraph] = []  # a text box is a paragraph inside another
        self._in_text = False
        self._skipping = 0
        self._tables = 0
        self._row: list[list[str]] = []

    def note(self, key: str) -> str:
        return " ".join(" ".join(block.text.split()) for block in self._note_blocks.get(key, []))

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name in _SKIPPED:
            self._skipping += 1
        elif name == "document":
            self.is_document = True
        elif name == self._kind:
            self.blocks = self._note_blocks.setdefault(attributes.get("id", ""), [])
        elif name == "p":
            self._open.append(_Paragraph())
        elif name == "tbl":
            self._tables += 1
        elif name == "tr" and self._tables == 1:
            self._row = []
        elif name == "tc" and self._tables == 1:
            self._row.append([])
        elif self._open and not self._skipping:
            self._inside(name, attributes)

    def _inside(self, name: str, attributes: dict[str, str]) -> None:
        paragraph = self._open[-1]
        if name == "t":
            self._in_text = True
        elif name in _SIGNS and "pos" not in attributes:  # a tab with a place is a stop, no sign
            paragraph.pieces.append(_SIGNS[name])
        elif name == "pStyle":
            paragraph.level = paragraph.level or self._styles.level(attributes.get("val", ""))
        elif name == "outlineLvl":
            paragraph.level = outline_level(attributes.get("val", ""))
        elif name in ("footnoteReference", "endnoteReference"):
            signs = self.notes[name.removesuffix("Reference")]
            count = len(signs) + 1
            sign = signs.setdefault(attributes.get("id", ""), str(count) if name[0] == "f" else f"e{count}")
            paragraph.pieces.append(f"[{sign}]")

    def data(self, text: str) -> None:
        if self._in_text and self._open:
            self._open[-1].pieces.append(text)

    def end(self, name: str) -> None:
        if name in _SKIPPED:
            self._skipping -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p" and self._open:
            self._close(self._open.pop())
        elif name == "tr" and self._tables == 1:
            row = "\t".join(" ".join(cell) for cell in self._row)
            if row.strip():
                self.blocks.append(Block(row.rstrip("\t"), tight=True))
            self._row = []
        elif name == "tbl":
            self._tables -= 1

    def _close(self, paragraph: _Paragraph) -> None:
        text = "".join(paragraph.pieces).replace("\xad", "").strip()
        if not text:
            return
        if self._tables and self._row:
            self._row[-1].append(" ".join(text.split()))
        else:
            self.blocks.append(Block(" ".join(text.split()) if paragraph.level else text, paragraph.level))
