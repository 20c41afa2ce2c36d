"""EPUB books: a zip archive of XHTML files, with an order to read them in and a table of contents."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from posixpath import dirname, join, normpath
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from app.documents.document import Found, Part, text_of
from app.documents.formats.archive import Archive
from app.documents.formats.blocks import parts_of
from app.documents.formats.markup import Page, decode_html
from app.limits import MAX_PAGES
from lampe.errors import InputError

_CONTAINER, _ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
_FONTS_ONLY = ("/2008/embedding", "/pdf/enc#RC")  # how fonts, and nothing else, are hidden
_NCX = "application/x-dtbncx+xml"


def read_epub(data: bytes) -> Found:
    """The chapters in their order, labelled by the table of contents, or by their first heading."""
    archive = Archive(data)
    if _CONTAINER not in archive:
        raise InputError("This file isn't an EPUB by its content. Upload it with the ending that it should have.")
    encrypted = archive.xml(_ENCRYPTION).iter("EncryptionMethod") if _ENCRYPTION in archive else ()
    if not all(method.get("Algorithm", "").endswith(_FONTS_ONLY) for method in encrypted):
        raise InputError("This EPUB is protected against copying (DRM), so its text can't be read. Take another copy.")
    name = next((file.get("full-path", "") for file in archive.xml(_CONTAINER).iter("rootfile")), "")
    book, folder = archive.xml(name), dirname(name)
    items = {item.get("id"): item for item in book.iter("item")}
    spine = (items[key] for entry in book.iter("itemref") if (key := entry.get("idref")) in items)
    chapters = list(dict.fromkeys(_place(folder, item.get("href", "")) for item in spine))
    if len(chapters) > MAX_PAGES:
        raise InputError(
            f"This EPUB has {len(chapters):,} chapters; at most {MAX_PAGES:,} are read. Upload a part of it."
        )
    titles = _titles(archive, items.values(), folder)
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


def _titles(archive: Archive, items: Iterable[Element], folder: str) -> dict[str, list[str]]:
    """For each file, what the table of contents calls the places in it: EPUB 3's, else EPUB 2's."""
    new, old = [], []
    for item in items:
        place = _place(folder, item.get("href", ""))
        if place in archive and "nav" in item.get("properties", "").split():
            new.append(place)
        elif place in archive and item.get("media-type") == _NCX:
            old.append(place)
    titles: dict[str, list[str]] = {}
    for place in (new or old)[:1]:
        with suppress(InputError):  # a book can be read without its table of contents
            for target, text in Page(decode_html(archive.read(place))[0]).links if new else _links(archive.xml(place)):
                if label := " ".join("".join(text).split()):
                    titles.setdefault(_place(dirname(place), target), []).append(label)
    return titles


def _links(contents: Element) -> list[tuple[str, list[str]]]:
    """Target, and text in pieces, of each entry in EPUB 2's table of contents."""
    return [
        (target.get("src", ""), [point.findtext("navLabel/text", "")])
        for point in contents.iter("navPoint")
        if (target := point.find("content")) is not None
    ]


def _place(folder: str, href: str) -> str:
    """A member's name, from a link in a file of that folder."""
    return normpath(join(folder, unquote(href.partition("#")[0])))
