"""A patched model seen from outside: what it tells, and what it leaves as it was."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    DynamicCache,
    LlamaConfig,
)

import lampe
from tests.lampe.tiny import CONFIG, FAMILIES, LENGTH, SHAPE, build, close, logits, tokens


@pytest.fixture(scope="module")
def llama():
    return build(FAMILIES["llama"])


def test_region_shares_are_the_attention_that_fell_in_each_region(llama):
    ids = tokens(LENGTH)
    with lampe.patch(llama, CONFIG) as patched:
        with pytest.raises(RuntimeError, match="hasn't run"):
            _ = patched.region_shares
        with pytest.raises(RuntimeError, match="hasn't run"):
            _ = patched.position_map
        logits(llama, ids)
        heads = patched.head_shares()
        assert heads.shape == (3, 4, 3)
        close(heads.sum(-1), torch.ones(3, 4))
        close(patched.region_shares, heads.mean(1))
        prefill = patched.region_shares
        cache = DynamicCache()
        patched.plan(LENGTH)
        logits(llama, ids[:, :-1], past_key_values=cache)
        logits(llama, ids[:, -1:], past_key_values=cache)
        close(patched.region_shares, prefill)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_key_weights_are_the_last_querys_attention_to_each_key(family):
    """Oracles: eager attention where nothing is compressed; the shares of the regions; decode against prefill."""
    short, long = tokens(9), tokens(LENGTH)
    llama = build(copy.deepcopy(FAMILIES[family]))
    llama.set_attn_implementation("eager")
    expected = torch.stack(llama(short, output_attentions=True).attentions)[:, 0, :, -1]
    with lampe.patch(llama, CONFIG) as patched:
        expected = expected[[layer.mapped for layer in patched.layers]]
        logits(llama, short)
        with pytest.raises(RuntimeError, match="weren't kept"):
            patched.key_weights()
        patched.keep_weights = True
        logits(llama, short)
        close(patched.key_weights(), expected)
        logits(llama, long)
        weights, shares = patched.key_weights(), patched.head_shares()
        assert weights.shape == (len(expected), 4, LENGTH)
        first = 0
        for number, count in reversed(list(enumerate(patched.position_map.key_counts(LENGTH - 1)))):
            close(weights[:, :, first : first + count].sum(-1), shares[:, :, number])
            first += count
        cache = DynamicCache()
        patched.plan(LENGTH)
        logits(llama, long[:, :-1], past_key_values=cache)
        logits(llama, long[:, -1:], past_key_values=cache)
        close(patched.key_weights(), weights)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_attention_scale_is_a_factor_on_the_scores_of_mapped_layers(family):
    model, ids = build(FAMILIES[family]), tokens(30)
    with lampe.patch(model, lampe.LampeConfig(64, 10, 6, 64, attention_scale=1.3)) as patched:
        scaled = logits(model, ids)
    for layer in patched.layers:
        model.model.layers[layer.index].self_attn.scaling *= 1.3 if layer.mapped else 1
    close(scaled, logits(model, ids))


def test_two_models_from_one_config_keep_their_own_settings():
    config = LlamaConfig(**SHAPE)
    a, b, c = build(config), build(config), build(config)
    ids = tokens(LENGTH)
    plain = logits(c, ids)
    names = set(AttentionInterface._global_mapping)
    with lampe.patch(a, CONFIG) as pa:
        alone = logits(a, ids)
        with lampe.patch(b, lampe.LampeConfig(64, 4, 4, 50)) as pb:
            other = logits(b, ids)
            assert torch.equal(logits(a, ids), alone)
            assert torch.equal(logits(c, ids), plain)
            assert (pa.position_map.mapping_length, pb.position_map.mapping_length) == (32, 50)
            assert not torch.equal(other, alone)
        assert torch.equal(logits(b, ids), plain)
        assert torch.equal(logits(a, ids), alone)
    assert torch.equal(logits(a, ids), plain)
    assert set(AttentionInterface._global_mapping) == names
    assert not [name for name in AttentionMaskInterface._global_mapping if "lampe" in name]
    assert config._attn_implementation == a.config._attn_implementation == "sdpa"


def test_an_exception_in_a_forward_leaves_nothing_behind(llama):
    ids = tokens(60)
    plain = logits(llama, ids)

    def fail(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), lampe.patch(llama, CONFIG):  # noqa: PT012
        handle = llama.model.layers[1].register_forward_pre_hook(fail)
        try:
            logits(llama, ids)
        finally:
            handle.remove()
    assert torch.equal(logits(llama, ids), plain)
    with lampe.patch(llama, CONFIG) as patched:
        handle = llama.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(ZeroDivisionError):
            logits(llama, ids)
        handle.remove()
        logits(llama, ids)
        assert patched.region_shares.shape == (3, 3)


def test_padding_holds_after_an_exception(llama):
    """With a static cache, generate() asks for the mask before the forward."""
    ids = torch.cat([tokens(60), torch.nn.functional.pad(tokens(50, seed=2), (10, 0))])
    kwargs = {"attention_mask": (ids != 0).long(), "max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    with lampe.patch(llama, CONFIG):
        expected = llama.generate(ids, **kwargs)
        with pytest.raises(ValueError, match="holes"):
            logits(llama, ids, attention_mask=torch.tensor([1, 0, 1] * 20).repeat(2, 1))
        got = llama.generate(ids, cache_implementation="static", disable_compile=True, **kwargs)
    assert torch.equal(got, expected)


def test_a_patched_model_that_nobody_holds_is_freed():
    model = build(FAMILIES["llama"])
    seen = weakref.ref(model)
    lampe.patch(model, CONFIG)
    del model
    gc.collect()
    assert seen() is None
    assert not [name for name in AttentionInterface._global_mapping if name.startswith("lampe-")]


@pytest.mark.parametrize("trained", ["q_proj", "k_proj", "v_proj", ""])
def test_gradients_are_an_error_not_a_wrong_number(trained):
    model = build(FAMILIES["llama"])
    for name, weight in model.named_parameters():
        weight.requires_grad = trained in name or "lm_head" in name
    with lampe.patch(model, CONFIG):
        loss = model(tokens(40), labels=tokens(40)).loss
        with pytest.raises(RuntimeError, match="inference"):
            loss.backward()


def test_patching_leaves_each_modules_mode_alone():
    model = build(FAMILIES["llama"]).train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    with lampe.patch(model, CONFIG):
        assert [module.training for module in model.modules()] == modes


def test_wrong_calls_are_refused_in_words(llama):
    ids = tokens(40)
    with lampe.patch(llama, CONFIG) as patched:
        with pytest.raises(ValueError, match="patched already"):
            lampe.patch(llama, CONFIG)
        with pytest.raises(ValueError, match="holes"):
            logits(llama, ids, attention_mask=torch.tensor([[1] * 10 + [0] * 5 + [1] * 25]))
        with pytest.raises(ValueError, match="two-dimensional"):
            logits(llama, ids, attention_mask=torch.zeros(1, 1, 40, 40))
        with pytest.raises(ValueError, match="packed"):
            logits(llama, ids, position_ids=torch.cat([torch.arange(20), torch.arange(20)])[None])
        with pytest.raises(ValueError, match="packed"):
            logits(llama, ids, position_ids=torch.cat([torch.arange(20), torch.arange(20)])[None], use_cache=False)
        cache = DynamicCache()
        logits(llama, ids, past_key_values=cache)
        for skipped in ([[55]], [[55, 56, 57]]):
            positions, mine = torch.tensor(skipped), copy.deepcopy(cache)
            with pytest.raises(ValueError, match="skipped"):
                logits(llama, positions, position_ids=positions, past_key_values=mine)
        with pytest.raises(ValueError, match="at least 1 token"):
            patched.plan(0)
        logits(llama, ids)
        llama.set_attn_implementation("eager")
        with pytest.raises(RuntimeError, match="was changed"):
            logits(llama, ids)
    assert llama.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_no_tensor_is_as_large_as_queries_times_keys(family, monkeypatch):
    """At any length: prefill and decode are watched, tensor by tensor."""
    llama = build(FAMILIES[family])
    monkeypatch.setattr("lampe.attention.kernels._SCORES", 2**17)

    class Largest(TorchDispatchMode):
        numbers = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else (out,):
                if isinstance(tensor, torch.Tensor):
                    self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
            return out

    def reads(length):
        cache = DynamicCache(config=llama.config)
        llama(tokens(length), past_key_values=cache, logits_to_keep=1)
        llama(tokens(1), past_key_values=cache, logits_to_keep=1)

    length = 3000
    with lampe.patch(llama, lampe.LampeConfig(64, 10, 6, 32)), torch.no_grad():
        # One query's layout is timed once for each shape, over keys made for it: before the watch.
        reads(length)
        with Largest() as largest:
            reads(length)
    widest = max(SHAPE["intermediate_size"], SHAPE["hidden_size"]) * 2
    assert 0 < largest.numbers <= length * widest < length * length / 10


def test_a_copy_of_a_patched_model_says_what_it_is(llama):
    """Its hooks are the original's: what it read would be told of the other one."""
    with lampe.patch(llama, CONFIG):
        copied = copy.deepcopy(llama)
        with pytest.raises(RuntimeError, match="copy of a patched one"):
            logits(copied, tokens(20))
        logits(llama, tokens(20))
