from __future__ import annotations

import pytest

from app.checks import AskError
from app.uploads import MAX_BYTES, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_comes_back_as_it_was(tmp_path, encoding):
    file = tmp_path / "notes.MD"
    file.write_bytes("Käse,\r\nnaïve — 東京".encode(encoding))
    assert read_text(str(file)) == "Käse,\nnaïve — 東京"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("paper.pdf", b"%PDF-1.7", "isn't a .txt or .md file"),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\x00\x00", "isn't plain text"),
        ("zeros.txt", b"abc\x00def", "isn't plain text"),
        ("latin.txt", "naïve".encode("latin-1"), "isn't plain text in UTF-8"),
        ("empty.txt", b" \n ", "is empty"),
        ("large.txt", b"a" * (MAX_BYTES + 1), "the limit is 5,000,000"),
    ],
)
def test_what_isnt_a_text_is_refused_in_words(tmp_path, name, data, message):
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(AskError, match=message):
        read_text(str(file))
