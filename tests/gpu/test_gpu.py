"""What only a GPU can show: CUDA's own kernels against the dense reference, whole models, launches, waits, memory."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache, LlamaConfig

import lampe
from lampe.attention import backends, selfcheck
from lampe.attention.backends import Backend, candidates
from lampe.attention.kernels import kernel
from lampe.attention.selfcheck import checked
from lampe.methods import METHODS
from lampe.models.device import compute_dtype, default_place
from lampe.models.memory import free_bytes
from tests.lampe.dense import dense_logits
from tests.lampe.test_backends import (
    ALLOWED,
    BF16,
    F16,
    F32,
    PAIRS,
    against_the_reference,
    tokens_against_the_reference,
)
from tests.lampe.test_engine import DIM, TOKENS
from tests.lampe.test_methods import SLOWED, quietly, small
from tests.lampe.test_with_others import MODES
from tests.lampe.tiny import CONFIG, FAMILIES, LENGTH, build, logits, tokens

GPU = "cuda"


@pytest.fixture
def afresh(monkeypatch):
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(selfcheck, "_found", {})


def close(got, expected, atol=2e-3):
    """In float32; a GPU adds in another order."""
    torch.testing.assert_close(got.cpu(), expected.cpu(), atol=atol, rtol=1e-3)


def test_models_run_here_by_default():
    assert default_place().device.type == GPU
    assert compute_dtype(torch.device(GPU)) in (BF16, F16)
    assert free_bytes() > 1e9


# The operator


@pytest.mark.parametrize(("backend", "dtype"), PAIRS)
@pytest.mark.parametrize("method", TOKENS)
@pytest.mark.parametrize(("first", "stop"), [(0, 130), (0, 7), (50, 130), (119, 125), (129, 130)])
def test_each_backend_and_method_gives_what_the_reference_gives(afresh, backend, dtype, method, first, stop):
    against_the_reference(backend, dtype, TOKENS[method], first, stop, GPU, rows=2)


@pytest.mark.parametrize(("backend", "dtype"), PAIRS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_random_maps_and_passes(backend, dtype, data):
    config = lampe.LampeConfig(
        500, data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30)), data.draw(st.integers(1, 120))
    )
    stop = data.draw(st.integers(1, 200))
    first = data.draw(st.integers(0, stop - 1))
    against_the_reference(backend, dtype, config.position_map(data.draw(st.integers(1, 160))), first, stop, GPU)


@pytest.mark.parametrize(("backend", "dtype"), PAIRS)
def test_tokens_keep_their_near_keys_under_each(afresh, backend, dtype):
    tokens_against_the_reference(backend, dtype, GPU)


@pytest.mark.parametrize("dtype", [F16, BF16, F32])
@pytest.mark.parametrize("dim", [8, 12, 16, 40, 64, 80, 96, 128, 192, 256, 320])
def test_the_quickest_backend_passes_its_check(afresh, dim, dtype):
    like = torch.empty(1, 1, 1, dim, dtype=dtype, device=GPU)
    found = checked(like)
    print(found.in_words())
    assert (found.backend, found.refused) == (candidates(like)[0], ())


@pytest.mark.parametrize(("backend", "dtype"), [(Backend.FLASH, F16), (Backend.EFFICIENT, F16)])
def test_more_blocks_than_a_grid_takes(afresh, backend, dtype):
    query, key, value = (torch.randn(66_000, 2, 8, DIM, dtype=dtype, device=GPU) for _ in range(3))
    backends.choose(query, backend)
    out, lse = kernel(query, key, value, True, 0.3)
    for row in (0, 65_534, 65_535, 65_999):
        scores = (query[row].float() @ key[row].float().mT * 0.3).masked_fill(
            torch.ones(8, 8, device=GPU).triu(1) > 0, -torch.inf
        )
        close(out[row].float(), scores.softmax(-1) @ value[row].float(), ALLOWED[dtype])
        close(lse[row], scores.logsumexp(-1), ALLOWED[dtype])


# Whole models


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_mapped_as_on_the_cpu(family):
    """Whole, in chunks, token by token and by `generate`; taken off, the model is as it was, bit for bit."""
    model, ids = build(FAMILIES[family]), tokens(LENGTH)
    with lampe.patch(model, CONFIG):
        expected = logits(model, ids)
    model, ids = model.to(GPU), ids.to(GPU)
    own = logits(model, ids)
    with lampe.patch(model, CONFIG) as patched:
        close(logits(model, ids), expected)
        patched.plan(LENGTH)
        cache = DynamicCache(config=model.config)
        parts = [logits(model, part, past_key_values=cache) for part in ids.split([50, 40, 26, 1, 1, 1, 1], 1)]
        if "dynamic" not in family and "longrope" not in family:  # those rotate a part as in a shorter text
            close(torch.cat(parts, 1), expected)
        made = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)
        assert made.shape == (1, LENGTH + 6)
    assert torch.equal(logits(model, ids), own)


@pytest.mark.parametrize("key", METHODS)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_method_is_the_dense_reference(family, key):
    if family == "gemma2" and key in SLOWED:
        family = "stablelm"  # transformers has no config for Gemma 2 with other frequencies
    method, ids = small(key), tokens(LENGTH)
    with quietly(method):
        expected = dense_logits(family, method, ids)
        model = build(FAMILIES[family]).to(GPU)
        with lampe.patch(model, method):
            close(logits(model, ids.to(GPU)), expected)


@pytest.mark.parametrize("dtype", [F16, BF16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "stablelm"])
def test_halves_are_off_by_no_more_than_the_unpatched_models(family, dtype):
    exact, ids = build(FAMILIES[family]).to(GPU), tokens(LENGTH, rows=4).to(GPU)
    half = copy.deepcopy(exact).to(dtype)
    off = (logits(half, ids) - logits(exact, ids)).abs().mean()
    with lampe.patch(exact, CONFIG), lampe.patch(half, CONFIG):
        mapped_off = (logits(half, ids) - logits(exact, ids)).abs().mean()
    assert mapped_off < 1.5 * off + 1e-3


def test_padded_rows_are_single_rows():
    model, texts = build(FAMILIES["llama"]).to(GPU), [tokens(n, seed=n).to(GPU) for n in (120, 90, 65)]
    ids, mask = torch.zeros(3, 120, dtype=torch.long, device=GPU), torch.zeros(3, 120, dtype=torch.long, device=GPU)
    for row, text in enumerate(texts):
        ids[row, 120 - text.shape[1] :], mask[row, 120 - text.shape[1] :] = text[0], 1
    with lampe.patch(model, CONFIG):
        together = logits(model, ids, attention_mask=mask)
        for row, text in enumerate(texts):
            close(together[row : row + 1, 120 - text.shape[1] :], logits(model, text))


@pytest.mark.parametrize("mode", MODES)
def test_each_decoding_mode_gives_with_its_cache_what_it_gives_without(mode):
    model = build(FAMILIES["llama"]).to(GPU)
    kwargs = {"max_new_tokens": 8, "eos_token_id": None, **MODES[mode]}

    def made(**more):
        transformers.set_seed(1)
        return model.generate(tokens(LENGTH).to(GPU), **kwargs, **more)

    with lampe.patch(model, CONFIG) as patched:
        cached = made()
        patched.plan(LENGTH)
        assert torch.equal(cached, made(use_cache=False))


def test_a_static_cache_gives_what_a_growing_one_gives():
    """transformers compiles a model's forward for it on a GPU."""
    model, ids = build(FAMILIES["llama"]).to(GPU), tokens(LENGTH).to(GPU)
    kwargs = {"max_new_tokens": 8, "eos_token_id": None, "do_sample": False}
    with lampe.patch(model, CONFIG):
        expected = model.generate(ids, **kwargs)
        assert torch.equal(model.generate(ids, cache_implementation="static", **kwargs), expected)


