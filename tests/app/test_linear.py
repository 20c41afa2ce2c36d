"""What is done with a text takes time by its length, whatever is in it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from tokenizers import Regex, pre_tokenizers

from app.documents.cutting import WAYS, cut
from app.documents.document import Found, Part, text_of, tidied
from app.documents.formats.docx import read_docx
from app.documents.formats.markup import read_html
from app.documents.formats.plain import read_markdown, read_plain
from app.serving.evidence import spans
from lampe.inference.prompt import parts_of
from lampe.models.strangers import KNOWN
from lampe.needle import TASKS, Haystack
from lampe.needle.haystacks import _sentences
from tests.app import samples

SMALL = 20_000  # characters; sixteen times as many take sixteen times as long, or 256 where it grows as a square
PIECES = (
    " ", "\n", "\t", "#", "# ", "# x ", "`", "~", "```\n", "a", "a ", ". ", "é", "\f", "\r", "<", "<a", "<p>", "<b>",
    "<!--", "<!-- >", "<![x", "<!x", "<?", "</", "</a", "<a b='", "<a b='>", "&", "&#", "&amp;", "<td>", "<title>t",
    "<pre> ", "<script>", "<script></", "<nav><a href=x>", "<h1>x", "<rt>", "=", '"',
)  # fmt: skip
READERS: dict[str, Callable[[str], object]] = {
    "plain": lambda text: tidied(read_plain(text.encode("utf-8", "replace"))),
    "markdown": lambda text: tidied(read_markdown(text.encode("utf-8", "replace"))),
    "html": lambda text: tidied(read_html(text.encode("utf-8", "replace"))),
    "docx": lambda text: tidied(read_docx(samples.docx(samples.paragraph(text.replace("<", "x").replace("&", "x"))))),
    "parts of a text": lambda text: list(parts_of(text)),
    "sentences": lambda text: list(_sentences(text)),
    "spans": lambda text: spans(list(text)),
    "cut": lambda text: cut(WAYS[1], [Part("x", text + "x")], lambda some: len(some) // 4 + 2, 1000, 1, 1),
    "needles": lambda text: TASKS["multi-value"].draw(random.Random(0), Haystack("x", text + "x").text),
}


def seconds(work: Callable[[str], object], text: str) -> float:
    """The processor's time for a text; what refuses it has read it too."""
    started = time.process_time()
    with suppress(ValueError):  # a sentence for the visitor
        work(text)
    return time.process_time() - started


def grows_by_its_length(work: Callable[[str], object], piece: str, small: int = SMALL) -> bool:
    """Whether sixteen times as much takes much less than a square would; a machine may be busy now and then."""
    few, many = (piece * (size // len(piece)) for size in (small, 16 * small))
    least = max(min(seconds(work, few) for _ in range(3)), 0.002)
    return any(seconds(work, many) < 60 * least for _ in range(3))


@pytest.mark.parametrize("piece", PIECES, ids=repr)
@pytest.mark.parametrize("reader", READERS)
def test_twice_as_long_takes_no_more_than_twice_the_time(reader, piece):
    assert grows_by_its_length(READERS[reader], piece)


@pytest.mark.parametrize(("first", "rest"), [("-->", "<!--x>"), ("--!>", "<!--x>"), (">", "<a b='"), ("<pre>", " \n")])
def test_nor_where_something_else_comes_first(first, rest):
    def work(text: str) -> object:
        return tidied(read_html(("x" * 4 * len(text) + first + text).encode()))

    assert grows_by_its_length(work, rest)


def test_what_is_measured_would_show():
    def square(text: str) -> Found:
        return Found([Part("x", "".join(text[:place] and "x" for place in range(len(text))))], [])

    assert not grows_by_its_length(square, "x")
    assert text_of(square("xy").parts) == "x"


@pytest.mark.parametrize("expression", sorted(KNOWN))
def test_each_known_tokenizers_expression_does_so_too(expression):
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    for piece in (" ", "\n", " \n", "a", "A", "1", "'", "'s", "!", "!a", "汉", "é", "ʰ", "a\u0301", "\r "):
        assert grows_by_its_length(split.pre_tokenize_str, piece, SMALL // 5), piece
