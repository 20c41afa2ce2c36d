"""The patch on tiny random models: every oracle for every family."""

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
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
)

import lampe
from tests.lampe.dense import dense_logits
from tests.lampe.tiny import FAMILIES, LEFT_ALONE, SHAPE, build, logits, tokens

CONFIG = lampe.LampeConfig(64, 10, 6, 32)
LENGTH = 120


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return build(FAMILIES[family])


@pytest.fixture(scope="module")
def llama():
    return build(FAMILIES["llama"])


def close(got, expected, atol=2e-5):
    torch.testing.assert_close(got, expected, atol=atol, rtol=1e-5)


# Every family


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


# Plans and caches


def test_left_padded_generate_and_beams(llama):
    rows = [tokens(LENGTH), tokens(50, seed=2)]
    ids = torch.cat([rows[0], torch.nn.functional.pad(rows[1], (LENGTH - 50, 0))])
    mask = (ids != 0).long()
    kwargs = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    for beams in (1, 3):
        with lampe.patch(llama, CONFIG):
            together = llama.generate(ids, attention_mask=mask, num_beams=beams, **kwargs)
            alone = [llama.generate(row, num_beams=beams, **kwargs) for row in rows]
        for row in range(2):
            assert together[row, LENGTH:].tolist() == alone[row][0, rows[row].shape[1] :].tolist()


def test_a_padded_batch_can_be_read_in_parts(llama):
    """A row's text may begin in a later part."""
    rows = [tokens(LENGTH), tokens(50, seed=2)]
    ids = torch.cat([rows[0], torch.nn.functional.pad(rows[1], (LENGTH - 50, 0))])
    mask = (ids != 0).long()
    with lampe.patch(llama, CONFIG) as patched:
        patched.plan(LENGTH)
        whole = logits(llama, ids, attention_mask=mask)
        cache, read = DynamicCache(config=llama.config), []
        for part in torch.arange(LENGTH).split(30):
            seen = mask[:, : part[-1] + 1]
            read.append(logits(llama, ids[:, part], attention_mask=seen, past_key_values=cache))
    close(torch.cat(read, 1)[mask > 0], whole[mask > 0])


def test_a_static_cache_works(llama):
    ids = torch.cat([tokens(LENGTH), torch.nn.functional.pad(tokens(50, seed=2), (LENGTH - 50, 0))])
    kwargs = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "disable_compile": True}
    for rows in (ids[:1], ids):
        mask = (rows != 0).long()
        with lampe.patch(llama, CONFIG):
            expected = llama.generate(rows, attention_mask=mask, **kwargs)
            got = llama.generate(rows, attention_mask=mask, cache_implementation="static", **kwargs)
        assert torch.equal(got, expected)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_speculative_decoding_is_lossless_under_a_plan(family):
    llama, ids = build(FAMILIES[family]), tokens(LENGTH)
    kwargs = {"max_new_tokens": 25, "do_sample": False, "eos_token_id": None}
    with lampe.patch(llama, CONFIG) as patched:
        expected = llama.generate(ids, **kwargs)
        planned = patched.plan(LENGTH)  # its first pass reads guesses with the prompt
        assert torch.equal(llama.generate(ids, prompt_lookup_num_tokens=4, **kwargs), expected)
        assert patched.position_map == planned


