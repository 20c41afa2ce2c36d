"""Which models are refused, and with what reason."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BloomConfig,
    Cohere2Config,
    Exaone4Config,
    FalconConfig,
    GPT2Config,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MptConfig,
    SmolLM3Config,
    masking_utils,
)
from transformers.models.deepseek_v3 import DeepseekV3Config

import lampe
from lampe.patching.probe import sliding_window
from tests.lampe.tiny import FAMILIES, SHAPE, build, logits, rope, tokens

CONFIG = lampe.LampeConfig(64, 10, 6, 32)


@pytest.fixture
def llama():
    return build(FAMILIES["llama"])


NO_ROPE = "it has no rotary position embedding"
SLIDING = "a sliding window of 16 tokens"
SMALL = {"vocab_size": 97, "num_hidden_layers": 2, "hidden_size": 32}

REFUSED = {
    "gpt2": (NO_ROPE, GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=97, bos_token_id=1, eos_token_id=2)),
    "bloom": (NO_ROPE, BloomConfig(**SMALL, n_head=2)),
    "mpt": (NO_ROPE, MptConfig(d_model=32, n_layers=2, n_heads=2, vocab_size=97, max_seq_len=64)),
    "mamba": (NO_ROPE, MambaConfig(**SMALL)),
    "falcon": ("doesn't go through transformers' attention interface", FalconConfig(**SMALL, num_attention_heads=2)),
    "llama4": (
        "layers of it see only chunks",
        Llama4TextConfig(**SHAPE, num_local_experts=2, intermediate_size_mlp=64, head_dim=16, attention_chunk_size=32),
    ),
    "mistral-window": (f"each of its layers has {SLIDING}, so none meets", MistralConfig(**SHAPE, sliding_window=16)),
    "cohere2": (
        f"each of its layers has {SLIDING} or no RoPE, so none meets",
        Cohere2Config(
            **SHAPE, sliding_window=16, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
        ),
    ),
    "exaone4-hybrid": (
        f"each of its layers has {SLIDING} or no RoPE, so none meets",
        Exaone4Config(
            **SHAPE,
            sliding_window=16,
            sliding_window_pattern=3,
            layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        ),
    ),
    "smollm3-no-rope": ("each of its layers has no RoPE", SmolLM3Config(**SHAPE, no_rope_layers=[0, 0, 0])),
    "gpt-oss": ("its attention has sinks", GptOssConfig(**SHAPE, head_dim=16, num_local_experts=4, sliding_window=16)),
    "llama-dynamic": (
        "changes its frequencies beyond 32 positions; give a LampeConfig with a window of at most 32, not 64",
        LlamaConfig(**{**SHAPE, "max_position_embeddings": 32}, **rope("dynamic", factor=2.0)),
    ),
    "deepseek": (
        "as with multi-head latent attention",
        DeepseekV3Config(
            **{**SHAPE, "num_key_value_heads": 4}, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8,
            qk_nope_head_dim=8, v_head_dim=16, n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=1,
            moe_intermediate_size=16, first_k_dense_replace=3,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cant_be_patched_is_refused_with_the_reason(name):
    reason, config = REFUSED[name]
    model = build(config)
    ids = tokens(20)
    plain = logits(model, ids)
    with pytest.raises(lampe.UnsupportedModelError, match=reason) as error:
        lampe.patch(model, CONFIG)
    assert str(error.value).startswith(f"LaMPE can't patch this {type(model).__name__}: ")
    assert torch.equal(logits(model, ids), plain), "and left as it was"


def test_a_sliding_window_is_known_by_what_its_mask_lets_through():
    config = LlamaConfig(**SHAPE)
    config.sliding_window = 16
    assert sliding_window(masking_utils.sliding_window_causal_mask_function(16), config) == 16
    for other in (
        masking_utils.sliding_window_causal_mask_function(17),
        masking_utils.chunked_causal_mask_function(16, torch.zeros(1, dtype=torch.long)),
        masking_utils.sliding_window_bidirectional_mask_function(16),
        masking_utils.causal_mask_function,
    ):
        assert sliding_window(other, config) is None


def test_attention_that_does_more_than_the_patch_knows_is_refused(llama):
    """The model's own output, where nothing is mapped, is not what comes out with the patch in."""
    plain = AttentionInterface()["sdpa"]
    AttentionInterface.register("sharper", lambda *args, scaling, **rest: plain(*args, scaling=3 * scaling, **rest))
    AttentionMaskInterface.register("sharper", AttentionMaskInterface()["sdpa"])
    try:
        model = build(LlamaConfig(**SHAPE))
        model.set_attn_implementation("sharper")
        with pytest.raises(lampe.UnsupportedModelError, match="gives something else where nothing is mapped"):
            lampe.patch(model, CONFIG)
    finally:
        for registry in (AttentionInterface, AttentionMaskInterface):
            registry._global_mapping.pop("sharper")


