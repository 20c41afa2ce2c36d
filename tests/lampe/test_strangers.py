"""A tokenizer that somebody else has named: what it may bring, and what is refused."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from lampe.models.embedded import LoadError
from lampe.models.load import _tokenizer, load_tokenizer
from lampe.models.strangers import KNOWN, check_tokenizer

UNKNOWN = r"(\s*)*x"
BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def in_turn(name, *steps):
    return {"type": "Sequence", name: list(steps)}


def grows(pattern, content="aa"):
    return {"type": "Replace", "pattern": pattern, "content": content}


def written(**parts):
    return json.dumps({"version": "1.0", "added_tokens": [], "model": BPE, **parts})


def template(times):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [text] * times, "pair": [text], "special_tokens": {}}


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": in_turn("pretokenizers", *map(split, sorted(KNOWN)[:7]), {"type": "ByteLevel"})},
        {"normalizer": in_turn("normalizers", {"type": "Prepend", "prepend": "\u2581"}, SPACE), "decoder": in_turn(
            "decoders", SPACE, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1}
        )},  # Llama 2
        {"normalizer": SPACE, "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"}},
        {"normalizer": in_turn("normalizers", {"type": "NFC"}), "post_processor": template(1)},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first"}},
    ],
)  # fmt: skip
def test_usual_ones_pass(parts):
    check_tokenizer("known", written(**parts))


def test_the_default_passes_as_its_file_and_as_it_was_built(default_folder):
    check_tokenizer("default", (default_folder / "tokenizer.json").read_bytes())
    check_tokenizer("default", AutoTokenizer.from_pretrained(default_folder).backend_tokenizer.to_str())


@pytest.mark.parametrize(
    "parts",
    [
        {"pre_tokenizer": split(UNKNOWN)},
        {"pre_tokenizer": in_turn("pretokenizers", split(r"\p{N}"), split(UNKNOWN))},
        {"pre_tokenizer": in_turn("pretokenizers", in_turn("pretokenizers", split(UNKNOWN)))},
        {"pre_tokenizer": ["Split", {"Regex": UNKNOWN}, "Isolated", False]},
        {"pre_tokenizer": {**split(UNKNOWN), "pattern": {"Regex": UNKNOWN, "String": "a"}}},
        {"pre_tokenizer": in_turn("pretokenizers", *[split(r"\p{N}")] * 1000)},
        {"pre_tokenizer": in_turn("pretokenizers", *[{"type": "ByteLevel"}] * 8)},
        {"normalizer": grows({"Regex": UNKNOWN}, "x")},
        {"decoder": grows({"Regex": UNKNOWN}, "x")},
        {"normalizer": in_turn("normalizers", *[grows({"String": "a"})] * 8)},
        {"normalizer": grows({"Regex": r"\d"})},
        {"normalizer": grows({"String": ""}, "a")},
        {"normalizer": {"pattern": {"String": "a"}, "content": "aaaa"}},
        {"normalizer": {**grows({"String": "a"}), "type": "Foo"}},
        {"normalizer": [{"String": "a"}, "aaaa"]},
        {"normalizer": {"type": "Prepend", "prepend": "x" * 10_000}},
        {"normalizer": in_turn("normalizers", *[{"type": "Prepend", "prepend": "x"}] * 2)},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"post_processor": template(8)},
        {"model": {"type": "WordPiece", "vocab": {"a": 0}, "max_input_chars_per_word": 10**9}},
        {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}},
        {"model": {**BPE, "vocab": {"x" * 2000: 0}}},
        {"model": {**BPE, "unk_token": "x" * 100_000}},
        {"model": {**BPE, "continuing_subword_prefix": "x" * 100_000}},
        {"added_tokens": [{"id": 1, "content": "x" * 2000}]},
    ],
)
def test_what_may_take_for_ever_or_grow_is_refused(parts):
    with pytest.raises(LoadError, match=r"^somebody/model's tokenizer isn't one of the usual kinds"):
        check_tokenizer("somebody/model", written(**parts))


@pytest.mark.parametrize("text", ["", "[1]", "[" * 100_000, "\x00", '{"normalizer": ', "[" * 900 + "{}," * 300_000])
def test_what_cant_be_read_is_a_sentence(text):
    with pytest.raises(LoadError, match="isn't one of the usual kinds"):
        check_tokenizer("somebody/model", text)


def test_another_file_than_the_one_that_was_looked_at_doesnt_pass(default_folder, tmp_path):
    """transformers takes tokenizer.4.0.0.json where tokenizer_config.json names it."""
    tokenizer = AutoTokenizer.from_pretrained(default_folder)
    tokenizer.save_pretrained(tmp_path)
    source = {"pretrained_model_name_or_path": str(tmp_path), "local_files_only": True}
    assert _tokenizer("somebody/model", source, True).is_fast
    hostile = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8")) | {
        "pre_tokenizer": split("(a|b)*c")
    }
    (tmp_path / "tokenizer.4.0.0.json").write_text(json.dumps(hostile), encoding="utf-8")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["fast_tokenizer_files"] = ["tokenizer.4.0.0.json"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(LoadError, match="isn't a known one"):
        _tokenizer("somebody/model", source, True)


def test_one_that_is_no_tokenizer_json_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text('{"<unk>": 0, "a</w>": 1}', encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CTRLTokenizer"}', encoding="utf-8")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    source = {"pretrained_model_name_or_path": str(tmp_path), "local_files_only": True}
    with pytest.raises(LoadError, match=r"has no tokenizer\.json"):
        _tokenizer("somebody/model", source, True)
    assert load_tokenizer(tmp_path) is not None, "one's own may be of any kind"