def test_a_question_after_others_is_answered_as_if_asked_alone(llama):
    """Bit for bit, also where the answers before it are in the cache; only what Tail touches is read again."""
    document, config = tokens(1300, seed=2)[0].tolist(), lampe.LampeConfig(1200, 100, 60, 500)
    questions = [tokens(n, seed=n)[0].tolist() for n in (40, 9, 65, 9)]

    def ask(reader, patched, question):
        ids = document + question
        position_map = patched.plan(2048, len(ids))
        for _ in reader.read(ids, position_map):
            pass
        made = llama.generate(
            reader.ids, past_key_values=reader.cache, max_new_tokens=5, do_sample=False, eos_token_id=None,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        assert patched.position_map == position_map
        assert position_map.key_counts(len(ids) - 1)[-1] == config.tail
        return torch.stack(made.logits)

    with lampe.patch(llama, config) as patched:
        reader = lampe.PromptReader(llama)
        for question in questions:
            together = ask(reader, patched, question)
            assert torch.equal(together, ask(lampe.PromptReader(llama), patched, question))
            assert reader.kept == (1024 if question is not questions[0] else 0)
        # Of another plan nothing is kept, nor of a text that runs unpatched.
        ids = document + questions[0]
        assert reader.keeps(ids, config.position_map(2047, len(ids))) == 0
        assert reader.keeps(ids) == 0


@pytest.mark.parametrize(
    ("plan", "read", "why"),
    [
        ((60, 40), 130, "The prompt has 130 tokens, and the plan is for 60"),
        ((200, [100, 110]), 100, "the ends of 2 prompts, and the batch has 1 rows"),
    ],
)
def test_a_pass_that_its_plan_cannot_hold_is_refused(llama, plan, read, why):
    with lampe.patch(llama, CONFIG) as patched:
        patched.plan(*plan)
        with pytest.raises(ValueError, match=why):
            logits(llama, tokens(read))
        patched.plan(None)
        logits(llama, tokens(read))


def test_a_plan_shorter_than_what_the_cache_holds_is_refused(llama):
    with lampe.patch(llama, CONFIG) as patched:
        patched.plan(LENGTH)
        cache = DynamicCache()
        logits(llama, tokens(100), past_key_values=cache)
        patched.plan(90)
        with pytest.raises(ValueError, match="The cache holds 100 tokens, and the plan is for 90"):
            logits(llama, tokens(1), past_key_values=cache)
        patched.plan(LENGTH)
        logits(llama, tokens(1), past_key_values=cache)
        with pytest.raises(ValueError, match="The prompt has 121 tokens"):
            patched.plan(LENGTH, 121)
        with pytest.raises(ValueError, match="There is no prompt"):
            patched.plan(LENGTH, [])
        assert patched.position_map.length == LENGTH, "what was planned still holds"


def test_an_answer_that_would_reach_the_window_within_its_plan_moves_the_end(llama):
    """The map is as wide as the window: the plan's length stays, Tail begins later."""
    config = lampe.LampeConfig(64, 10, 6, 64)
    with lampe.patch(llama, config) as patched:
        planned = patched.plan(LENGTH, 100)
        cache, ids = DynamicCache(), tokens(LENGTH)
        logits(llama, ids[:, :100], past_key_values=cache)
        assert patched.position_map == planned
        for step in range(100, LENGTH):
            logits(llama, ids[:, step : step + 1], past_key_values=cache)
            position_map = patched.position_map
            assert position_map.relative(step, 0) < 64
            assert position_map.length == LENGTH
        assert position_map.end > 100


def test_the_plan_goes_with_the_cache(llama):
    first, second = tokens(LENGTH), tokens(90, seed=5)
    with lampe.patch(llama, CONFIG) as patched:
        one, two = DynamicCache(), DynamicCache()
        logits(llama, first, past_key_values=one)
        logits(llama, second, past_key_values=two)
        kept = copy.deepcopy(one)
        logits(llama, second[:, :1], past_key_values=one)
        assert patched.position_map.length == LENGTH
        logits(llama, second[:, :1], past_key_values=two)
        assert patched.position_map.length == 90
        patched.plan(LENGTH)
        whole = logits(llama, torch.cat([first, second[:, :1]], 1))
        patched.plan(None)
        close(logits(llama, second[:, :1], past_key_values=kept), whole[:, -1:])
        assert patched.position_map.length == LENGTH


def test_a_cache_cropped_into_its_prompt_is_planned_anew(llama):
    """A second question is answered as if the first had never been asked."""
    document, first, second = tokens(90), tokens(30, seed=3), tokens(9, seed=4)
    with lampe.patch(llama, CONFIG) as patched:
        cache = DynamicCache()
        logits(llama, torch.cat([document, first], 1), past_key_values=cache)
        cache.crop(-30)
        logits(llama, second, past_key_values=cache)
        assert patched.position_map == lampe.position_map(CONFIG, 99)


def test_rows_of_a_cache_take_their_maps_along(llama):
    lengths = (LENGTH, 70)
    ids = torch.cat([tokens(LENGTH), torch.nn.functional.pad(tokens(70, seed=2), (LENGTH - 70, 0))])
    mask, more = torch.ones(2, LENGTH + 1, dtype=torch.long), tokens(1, rows=2, seed=9)
    mask[1, : LENGTH - 70] = 0
    with lampe.patch(llama, CONFIG) as patched:

        def after(change, rows):
            cache = DynamicCache(config=llama.config)
            logits(llama, ids, attention_mask=mask[:, :-1], past_key_values=cache)
            change(cache)
            out = logits(llama, more[rows], attention_mask=mask[rows], past_key_values=cache)
            assert [m.length for m in patched.position_maps] == [lengths[row] for row in rows]
            return out

        expected = after(lambda cache: None, [0, 1])
        close(after(lambda cache: cache.reorder_cache(torch.tensor([1, 0])), [1, 0]), expected.flip(0))
        close(after(lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]), expected[1:])
        twice = after(lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1])
        close(twice, expected.repeat_interleave(2, 0))
        cache = DynamicCache()
        logits(llama, ids[1:], past_key_values=cache)
        with pytest.raises(ValueError, match="aren't those"):
            logits(llama, more[1:], attention_mask=mask[1:], past_key_values=cache)


