"""The patch on tiny random models of every family, held to the dense reference and to themselves."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    DynamicCache,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

import lampe
from tests.lampe.dense import dense_logits
from tests.lampe.tiny import CONFIG, FAMILIES, LEFT_ALONE, LENGTH, build, close, logits, tokens


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return build(FAMILIES[family])


def test_a_map_that_changes_nothing_gives_the_models_own_logits(model):
    ids = tokens(60)
    expected = logits(model, ids)
    with lampe.patch(model, lampe.LampeConfig(64, 10, 6, 64)):
        close(logits(model, ids), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_short_input_gives_the_models_own_bits(dtype):
    """Prefill and decode, also where rounding would tell another order of operations."""
    llama = build(FAMILIES["llama"], dtype)
    kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "output_logits": True}
    expected = llama.generate(tokens(20), return_dict_in_generate=True, **kwargs)
    with lampe.patch(llama, CONFIG):
        got = llama.generate(tokens(20), return_dict_in_generate=True, **kwargs)
    assert torch.equal(got.sequences, expected.sequences)
    assert all(torch.equal(a, b) for a, b in zip(got.logits, expected.logits, strict=True))


def test_removing_the_patch_gives_the_original_bits(model):
    ids = tokens(60)
    expected = logits(model, ids)
    with lampe.patch(model, CONFIG) as patched:
        assert not torch.equal(logits(model, ids), expected), "the patch does something"
    assert torch.equal(logits(model, ids), expected)
    patched.remove()
    assert torch.equal(logits(model, ids), expected)


def test_the_model_is_the_dense_reference(family, model):
    """The unpatched model with an attention of its own: scores from `PositionMap.relative` alone, in mapped layers."""
    ids = tokens(LENGTH)
    expected = dense_logits(family, CONFIG, ids)
    with lampe.patch(model, CONFIG):
        close(logits(model, ids), expected, 1e-4)


def test_each_layer_says_why_it_is_left_alone(family, model):
    with lampe.patch(model, CONFIG) as patched:
        logits(model, tokens(LENGTH))
        assert {layer.index: layer.reason for layer in patched.layers if not layer.mapped} == LEFT_ALONE.get(family, {})
        mapped = sum(layer.mapped for layer in patched.layers)
        assert len(patched.layers) == model.config.num_hidden_layers
        assert patched.head_shares().shape == (mapped, 4, 3)


def test_decode_gives_the_last_row_of_prefill(model):
    ids = tokens(LENGTH)
    with lampe.patch(model, CONFIG) as patched:
        patched.plan(LENGTH)
        whole = logits(model, ids)
        cache = DynamicCache(config=model.config)
        logits(model, ids[:, :-5], past_key_values=cache)
        for step in range(LENGTH - 5, LENGTH):
            one = logits(model, ids[:, step : step + 1], past_key_values=cache)
            close(one[:, 0], whole[:, step])


@pytest.mark.parametrize("chunks", [(1, 1, 50, 68), (11, 40, 60, 9), (100, 20)])
def test_chunked_prefill_gives_the_whole(model, chunks):
    ids = tokens(LENGTH)
    with lampe.patch(model, CONFIG) as patched:
        patched.plan(LENGTH)
        whole = logits(model, ids)
        cache = DynamicCache(config=model.config)
        close(torch.cat([logits(model, part, past_key_values=cache) for part in ids.split(chunks, 1)], 1), whole)


def test_a_prompt_that_ends_before_its_plan(model):
    """In chunks and token by token as in one forward, on the map that was planned; not that of the whole plan."""
    ids, end = tokens(LENGTH), 90
    with lampe.patch(model, CONFIG) as patched:
        planned = patched.plan(LENGTH, end)
        assert (planned.length, planned.end, planned.key_counts(end - 1)[-1]) == (LENGTH, end, CONFIG.tail)
        whole = logits(model, ids)
        for chunks in ((50, 34, 36), (80, 4, 6, 1, 1, 28)):
            cache = DynamicCache(config=model.config)
            close(torch.cat([logits(model, part, past_key_values=cache) for part in ids.split(chunks, 1)], 1), whole)
            assert patched.position_map == planned
        patched.plan(LENGTH)
        other = logits(model, ids)
    close(whole[:, : end - CONFIG.tail], other[:, : end - CONFIG.tail])
    assert not torch.allclose(whole[:, end - CONFIG.tail :], other[:, end - CONFIG.tail :], atol=1e-4)


def padded(lengths, left):
    """Texts of these lengths, and the same as a batch with its mask, padded before or after."""
    rows = [tokens(n, seed=n) for n in lengths]
    ids, mask = (torch.zeros(len(rows), max(lengths), dtype=torch.long) for _ in range(2))
    for row, part in enumerate(rows):
        place = slice(max(lengths) - part.shape[1], max(lengths)) if left else slice(0, part.shape[1])
        ids[row, place], mask[row, place] = part, 1
    return rows, ids, mask


@pytest.mark.parametrize("left", [True, False])
def test_rows_that_end_elsewhere_in_one_batch(model, left):
    """One plan, an end of its own for each row: as each prompt alone."""
    ends = (LENGTH, 77, 40)
    rows, ids, mask = padded(ends, left)
    with lampe.patch(model, CONFIG) as patched:
        patched.plan(130, ends)
        batch = logits(model, ids, attention_mask=mask)
        assert [(m.length, m.end) for m in patched.position_maps] == [(130, end) for end in ends]
        for row, part in enumerate(rows):
            patched.plan(130, ends[row])
            close(batch[row : row + 1][mask[row : row + 1] > 0], logits(model, part)[0])


@pytest.mark.parametrize("left", [True, False])
def test_a_padded_batch_gives_the_single_rows(model, left):
    lengths = (LENGTH, 77, 20)
    rows, ids, mask = padded(lengths, left)
    with lampe.patch(model, CONFIG) as patched:
        batch = logits(model, ids, attention_mask=mask)
        assert [m.length for m in patched.position_maps] == list(lengths)
        shares = [patched.head_shares(row) for row in range(3)]
        assert [s.shape[-1] for s in shares] == [3, 3, 1], "the short row is plain RoPE"
        for row, part in enumerate(rows):
            close(batch[row : row + 1][mask[row : row + 1] > 0], logits(model, part)[0])
            close(patched.head_shares(), shares[row])


def test_generate_continues_as_a_fresh_prefill_would(model):
    """Greedy tokens of generate(), each checked against a forward over the whole text under the same plan."""
    ids = tokens(LENGTH)
    with lampe.patch(model, CONFIG) as patched:
        made = model.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)
        patched.plan(LENGTH)
        expected = logits(model, made)[0, LENGTH - 1 : -1].argmax(-1)
    assert made[0, LENGTH:].tolist() == expected.tolist()


# What families have of their own


def test_capped_scores_in_half_precision():
    model, ids = build(FAMILIES["gemma2"], torch.bfloat16), tokens(20)
    expected = logits(model, ids)
    with lampe.patch(model, CONFIG):
        torch.testing.assert_close(logits(model, ids), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("family", ["llama-dynamic", "phi3-longrope", "gemma3-dynamic"])
def test_frequencies_that_grow_with_the_length_are_held_and_given_back(family):
    model = build(FAMILIES[family])
    short, long = tokens(15), tokens(LENGTH)
    logits(model, short)
    with lampe.patch(model, CONFIG):
        mapped, plain = logits(model, long), logits(model, short)
    grown = logits(model, long)
    assert not torch.equal(grown, mapped)
    with lampe.patch(model, CONFIG):
        assert torch.equal(logits(model, short), plain), "whatever the model read before"
        assert torch.equal(logits(model, long), mapped)
    fresh = build(FAMILIES[family])
    assert torch.equal(logits(fresh, short), plain)
    for ids in (long, tokens(80), short):
        assert torch.equal(logits(model, ids), logits(fresh, ids))


def test_generating_past_the_length_where_frequencies_would_change():
    """There Phi3 gives up its cache and reads the text again: planned for the length reached, like any new input."""
    model, ids = build(FAMILIES["phi3-longrope"]), tokens(60)
    with lampe.patch(model, CONFIG) as patched:
        made = model.generate(ids, max_new_tokens=10, do_sample=False, eos_token_id=None)
        assert patched.position_map.length == 65
        for first, stop in ((60, 65), (65, 70)):
            patched.plan(first)
            assert (
                made[0, first:stop].tolist() == logits(model, made[:, : stop - 1])[0, first - 1 :].argmax(-1).tolist()
            )


def test_a_window_beyond_the_models_own_is_refused_where_frequencies_would_change():
    with pytest.raises(lampe.UnsupportedModelError, match="a window of at most 64, not 200"):
        lampe.patch(build(FAMILIES["phi3-longrope"]), lampe.LampeConfig(200, 10, 6, 32))


def test_a_wide_window_is_mapped_up_to_its_end():
    """No layer sees farther, so there is nothing to map: a text that long is refused instead of cut in silence."""
    model = build(FAMILIES["mistral-wide-window"])
    with lampe.patch(model, CONFIG):
        cache = DynamicCache(config=model.config)
        logits(model, tokens(200), past_key_values=cache)
        with pytest.raises(ValueError, match="At 201 tokens the text is longer than"):
            logits(model, tokens(1), past_key_values=cache)


def test_a_model_that_reads_more_than_text():
    """Its text is mapped; images, whose tokens see one another, are refused in words."""
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = FAMILIES["gemma3"].to_dict()
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28}, mm_tokens_per_image=4)
    model, ids = Gemma3ForConditionalGeneration(config).eval(), tokens(LENGTH)
    expected, kwargs = logits(model, ids[:, :60]), {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None}
    with lampe.patch(model, lampe.LampeConfig(64, 10, 6, 64)):
        close(logits(model, ids[:, :60]), expected)
    with lampe.patch(model, CONFIG) as patched:
        made = model.generate(ids, **kwargs)
        assert torch.equal(model.generate(ids, cache_implementation="static", disable_compile=True, **kwargs), made)
        patched.plan(LENGTH)
        assert made[0, LENGTH:].tolist() == logits(model, made)[0, LENGTH - 1 : -1].argmax(-1).tolist()
        with pytest.raises(ValueError, match="custom masks"):
            logits(model, ids, token_type_ids=(torch.arange(LENGTH)[None] // 4 == 5).long())
    assert torch.equal(logits(model, ids[:, :60]), expected)
    assert config.text_config._attn_implementation == "sdpa"


def test_a_window_that_changes_under_the_patch_is_an_error():
    model = build(FAMILIES["gemma2"])
    with lampe.patch(model, CONFIG):
        model.model.config.sliding_window = 8
        with pytest.raises(RuntimeError, match="sliding window was changed"):
            logits(model, tokens(30))


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "qwen2-windows", "smollm3-windows"])
def test_windows_in_other_caches(family):
    """A static cache and one that forgets nothing, padded rows too: all as a cache that keeps a window's keys."""
    model = build(FAMILIES[family])
    ids = torch.cat([tokens(LENGTH), torch.nn.functional.pad(tokens(50, seed=2), (LENGTH - 50, 0))])
    kwargs = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "disable_compile": True}
    for rows in (ids[:1], ids):
        mask = (rows != 0).long()
        with lampe.patch(model, CONFIG):
            expected = model.generate(rows, attention_mask=mask, **kwargs)
            for other in ({"cache_implementation": "static"}, {"past_key_values": DynamicCache()}):
                got = model.generate(rows, attention_mask=mask, **kwargs, **other)
                assert torch.equal(got, expected), other
    with lampe.patch(model, CONFIG), pytest.raises(ValueError, match="packed"):
        logits(model, ids[:1, :40], position_ids=torch.arange(20).repeat(2)[None], use_cache=False)
