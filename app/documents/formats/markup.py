"""HTML, as pages are saved and as an EPUB's chapters are written."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

from app.documents.document import Found
from app.documents.formats.blocks import Block, parts_of
from app.documents.formats.encodings import decoded

_BLOCK_NAMES = (
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav ol p pre section summary table tbody tfoot "
    "thead title tr ul"
)
_UNSEEN_NAMES = (
    "annotation applet audio canvas datalist iframe noframes noscript object rp rt script select style svg template "
    "video"
)
_BLOCKS, _UNSEEN = frozenset(_BLOCK_NAMES.split()), frozenset(_UNSEEN_NAMES.split())
_TIGHT = frozenset(("dd", "dt", "li", "tr"))
_COUNTED = _UNSEEN | {"nav", "pre", "title"}
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACE = re.compile("[ \t\n\r\f]+")
_AROUND_BREAKS = re.compile(" *([\t\n]) *")
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""")


def read_html(data: bytes) -> Found:
    """A page's text: scripts, styles and navigation dropped, its headings as the parts' labels."""
    text, notes = decode_html(data)
    page = Page(text)
    if page.navigation:
        notes.append(f"The page's navigation ({page.navigation:,} characters) was left out.")
    return Found(parts_of(page.blocks, page.title.strip() or "Text"), notes)


def decode_html(data: bytes) -> tuple[str, list[str]]:
    """The source as text, in the encoding that it declares if it isn't UTF-8."""
    declared = _DECLARED.search(data[:2048])
    return decoded(data, declared[1].decode("ascii") if declared else "")


def _last_end(source: str) -> int:
    """Where the last comment ends."""
    return max(source.rfind(end) for end in ("-->", "--!>"))


class Page(HTMLParser):
    """A page's paragraphs.

    Parameters
    ----------
    source : str
        HTML or XHTML, however broken.

    Attributes
    ----------
    blocks : list of Block
    title : str
        What its <title> says.
    navigation : int
        How many characters of navigation were dropped.
    links : list of tuple
        Target, and text in pieces, of each link inside a <nav>: an EPUB's table of contents.
    """

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.navigation = 0
        self.links: list[tuple[str, list[str]]] = []
        self._title: list[str] = []
        self._line: list[str] = []
        self._open = dict.fromkeys(_COUNTED, 0)
        self._tight = self._cells = self._contents = self._link = False
        self._level = 0
        # What is opened and never closed would be looked for to the end of the page, again and again.
        tags = source.rfind(">") + 1
        self._comments = _last_end(source)
        self.feed(source[:tags])
        self._comments = _last_end(self.rawdata)  # what is left of it
        self.close()
        self.handle_data(unescape(source[tags:]))
        self._end_block()
        self.title = "".join(self._title)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS:
            self._end_block()
            self._tight = tag in _TIGHT or (self._tight and tag in ("div", "p"))
            self._cells = False
            if tag != "div":  # which may stand inside a heading
                self._level = _HEADINGS.get(tag, 0)
        if tag in _COUNTED:
            self._open[tag] += 1
        if tag == "nav":
            self._contents = "toc" in (dict(attrs).get("epub:type") or "toc")
        elif tag == "br":
            self._line.append("\n")
        elif tag in ("td", "th"):
            if self._cells:
                self._line.append("\t")
            self._cells = True
        elif tag == "a" and self._open["nav"] and self._contents:
            self._link = True
            self.links.append((dict(attrs).get("href") or "", []))

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._end_block()
            self._tight = False
        if tag in _COUNTED:
            self._open[tag] = max(0, self._open[tag] - 1)
        elif tag == "ruby":  # <rt> and <rp> needn't be closed
            self._open["rt"] = self._open["rp"] = 0
        elif tag == "a":
            self._link = False
        elif tag in _HEADINGS:
            self._level = 0

    def handle_data(self, data: str) -> None:
        if any(self._open[tag] for tag in _UNSEEN):
            return
        if self._open["nav"]:
            self.navigation += len(data.strip())
            if self._link:
                self.links[-1][1].append(data)
        elif self._open["title"]:
            self._title.append(data)
        else:
            data = data.replace("\xad", "")  # where a word may be divided
            self._line.append(data if self._open["pre"] else _SPACE.sub(" ", data))

    def parse_comment(self, i: int, report: bool = True) -> int:
        """Anything in <!-- -->; without an end it is text."""
        return super().parse_comment(i, report) if i < self._comments else -1

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Anything in <![…]>: a comment, as browsers take it; Python 3.11 would fail at unknown ones."""
        return self.parse_bogus_comment(i, report)

    def _end_block(self) -> None:
        text = "".join(self._line)
        self._line = []
        if self._open["pre"]:
            text = text.strip("\r\n").rstrip()
        else:
            text = _AROUND_BREAKS.sub(r"\1", re.sub(" +", " ", text)).strip(" \n").rstrip("\t")
        if text.strip():
            level = 0 if self._open["pre"] else self._level
            self.blocks.append(Block(" ".join(text.split()) if level else text, level, self._tight))
