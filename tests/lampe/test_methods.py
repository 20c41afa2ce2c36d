"""Every method of the registry, in the patch: a new one is in this matrix by itself."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, Gemma3TextConfig

import lampe
from lampe.methods import METHODS, Constant, LampeConfig, Method, MethodError, ScaledSigmoid, method_class, registry
from lampe.patching.probe import Probing
from tests.lampe.dense import configured, dense_logits
from tests.lampe.tiny import FAMILIES, LEFT_ALONE, SHAPE, build, logits, mixed, tokens

WINDOW, LENGTH = 64, 120
FAMILIES_TRIED = ["llama", "gemma2", "stablelm", "cohere"]  # capped and sliding, rotated in part, interleaved
LAMPE = LampeConfig(WINDOW, 10, 6, 32)
SMALL = {
    "lampe": LAMPE,
    "lampe-paper": METHODS["lampe-paper"](WINDOW, 10, 6, ScaledSigmoid(48, 0.02, -1.0)),
    "lampe-released": METHODS["lampe-released"](WINDOW, 10, 6, ScaledSigmoid(48, 0.02, -1.0, 200, 30), 1.143),
    "lampe-fixed": METHODS["lampe-fixed"](WINDOW, 10, 6, 48),
    "lampe-uniform": METHODS["lampe-uniform"](WINDOW, 0, 0, 32),
    "lampe-headless": METHODS["lampe-headless"](WINDOW, 0, 6, 32),
    "lampe-tailless": METHODS["lampe-tailless"](WINDOW, 10, 0, 32),
    "selfextend": METHODS["selfextend"](WINDOW, 20, 4),
    "jetlong": METHODS["jetlong"](WINDOW, 10),
    "rerope": METHODS["rerope"](WINDOW, 20),
    "leaky-rerope": METHODS["leaky-rerope"](WINDOW, 20, 3.3),
    "dca": METHODS["dca"](WINDOW, 40, 12),
    "lampe+yarn": METHODS["lampe+yarn"](WINDOW, LAMPE),
    "lampe+ntk": METHODS["lampe+ntk"](WINDOW, LAMPE),
}
"""Settings with which a text of `LENGTH` tokens meets every region; the others have them by their authors' rule."""


def small(key):
    return SMALL.get(key) or METHODS[key].for_window(WINDOW)


@pytest.fixture(params=METHODS)
def method(request):
    return small(request.param)


SLOWED = [key for key in METHODS if small(key).frequencies(LENGTH)]


@pytest.fixture(scope="module", params=FAMILIES_TRIED[:2])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return build(FAMILIES[family])


def close(got, expected, atol=5e-5):
    torch.testing.assert_close(got, expected, atol=atol, rtol=1e-5)


def quietly(method):
    """STRING and plain RoPE go beyond their reach here on purpose."""
    return pytest.warns(UserWarning, match="beyond the 64") if method.beyond(LENGTH) else _nothing()


class _nothing:
    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


# In the patch


# Layers that aren't mapped keep their frequencies too, so transformers has no config for Gemma 2 with others.
@pytest.mark.parametrize(
    ("family", "key"), [(f, key) for f in FAMILIES_TRIED for key in METHODS if not (f in LEFT_ALONE and key in SLOWED)]
)
def test_the_patched_model_is_the_dense_reference(family, key):
    method, ids = small(key), tokens(LENGTH)
    expected = dense_logits(family, method, ids)
    model = build(FAMILIES[family])
    with lampe.patch(model, method), quietly(method):
        close(logits(model, ids), expected, 1e-4)


def test_decode_and_chunks_give_the_whole(model, method):
    ids = tokens(LENGTH)
    with lampe.patch(model, method) as patched, quietly(method):
        patched.plan(LENGTH)
        whole = logits(model, ids)
        for chunks in ((11, 40, 60, 9), (1, 1, 50, 64, 1, 1, 1, 1)):
            cache = DynamicCache(config=model.config)
            close(torch.cat([logits(model, part, past_key_values=cache) for part in ids.split(chunks, 1)], 1), whole)


