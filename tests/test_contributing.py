"""The examples of CONTRIBUTING.md are whole extensions: each is run as it stands there."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from types import ModuleType

import gradio as gr
import numpy as np
import pytest
import torch

import lampe
from app.documents import kinds
from app.documents.reading import read_document
from app.serving.requests import Chosen
from app.serving.start import start
from app.settings import Settings
from app.ui.state import PageState
from lampe.methods import METHODS, registry
from lampe.needle import HAYSTACKS, TASKS, Cell, TokenizedHaystack, prompt_of
from tests.lampe.tiny import FAMILIES, build

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def code_of(section):
    (code,) = re.findall(rf"^## {section}\n.*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return code


@pytest.fixture
def example(request, monkeypatch):
    """The names that a section's code defines."""
    code = code_of(request.param)
    module = ModuleType(f"example_{request.param.replace(' ', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look there
    exec(compile(code, "CONTRIBUTING.md", "exec"), vars(module))
    return module


@pytest.mark.parametrize("example", ["A method"], indirect=True)
def test_a_method_runs_and_is_listed(example):
    assert "halves" in registry([*METHODS.values(), example.Halves])
    method = example.Halves.for_window(64)
    position_map = method.position_map(90)
    distances = np.arange(90)
    positions = position_map.relative(89, 89 - distances)
    assert positions[:32].tolist() == list(range(32)), "exact up to half the window"
    assert (np.diff(positions) >= 0).all()
    assert positions.max() < 64
    model = build(FAMILIES["llama"])
    ids = torch.arange(1, 91)[None]
    with lampe.patch(model, method) as patched, torch.inference_mode():
        mapped = model(ids).logits
        assert patched.position_map == position_map
    with torch.inference_mode():
        assert not torch.allclose(mapped, model(ids).logits, atol=1e-3)


@pytest.mark.parametrize("example", ["A needle"], indirect=True)
def test_a_needle_is_hidden_and_scored(example, monkeypatch, small):
    monkeypatch.setitem(TASKS, "colour", example.Colour())
    service = start(Settings(small["llama"], 16, 6_000))
    prompt = prompt_of(
        TokenizedHaystack(HAYSTACKS["filler"](), service.texts.tokenizer()), Cell("colour", 400, 0.5, "lampe")
    )
    assert len(prompt.ids) == 400
    needles = example.Colour().draw(random.Random(0))
    assert needles.score(f"It is {needles.expected[0]}.") == 1


def test_a_document_format_is_read_in_the_confined_process(monkeypatch, tmp_path):
    (tmp_path / "csv_format.py").write_text(code_of("A document format"), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    table = kinds.Kind("csv", "a table", (".csv",), "csv_format:read_csv")
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, table))
    file = tmp_path / "boats.csv"
    file.write_bytes(b'boat,harbour\n"Heron, a yawl",Skagen\n')
    document = read_document(str(file))
    assert (document.kind, document.text) == ("csv", "boat\tharbour\nHeron, a yawl\tSkagen")


@pytest.mark.parametrize("example", ["A tab"], indirect=True)
def test_a_tab_answers(example, small):
    settings = Settings(small["llama"], 16, 6_000)
    with gr.Blocks():
        tab = example.WindowTab(start(settings), PageState(settings.own))
    assert "4,096 tokens" in tab.tell(Chosen(settings.own))[tab.answer]
    assert "isn" in tab.tell(Chosen(Settings("no/model", 16, 64).own))[tab.answer]


def test_the_files_that_it_names_are_there():
    for path in re.findall(r"`((?:lampe|app|tests)/[\w/]+\.py)`", TEXT):
        assert (ROOT / path).exists(), path
    for line in TEXT.split("## Where things are")[1].split("## ")[0].splitlines():
        if found := re.match(r"    (\w+)/  ", line):
            assert (ROOT / found.group(1)).is_dir()
