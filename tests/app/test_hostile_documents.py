"""What is wrong, hostile or too large is refused in a sentence; the app lives, and nothing stays behind."""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name

import psutil
import pypdf
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pypdf.errors import DependencyError

from app.documents import reading
from app.documents.document import Found, Part, parsed, text_of, tidied
from app.documents.formats import archive, pdf
from app.documents.formats.epub import read_epub
from app.documents.kinds import KINDS, MAX_BYTES, check_content, kind_of
from app.documents.reading import Files, parse_apart, read_document
from app.limits import MAX_CHARACTERS, MAX_MEMBERS, MAX_PAGES
from app.serving.visitors import Visitor
from lampe.errors import InputError
from tests.app import samples
from tests.app.test_documents import CHAPTERS, NAV, NCX, SECOND

GOOD = {
    ".txt": "Käse und Brot.\n".encode(),
    ".md": b"# One\ntext\n# Two\nmore\n",
    ".html": b"<title>t</title><h1>One</h1><p>text</p><table><tr><td>a<td>b</table><pre> x </pre>",
    ".pdf": samples.pdf(["One page", "Another"]),
    ".docx": samples.docx(samples.paragraph("One", "berschrift1") + samples.table([["a", "b"]])),
    ".epub": samples.epub(CHAPTERS, NAV, NCX, SECOND),
}


@contextmanager
def nothing_stays() -> Iterator[None]:
    """No process that wasn't there before, and no temporary file; the parser's process can't write any."""
    own = psutil.Process()
    before = set(own.children(recursive=True))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        yield
        assert not list(Path(folder).iterdir())
    assert set(own.children(recursive=True)) <= before


def refused(folder: Path, name: str, data: bytes) -> str:
    """The sentence for a file that isn't read."""
    file = folder / name
    file.write_bytes(data)
    with nothing_stays(), pytest.raises(InputError) as caught:
        read_document(str(file))
    sentence = str(caught.value)
    assert sentence[0].isupper() or sentence.startswith(name)
    assert sentence.endswith((".", "read"))
    return sentence


# Files that aren't what they seem

ENCRYPTION = '<encryption><EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/></encryption>'
LOCKED_ZIP = GOOD[".docx"].replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("paper.odt", b"PK", "isn't a file that is read here, which are .txt, .md"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\x00\x00", "isn't plain text: by its content it is a picture. Pictures"),
        ("sound.txt", b"\x01\x00\x07\x00\x00\x01" * 50, "isn't plain text in UTF-8, nor in another encoding"),
        ("cut.txt", "Käse".encode("utf-16")[:-1], "isn't plain text in UTF-8"),
        ("noise.txt", bytes(range(128, 256)) * 20, "nor in another encoding"),
        ("empty.txt", b" \n ", "empty.txt is empty"),
        ("bare.html", b"<title>t</title><script>x</script>", "has no text in it"),
        ("paper.txt", GOOD[".pdf"], "by its content it is a PDF. Give it the ending .pdf"),
        ("paper.pdf", GOOD[".docx"], "isn't a PDF: by its content it is a zip archive"),
        ("paper.pdf", b" <!DOCTYPE html><p>Log in", "isn't a PDF: by its content it is a web page"),
        ("paper.pdf", b"\x00\x01\x02", "isn't a PDF by its content. Open it in the program"),
        ("paper.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "old Office file, or one with a password"),
        ("paper.docx", GOOD[".epub"], "by its content it is an EPUB"),
        ("book.epub", GOOD[".docx"], "isn't an EPUB by its content"),
        ("book.epub", b"PK\x03\x04" + bytes(99), "is damaged: the archive"),
        ("sheet.docx", samples.zipped({"xl/workbook.xml": "<workbook/>"}), "isn't a Word document by its content"),
        ("other.docx", samples.zipped({"word/document.xml": "<workbook/>"}), "but another Office file"),
        ("locked.docx", LOCKED_ZIP, "needs a password"),
        ("book.epub", samples.epub(CHAPTERS, more={"META-INF/encryption.xml": ENCRYPTION}), "against copying"),
        ("cut.pdf", b"%PDF-1.7\n", "is damaged, or isn't what its ending says"),
        ("scan.pdf", samples.without_text(), "This PDF has no text: it is a scan"),
        ("secret.pdf", samples.encrypted("secret", "RC4-128"), "This PDF needs a password"),
    ],
)
def test_what_cant_be_read_is_refused_in_words(tmp_path, name, data, message):
    assert message in refused(tmp_path, name, data)


