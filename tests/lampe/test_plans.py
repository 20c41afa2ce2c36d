"""Plans and caches: texts read in parts, several questions, rows that end elsewhere, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    DynamicCache,
)

import lampe
from tests.lampe.tiny import CONFIG, FAMILIES, LENGTH, build, close, logits, tokens


@pytest.fixture(scope="module")
def llama():
    return build(FAMILIES["llama"])


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


class Looks(TorchDispatchMode):
    """Counts the values that the processor asks a device for: a GPU has to finish first what it was told."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if any(part in str(function) for part in ("is_nonzero", "_local_scalar_dense", "aten.equal", "nonzero")):
            self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("count", [1, 20])
def test_one_look_at_the_device_tells_that_nothing_is_padded_or_packed(llama, count, masked):
    ids = tokens(LENGTH + count)
    mask = torch.ones_like(ids) if masked else None
    with lampe.patch(llama, CONFIG) as patched, torch.no_grad():
        patched.plan(LENGTH + count)
        cache = DynamicCache(config=llama.config)
        logits(llama, ids[:, :LENGTH], past_key_values=cache)
        with Looks() as looks:
            llama(ids[:, LENGTH:], past_key_values=cache, attention_mask=mask, logits_to_keep=1)
    assert len(looks.names) == 1, looks.names
