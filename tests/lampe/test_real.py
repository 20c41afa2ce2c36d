"""The embedded default itself: what LaMPE is for, measured on real prose."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit

import lampe
from lampe.inference.prompt import build_prompt

WINDOW = 8192
SAMPLE = Path(__file__).parents[2] / "app" / "assets" / "samples" / "night-museum.txt"


@pytest.fixture(scope="module")
def loaded(default_folder):
    return lampe.load(bits=4)


def test_the_default_is_what_it_should_be(loaded):
    model, tokenizer = loaded
    config = model.config
    assert (config.model_type, config.max_position_embeddings, config.num_hidden_layers) == ("llama", WINDOW, 30)
    assert config.rope_parameters["rope_theta"] == 100_000
    own = lampe.LampeConfig.for_model(model)
    assert (own, own.basis) == (lampe.PRESETS["smollm2"], "measured")
    assert lampe.LampeConfig.for_model(lampe.load(bits=16)[0]).basis == "family", "it was measured in 4 bits"
    assert all(isinstance(module, Linear4bit) for name, module in model.named_modules() if name.endswith("_proj"))
    assert tokenizer.chat_template


def test_a_number_in_4000_tokens_is_found_in_mapped_positions(loaded):
    """Oracle: a 7-digit number in our own sample text, which is the same on every Python; greedy, m = 2,048.

    What 12,000 tokens come to is in tests/browser; the losses past the window are what `python -m benchmarks.presets`
    measures.
    """
    model, tokenizer = loaded
    paragraphs = SAMPLE.read_text(encoding="utf-8").strip().split("\n\n")
    paragraphs.insert(round(len(paragraphs) * 0.5), "The secret number of the old safe is 4739216.")
    question = "What is the secret number of the old safe?"
    ids = torch.tensor([build_prompt(tokenizer, "\n\n".join(paragraphs), question)])
    assert 3900 < ids.shape[1] < 4100
    with lampe.patch(model, lampe.LampeConfig(8192, 512, 200, 2048)) as patched, torch.inference_mode():
        made = model.generate(ids, max_new_tokens=20, do_sample=False)
        assert patched.position_map.compresses
    assert "4739216" in tokenizer.decode(made[0, ids.shape[1] :])