def test_each_kind_has_a_size_that_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    for kind in KINDS:
        file = tmp_path / f"large{kind.endings[0]}"
        with file.open("wb") as empty:
            empty.truncate(kind.max_bytes + 1)
        with pytest.raises(InputError, match=f"for {kind.title} the limit is {kind.max_bytes:,}"):
            read_document(str(file))
        assert kind.max_bytes <= MAX_BYTES


def test_what_needs_another_package_to_decrypt_is_refused(monkeypatch):
    def missing(*_, **__):
        raise DependencyError("cryptography is required")

    monkeypatch.setattr(pypdf.PageObject, "extract_text", missing)
    with pytest.raises(InputError, match="encrypted or packed in a way that isn't read here"):
        pdf.read_pdf(GOOD[".pdf"])


# Bombs


def test_zip_bombs_arent_unpacked(tmp_path):
    zeros = samples.zipped(samples.docx_members("") | {"word/document.xml": b"<p>" + b" " * 20_000_000})
    assert len(zeros) < 100_000
    assert "200 times its size, as zip bombs do" in refused(tmp_path, "zeros.docx", zeros)
    # What the archive declares isn't believed: 20 MB said to be 1,000 bytes.
    lying = zeros.replace(struct.pack("<L", 20_000_003), struct.pack("<L", 1_000))
    assert "be unpacked" in refused(tmp_path, "lying.docx", lying)


def test_small_chapters_add_up(monkeypatch):
    monkeypatch.setattr(archive, "UNPACKED_BYTES", 2_000_000)
    page = "<p>" + "".join(f"{number:x} " for number in range(20_000)) + "</p>"
    assert read_epub(samples.epub({f"{number}.xhtml": page for number in range(15)})).parts
    with pytest.raises(InputError, match="unpacks to more than 2 MB"):
        read_epub(samples.epub({f"{number}.xhtml": page for number in range(40)}))


def test_archives_inside_are_never_opened(tmp_path):
    inner = b"x"
    for _ in range(50):
        inner = samples.zipped({"again.docx": inner, "word/document.xml": inner})
    assert "XML in it is broken" in refused(tmp_path, "nested.docx", inner)
    # An archive in which every member points at the same bytes, as the densest bombs have it.
    many = {f"{number}": "x" for number in range(MAX_MEMBERS + 1)}
    assert "at most 10,000 are read" in refused(tmp_path, "many.docx", samples.zipped(many, zipfile.ZIP_STORED))


def test_odd_ways_to_pack_are_refused(tmp_path):
    body = samples.docx_members(samples.paragraph("x"))
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        assert "packed in a way" in refused(tmp_path, "a.docx", samples.zipped(body, method))


LAUGHS = '<!DOCTYPE a [<!ENTITY l0 "ha">{}]>'.format(
    "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
)


@pytest.mark.parametrize(
    "prologue",
    [
        LAUGHS,
        '<!DOCTYPE a [<!ENTITY l11 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a [<!ENTITY % l11 SYSTEM "file:///etc/passwd"> %l11;]>',
    ],
)
def test_xml_entities_are_refused(prologue):
    packed = samples.zipped({"a.xml": prologue + "<a>&l11;</a>"})
    with pytest.raises(InputError, match="declares XML entities"):
        archive.Archive(packed).xml("a.xml")


def test_a_chapters_entities_are_text():
    chapters = {"a.xhtml": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><p>start &x; end</p>'}
    assert "start &x; end" in read_epub(samples.epub(chapters)).parts[0].text


def test_deep_nesting_is_refused_or_read(tmp_path):
    deep = samples.docx("<w:x>" * 20_000 + "</w:x>" * 20_000)
    assert "nested more than 256 levels" in refused(tmp_path, "deep.docx", deep)
    file = tmp_path / "deep.html"
    file.write_bytes(b"<div>" * 100_000 + b"deep" + b"<nav>" * 10)
    assert read_document(str(file)).text.strip() == "deep"


def test_names_that_lead_out_of_the_archive_lead_nowhere(tmp_path):
    book = samples.epub_members(CHAPTERS)
    book["META-INF/container.xml"] = '<c><rootfile full-path="../../../../etc/passwd"/></c>'
    assert "etc/passwd is missing in it" in refused(tmp_path, "a.epub", samples.zipped(book))
    chapters = {"../../../../../etc/passwd": ""}
    assert "has no text" in refused(tmp_path, "b.epub", samples.epub(chapters))


# PDFs that never end


def test_too_many_pages_are_refused_unread(monkeypatch):
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda _: pytest.fail("a page was read"))
    with pytest.raises(InputError, match=f"has {MAX_PAGES + 1:,} pages; at most {MAX_PAGES:,} are read"):
        pdf.read_pdf(samples.pdf([""] * (MAX_PAGES + 1)))