def test_rows_of_a_padded_batch_are_the_single_rows(model, method):
    """Each row is planned for its own length, and so has frequencies of its own."""
    lengths = (LENGTH, 75, 20)
    rows = [tokens(length, seed=length) for length in lengths]
    batch = torch.cat([torch.nn.functional.pad(row, (LENGTH - row.shape[1], 0)) for row in rows])
    mask = torch.cat([torch.nn.functional.pad(torch.ones_like(row), (LENGTH - row.shape[1], 0)) for row in rows])
    with lampe.patch(model, method), quietly(method):
        together = logits(model, batch, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        for number, row in enumerate(rows):
            close(together[number, LENGTH - row.shape[1] :], logits(model, row)[0])


def test_several_turns_under_one_plan_give_what_one_reading_gives(model, method):
    ids = tokens(LENGTH)
    with lampe.patch(model, method) as patched, quietly(method):
        reader = lampe.PromptReader(model, step=1)
        for stop in (90, 60, 110):
            planned = patched.plan(LENGTH, stop)
            for _ in reader.read(ids[0, :stop].tolist(), planned):
                pass
            again = logits(model, reader.last, past_key_values=reader.cache)[:, -1]
            close(again, logits(model, ids[:, :stop])[:, -1])


def test_leaving_gives_the_original_bits(model, method):
    ids = tokens(60)
    before = logits(model, ids)
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with lampe.patch(model, method), quietly(method):
        logits(model, tokens(LENGTH))
    assert torch.equal(logits(model, ids), before)
    assert all(torch.equal(buffer, state[name]) for name, buffer in model.named_buffers())


@pytest.mark.parametrize("family", [family for family in FAMILIES_TRIED if family not in LEFT_ALONE])
@pytest.mark.parametrize("key", ["pi", "ntk", "dynamic-ntk", "yarn"])
def test_changed_frequencies_are_those_of_a_model_that_transformers_configures_so(family, key):
    method, model = METHODS[key].for_window(WINDOW), build(FAMILIES[family])
    ids = tokens(LENGTH)
    frequencies = method.frequencies(LENGTH)
    expected = build(configured(family, frequencies))
    if frequencies.rope_type == "dynamic":
        # It takes its base from the greatest position that it meets: the α of the first is length/window.
        ids = tokens(max(LENGTH, frequencies.length))
        frequencies = method.frequencies(ids.shape[1])
    with lampe.patch(model, method):
        close(logits(model, ids), logits(expected, ids))


@pytest.mark.parametrize("key", ["pi", "yarn"])
def test_of_several_ropes_only_the_full_layers_is_changed(key):
    """Oracle: transformers configures each type of layers apart."""
    config = Gemma3TextConfig(**SHAPE, head_dim=16, query_pre_attn_scalar=16, **mixed("default"))
    method, ids = METHODS[key].for_window(WINDOW), tokens(LENGTH)
    frequencies, changed = method.frequencies(LENGTH), copy.deepcopy(config)
    changed.rope_parameters["full_attention"].update(
        rope_type=frequencies.rope_type, factor=frequencies.factor, original_max_position_embeddings=WINDOW
    )
    model, expected = build(config), build(changed)
    with lampe.patch(model, method):
        close(logits(model, ids), logits(expected, ids))


def test_a_model_whose_frequencies_are_scaled_already_takes_methods_that_leave_them():
    for family in ("llama-llama3", "llama-yarn"):
        model = build(FAMILIES[family])
        with pytest.raises(lampe.UnsupportedModelError, match=r"its RoPE is scaled already \((llama3|yarn)\)"):
            lampe.patch(model, METHODS["yarn"].for_window(WINDOW))
        ids = tokens(60)
        expected = logits(model, ids)
        with lampe.patch(model, METHODS["selfextend"].for_window(WINDOW)):
            close(logits(model, ids), expected)


def test_a_longer_plan_with_other_frequencies_is_refused_for_a_cache():
    model, ids = build(FAMILIES["llama"]), tokens(LENGTH)
    with lampe.patch(model, METHODS["yarn"].for_window(WINDOW)) as patched:
        patched.plan(100)
        cache = DynamicCache(config=model.config)
        logits(model, ids[:, :80], past_key_values=cache)
        patched.plan(110)
        with pytest.raises(ValueError, match="a plan for 100 tokens, and YaRN rotates by other frequencies"):
            logits(model, ids[:, 80:], past_key_values=cache)


def test_a_cache_of_one_method_is_refused_by_another(method):
    model, ids = build(FAMILIES["llama"]), tokens(LENGTH)
    other = METHODS["rerope"](WINDOW, 30)
    cache = DynamicCache(config=model.config)
    with lampe.patch(model, method), quietly(method):
        logits(model, ids[:, :100], past_key_values=cache)
    with lampe.patch(model, other), pytest.raises(ValueError, match="filled by another method"):
        logits(model, ids[:, 100:], past_key_values=cache)


def test_what_a_model_supports_is_found_once(monkeypatch):
    model, runs = build(FAMILIES["gemma2"]), []
    run = Probing.run
    monkeypatch.setattr(Probing, "run", lambda *args, **kwargs: runs.append(1) or run(*args, **kwargs))
    support = lampe.probe(model)
    assert len(runs) > 1
    assert [layer.mapped for layer in support.layers] == [False, True, False]
    first = len(runs)
    ids = tokens(LENGTH)
    with lampe.patch(model, LAMPE) as patched:
        assert patched.support is support
        again = logits(model, ids)
    assert len(runs) == first
    fresh = build(FAMILIES["gemma2"])
    with lampe.patch(fresh, LAMPE):
        assert torch.equal(logits(fresh, ids), again)
    model.double()
    with lampe.patch(model, LAMPE):
        assert len(runs) > 2 * first, "another dtype is probed anew"


# As values


def test_each_method_is_named_and_has_its_source(method):
    assert METHODS[method.key] is type(method)
    assert method.title
    assert method.source
    titles = [other.title for other in METHODS.values()]
    assert titles.count(method.title) == 1
    assert type(method).__doc__


def test_settings_go_through_json(method):
    given = json.loads(json.dumps(method.settings()))
    assert type(method).from_settings(given) == method
    with pytest.raises(ValueError, match=re.escape(method.title)):
        type(method).from_settings({**given, "colour": 1})
    with pytest.raises(ValueError, match=re.escape(method.title)):
        type(method).from_settings({})
    with pytest.raises(ValueError, match=re.escape(method.title)):
        type(method).from_settings([1])
    with pytest.raises(ValueError, match=r"window|Window"):
        type(method).from_settings({**given, "window": 0})


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(METHODS)), st.integers(16, 4000), st.data())
def test_maps_by_the_authors_rule(key, window, data):
    """Each pair lies in one region, near ones at their own distance, none beyond what the map says, nor, within the
    method's reach, beyond the positions of the training.
    """
    method = METHODS[key].for_window(window)
    length = data.draw(st.integers(1, 4 * window))
    position_map = method.position_map(length)
    assert position_map.length == position_map.end == length
    query = data.draw(st.integers(0, length - 1))
    keys = torch.arange(query + 1)
    counts = sum(region.contains(torch.tensor(query), keys).long() for region in position_map.regions)
    assert (counts == 1).all()
    relative = position_map.relative(torch.tensor(query), keys)
    assert (relative >= 0).all()
    assert relative[-1] == 0
    near = keys > query - position_map.head - 1
    assert torch.equal(relative[near], query - keys[near].to(relative.dtype))
    assert relative.max() < position_map.mapping_length
    last = position_map.relative(torch.tensor(length - 1), torch.arange(length))
    frequencies = method.frequencies(length)
    trained = window * (frequencies.stretch if frequencies else 1)
    if not method.beyond(length):
        assert max(last.max(), relative.max()) < trained + 1e-6


