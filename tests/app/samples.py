"""Small files of every kind, built here byte by byte, so that what is in them is known."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import pypdf

from app.documents.document import Found
from app.limits import MAX_PAGES

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_RELATIONSHIPS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE_DOCUMENT = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def zipped(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


# PDF


def pdf_of(objects: Sequence[str | bytes], trailer: str = "") -> bytes:
    """A file of these objects, numbered from 1; the first is the catalog."""
    file = io.BytesIO()
    file.write(b"%PDF-1.7\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(file.tell())
        content = content.encode("latin-1") if isinstance(content, str) else content
        file.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    table = file.tell()
    rows = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    file.write(
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R "
        f"{trailer} >>\nstartxref\n{table}\n%%EOF\n".encode()
    )
    return file.getvalue()


def stream(content: bytes, entries: str = "") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), entries.encode(), content)


def shown(text: str) -> bytes:
    """What draws some lines on a page."""
    lines = " ".join(f"({line}) Tj T*" for line in text.split("\n"))
    return f"BT /F1 12 Tf 14 TL 72 720 Td {lines} ET".encode("latin-1")


def pdf(pages: Sequence[str], trailer: str = "", contents: Mapping[int, bytes] | None = None) -> bytes:
    """A PDF of these pages; `contents` are stream objects that stand in for some pages' own."""
    objects: list[str | bytes] = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{4 + 2 * n} 0 R' for n in range(len(pages)))}] >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * number} 0 R >>"
        )
        objects.append((contents or {}).get(number) or stream(shown(text) if text else b""))
    return pdf_of(objects, trailer)


def deflated(content: bytes) -> bytes:
    """A stream that unpacks to some bytes."""
    return stream(zlib.compress(content, 9), "/Filter /FlateDecode")


def encrypted(user: str, algorithm: str) -> bytes:
    """A PDF that a person opens with the password `user`."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["Hello there"])))
    writer.encrypt(user, "owner", algorithm=algorithm)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def without_text() -> bytes:
    """A PDF whose page shows a picture."""
    return pdf(["x"], contents={0: stream(b"0 0 m 100 100 l S")})


# Word


def paragraph(text: str, style: str = "", inside: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{properties}<w:r><w:t xml:space="preserve">{text}</w:t>{inside}</w:r></w:p>'


def table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


STYLES = f"""<w:styles xmlns:w="{WORD}">
<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>
<w:style w:styleId="Own"><w:name w:val="Our chapter"/><w:basedOn w:val="berschrift1"/></w:style>
<w:style w:styleId="Outline"><w:name w:val="Other"/><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>
</w:styles>"""


def docx_members(body: str, **more: str) -> dict[str, str | bytes]:
    return {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": (
            f'<Relationships xmlns="{_RELATIONSHIPS}"><Relationship Id="a" Type="{_OFFICE_DOCUMENT}" '
            'Target="word/document.xml"/></Relationships>'
        ),
        "word/document.xml": f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>',
        "word/styles.xml": STYLES,
        **{f"word/{name}.xml": content for name, content in more.items()},
    }


def docx(body: str, **more: str) -> bytes:
    return zipped(docx_members(body, **more))


# EPUB


def chapter(body: str, title: str = "") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml">'
        f"<head><title>{title}</title><script/></head><body>{body}</body></html>"
    )


def epub_members(
    chapters: Mapping[str, str], nav: str = "", ncx: str = "", more: Mapping[str, str | bytes] | None = None
) -> dict[str, str | bytes]:
    """A book of these files, by their names in the folder text/, in their order."""
    items = [
        f'<item id="c{number}" href="text/{name}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(chapters)
    ]
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": (
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile '
            'full-path="OEBPS/book.opf"/></rootfiles></container>'
        ),
    }
    if nav:
        items.append('<item id="nav" href="nav.xhtml" properties="nav"/>')
        members["OEBPS/nav.xhtml"] = nav
    if ncx:
        items.append('<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>')
        members["OEBPS/toc.ncx"] = ncx
    spine = "".join(f'<itemref idref="c{number}"/>' for number in range(len(chapters)))
    members["OEBPS/book.opf"] = (
        f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{"".join(reversed(items))}</manifest>'
        f"<spine>{spine}</spine></package>"
    )
    return members | {f"OEBPS/text/{name}": content for name, content in chapters.items() if content} | dict(more or {})


def epub(*arguments, **options) -> bytes:
    return zipped(epub_members(*arguments, **options))


# What is read


def holds(found: Found | None) -> None:
    """Hold what was read of any file against what the page rests on; None was refused."""
    if found is None:
        return
    assert 0 < len(found.parts) <= MAX_PAGES + 2
    text = "".join(part.text for part in found.parts)
    assert text.strip()
    assert not any(ord(character) < 32 and character not in "\t\n" for character in text)
    for part in found.parts:
        assert (part.label + part.text).encode()
        assert part.label
    assert all(isinstance(note, str) and note.endswith(".") for note in found.notes)