def test_a_count_of_pages_isnt_believed():
    assert len(pdf.read_pdf(GOOD[".pdf"].replace(b"/Count 2", b"/Count 9999999")).parts) == 2


CATALOG = "<< /Type /Catalog /Pages 2 0 R >>"
RESOURCES = "/Resources << /XObject << /X 5 0 R /Y 5 0 R >> >>"
PAGE = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R {RESOURCES} >>"
FORM = f"/Type /XObject /Subtype /Form /BBox [0 0 9 9] {RESOURCES}"
PAGES = "<< /Type /Pages /Count 1 /Kids [3 0 R] >>"


@pytest.mark.parametrize(
    "objects",
    [
        ["<< /Type /Catalog /Pages 1 0 R >>"],
        [CATALOG, "<< /Type /Pages /Count 1 /Kids [2 0 R] >>"],
        [CATALOG, "<< /Type /Pages /Count 1 /Kids [3 0 R] >>", "<< /Type /Pages /Count 1 /Kids [2 0 R] >>"],
        [CATALOG, PAGES, PAGE, "4 0 R"],
        [CATALOG, PAGES, PAGE, "<< /Length 4 0 R >>\nstream\nBT ET\nendstream"],
        [CATALOG, PAGES, PAGE, "<< /Length 99999999999 >>\nstream\nBT ET\nendstream"],
        [CATALOG, PAGES, PAGE, samples.deflated(b"BT " + b" " * 300_000_000)],
        [CATALOG, PAGES, PAGE, samples.stream(b"/X Do /Y Do"), samples.stream(b"/X Do /Y Do", FORM)],
        [CATALOG, PAGES, PAGE, samples.stream(b"[" * 100_000)],
        [CATALOG, PAGES, PAGE, samples.stream(b"x", "/Filter [" + "/FlateDecode " * 10_000 + "]")],
    ],
    ids=["catalog", "tree", "longer tree", "contents", "length", "long", "deflated", "forms", "arrays", "filters"],
)
def test_pdfs_with_loops_and_lies_end(tmp_path, objects):
    sentence = refused(tmp_path, "a.pdf", samples.pdf_of(objects))
    assert "PDF" in sentence or "damaged" in sentence or "memory" in sentence


def test_tables_of_objects_that_lead_to_themselves_end():
    data = GOOD[".pdf"]
    looped = data.replace(b"/Root", b"/Prev %d /Root" % data.rindex(b"xref\n0"))
    assert text_of(pdf.read_pdf(looped).parts) == "One page\n\nAnother\n\n"


LINES = samples.deflated(b"0 0 m 9 9 l S\n" * 10_000 + samples.shown("Hello"))


@pytest.mark.parametrize("alike", ["the page", "what it draws"])
def test_pages_that_share_all_that_they_draw_are_read_once(monkeypatch, alike):
    """2,000 of them took 24 s."""
    read = []
    extract = pypdf.PageObject.extract_text
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda page: read.append(1) or extract(page))
    kids = "3 0 R " * 2000 if alike == "the page" else " ".join(f"{n} 0 R" for n in range(7, 2007))
    page = "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources 5 0 R >>"
    pages = f"<< /Type /Pages /Count 2000 /Kids [{kids}] /MediaBox [0 0 612 792] >>"
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    small = [CATALOG, pages, page, LINES, "<< /Font << /F1 6 0 R >> >>", font, *[page] * 2000]
    found = pdf.read_pdf(samples.pdf_of(small))
    assert len(read) == 1
    assert [part.text for part in found.parts] == ["Hello\n\n"] * 2000


def test_a_small_pdfs_pages_that_share_much_are_ended_and_it_says_how_far_it_came(monkeypatch):
    monkeypatch.setattr(pdf, "_LONGEST", 1.0)
    kids = " ".join(f"{n} 0 R" for n in range(5, 2005))
    pages = f"<< /Type /Pages /Count 2000 /Kids [{kids}] /MediaBox [0 0 612 792] >>"
    font = "/Type /Font /Subtype /Type1 /BaseFont /Helvetica"
    page = f"<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 << {font} >> >> >> >>"
    small = samples.pdf_of([CATALOG, pages, page, samples.deflated(b"0 0 m 9 9 l S\n" * 10_000), *[page] * 2000])
    with pytest.raises(InputError, match=r"takes too long: [\d,]+ of its 2,000 pages in 1 seconds\. Upload a part"):
        pdf.read_pdf(small)


