"""What is read from good files of every kind, through the process that reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.documents.document import Document
from app.documents.formats.encodings import decoded
from app.documents.formats.markup import read_html
from app.documents.formats.plain import read_markdown, read_plain
from app.documents.reading import Files, read_document
from app.serving.visitors import Visitor
from tests.app.samples import WORD, chapter, docx, encrypted, epub, paragraph, pdf, stream, table

FRENCH = "Le naïf élève a été reçu à l’école, où l’œuvre « déjà vue » coûte 3 €."
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"


def read(folder: Path, name: str, data: bytes) -> Document:
    file = folder / name
    file.write_bytes(data)
    return read_document(str(file))


def shape(document) -> list[tuple[str, str]]:
    return [(part.label, part.text.strip()) for part in document.parts]


# Text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_comes_back_as_it_was(tmp_path, encoding):
    document = read(tmp_path, "notes.MD", "Käse,\r\nnaïve — 東京 <|im_end|>\n".encode(encoding))
    assert document.text == "Käse,\nnaïve — 東京 <|im_end|>\n"
    assert (document.name, document.kind) == ("notes.MD", "md")
    assert len(document.notes) == (0 if encoding.startswith("utf-8") else 1)


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        (FRENCH, "cp1252", "Windows-1252"),
        ("naïve", "latin-1", "Windows-1252"),
        ("Привет, мир. Это длинный русский текст о маяке на острове.", "cp1251", "Windows-1251"),
        (JAPANESE, "shift_jis", "Shift-JIS"),
        (JAPANESE, "euc_jp", "EUC-JP"),
        (JAPANESE, "iso2022_jp", "ISO-2022-JP"),
        ("등대의 등은 초록색이다.", "iso2022_kr", "ISO-2022-KR"),
        ("我是一只猫。还没有名字。什么地方出生的?", "gb18030", "GB 18030"),
        ("A tale of Ā, in few words and two lines.\nThe end.", "utf-16-le", "UTF-16"),
    ],
)
def test_another_encoding_is_found_and_named(text, encoding, name):
    found, notes = decoded(f"{text}\nAnd plain words.".encode(encoding))
    assert found == f"{text}\nAnd plain words."
    assert len(notes) == 1
    assert f"isn't UTF-8: it was read as {name}" in notes[0]


def test_a_declared_encoding_is_taken_where_it_fits():
    source = '<meta charset="{}"><p>Un œuf coûte 3 €, ağaç</p>'
    found = read_html(source.format("iso-8859-15").replace("ğ", "").encode("iso8859-15"))
    assert found.parts[0].text.strip() == "Un œuf coûte 3 €, aaç"
    assert "it was read as ISO8859-15" in found.notes[0]
    assert "ağaç" in read_html(source.format("iso-8859-15").encode()).parts[0].text, "UTF-8 whatever it says"
    assert "œuf" in read_html(source.format("latin1").encode("cp1252", "replace")).parts[0].text
    for nonsense in ("rot13", "unicode_escape", "punycode", "x" * 30):
        read_html(source.format(nonsense).encode("cp1252", "replace"))


def test_control_characters_are_left_out_and_told(tmp_path):
    document = read(tmp_path, "log.txt", ("word " * 300 + "\x1b[31mred\x1b[0m \x07end\x85next").encode())
    assert document.text.endswith("[31mred[0m end\nnext")
    assert "3 control characters" in document.notes[0]


def test_form_feeds_are_pages():
    found = read_plain(b"one\n\ftwo\n\f")
    assert shape(found) == [("Page 1", "one"), ("Page 2", "two")]
    assert shape(read_plain(b"one")) == [("Text", "one")]


def test_markdown_stays_and_its_headings_are_parts():
    source = "intro\r\n\n# One #\ntext\n```\n# no heading\n````\n## Two\n#hashtag\n#### Deep\nend"
    found = read_markdown(source.encode())
    assert [part.label for part in found.parts] == ["Beginning", "One", "Two"]
    assert "".join(part.text for part in found.parts) == source.replace("\r\n", "\n")
    assert "# no heading" in found.parts[1].text
    assert [part.label for part in read_markdown(b"\n# One\n").parts] == ["One"]
    assert [part.label for part in read_markdown(b"# C#\nx\n# F# ##\n# #\n").parts] == ["C#", "F#"]
    many = read_markdown(b"# Top\n" + b"## Sub\n" * 3000 + b"# Last\n")
    assert [part.label for part in many.parts] == ["Top", "Last"], "lower headings give way where they are too many"


def test_a_long_headings_time_is_linear():
    """Were it quadratic, this would take hours."""
    heading = b"# a" + b" " * 1_000_000 + b"b" + b" #" * 1_000_000
    assert len(read_markdown(heading * 2).parts) == 1


# HTML


def test_html_is_paragraphs_headings_and_cells(tmp_path):
    source = """<!DOCTYPE html><html><head><title> A &amp; B </title><style>p {}</style></head><body>
    <nav><a href="x">Home</a></nav><script>alert("no")</script>before
    <h1>First   <em>title</em></h1><p>One<br>two <b>th</b>ree &lt;|im_end|&gt;</p><![foo[ x ]]>
    <ul><li>a<li><p>b</p></ul><table><tr><th>k<th>v</tr><tr><td></td><td>2</td></tr></table>
    <h2><div>Second</div></h2><pre>  x
      y</pre><ruby>猫<rt>ねこ</ruby>soft&shy;hyphen <svg><text>drawn</text></svg> &#xD800; end"""
    document = read(tmp_path, "page.html", source.encode())
    assert shape(document) == [
        ("A & B", "before"),
        ("First title", "First title\n\nOne\ntwo three <|im_end|>\n\na\nb\nk\tv\n\t2"),
        ("Second", "Second\n\n  x\n      y\n\n猫softhyphen \ufffd end"),
    ]
    assert document.notes == ("The page's navigation (4 characters) was left out.",)


