"""EPUB books: a zip archive of XHTML files, with an order to read them in and a table of contents."""

from __future__ import annotations

from dataclasses import dataclass
from posixpath import dirname, join, normpath
from urllib.parse import unquote

from app.documents.document import Found, Part, text_of
from app.documents.formats.archive import Archive, Reader, read_xml
from app.documents.formats.blocks import parts_of
from app.documents.formats.markup import Page, decode_html
from app.documents.sandbox.caps import MAX_PAGES
from lampe.errors import InputError

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_FONTS_ONLY = ("/2008/embedding", "/pdf/enc#RC")  # how fonts, and nothing else, are hidden


def read_epub(data: bytes) -> Found:
    """The chapters in their order, labelled by the table of contents, or by their first heading."""
    archive = Archive(data)
    if _CONTAINER not in archive:
        raise InputError("This file isn't an EPUB by its content. Upload it with the ending that it should have.")
    _refuse_protected(archive)
    book = _Book()
    container = _Container()
    read_xml(archive.read(_CONTAINER), container)
    read_xml(archive.read(container.name), book)
    folder = dirname(container.name)
    chapters = list(dict.fromkeys(_place(folder, book.items[key].href) for key in book.spine if key in book.items))
    if len(chapters) > MAX_PAGES:
        raise InputError(
            f"This EPUB has {len(chapters):,} chapters; at most {MAX_PAGES:,} are read. Upload a part of it."
        )
    titles = _titles(archive, book, folder)
    parts: list[Part] = []
    notes: list[str] = []
    lost = 0
    for chapter in chapters:
        if chapter not in archive:
            lost += 1
            continue
        data = archive.read(chapter)
        try:
            source, said = decode_html(data)
        except InputError:  # not text: the other chapters are
            lost += 1
            continue
        notes += [note.replace("This file", f"A chapter ({chapter})") for note in said]
        parts += _chapter(Page(source), titles.get(chapter, []), len(parts) + 1)
    if lost:
        notes.append(f"{lost} of the book's {len(chapters)} chapters are missing in the file, or damaged.")
    if len(parts) > MAX_PAGES:
        parts = [Part("Text", text_of(parts))]
    return Found(parts, notes)


def _chapter(page: Page, titles: list[str], number: int) -> list[Part]:
    """One part; several where the table of contents leads to several places in the file."""
    parts = parts_of(page.blocks, titles[0] if titles else f"Section {number}")
    if len(titles) > 1 or not parts:
        return parts
    heading = next((block.text for block in page.blocks if block.level), f"Section {number}")
    return [Part(titles[0] if titles else heading, text_of(parts))]


def _refuse_protected(archive: Archive) -> None:
    if _ENCRYPTION in archive:
        methods = _Methods()
        read_xml(archive.read(_ENCRYPTION), methods)
        if not all(method.endswith(_FONTS_ONLY) for method in methods.found):
            raise InputError(
                "This EPUB is protected against copying (DRM), so its text can't be read. Take another copy."
            )


def _titles(archive: Archive, book: _Book, folder: str) -> dict[str, list[str]]:
    """For each file, what the table of contents calls the places in it: EPUB 3's, else EPUB 2's."""
    links: list[tuple[str, str]] = []
    for item in book.items.values():
        place = _place(folder, item.href)
        if "nav" in item.properties.split() and place in archive:
            links = Page(decode_html(archive.read(place))[0]).links
        elif item.media_type == "application/x-dtbncx+xml" and place in archive and not links:
            ncx = _Ncx()
            try:
                read_xml(archive.read(place), ncx)
            except InputError:
                continue  # a book can be read without its table of contents
            links = ncx.links
        else:
            continue
        links = [(_place(dirname(place), target), " ".join(text.split())) for target, text in links]
        if "nav" in item.properties.split():
            break
    titles: dict[str, list[str]] = {}
    for target, text in links:
        if text:
            titles.setdefault(target, []).append(text)
    return titles


def _place(folder: str, href: str) -> str:
    """A member's name, from a link in a file of that folder."""
    return normpath(join(folder, unquote(href.partition("#")[0])))


@dataclass(frozen=True)
class _Item:
    href: str
    media_type: str
    properties: str


class _Container(Reader):
    name = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "rootfile" and not self.name:
            self.name = attributes.get("full-path", "")


class _Methods(Reader):
    def __init__(self) -> None:
        self.found: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "EncryptionMethod":
            self.found.append(attributes.get("Algorithm", ""))


class _Book(Reader):
    def __init__(self) -> None:
        self.items: dict[str, _Item] = {}
        self.spine: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "item":
            self.items[attributes.get("id", "")] = _Item(
                attributes.get("href", ""), attributes.get("media-type", ""), attributes.get("properties", "")
            )
        elif name == "itemref":
            self.spine.append(attributes.get("idref", ""))


class _Ncx(Reader):
    """EPUB 2's table of contents."""

    def __init__(self) -> None:
        self.links: list[tuple[str, str]] = []
        self._label = ""
        self._in_text = self._in_map = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "navMap":
            self._in_map = True
        elif name == "text":
            self._in_text, self._label = True, ""
        elif name == "content" and self._in_map:
            self.links.append((attributes.get("src", ""), self._label))

    def end(self, name: str) -> None:
        if name == "text":
            self._in_text = False
        elif name == "navMap":
            self._in_map = False

    def data(self, text: str) -> None:
        if self._in_text:
            self._label += text
