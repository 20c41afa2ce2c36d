"""A tokenizer that somebody else has named: what it may bring, and what is refused."""

from __future__ import annotations

import json

import pytest

from lampe.models.embedded import LoadError
from lampe.models.strangers import KNOWN, check_tokenizer

UNKNOWN = r"(\s*)*x"


def written(tmp_path, **parts):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": {"type": "BPE"}, **parts}), encoding="utf-8")
    return path


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def test_the_defaults_and_known_ones_pass(default_folder, tmp_path):
    check_tokenizer("default", default_folder / "tokenizer.json")
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    known = {"type": "Sequence", "pretokenizers": [split(one) for one in sorted(KNOWN)]}
    check_tokenizer("known", written(tmp_path, normalizer=replaced, pre_tokenizer=known, decoder=None))


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": split(UNKNOWN)},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(r"\p{N}"), split(UNKNOWN)]}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": UNKNOWN}, "content": "x"}},
        {"decoder": {"type": "Replace", "pattern": {"Regex": UNKNOWN}, "content": "x"}},
    ],
)
def test_an_expression_that_isnt_known_is_refused(tmp_path, parts):
    with pytest.raises(LoadError, match="by an expression that isn't known here"):
        check_tokenizer("somebody/model", written(tmp_path, **parts))


@pytest.mark.parametrize("pattern", [{"String": "a"}, {"Regex": r"\d"}])
def test_a_text_isnt_made_longer(tmp_path, pattern):
    grows = {"type": "Replace", "pattern": pattern, "content": "aa"}
    path = written(tmp_path, normalizer={"type": "Sequence", "normalizers": [grows] * 30})
    with pytest.raises(LoadError, match="makes a text longer"):
        check_tokenizer("somebody/model", path)


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000, "\x00", '{"normalizer": '])
def test_what_cant_be_read_is_a_sentence(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LoadError, match=r"^somebody/model's tokenizer.json can't be read"):
        check_tokenizer("somebody/model", path)