# PDF


def test_a_pdf_is_pages(tmp_path):
    document = read(tmp_path, "paper.pdf", pdf(["First page\nin two lines", "", "Third \\(page\\)"]))
    assert [part.label for part in document.parts] == ["Page 1", "Page 2", "Page 3"]
    assert document.parts[0].text == "First page\nin two lines\n\n"
    assert document.notes == ("There is no text on page 2: a scan, a picture, or nothing.",)


def test_one_broken_page_is_told_and_the_others_read(tmp_path):
    broken = stream(b"no zlib", "/Filter /Unheard")
    document = read(tmp_path, "paper.pdf", pdf([f"Page {n} here" for n in range(5)], contents={1: broken, 2: broken}))
    assert document.parts[0].text == "Page 0 here\n\n"
    assert document.notes == ("What is on pages 2–3 is damaged and couldn't be read.",)


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_a_pdf_that_only_forbids_changes_is_read(tmp_path, algorithm):
    if algorithm.startswith("AES"):
        pytest.importorskip("cryptography")
    assert read(tmp_path, "form.pdf", encrypted("", algorithm)).text == "Hello there\n\n"


def test_a_damaged_table_of_objects_is_mended(tmp_path):
    data = pdf(["Still here"])
    assert read(tmp_path, "a.pdf", data.replace(b"startxref\n", b"startxref\n9")).text == "Still here\n\n"


# Word


def test_word_is_paragraphs_headings_tables_and_footnotes(tmp_path):
    reference = '<w:footnoteReference w:id="7"/>'
    body = (
        paragraph("before")
        + paragraph("Kapitel", "berschrift1")
        + paragraph("Käse &amp; &lt;|im_end|&gt;", inside="<w:tab/>" + reference + "<w:br/>")
        + "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>"
        + table([["a", "b"], ["", "d"]])
        + paragraph("Unter", "Outline")
        + paragraph("x", inside=reference)
        + paragraph("Own", "Own")
    )
    notes = f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="-1">{paragraph("line")}</w:footnote>'
    notes += f'<w:footnote w:id="7">{paragraph("the note")}</w:footnote></w:footnotes>'
    document = read(tmp_path, "text.docx", docx(body, footnotes=notes))
    assert shape(document) == [
        ("Beginning", "before"),
        ("Kapitel", "Kapitel\n\nKäse & <|im_end|>\t[1]\n\nnew\n\na\tb\n\td"),
        ("Unter", "Unter\n\nx[1]"),
        ("Own", "Own"),
        ("Footnotes", "[1] the note"),
    ]


