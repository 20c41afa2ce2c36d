"""`lampe perplexity`: each length is asked the same tokens, rows go on, and they open as results."""

from __future__ import annotations

import math
import re

import pytest
import torch

import lampe
from lampe.__main__ import main
from lampe.calibration.comparing import every_trial
from lampe.calibration.measure import text_of
from lampe.needle import Haystack, TokenizedHaystack
from lampe.results import open_results

TIDE = "The tide turns twice a day, and the boats wait for it. Nobody hurries at the quay. "


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, repeats in (("harbour.txt", 60), ("island.txt", 60), ("note.txt", 2)):
        (folder / name).write_text(f"{name}. " + TIDE * repeats, encoding="utf-8")
    return folder


def test_windows_of_a_folder_are_read_once_by_each_method(small, texts, tmp_path, capsys):
    out = tmp_path / "rows.jsonl"
    arguments = ["perplexity", "--model", small["llama"], "--bits", "16", "--text", str(texts), "--out", str(out)]
    arguments += ["--lengths", "100,300", "--windows", "1"]
    assert main([*arguments, "--methods", "rope"]) == 0
    first = out.read_text(encoding="utf-8")
    assert main([*arguments, "--methods", "rope,selfextend"]) == 0
    assert out.read_text(encoding="utf-8").startswith(first), "what was measured isn't measured again"
    rows = [row for row, _ in every_trial(out)]
    assert len(rows) == 8  # two texts, lengths and methods
    told = capsys.readouterr()
    assert re.search(r"note\.txt \w+ has \d+ tokens: it is left out", told.err)
    plain = [row for row in rows if row.method.key == "rope" and row.length == 300]
    perplexity = math.exp(sum(row.loss for row in plain) / len(plain))
    assert f"{perplexity:.4g}" in told.out
    results = open_results(out)
    assert results.measures("Loss of the text") == ["loss", "seconds"]
    assert results.ways == ("Plain RoPE", "SelfExtend")
    assert results.differences("Loss of the text", "loss", "Plain RoPE")["SelfExtend", 300].count == 2


def test_a_loss_is_that_of_a_whole_forward(small, texts, tmp_path):
    out = tmp_path / "rows.jsonl"
    given = ["--text", str(texts / "harbour.txt"), "--lengths", "200", "--windows", "1", "--methods", "rope"]
    assert main(["perplexity", "--model", small["llama"], "--bits", "16", "--out", str(out), *given]) == 0
    ((row, _),) = every_trial(out)
    model, tokenizer = lampe.load(small["llama"], bits=16)
    text = Haystack("harbour", (texts / "harbour.txt").read_text(encoding="utf-8"))
    window = text_of(TokenizedHaystack(text, tokenizer), 200, 0, 0, 0)
    ids = torch.tensor([window.prompts[0].ids])
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    scored = torch.tensor(window.scored)
    assert len(scored) == 100, "of a window shorter than 1,024 tokens the second half"
    loss = torch.nn.functional.cross_entropy(logits[scored - 1], ids[0, scored])
    assert row.loss == pytest.approx(loss.item(), abs=0.02)  # computed in bfloat16 or float32, by the machine


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--lengths", "1"], "at least one length of 2 tokens"),
        (["--windows", "0"], "and one window"),
        (["--lengths", "90000"], "No text is as long"),
    ],
)
def test_what_cant_be_measured_is_a_sentence(small, texts, tmp_path, capsys, more, said):
    given = ["perplexity", "--model", small["llama"], "--bits", "16", "--text", str(texts), *more]
    assert main([*given, "--out", str(tmp_path / "rows.jsonl")]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_texts_is_a_sentence(small, tmp_path, capsys):
    assert main(["perplexity", "--model", small["llama"], "--text", str(tmp_path), "--out", str(tmp_path / "x")]) == 2
    assert "has no .txt file" in capsys.readouterr().err