def test_a_model_whose_output_isnt_finite_is_refused(llama):
    with torch.no_grad():
        llama.model.norm.weight[0] = torch.inf
    with pytest.raises(lampe.UnsupportedModelError, match="its own output isn't finite"):
        lampe.patch(llama, CONFIG)


def test_a_layer_that_cant_be_left_alone_is_refused():
    """Something between the decoder and a sliding layer hands on the mapped layers' rotation in a form of its own."""
    model = build(FAMILIES["gemma2"])

    def stacked(module, args, kwargs):
        return args, {**kwargs, "position_embeddings": torch.stack(kwargs["position_embeddings"])}

    model.model.layers[2].self_attn.register_forward_pre_hook(stacked, with_kwargs=True)
    with pytest.raises(lampe.UnsupportedModelError, match="layers 0, 2 should stay unmapped"):
        lampe.patch(model, CONFIG)


def test_a_layer_that_attends_twice_is_refused(llama):
    layer = llama.model.layers[1]
    layer.register_forward_pre_hook(
        lambda module, args, kwargs: layer.self_attn(args[0], **{**kwargs, "past_key_values": None}) and None,
        with_kwargs=True,
    )
    with pytest.raises(lampe.UnsupportedModelError, match="layer 1 attends more than once"):
        lampe.patch(llama, CONFIG)


def test_a_model_whose_rotation_is_not_its_own_is_refused(llama, monkeypatch):
    """What an upgrade of transformers could bring: the function beside the class isn't the one in use."""
    import transformers.models.llama.modeling_llama as modelling

    own = modelling.apply_rotary_pos_emb
    inside = type(llama.model.layers[0].self_attn).forward.__globals__
    monkeypatch.setitem(inside, "apply_rotary_pos_emb", lambda q, k, *_: (q, k))
    with pytest.raises(lampe.UnsupportedModelError, match="each of its layers has no RoPE"):
        lampe.patch(llama, CONFIG)

    def of_its_own(query, key, *_):
        positions = torch.arange(query.shape[2])[None]
        return own(query, key, *llama.model.rotary_emb.forward(query, positions))

    monkeypatch.setitem(inside, "apply_rotary_pos_emb", of_its_own)
    with pytest.raises(lampe.UnsupportedModelError, match="in layers 0, 1, 2 a changed rotation doesn't reach"):
        lampe.patch(llama, CONFIG)
    # In use: the family's own; beside the class, where the patch looks for it: one that turns the other way.
    monkeypatch.setitem(inside, "apply_rotary_pos_emb", own)
    wrong = types.SimpleNamespace(apply_rotary_pos_emb=lambda q, k, cos, sin: own(q, k, cos, sin.neg()))
    monkeypatch.setitem(sys.modules, modelling.__name__, wrong)
    with pytest.raises(lampe.UnsupportedModelError, match="its own rotation, applied here"):
        lampe.patch(llama, CONFIG)
