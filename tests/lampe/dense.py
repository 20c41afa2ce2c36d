"""A transformers model with an attention of its own: scores from `PositionMap.relative` alone."""

from __future__ import annotations

import copy

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface

from lampe.patching.rotary import rotation
from tests.lampe.tiny import FAMILIES, LEFT_ALONE, build, logits


def configured(family, frequencies):
    """A family's config as transformers wants it for other frequencies; None: its own."""
    config = copy.deepcopy(FAMILIES[family])
    if frequencies:
        changed = {
            "rope_type": frequencies.rope_type,
            "factor": frequencies.factor,
            "original_max_position_embeddings": frequencies.window,
        }
        parameters = config.rope_parameters
        parameters.get("full_attention", parameters).update(changed)
    return config


def dense_logits(family, method, ids):
    """What a family's model gives, attending by a method's map to every pair of one text apart."""
    length, left_alone = ids.shape[1], LEFT_ALONE.get(family, {})
    position_map, frequencies = method.position_map(length), method.frequencies(length)
    i, j = torch.arange(length)[:, None], torch.arange(length)[None]

    def attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **_):
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        q = query.movedim(2, 0)[:, None].expand(-1, length, -1, -1, -1)  # (query, key, batch, heads, head_dim)
        if module.layer_idx not in left_alone:
            scaling = scaling * method.attention_scale
            distances, place = ((position_map.relative(i, j) - (i - j)) * (j <= i)).unique(return_inverse=True)
            turned = torch.stack([rotation(module)(query, *table(d)) for d in distances])
            q = turned[place, :, :, i]
        scores = torch.einsum("ijbhd,bhjd->bhij", q, key) * scaling
        if softcap:
            scores = softcap * (scores / softcap).tanh()
        return ((scores + attention_mask).softmax(-1) @ value).transpose(1, 2), None

    def table(distance):
        further = torch.ones(1, length) * distance
        cos, sin = (rotary.forward(torch.empty(0), positions, *kind) for positions in (further, further * 0))
        factor = sin[0].max()  # yarn's cosine of 0, which rotated queries and keys have already
        return cos[0] / factor, cos[1] / factor

    reference = build(configured(family, frequencies))
    rotary = next(m for n, m in reference.named_modules() if n.endswith("rotary_emb"))
    kind = ("full_attention",) if isinstance(rotary.rope_type, dict) else ()
    if frequencies and frequencies.rope_type == "dynamic":
        rotary.forward(torch.empty(0), torch.tensor([[frequencies.length - 1]]), *kind)  # takes its base from here
    # Otherwise frequencies are to stay those of short texts.
    rotary.rope_type = dict.fromkeys(rotary.rope_type, "default") if kind else "default"
    AttentionInterface.register("dense-reference", attend)
    AttentionMaskInterface.register("dense-reference", transformers.masking_utils.eager_mask)
    try:
        reference.set_attn_implementation("dense-reference")
        return logits(reference, ids)
    finally:
        for registry in (AttentionInterface, AttentionMaskInterface):
            registry._global_mapping.pop("dense-reference")
