"""Which models are refused, and with what reason."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from transformers import (
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    SmolLM3Config,
)
from transformers.models.deepseek_v3 import DeepseekV3Config

import lampe
from tests.lampe.tiny import FAMILIES, SHAPE, build, logits, tokens

CONFIG = lampe.LampeConfig(64, 10, 6, 32)


@pytest.fixture
def llama():
    return build(FAMILIES["llama"])


REFUSED = {
    "no rotary position embedding": GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=97),
    "no rotary position embedding ": BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=97),
    "layers of it see only chunks": Llama4TextConfig(
        **SHAPE, num_local_experts=2, intermediate_size_mlp=64, head_dim=16, attention_chunk_size=32
    ),
    "sliding window of 16": MistralConfig(**SHAPE, sliding_window=16),
    "more than one kind of RoPE": Gemma3TextConfig(**SHAPE, head_dim=16),
    "sliding window of 4096": Gemma2Config(**SHAPE, head_dim=16),
    "don't rotate by position": SmolLM3Config(**SHAPE, no_rope_layers=[1, 1, 0]),
    "frequencies with the input length": LlamaConfig(
        **SHAPE, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    ),
    "multi-head latent attention": DeepseekV3Config(
        **{**SHAPE, "num_key_value_heads": 4}, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=16, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=1,
        moe_intermediate_size=16, first_k_dense_replace=3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_model_that_cant_be_patched_is_refused_with_the_reason(reason):
    model = build(REFUSED[reason])
    ids = tokens(20)
    plain = logits(model, ids)
    with pytest.raises(lampe.UnsupportedModelError, match=reason.strip()) as error:
        lampe.patch(model, CONFIG)
    assert str(error.value).startswith(f"LaMPE can't patch this {type(model).__name__}: ")
    assert torch.equal(logits(model, ids), plain), "and left as it was"


def test_a_model_whose_rotation_is_not_its_own_is_refused(llama, monkeypatch):
    """What an upgrade of transformers could bring: the function beside the class isn't the one in use."""
    import transformers.models.llama.modeling_llama as modelling

    own = modelling.apply_rotary_pos_emb
    inside = type(llama.model.layers[0].self_attn).forward.__globals__
    monkeypatch.setitem(inside, "apply_rotary_pos_emb", lambda q, k, *_: (q, k))
    with pytest.raises(lampe.UnsupportedModelError, match="rotation doesn't reach"):
        lampe.patch(llama, CONFIG)
    # In use: the family's own; beside the class, where the patch looks for it: one that turns the other way.
    monkeypatch.setitem(inside, "apply_rotary_pos_emb", own)
    wrong = types.SimpleNamespace(apply_rotary_pos_emb=lambda q, k, cos, sin: own(q, k, cos, sin.neg()))
    monkeypatch.setitem(sys.modules, modelling.__name__, wrong)
    with pytest.raises(lampe.UnsupportedModelError, match="its own rotation, applied here"):
        lampe.patch(llama, CONFIG)
