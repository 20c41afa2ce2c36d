"""How fast a model is on a machine."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from lampe.inference import prefill
from lampe.inference.prefill import CHUNK, chunk_for
from lampe.inference.speed import Speed, measure
from tests.lampe.tiny import FAMILIES, build


def test_parts_add_up_and_far_tokens_cost_more():
    speed = Speed(0.001, 1e-6, 0.05)
    assert speed.reading(0, 500) + speed.reading(500, 2000) == pytest.approx(speed.reading(0, 2000))
    assert speed.reading(0, 3) == pytest.approx(3 * 0.001 + 1e-6 * 4.5)
    assert speed.reading(9000, 10_000) > speed.reading(0, 1000)


def test_what_is_measured_explains_the_chunks_it_was_measured_on(monkeypatch):
    """A clock that ticks once for each pair of tokens, and ten times for each token."""
    model, now = build(FAMILIES["llama"]), [0.0]
    own = model.forward

    def forward(ids, past_key_values, **rest):
        before = past_key_values.get_seq_length()
        count = ids.shape[1]
        now[0] += 10 * count + count * before + count**2 / 2
        return own(ids, past_key_values=past_key_values, **rest)

    monkeypatch.setattr(model, "forward", forward)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    found = measure(model, far=4)
    assert found.pair == pytest.approx(1)
    assert found.token == pytest.approx(10)
    assert found.answer == pytest.approx(10 + 5 * CHUNK, rel=0.01)


@pytest.mark.parametrize(
    ("width", "chunk"), [(1536, 4096), (8192, 4096), (14_336, 2048), (28_672, 1024), (200_000, CHUNK)]
)
def test_a_gpu_reads_fewer_tokens_at_once_of_a_wider_model(width, chunk, monkeypatch):
    """2,048 of Llama-3-8B's, as was measured there."""
    model = SimpleNamespace(config=LlamaConfig(intermediate_size=width))
    monkeypatch.setattr(prefill, "input_device", lambda model: torch.device("cuda"))
    assert chunk_for(model) == chunk
    monkeypatch.setattr(prefill, "input_device", lambda model: torch.device("cpu"))
    assert chunk_for(model) == CHUNK