# More text than is counted


def test_more_characters_than_are_counted_are_refused():
    half = "x" * (MAX_CHARACTERS // 2)
    assert tidied(Found([Part("a", half), Part("b", half)], [])).parts
    with pytest.raises(InputError, match="more than 5,000,000 characters"):
        tidied(Found([Part("a", half), Part("b", half + "xx")], []))


def test_halves_of_characters_are_dropped_and_pairs_joined():
    text = "a\ud83db \ud83d\ude00 \udc00\x00c\r\nd"
    found = tidied(Found([Part("\ud800 t\x00\n ", text), Part("\x00", "x")], []))
    assert found.parts == [Part("t", "ab 😀 c\nd"), Part("Part 2", "x")]


# The process


def given_to(monkeypatch, code: str) -> None:
    """Have other code run as the reader, in the process that is confined for it."""
    script = f"""
def read(data):
    import os, signal, socket, subprocess, sys, time
    {code}
import sys
sys.argv[1:] = ["__main__:read"]
import app.documents.__main__
"""
    monkeypatch.setattr(reading, "command", lambda reader: [sys.executable, "-c", script])


def failure(seconds: float = 20) -> str:
    with nothing_stays(), pytest.raises(InputError) as caught:
        parse_apart("any", b"x" * 1_000_000, seconds)
    return str(caught.value)


def test_the_stand_in_works(monkeypatch):
    given_to(
        monkeypatch, "from app.documents.document import Found, Part; return Found([Part('a', str(len(data)))], [])"
    )
    assert parse_apart("any", b"x" * 12) == Found([Part("a", "12")], [])


@pytest.mark.parametrize(
    "code", ["time.sleep(60)", "os.close(0); os.close(1); time.sleep(60)", "[0 for _ in iter(int, 1)]"]
)
def test_a_parser_that_hangs_is_ended(monkeypatch, code):
    given_to(monkeypatch, code)
    started = time.monotonic()
    assert "longer than 2 seconds" in failure(2) if "close" not in code else "failed" in failure(2)
    assert time.monotonic() - started < 10


def test_a_process_that_never_reads_or_starts_others_is_ended(monkeypatch):
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    monkeypatch.setattr(reading, "command", lambda reader: [sys.executable, "-c", script + "time.sleep(60)"])
    others, started = set(psutil.pids()), time.monotonic()
    assert "longer than 2 seconds" in failure(2)
    assert time.monotonic() - started < 10, "what it started held its output open"
    time.sleep(0.2)
    left = [process for process in psutil.process_iter(["cmdline"]) if process.pid not in others]
    assert not [process for process in left if "time.sleep(60)" in " ".join(process.info["cmdline"] or [])]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux caps a process's memory")
def test_a_parser_that_takes_too_much_memory_is_refused(monkeypatch):
    given_to(monkeypatch, "return b'x' * 1_100_000_000")
    assert "more than 1 GB of memory" in failure()
    given_to(monkeypatch, "return [data * 10 for _ in range(200)]")
    assert "more than 1 GB of memory" in failure()


@pytest.mark.parametrize(
    "code", ["os._exit(3)", "os.abort()", "os.kill(os.getpid(), signal.SIGSEGV)", "os.write(1, b'[')"]
)
def test_a_parser_that_crashes_is_refused(monkeypatch, code):
    given_to(monkeypatch, code)
    assert "failed" in failure()


def test_an_endless_answer_is_cut_off(monkeypatch):
    given_to(monkeypatch, "while True: os.write(1, data)")
    monkeypatch.setattr(reading, "_LONGEST_ANSWER", 10_000_000)
    assert "failed" in failure()


@pytest.mark.parametrize(
    "code",
    [
        "open({path!r}, 'w')",
        "os.open({path!r}, os.O_CREAT | os.O_RDWR)",
        "os.mkdir({path!r})",
        "subprocess.run(['touch', {path!r}])",
        "os.system('touch ' + {path!r})",
        "os.fork() or open({path!r}, 'w')",
        "socket.create_connection(('127.0.0.1', 9))",
    ],
)
def test_a_parser_can_write_and_start_nothing(monkeypatch, tmp_path, code):
    path = tmp_path / "left"
    given_to(monkeypatch, code.format(path=str(path)))
    assert "is damaged, or isn't what its ending says" in failure()
    assert not path.exists()


def test_the_process_sees_no_secrets_and_loads_nothing_heavy(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    given_to(
        monkeypatch,
        "from app.limits import InputError; heavy = {'torch', 'transformers', 'gradio', 'numpy'} & {*sys.modules}; "
        "raise InputError(f'{sorted(os.environ)} {sorted(heavy)}')",
    )
    said = failure()
    assert "HF_TOKEN" not in said
    assert said.endswith(" []")


def test_files_are_read_two_at_a_time_in_turn_and_deleted(monkeypatch, tmp_path):
    """A visitor who brings many waits for their own; one whose parser fails gives the place back."""
    given_to(monkeypatch, "os._exit(1)")
    files = Files()
    for number in range(5):
        path = tmp_path / f"{number}.txt"
        path.write_text("some text", encoding="utf-8")
        with pytest.raises(InputError, match="is damaged"):
            list(files.read(str(path)))
        assert not path.exists()
    going = [files.read(str(tmp_path / "none.txt"), Visitor("eve", "3")) for _ in range(4)]
    assert [next(one).stage for one in going[:2]] == ["Reading the file"] * 2
    assert next(going[2]).stage == "Waiting to read the file: 2 before you"
    next(going[3])
    with pytest.raises(InputError, match="4 things of yours are under way here"):
        next(files.read(str(tmp_path / "none.txt"), Visitor("eve", "3")))
    with pytest.raises(InputError, match="isn't here any more"):
        next(going[0])
    ann = files.read(str(tmp_path / "none.txt"), Visitor("ann", "1"))
    assert next(ann).stage == "Reading the file", "before those that eve still has"


# Fuzzing


def read_here(name: str, data: bytes) -> Found | None:
    """The same as `read_document` in this process; None if it is refused.

    Only pypdf may fail in ways that nobody foresaw: then the file counts as damaged.
    """
    kind = kind_of(name)
    reader = resolve_name(kind.reader)
    try:
        check_content(name, kind, data)
        return parsed(reader, data) if kind.name == "pdf" else tidied(reader(data))
    except InputError:
        return None


@st.composite
def mutated(draw, data: bytes) -> bytes:
    """Some bytes of a file changed, put in, taken out or doubled; its end cut off perhaps."""
    for _ in range(draw(st.integers(1, 6))):
        place, length = draw(st.integers(0, len(data))), draw(st.integers(0, 40))
        new = draw(st.one_of(st.binary(max_size=8), st.just(data[place : place + length] * 3)))
        data = data[:place] + new + data[place + draw(st.sampled_from([0, len(new), length])) :]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 5)) == 0 else data


