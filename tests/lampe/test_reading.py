"""Reading in chunks: the same keys as reading at once, and a Stop that comes soon."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

import lampe
from lampe.inference.prefill import read
from tests.lampe.tiny import FAMILIES, build, tokens


@pytest.fixture
def llama():
    return build(FAMILIES["llama"])


def test_a_prompt_in_chunks_fills_the_cache_as_a_whole_forward_does(llama):
    ids = tokens(50)
    with torch.no_grad():
        whole = llama(ids, use_cache=True).past_key_values
    cache = DynamicCache(config=llama.config)
    assert list(read(llama, cache, ids[:, :30], chunk=20)) == [20, 30]
    assert list(read(llama, cache, ids, start=30, chunk=20)) == [50]
    assert list(read(llama, cache, ids, start=50)) == [], "nothing is left to read"
    for ours, theirs in zip(cache.layers, whole.layers, strict=True):
        torch.testing.assert_close(ours.keys, theirs.keys, atol=1e-5, rtol=1e-4)


def test_a_stop_comes_before_the_next_layer(llama):
    asked = []

    def stop():
        asked.append(True)
        return len(asked) == 5

    cache = DynamicCache(config=llama.config)
    assert list(read(llama, cache, tokens(50), chunk=20, stop=stop)) == [20]
    assert [layer.get_seq_length() for layer in cache.layers] == [40, 20, 20], "three layers, then one, then no more"
    assert not any(module._forward_pre_hooks for module in llama.modules()), "nothing is left on the model"


def test_scores_that_are_no_numbers_are_no_perfect_ones():
    model = build(FAMILIES["llama"])
    reader = lampe.PromptReader(model)
    list(reader.read(tokens(30)[0].tolist()))
    mean, _ = reader.score([5, 6, 7])
    assert mean < 0
    assert reader.score([5, 6, 7])[0] == pytest.approx(mean), "what was scored before is out of the cache"
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(lampe.LampeError, match="aren't numbers"):
        reader.score([5, 6, 7])
