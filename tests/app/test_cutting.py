"""A document cut to a number of tokens: within the limit, near it, in order, and nothing lost from sight."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.documents.cutting import MARK, Cut, cut_end, cut_middle, cut_to_parts
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


def check(cut: Cut, parts: list[Part], limit: int) -> None:
    """What holds of every cut."""
    text = text_of(parts)
    assert cut.tokens == tokens_of(cut.text) <= limit
    runs = sorted([*cut.kept, *cut.left_out], key=lambda run: run.start)
    assert [run.start for run in runs] == [0, *(run.end for run in runs[:-1])], "no gap, no overlap"
    assert runs[-1].end == len(text)
    assert list(cut.kept) == sorted(cut.kept, key=lambda run: run.start)
    assert cut.text == MARK.join(text[run.start : run.end].strip() for run in cut.kept)
    missing = sum(run.end - run.start for run in cut.left_out)
    seen = any(text[run.start : run.end].strip() for run in cut.left_out)
    assert cut.sentence.startswith(f"Left out: {missing:,} of {len(text):,} characters" if seen else "Nothing")


def whole_words(cut: Cut, parts: list[Part]) -> bool:
    text = text_of(parts)
    edges = {edge for run in cut.kept for edge in (run.start, run.end)} - {0, len(text)}
    return all(text[edge - 1].isspace() or text[edge].isspace() for edge in edges)


words = st.text(st.sampled_from("abcdefgh.,é東"), min_size=1, max_size=12)
texts = st.lists(st.lists(words, max_size=60).map(" ".join), min_size=1, max_size=6).filter(
    lambda some: any(text.strip() for text in some)
)


@settings(deadline=None, max_examples=200)
@given(texts, st.integers(QUESTION, 400), st.floats(0, 1), st.data())
def test_no_cut_is_over_the_limit_or_hides_anything(some, limit, share, data):
    parts = [Part(f"Chapter {number}", text + "\n\n") for number, text in enumerate(some)]
    first = data.draw(st.integers(1, len(parts)))
    last = data.draw(st.integers(first, len(parts)))
    for make in (
        lambda: cut_end(parts, tokens_of, limit),
        lambda: cut_middle(parts, tokens_of, limit, share),
        lambda: cut_to_parts(parts, first, last, tokens_of, limit),
    ):
        try:
            check(make(), parts, limit)
        except InputError:  # only where nothing is in the range, or not even a word fits
            if text_of(parts[first - 1 : last]).strip() and limit - QUESTION >= 20:
                raise


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 30), st.integers(1, 200), st.integers(50, 3000), st.floats(0.1, 0.9))
def test_cuts_come_near_the_limit_at_word_borders(count, each, limit, share):
    parts = pages(count, each)
    whole = tokens_of(text_of(parts).strip())
    for cut in (cut_end(parts, tokens_of, limit), cut_middle(parts, tokens_of, limit, share)):
        assert whole_words(cut, parts)
        if whole <= limit:
            assert cut.left_out == ()
            assert cut.text == text_of(parts).strip()
        else:
            assert cut.tokens > limit - 12
    assume(whole > limit)
    assert cut_end(parts, tokens_of, limit).kept[0].start == 0
    assert len(cut_end(parts, tokens_of, limit).kept) == 1


def test_beginning_and_end_are_kept_in_their_shares():
    parts = pages(20, 100)
    cut = cut_middle(parts, tokens_of, 1000, 0.25)
    (head, tail), length = cut.kept, len(text_of(parts))
    assert (head.start, tail.end) == (0, length)
    assert head.end / (head.end + length - tail.start) == pytest.approx(0.25, abs=0.01)
    assert cut.text.startswith("w1x0 w1x1")
    assert cut.text.endswith("w20x99")
    assert cut.text.count(MARK) == 1


def test_the_sentence_names_what_is_left_out():
    parts = pages(9, 100)
    text = text_of(parts)
    assert cut_end(parts, tokens_of, 10**6).sentence == "Nothing was left out."
    cut = cut_end(parts, tokens_of, tokens_of(text) // 2)
    assert cut.sentence.endswith("characters: the end of Page 5, Page 6 to Page 9.")
    cut = cut_middle(parts, tokens_of, tokens_of(text) // 2)
    assert cut.sentence.endswith("characters: the end of Page 3, Page 4 to Page 6, the beginning of Page 7.")
    cut = cut_to_parts(parts, 2, 7, tokens_of, 10**6)
    assert cut.sentence.endswith("characters: Page 1, Page 8, Page 9.")
    assert cut.text == text_of(parts[1:7]).strip()
    cut = cut_to_parts(parts, 5, 5, tokens_of, 100)
    assert cut.sentence.endswith("characters: Page 1 to Page 4, the end of Page 5, Page 6 to Page 9.")
    assert cut.text.startswith("w5x0 ")
    alone = [Part("Text", text)]
    assert cut_end(alone, tokens_of, 100).sentence.endswith("characters: the end of the text.")
    assert cut_middle(alone, tokens_of, 100).sentence.endswith("characters: something inside the text.")
    named = [Part("A tale", "one two three\n\n"), Part("", ""), Part("The end", "four five six")]
    assert cut_end(named, tokens_of, QUESTION + 5).sentence.endswith(": “The end”.")


def test_text_without_spaces_is_cut_anywhere():
    for text in ("x" * 10_000, "東京は日本の首都である。" * 1000):
        parts = [Part("Text", text)]
        for cut in (cut_end(parts, tokens_of, 300), cut_middle(parts, tokens_of, 300)):
            check(cut, parts, 300)
            assert cut.tokens > 290


def test_a_word_is_kept_whole_or_not_at_all():
    parts = [Part("Text", "Counterrevolutionaries came.")]
    with pytest.raises(InputError, match=r"no room for any text: the limit is 9 tokens"):
        cut_end(parts, tokens_of, QUESTION + 2)
    assert cut_end(parts, tokens_of, QUESTION + 6).text == "Counterrevolutionaries"


def test_a_long_document_is_counted_a_few_times_and_never_whole():
    parts, counted = pages(2000, 300), []

    def count(text: str) -> int:
        counted.append(len(text))
        return tokens_of(text)

    for cut in (cut_end, cut_middle):
        counted.clear()
        assert cut(parts, count, 8000).tokens > 7900
        assert len(counted) <= 8
        assert sum(counted) < len(text_of(parts)) / 2


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 4), (4, 4)])
def test_a_range_that_isnt_there_is_refused(first, last):
    with pytest.raises(InputError, match="the numbers go from 1 to 3"):
        cut_to_parts(pages(3, 5), first, last, tokens_of, 100)


def test_no_room_is_told():
    with pytest.raises(InputError, match="the question alone takes 7 of 7 tokens"):
        cut_end(pages(3, 5), tokens_of, QUESTION)
    with pytest.raises(InputError, match="no text in this range"):
        cut_to_parts([*pages(1, 5), Part("Page 2", "")], 2, 2, tokens_of, 100)
