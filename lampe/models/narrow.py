"""A narrow copy of a model, with random weights: the same kinds of layers, heads and rotations, in a few megabytes.

It shows what a patch finds in a model of which only the config is at hand.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers

from lampe.models.memory import heads_of

_HEADS, _WIDTH, _EXPERTS, _TOKENS = 2, 64, 4, 256
_MOST = 120_000_000  # weights


def narrow_config(config: Any) -> Any:
    """A config like this one with few heads of the same size, a small vocabulary, and slender layers.

    Parameters
    ----------
    config : transformers config
        It isn't changed.
    """
    small = copy.deepcopy(config)
    text = small.get_text_config()
    heads, given = heads_of(config), vars(text)
    few = min(heads.queries, _HEADS)
    text.num_attention_heads, text.hidden_size = few, few * heads.size
    if "num_key_value_heads" in given:
        text.num_key_value_heads = few if heads.keys == heads.queries else max(1, few // 2)
    for name, value in list(given.items()):
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        if name.endswith("intermediate_size") or name in ("ffn_dim", "n_inner"):
            setattr(text, name, _WIDTH)
        elif name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"):
            setattr(text, name, min(value, _EXPERTS))
        elif name in ("num_experts_per_tok", "moe_topk", "moe_k"):
            setattr(text, name, min(value, 2))
        elif name.endswith("_token_id") and value >= _TOKENS:
            setattr(text, name, 0)
    text.vocab_size = min(text.vocab_size, _TOKENS)
    for one in (small, text):
        one.__dict__.pop("quantization_config", None)
    return small


def narrow_model(config: Any) -> Any:
    """A model of `narrow_config` in float32, with the same random weights at every call.

    Raises
    ------
    ValueError
        If it would still be large: then the family's sizes have names of their own.
    Exception
        Whatever its modelling code raises, where its sizes depend on each other in another way.
    """
    small = narrow_config(config)
    with torch.device("meta"):
        count = sum(weight.numel() for weight in transformers.AutoModelForCausalLM.from_config(small).parameters())
    if count > _MOST:
        raise ValueError(f"it would have {count / 1e6:,.0f} million weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(small, dtype=torch.float32)
    return model.eval()
