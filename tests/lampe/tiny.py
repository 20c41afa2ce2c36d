"""Tiny random models of each family, built from configs: no download, exact in float32."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    Glm4Config,
    GlmConfig,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    NemotronConfig,
    Olmo2Config,
    Olmo3Config,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    StableLmConfig,
    Starcoder2Config,
)

from lampe.methods import LampeConfig

CONFIG = LampeConfig(64, 10, 6, 32)
"""Maps what tiny models read: their window is 64 tokens."""

LENGTH = 120

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def rope(rope_type, **settings):
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **settings}}


def mixed(rope_type, **settings):
    """Two layers that slide, each type with a RoPE of its own."""
    return {
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": rope("default")["rope_parameters"],
            "full_attention": {**rope(rope_type, **settings)["rope_parameters"], "rope_theta": 100000.0},
        },
    }


def longrope():
    # Tiny RoPE has 8 frequencies; texts of the tests are longer than 64 tokens.
    factors = {"short_factor": [1.0 + 0.1 * n for n in range(8)], "long_factor": [4.0] * 8}
    return {**rope("longrope", **factors), "original_max_position_embeddings": 64}


FAMILIES = {
    "llama": LlamaConfig(**SHAPE),
    "llama-llama3": LlamaConfig(
        **SHAPE,
        **rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
    ),
    "llama-linear": LlamaConfig(**SHAPE, **rope("linear", factor=2.0)),
    "llama-dynamic": LlamaConfig(**SHAPE, **rope("dynamic", factor=2.0)),
    "llama-yarn": LlamaConfig(**SHAPE, **rope("yarn", factor=4.0, original_max_position_embeddings=64)),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "mistral-wide-window": MistralConfig(**SHAPE, sliding_window=200),
    "mixtral": MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen2-windows": Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=16, max_window_layers=1),
    "qwen2-moe": Qwen2MoeConfig(**SHAPE, **EXPERTS, shared_expert_intermediate_size=32),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "qwen3-moe": Qwen3MoeConfig(**SHAPE, **EXPERTS, head_dim=16),
    "phi": PhiConfig(**SHAPE),
    "phi3": Phi3Config(**SHAPE, sliding_window=None),
    "phi3-longrope": Phi3Config(**{**SHAPE, "max_position_embeddings": 256}, **longrope()),
    "gemma": GemmaConfig(**SHAPE, head_dim=16),
    "gemma2": Gemma2Config(
        **SHAPE, head_dim=16, query_pre_attn_scalar=16, sliding_window=16, attn_logit_softcapping=3.0
    ),
    "gemma3": Gemma3TextConfig(**SHAPE, head_dim=16, query_pre_attn_scalar=16, **mixed("linear", factor=8.0)),
    "gemma3-dynamic": Gemma3TextConfig(**SHAPE, head_dim=16, query_pre_attn_scalar=16, **mixed("dynamic", factor=8.0)),
    "smollm3": SmolLM3Config(**SHAPE, no_rope_layers=[1, 0, 1]),
    "smollm3-windows": SmolLM3Config(
        **SHAPE,
        no_rope_layers=[1, 0, 1],
        use_sliding_window=True,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
    ),
    "stablelm": StableLmConfig(**SHAPE),
    "glm": GlmConfig(**SHAPE, head_dim=16),
    "glm4": Glm4Config(**SHAPE, head_dim=16),
    "cohere": CohereConfig(**SHAPE),
    "nemotron": NemotronConfig(**SHAPE),
    "olmo2": Olmo2Config(**SHAPE),
    "olmo3": Olmo3Config(**SHAPE, **mixed("yarn", factor=4.0, original_max_position_embeddings=64)),
    "granite": GraniteConfig(**SHAPE),
    "starcoder2": Starcoder2Config(**SHAPE, sliding_window=None),
    "gpt-neox": GPTNeoXConfig(**SHAPE),
}

_WINDOW, _NO_ROPE = "sliding window of 16 tokens", "no RoPE"
LEFT_ALONE = {
    "qwen2-windows": {1: _WINDOW, 2: _WINDOW},
    "gemma2": {0: _WINDOW, 2: _WINDOW},
    "gemma3": {0: _WINDOW, 2: _WINDOW},
    "gemma3-dynamic": {0: _WINDOW, 2: _WINDOW},
    "olmo3": {0: _WINDOW, 2: _WINDOW},
    "smollm3": {1: _NO_ROPE},
    "smollm3-windows": {0: _WINDOW, 1: _NO_ROPE},
}
"""The layers that aren't mapped, and why."""


def build(config, dtype=torch.float32):
    """The same weights at every call, large enough that attention is far from uniform."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv_proj", "query_key_value")):
                weight.mul_(12)
    return model


def tokens(length, rows=1, seed=1):
    return torch.randint(3, 97, (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model, ids, **kwargs):
    return model(ids, **kwargs).logits


def close(got, expected, atol=2e-5):
    torch.testing.assert_close(got, expected, atol=atol, rtol=1e-5)