# What it costs


@pytest.fixture(scope="module")
def wide():
    return of_layers(4)


def of_layers(count):
    """A model of so many layers with Llama-3's heads, in bf16."""
    shape = {"hidden_size": 1024, "intermediate_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8}
    config = LlamaConfig(**shape, head_dim=128, num_hidden_layers=count, vocab_size=1000, max_position_embeddings=8192)
    with torch.device(GPU):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=BF16).eval()


def passed(model, method, count, before=6000):
    """What one pass of so many tokens after others is: a function, after others of its kind."""
    cache, ids = DynamicCache(config=model.config), torch.randint(1000, (1, before + 8 * count), device=GPU)
    patched = lampe.patch(model, method) if method else None
    if patched:
        patched.plan(before + 8 * count)
    place = [before]

    def one():
        model(ids[:, place[0] : place[0] + count], past_key_values=cache, logits_to_keep=1)
        place[0] += count

    with torch.inference_mode():
        model(ids[:, :before], past_key_values=cache, logits_to_keep=1)
        for _ in range(3):
            one()
    return torch.inference_mode()(one), patched


def kernels_of(one):
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        one()
        torch.cuda.synchronize()
    return [event.name for event in profiled.events() if event.device_type == torch.autograd.DeviceType.CUDA]


WIDE = lampe.LampeConfig(8192, 512, 200, lampe.Constant(2048))


@pytest.mark.parametrize(("count", "most"), [(1, 9), (512, 18)], ids=["a token", "a chunk"])
def test_kernels_started_for_a_layer(count, most):
    """Beyond the unpatched model's; a call over many keys for one query is two kernels, and so may a product be. What a
    pass starts once, whatever its layers, is what two models of other depths have in common."""
    more = {}
    for layers in (2, 6):
        model = of_layers(layers)
        one, _ = passed(model, None, count)
        plain = kernels_of(one)
        one, patched = passed(model, WIDE, count)
        mapped = kernels_of(one)
        patched.remove()
        more[layers] = len(mapped) - len(plain)
        print(f"{layers} layers: {len(plain)} plain, {len(mapped)} mapped")
    print(*sorted({name[:90] for name in mapped}), sep="\n")
    assert (more[6] - more[2]) / 4 <= most


@pytest.mark.parametrize("count", [1, 512], ids=["a token", "a chunk"])
def test_the_processor_waits_for_the_gpu_once(wide, count):
    one, patched = passed(wide, WIDE, count)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            one()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    patched.remove()
    waits = [warning for warning in caught if "called a synchronizing" in str(warning.message)]
    print(*(f"{warning.filename}:{warning.lineno}" for warning in waits))
    assert len(waits) <= 1


def test_out_of_memory_in_the_middle_of_a_reading_leaves_the_model_usable(wide):
    ids = torch.randint(1000, (1, 30_000)).tolist()[0]
    with lampe.patch(wide, WIDE) as patched:
        reader = lampe.PromptReader(wide)
        list(reader.read(ids[:3000], patched.plan(3000)))
        with torch.inference_mode():
            expected = wide(reader.last, past_key_values=reader.cache).logits
        torch.cuda.empty_cache()
        held, total = torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((held + 2e8) / total)
        try:
            with pytest.raises(torch.OutOfMemoryError):
                list(lampe.PromptReader(wide).read(ids, patched.plan(len(ids))))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        reader = lampe.PromptReader(wide)
        list(reader.read(ids[:3000], patched.plan(3000)))
        with torch.inference_mode():
            assert torch.equal(wide(reader.last, past_key_values=reader.cache).logits, expected)
