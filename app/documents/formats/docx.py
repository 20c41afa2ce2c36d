"""Word documents: a zip archive with the text in XML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from posixpath import dirname, join, normpath
from xml.etree.ElementTree import Element

from app.documents.document import Found, Part
from app.documents.formats.archive import Archive
from app.documents.formats.blocks import Block, parts_of
from lampe.errors import InputError

_SKIPPED = frozenset(("Fallback", "moveFrom", "del", "pPr"))  # what stands there twice, what was deleted, no text
_SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_HEADING = re.compile(r"heading ?([1-9])$", re.IGNORECASE)
_LONGEST_CHAIN = 20  # styles that are based on one another


def read_docx(data: bytes) -> Found:
    """Paragraphs, tables as lines with tabs, footnotes at the end; headings are the parts' labels."""
    archive = Archive(data)
    if "META-INF/container.xml" in archive:
        raise InputError("This file isn't a Word document: by its content it is an EPUB. Give it the ending .epub.")
    main = _main(archive)
    root = archive.xml(main)
    if root.tag != "document":
        raise InputError("This file isn't a Word document by its content, but another Office file. Save it as .docx.")
    styles = join(dirname(main), "styles.xml")
    text = _Text(_levels(archive.xml(styles) if styles in archive else Element("styles")))
    blocks = text.blocks(root)
    parts = parts_of(blocks, "Beginning" if any(block.level for block in blocks) else "Text")
    for kind, label in (("footnote", "Footnotes"), ("endnote", "Endnotes")):
        name = join(dirname(main), f"{kind}s.xml")
        signs = list(text.signs[kind].items())
        if signs and name in archive:
            notes = {note.get("id"): text.line(note) for note in archive.xml(name).iter(kind)}
            lines = [f"[{sign}] {notes[key]}\n" for key, sign in signs if notes.get(key)]
            parts += [Part(label, "".join(lines) + "\n")] if lines else []
    return Found(parts, [])


def _main(archive: Archive) -> str:
    """The member that holds the text, as the archive itself says."""
    name = "word/document.xml"
    if "_rels/.rels" in archive:
        for relation in archive.xml("_rels/.rels").iter("Relationship"):
            if relation.get("Type", "").endswith("/officeDocument"):
                name = normpath(relation.get("Target", "")).lstrip("/")
    if name not in archive:
        raise InputError(
            "This file isn't a Word document by its content. Open it where it was made and save it as .docx."
        )
    return name


def _levels(styles: Element) -> Callable[[str], int]:
    """Which styles are headings, by their outline level or name, their own or one that they are based on."""
    levels: dict[str, int] = {}
    bases: dict[str, str] = {}
    for style in styles.iter("style"):
        key = style.get("styleId", "")
        bases[key] = _value(style, "basedOn")
        if heading := _HEADING.match(_value(style, "name")):
            levels[key] = int(heading[1])
        if outline := _value(style, "pPr/outlineLvl"):
            levels[key] = _outline_level(outline)

    def level_of(style: str) -> int:
        for _ in range(_LONGEST_CHAIN):
            if style in levels or not bases.get(style):
                break
            style = bases[style]
        heading = _HEADING.match(style)
        return levels.get(style, int(heading[1]) if heading else 0)

    return level_of


def _outline_level(value: str) -> int:
    """A heading's level from 1; 0 for body text, which Word writes as 9."""
    return int(value) + 1 if value in tuple("012345678") else 0


def _value(element: Element, path: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get("val", "")


class _Text:
    """Paragraphs and rows in their order.

    Parameters
    ----------
    level_of : callable
        From a paragraph style's id to its level as a heading, from 1; 0 for none.

    Attributes
    ----------
    signs : dict
        For each kind of notes: their ids, and the signs that stand for them in the text that was read so far.
    """

    def __init__(self, level_of: Callable[[str], int]) -> None:
        self.signs: dict[str, dict[str, str]] = {"footnote": {}, "endnote": {}}
        self._level_of = level_of

    def blocks(self, elements: Iterable[Element]) -> list[Block]:
        """What is in some elements, or in those inside one."""
        found: list[Block] = []
        for element in elements:
            if element.tag == "p":
                found += self._paragraph(element)
            elif element.tag == "tc":
                found.append(Block(self.line(element)))
            elif element.tag == "tr":
                row = "\t".join(cell.text for cell in self.blocks(element)).rstrip("\t")
                if row.strip():
                    found.append(Block(row, tight=True))
            elif element.tag not in _SKIPPED:
                found += self.blocks(element)
        return found

    def line(self, element: Element) -> str:
        """All that is in an element, in one line."""
        return " ".join(" ".join(block.text.split()) for block in self.blocks(element))

    def _paragraph(self, element: Element) -> list[Block]:
        """A paragraph, after what is in its text boxes."""
        outline = _value(element, "pPr/outlineLvl")
        level = _outline_level(outline) if outline else self._level_of(_value(element, "pPr/pStyle"))
        pieces: list[str] = []
        boxes: list[Block] = []
        self._read_run(element, pieces, boxes)
        text = "".join(pieces).replace("\xad", "").strip()
        return [*boxes, Block(" ".join(text.split()) if level else text, level)] if text else boxes

    def _read_run(self, run: Element, pieces: list[str], boxes: list[Block]) -> None:
        for element in run:
            kind = element.tag.removesuffix("Reference")
            if element.tag == "t":
                pieces.append("".join(element.itertext()))
            elif element.tag in _SIGNS:
                pieces.append(_SIGNS[element.tag])
            elif kind != element.tag and kind in self.signs:
                signs = self.signs[kind]
                sign = f"{'e' * (kind == 'endnote')}{len(signs) + 1}"
                pieces.append(f"[{signs.setdefault(element.get('id', ''), sign)}]")
            elif element.tag in ("p", "tbl"):  # in a text box
                boxes += self.blocks([element])
            elif element.tag not in _SKIPPED:
                self._read_run(element, pieces, boxes)