@pytest.mark.parametrize("key", METHODS)
def test_within_the_window_a_method_that_extends_changes_nothing(key):
    method = METHODS[key].for_window(8192)
    own = {key for key in METHODS if key.startswith("lampe")}
    changed = own | {"rerope", "string", "dca", "ntk"}
    short = method.position_map(8192)
    assert (short.compresses or method.frequencies(8192) is not None) == (key in changed)


@pytest.mark.parametrize(
    ("key", "given", "why"),
    [
        ("selfextend", {"near": 6000}, "near must be from 1 to 5,460 for SelfExtend, not 6,000"),
        ("selfextend", {"near": 512, "group": 0}, "group must be at least 1 for SelfExtend, not 0"),
        ("selfextend", {"near": 512, "group": 2.5}, "group must be a whole number, not 2.5"),
        ("jetlong", {"near": 8193}, "near must be from 1 to 8,192 for Jet-Long, not 8,193"),
        ("rerope", {"near": 8192}, "near must be from 1 to 8,191 for ReRoPE"),
        ("leaky-rerope", {"near": 512, "slowdown": 0.5}, "slowdown must be from 1 to 1,000 for Leaky ReRoPE, not 0.5"),
        ("string", {"near": 128, "shift": 9000}, "shift must be from 128 to 8,192 for STRING, not 9,000"),
        ("dca", {"span": 9000, "local": 10}, "span must be from 2 to 8,192 for Dual Chunk Attention, not 9,000"),
        ("dca", {"span": 600, "local": 600}, "local must be from 1 to 599 for Dual Chunk Attention, not 600"),
        ("yarn", {"factor": "4"}, "factor must be a number, not '4'"),
        ("pi", {"factor": 0}, "factor must be from 1 to 1,000 for Position interpolation, not 0"),
        ("dynamic-ntk", {"factor": None}, "factor must be a number, not None"),
        ("lampe+yarn", {"lampe": {"window": 1}, "share": 0.5}, "These aren't settings of LaMPE"),
        ("lampe+yarn", {"lampe": LAMPE.settings(), "share": 0.5}, "window is 64 tokens, and LaMPE + YaRN's 8,192"),
    ],
)  # fmt: skip
def test_settings_out_of_their_domain(key, given, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        METHODS[key].from_settings({"window": 8192, **given})


def test_an_unknown_method():
    with pytest.raises(ValueError, match="There is no method 'alibi'; the methods are rope, lampe, "):
        method_class("alibi")


def test_two_methods_of_one_title_are_refused():
    class Other(METHODS["yarn"]):
        key = "yarn-2"

    with pytest.raises(MethodError, match=r"Yarn and Other have the same key or title \('yarn-2', 'YaRN'\)"):
        registry([*METHODS.values(), Other])


def test_each_ablation_lacks_one_part():
    llama3 = FAMILIES["llama"].__class__(vocab_size=128256, max_position_embeddings=8192)
    own = LampeConfig.for_model(llama3)
    fixed, uniform, headless, tailless = (
        METHODS[f"lampe-{name}"].for_model(llama3) for name in ("fixed", "uniform", "headless", "tailless")
    )
    assert (fixed.mapping, fixed.head, fixed.tail) == (Constant(6144), 512, 200)
    assert [region.name for region in uniform.position_map(16_384).regions] == ["Middle"]
    assert [region.name for region in headless.position_map(16_384).regions] == ["Middle", "Tail"]
    assert [region.name for region in tailless.position_map(16_384).regions] == ["Head", "Middle"]
    assert uniform.mapping == headless.mapping == tailless.mapping == own.mapping


def test_a_reach_below_the_input_is_told():
    assert (
        METHODS["rope"].for_window(8192).beyond(9000)
        == "Plain RoPE reaches 8,192 tokens with these settings, and this input has 9,000."
    )
    fixed = METHODS["selfextend"](8192, 1024, 2)
    assert fixed.reach == 1024 + 2 * 7168
    assert fixed.position_map(fixed.reach).mapping_length == 8192
    assert fixed.beyond(16384)
    assert not fixed.beyond(fixed.reach)


def test_lampe_as_published_and_as_released():
    llama3 = FAMILIES["llama"].__class__(vocab_size=128256, max_position_embeddings=8192)
    paper, released = (METHODS[key].for_model(llama3) for key in ("lampe-paper", "lampe-released"))
    assert paper.mapping == ScaledSigmoid(6204.409324666837, 0.00010493097327094324, -2.466638011138158)
    assert released.mapping_length(8191) == 1536
    assert released.mapping_length(8192) == paper.mapping_length(8192) == 1036
    assert released.attention_scale == pytest.approx(1.143, abs=1e-3)
    # Our own preset is none of the authors': Llama-3's curve is stretched instead.
    ours = FAMILIES["llama"].__class__(vocab_size=49152, max_position_embeddings=8192)
    assert METHODS["lampe-paper"].for_model(ours).mapping == lampe.LampeConfig.for_window(8192).mapping
    assert METHODS["lampe-paper"].for_model(ours).doubt


def test_a_composition_shares_the_stretching():
    both = METHODS["lampe+yarn"](8192, LampeConfig(8192, 512, 200, 6144))
    assert both.position_map(8192) == both.lampe.position_map(8192)
    assert both.frequencies(8192) is None
    assert both.frequencies(32768).factor == pytest.approx(2)
    assert both.position_map(32768).mapping_length == 2 * 6144
    alone = METHODS["lampe+yarn"](8192, both.lampe, 0.0)
    assert (alone.position_map(32768), alone.frequencies(32768)) == (both.lampe.position_map(32768), None)
    yarn = METHODS["lampe+yarn"](8192, LampeConfig(8192, 512, 200, 8192), 1.0)
    assert not yarn.position_map(32768).compresses


def test_every_method_is_a_value():
    for method in METHODS.values():
        assert issubclass(method, Method)
        assert hash(method.for_window(512)) == hash(method.for_window(512))