def test_a_cache_filled_under_other_settings_is_refused(llama):
    cache = DynamicCache()
    with lampe.patch(llama, CONFIG):
        logits(llama, tokens(50), past_key_values=cache)
    with (
        lampe.patch(llama, lampe.LampeConfig(64, 10, 6, 40)),
        pytest.raises(ValueError, match="another method, or with other settings"),
    ):
        logits(llama, tokens(1), past_key_values=cache)


def test_reading_in_parts_without_a_plan_says_so(llama):
    ids = tokens(LENGTH)
    with lampe.patch(llama, CONFIG) as patched:
        cache = DynamicCache()
        logits(llama, ids[:, :20], past_key_values=cache)
        assert not patched.position_map.compresses
        with pytest.warns(UserWarning, match="call plan"):
            logits(llama, ids[:, 20:], past_key_values=cache)
        assert patched.position_map == lampe.position_map(CONFIG, LENGTH), "which would have reached the window"


def test_a_plan_for_less_than_comes_is_made_anew_once(llama):
    ids = tokens(LENGTH)
    with lampe.patch(llama, CONFIG) as patched:
        patched.plan(80)
        made, lengths = DynamicCache(), set()
        logits(llama, ids[:, :80], past_key_values=made)
        for step in range(80, LENGTH):
            logits(llama, ids[:, step : step + 1], past_key_values=made)
            lengths.add(patched.position_map.length)
    assert len(lengths) == 2, lengths


def test_a_plan_that_would_reach_the_window_is_made_anew(llama):
    with lampe.patch(llama, CONFIG) as patched, torch.no_grad():
        cache = DynamicCache()
        lengths = []
        llama(tokens(30), past_key_values=cache)
        for step in range(70):
            llama(tokens(1, seed=step), past_key_values=cache)
            position_map = patched.position_map
            lengths.append(position_map.length)
            assert position_map.relative(30 + step, 0) < CONFIG.window
    assert lengths[0] == 30
    assert lengths[-1] > 64


def test_a_plan_serves_several_questions(llama):
    document, questions = tokens(100), [tokens(9, seed=s) for s in (3, 4)]
    with lampe.patch(llama, CONFIG) as patched:
        planned = patched.plan(LENGTH)
        cache = DynamicCache()
        logits(llama, document, past_key_values=cache)
        for question in questions:
            mine = copy.deepcopy(cache)
            close(
                logits(llama, question, past_key_values=mine),
                logits(llama, torch.cat([document, question], 1))[:, 100:],
            )
            assert patched.position_map == planned
        assert patched.plan(None) is None
        logits(llama, document)
        assert patched.position_map.length == 100


def test_a_cache_from_the_unpatched_model_is_refused(llama):
    cache = DynamicCache()
    logits(llama, tokens(20), past_key_values=cache)
    with lampe.patch(llama, CONFIG), pytest.raises(ValueError, match="filled without LaMPE"):
        logits(llama, tokens(1), past_key_values=cache)


def test_a_mapping_that_does_nothing_beyond_the_window_says_so(llama):
    with lampe.patch(llama, lampe.LampeConfig(64, 20, 20, 40)), pytest.warns(UserWarning, match="Nothing is mapped"):
        logits(llama, tokens(LENGTH))


# What is seen from outside


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

    length = 3000
    with lampe.patch(llama, lampe.LampeConfig(64, 10, 6, 32)), torch.no_grad(), Largest() as largest:
        cache = DynamicCache(config=llama.config)
        llama(tokens(length), past_key_values=cache, logits_to_keep=1)
        llama(tokens(1), past_key_values=cache, logits_to_keep=1)
    widest = max(SHAPE["intermediate_size"], SHAPE["hidden_size"]) * 2
    assert 0 < largest.numbers <= length * widest < length * length / 10