@pytest.mark.parametrize("ending", GOOD)
def test_good_files_pass_the_check_that_fuzzing_makes(ending):
    found = read_here("x" + ending, GOOD[ending])
    assert found
    samples.holds(found)


@pytest.mark.parametrize("ending", GOOD)
@settings(deadline=None, max_examples=40)
@given(data=st.binary(max_size=600))
@example(data=b"\xff\xfe\x00")
def test_random_bytes_are_read_or_refused(ending, data):
    start = {".pdf": b"%PDF-1.7\n", ".docx": b"PK\x03\x04", ".epub": b"PK\x03\x04"}.get(ending, b"")
    samples.holds(read_here("x" + ending, data))
    samples.holds(read_here("x" + ending, start + data))


@pytest.mark.parametrize("ending", GOOD)
@settings(deadline=None, max_examples=60)
@given(source=st.data())
def test_changed_files_are_read_or_refused(ending, source):
    samples.holds(read_here("x" + ending, source.draw(mutated(GOOD[ending]))))


@settings(deadline=None, max_examples=60)
@given(source=st.data())
def test_changed_members_are_read_or_refused(source):
    """Past the archive's checksums: what is in it is changed before it is packed."""
    ending = source.draw(st.sampled_from([".docx", ".epub"]))
    with zipfile.ZipFile(io.BytesIO(GOOD[ending])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = source.draw(st.sampled_from(sorted(members)))
    members[name] = source.draw(mutated(members[name]))
    samples.holds(read_here("x" + ending, samples.zipped(members)))
