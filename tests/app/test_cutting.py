"""A document cut to a number of tokens: within the limit, near it, in order, and nothing lost from sight."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.documents.cutting import MARK, WAYS, Cut, cut
from app.documents.document import Part, text_of
from lampe.errors import InputError

QUESTION = 7  # tokens that are there without any text


def tokens_of(text: str) -> int:
    """A tokenizer's way: words in pieces of four letters with the space before them, everything else by itself."""
    return QUESTION + len(re.findall(r" ?\w{1,4}|\s+|.", text))


def pages(count: int, words: int) -> list[Part]:
    return [
        Part(f"Page {page}", " ".join(f"w{page}x{word}" for word in range(words)) + "\n\n")
        for page in range(1, count + 1)
    ]


def check(made: Cut, parts: list[Part], limit: int) -> None:
    """What holds of every made."""
    text = text_of(parts)
    assert made.tokens == tokens_of(made.text) <= limit
    runs = sorted([*made.kept, *made.left_out], key=lambda run: run.start)
    assert [run.start for run in runs] == [0, *(run.end for run in runs[:-1])], "no gap, no overlap"
    assert runs[-1].end == len(text)
    assert list(made.kept) == sorted(made.kept, key=lambda run: run.start)
    assert made.text == MARK.join(text[run.start : run.end].strip() for run in made.kept)
    missing = sum(run.end - run.start for run in made.left_out)
    seen = any(text[run.start : run.end].strip() for run in made.left_out)
    assert made.sentence.startswith(f"Left out: {missing:,} of {len(text):,} characters" if seen else "Nothing")


def whole_words(made: Cut, parts: list[Part]) -> bool:
    text = text_of(parts)
    edges = {edge for run in made.kept for edge in (run.start, run.end)} - {0, len(text)}
    return all(text[edge - 1].isspace() or text[edge].isspace() for edge in edges)


words = st.text(st.sampled_from("abcdefgh.,é東"), min_size=1, max_size=12)
texts = st.lists(st.lists(words, max_size=60).map(" ".join), min_size=1, max_size=6).filter(
    lambda some: any(text.strip() for text in some)
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(WAYS), texts, st.integers(QUESTION, 400), st.data())
def test_no_cut_is_over_the_limit_or_hides_anything(way, some, limit, data):
    parts = [Part(f"Chapter {number}", text + "\n\n") for number, text in enumerate(some)]
    first = data.draw(st.integers(1, len(parts)))
    last = data.draw(st.integers(first, len(parts)))
    try:
        check(cut(way, parts, tokens_of, limit, first, last), parts, limit)
    except InputError:  # only where nothing is in the range, or not even a word fits
        assert not text_of(parts[first - 1 : last]).strip() or limit - QUESTION < 20


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(WAYS), st.integers(1, 30), st.integers(1, 200), st.integers(50, 3000))
def test_cuts_come_near_the_limit_at_word_borders(way, count, each, limit):
    parts = pages(count, each)
    made = cut(way, parts, tokens_of, limit)
    assert whole_words(made, parts)
    assert (made.kept[0].start, len(made.kept)) == (0, 2 if way == "both ends" and made.left_out else 1)
    if tokens_of(text_of(parts).strip()) <= limit:
        assert (made.left_out, made.text) == ((), text_of(parts).strip())
    else:
        assert made.tokens > limit - 12


def test_beginning_and_end_are_kept_in_equal_shares():
    parts = pages(20, 100)
    made = cut("both ends", parts, tokens_of, 1000)
    (head, tail), length = made.kept, len(text_of(parts))
    assert (head.start, tail.end) == (0, length)
    assert head.end == pytest.approx(length - tail.start, rel=0.02)
    assert made.text.startswith("w1x0 w1x1")
    assert made.text.endswith("w20x99")
    assert made.text.count(MARK) == 1


PAGES = pages(9, 100)
HALF = tokens_of(text_of(PAGES)) // 2
ALONE = [Part("Text", text_of(PAGES))]
NAMED = [Part("A tale", "one two three\n\n"), Part("", ""), Part("The end", "four five six")]


@pytest.mark.parametrize(
    ("way", "parts", "limit", "which", "sentence"),
    [
        ("beginning", PAGES, 10**6, (), "Nothing was left out."),
        ("beginning", PAGES, HALF, (), "the end of Page 5, Page 6 to Page 9."),
        ("both ends", PAGES, HALF, (), "the end of Page 3, Page 4 to Page 6, the beginning of Page 7."),
        ("parts", PAGES, 10**6, (2, 7), "Page 1, Page 8, Page 9."),
        ("parts", PAGES, 100, (5, 5), "Page 1 to Page 4, the end of Page 5, Page 6 to Page 9."),
        ("beginning", ALONE, 100, (), "the end of the text."),
        ("both ends", ALONE, 100, (), "something inside the text."),
        ("beginning", NAMED, QUESTION + 5, (), "“The end”."),
    ],
)
def test_the_sentence_names_what_is_left_out(way, parts, limit, which, sentence):
    said = cut(way, parts, tokens_of, limit, *which).sentence
    assert said.rpartition("characters: ")[2] == sentence


def test_a_range_is_kept_whole_where_it_fits():
    assert cut("parts", PAGES, tokens_of, 10**6, 2, 7).text == text_of(PAGES[1:7]).strip()


def test_text_without_spaces_is_cut_anywhere():
    for text in ("x" * 10_000, "東京は日本の首都である。" * 1000):
        parts = [Part("Text", text)]
        for way in ("beginning", "both ends"):
            made = cut(way, parts, tokens_of, 300)
            check(made, parts, 300)
            assert made.tokens > 290


def test_a_word_is_kept_whole_or_not_at_all():
    parts = [Part("Text", "Counterrevolutionaries came.")]
    with pytest.raises(InputError, match=r"no room for any text: the limit is 9 tokens"):
        cut("beginning", parts, tokens_of, QUESTION + 2)
    assert cut("beginning", parts, tokens_of, QUESTION + 6).text == "Counterrevolutionaries"


@pytest.mark.parametrize("way", ["beginning", "both ends"])
def test_a_long_document_is_counted_a_few_times_and_never_whole(way):
    parts, counted = pages(2000, 300), []

    def count(text: str) -> int:
        counted.append(len(text))
        return tokens_of(text)

    assert cut(way, parts, count, 8000).tokens > 7900
    assert len(counted) <= 8
    assert sum(counted) < len(text_of(parts)) / 2


@pytest.mark.parametrize(
    ("way", "limit", "which", "message"),
    [
        ("parts", 100, (0, 1), "the numbers go from 1 to 3"),
        ("parts", 100, (2, 1), "the first mustn't be after the last"),
        ("parts", 100, (1, 4), "There is no range from 1 to 4"),
        ("parts", 100, (3, 3), "no text in this range"),
        ("beginning", QUESTION, (), "the question alone takes 7 of 7 tokens"),
        ("middle", 100, (), "must be one of beginning, both ends, parts, not 'middle'"),
    ],
)
def test_what_cant_be_kept_is_refused(way, limit, which, message):
    with pytest.raises(InputError, match=message):
        cut(way, [*pages(2, 5), Part("Page 3", "")], tokens_of, limit, *which)