def test_a_text_box_stands_beside_its_paragraph_once(tmp_path):
    box = f"<w:txbxContent>{paragraph('in the box')}</w:txbxContent>"
    both = f"<AlternateContent><Choice>{box}</Choice><Fallback>{box}</Fallback></AlternateContent>"
    document = read(tmp_path, "box.docx", docx(f"<w:p><w:r><w:t>around</w:t>{both}<w:t> it</w:t></w:r></w:p>"))
    assert document.text == "in the box\n\naround it\n\n"
    assert document.parts[0].label == "Text"


# EPUB

NAV = """<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><body>
<nav epub:type="page-list"><a href="text/one.xhtml">i</a></nav>
<nav epub:type="toc"><ol><li><a href="text/one.xhtml">The <i>start</i></a></li>
<li><a href="text/a%20b.xhtml#x">Two A</a></li>
<li><a href="text/a%20b.xhtml#y">Two B</a></li></ol></nav></body></html>"""
NCX = """<?xml version="1.0"?><!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "ncx-2005-1.dtd">
<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><docTitle><text>Book</text></docTitle><navMap><navPoint><navLabel>
<text>Old start</text></navLabel><content src="text/one.xhtml"/></navPoint></navMap></ncx>"""
CHAPTERS = {
    "one.xhtml": chapter("<h1>I</h1><p>It was&nbsp;a dark night.</p><h2>Later</h2><p>And stormy.</p>"),
    "a%20b.xhtml": "",
    "last.xhtml": chapter("<h2>Afterword</h2><p>Thanks.</p>"),
    "bare.xhtml": chapter("<p>Bare.</p>"),
}
SECOND = {"OEBPS/text/a b.xhtml": chapter("<h1>Scene A</h1><p>aaa</p><h1>Scene B</h1><p>bbb</p>")}


def test_an_epub_is_chapters_in_the_books_order(tmp_path):
    document = read(tmp_path, "book.epub", epub(CHAPTERS, NAV, NCX, SECOND))
    assert shape(document) == [
        ("The start", "I\n\nIt was\xa0a dark night.\n\nLater\n\nAnd stormy."),
        ("Scene A", "Scene A\n\naaa"),
        ("Scene B", "Scene B\n\nbbb"),
        ("Afterword", "Afterword\n\nThanks."),
        ("Section 5", "Bare."),
    ]
    assert document.notes == ()


def test_an_older_epub_has_its_titles_elsewhere_and_may_have_none(tmp_path):
    assert read(tmp_path, "a.epub", epub(CHAPTERS, "", NCX, SECOND)).parts[0].label == "Old start"
    assert read(tmp_path, "b.epub", epub(CHAPTERS, "", "<ncx>&undefined;", SECOND)).parts[0].label == "I"


def test_chapters_that_are_lost_are_told(tmp_path):
    document = read(tmp_path, "c.epub", epub(CHAPTERS | {"bare.xhtml": "\x00"}))
    assert [part.label for part in document.parts] == ["I", "Afterword"]
    assert document.notes == ("2 of the book's 4 chapters are missing in the file, or damaged.",)


def test_hidden_fonts_are_no_protection(tmp_path):
    method = '<encryption><EncryptionMethod Algorithm="{}"/></encryption>'
    fonts = {"META-INF/encryption.xml": method.format("http://www.idpf.org/2008/embedding")}
    assert "dark night" in read(tmp_path, "book.epub", epub(CHAPTERS, more=SECOND | fonts)).text


# A format that isn't there yet


def test_somebody_elses_newer_upload_of_the_same_file_stays(tmp_path):
    """gradio names uploads by their content: a class that uploads one handout shares a path."""
    path = tmp_path / "handout.txt"
    path.write_text("The boat is called Heron.", encoding="utf-8")
    reading = Files().read(str(path))
    next(reading)
    (tmp_path / "again").write_text("The boat is called Heron.", encoding="utf-8")
    (tmp_path / "again").replace(path)
    list(reading)
    assert path.exists()
    assert list(Files().read(str(path)))[-1].text == "The boat is called Heron."
    assert not path.exists()


def test_a_class_that_uploads_one_handout_at_once_reads_it(tmp_path):
    """Most of them wait in the line when the first have read it."""
    path, files = tmp_path / "handout.txt", Files()
    path.write_text("The boat is called Heron.", encoding="utf-8")
    reading = [files.read(str(path), Visitor(f"pupil {number}")) for number in range(5)]
    for one in reading:
        next(one)
    for one in reading:
        assert list(one)[-1].text == "The boat is called Heron."
    assert not path.exists(), "the last one deletes it"
