"""The position map against the paper's formulas, written out here by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig, Phi3Config, Qwen2Config

import lampe
from lampe.families import family_of, pretraining_window
from lampe.methods import rescaled


def papers_position(d: int, l: int, m: int, s1: int, s2: int) -> tuple[str, int]:  # noqa: E741
    """Region and position of a relative distance, section 3.3, in exact integers."""
    if d <= s1:
        return "Head", d
    if d < l - s2:
        return "Middle", (m - s1 - s2) * (d - s1) // (l - s1 - s2) + s1
    return "Tail", m - l + d


@st.composite
def settings_(draw):
    head, tail = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    m = draw(st.integers(head + tail + 1, head + tail + 200))
    return draw(st.integers(m + 1, m + 3000)), m, head, tail


@given(settings_(), st.data())
def test_every_pair_has_the_papers_region_and_position(setting, data):
    length, m, head, tail = setting
    position_map = lampe.position_map(lampe.LampeConfig(m, head, tail, m), length)
    query = data.draw(st.integers(0, length - 1))
    keys = np.arange(query + 1)
    mapped, regions = position_map.relative(query, keys), position_map.region(query, keys)
    names = [region.name for region in position_map.regions]
    for d in {0, head, head + 1, length - tail - 1, length - tail, query, query // 2} & set(range(query + 1)):
        name, position = papers_position(d, length, m, head, tail)
        assert names[regions[query - d]] == (name if {"Head": head, "Middle": 1, "Tail": tail}[name] else "Middle")
        slack = 1 if name == "Middle" else 0
        assert position <= mapped[query - d] <= position + slack
    assert (np.diff(mapped[::-1]) >= 0).all(), "positions never fall with distance"
    assert mapped.max() < m
    assert sum(position_map.key_counts(query)) == query + 1
    assert position_map.key_counts(query) == tuple(np.bincount(regions, minlength=len(names)))
    assert names == ["Head"] * (head > 0) + ["Middle"] + ["Tail"] * (tail > 0)


@given(settings_(), st.integers(0, 300))
def test_generated_tokens_keep_the_plan(setting, extra):
    length, m, head, tail = setting
    position_map = lampe.position_map(lampe.LampeConfig(m + 400, head, tail, m), length)
    query = length - 1 + extra
    mapped = position_map.relative(query, np.arange(query + 1))
    assert (np.diff(mapped[::-1]) >= 0).all()
    assert mapped.max() == m - 1 + extra if tail else mapped.max() <= m + extra
    if not head and not tail:
        assert (mapped == (m * query // length) - (m * np.arange(query + 1) // length)).all(), "one uniform region"


@st.composite
def plans(draw):
    """Settings, and where a prompt of that plan ends."""
    length, m, head, tail = draw(settings_())
    return length, m, head, tail, draw(st.integers(head + tail + 1, length))


@given(plans(), st.integers(0, 300), st.data())
def test_a_prompt_that_ends_before_its_plan(plan, extra, data):
    """The compression is the planned length's, Tail is measured from the prompt's end."""
    length, m, head, tail, end = plan
    position_map = lampe.position_map(lampe.LampeConfig(m + 400, head, tail, m), length, end)
    c = Fraction(m - head - tail, length - head - tail)
    query = data.draw(st.integers(0, end - 1 + extra))
    mapped = position_map.relative(query, np.arange(query + 1))
    border = head + math.ceil(c * (end - tail - head))
    for d in {0, head, head + 1, end - tail - 1, end - tail, end - 1, query, query // 2} & set(range(query + 1)):
        if d <= head:
            assert mapped[query - d] == d
        elif d < end - tail or not tail:
            assert 0 <= mapped[query - d] - head - math.floor(c * (d - head)) <= 1
        else:
            assert mapped[query - d] == border + d - (end - tail)
    assert (np.diff(mapped[::-1]) >= 0).all(), "positions never fall with distance"
    if query < end:
        assert mapped.max() < m or not tail
        assert mapped.max() <= m
    assert sum(position_map.key_counts(query)) == query + 1
    regions = position_map.region(query, np.arange(query + 1))
    assert position_map.key_counts(query) == tuple(np.bincount(regions, minlength=len(position_map.regions)))
    if tail:
        answer = max(0, query - end + 1)
        assert position_map.key_counts(end - 1 + answer)[-1] == tail + answer, "Tail takes part for the question"


@given(plans(), st.data())
def test_where_a_prompt_ends_changes_nothing_before_its_tail(plan, data):
    length, m, head, tail, end = plan
    config = lampe.LampeConfig(m, head, tail, m)
    assert lampe.position_map(config, length, length) == lampe.position_map(config, length), "the paper's own map"
    one, other = lampe.position_map(config, length, end), lampe.position_map(config, length)
    query = data.draw(st.integers(0, min(one.shared, other.shared) - 1))
    keys = np.arange(query + 1)
    assert (one.relative(query, keys) == other.relative(query, keys)).all()
    assert one.shared == (end - tail if tail else length)


@pytest.mark.parametrize(
    ("length", "end", "why"),
    [
        (100, 101, "The prompt has 101 tokens, and the plan is for 100"),
        (100, 13, r"ends after 13 tokens, within Head \+ Tail \(8 \+ 5\)"),
        (100, 3, "plan so short a prompt for its own length"),
        (100, 0, "at least 1 token, not 0"),
    ],
)
def test_impossible_ends_are_refused(length, end, why):
    with pytest.raises(ValueError, match=why):
        lampe.position_map(lampe.LampeConfig(64, 8, 5, 32), length, end)


def test_an_end_needs_no_room_where_nothing_is_mapped():
    position_map = lampe.position_map(lampe.LampeConfig(64, 8, 5, 32), 32, 3)
    assert not position_map.compresses
    assert (position_map.end, position_map.shared) == (3, 32)


def test_arrays_tensors_and_integers_agree():
    position_map = lampe.position_map(lampe.LampeConfig(64, 8, 5, 32), 100)
    i, j = np.arange(100, dtype=np.int32)[:, None], np.arange(100, dtype=np.int32)
    array = position_map.relative(i, j)
    tensor = position_map.relative(torch.from_numpy(i), torch.from_numpy(j))
    assert (tensor.numpy() == array).all()
    assert (position_map.region(torch.from_numpy(i), torch.from_numpy(j)).numpy() == position_map.region(i, j)).all()
    assert position_map.relative(99, 3) == array[99, 3]
    assert (position_map.region(i, j)[i < j] == -1).all()
    assert (array[i < j] < 0).all()
    with pytest.raises(TypeError, match="integers"):
        position_map.relative(1.5 * torch.ones(1), torch.ones(1, dtype=torch.long))


def test_positions_are_exact_at_a_million_tokens():
    position_map = lampe.position_map(lampe.LampeConfig.for_model(LlamaConfig(**LLAMA3)), 1_048_576)
    keys = np.array([0, 199, 200, 500_000, 1_048_000], dtype=np.int32)
    d = 1_048_575 - keys.astype(object)
    expected = [papers_position(int(x), 1_048_576, position_map.mapping_length, 512, 200)[1] for x in d]
    assert all(0 <= got - want <= 1 for got, want in zip(position_map.relative(1_048_575, keys), expected, strict=True))


@pytest.mark.parametrize(
    ("head", "tail", "m", "length"), [(8, 5, 32, 32), (8, 5, 33, 32), (8, 5, 13, 40), (8, 5, 9, 40)]
)
def test_where_lampe_does_not_apply_the_map_is_plain_rope(head, tail, m, length):
    position_map = lampe.position_map(lampe.LampeConfig(64, head, tail, m), length)
    i, j = np.arange(length)[:, None], np.arange(length)
    assert (position_map.relative(i, j) == i - j).all()
    assert not position_map.compresses
    assert position_map.mapping_length == length
    assert [region.name for region in position_map.regions] == ["All"]


def test_the_mapping_length_never_exceeds_the_window():
    assert lampe.position_map(lampe.LampeConfig(64, 8, 5, 1000), 500).mapping_length == 64


def test_the_published_curves():
    assert lampe.PRESETS["llama3"].mapping(8000) == 1536
    assert lampe.PRESETS["llama3"].mapping(8192) == 1036
    assert lampe.PRESETS["llama2"].mapping(16384) == math.floor(
        2489.1055552214357 / (1 + math.exp(-(8.673006440952035e-05 * 16384 - 0.648012322406978)))
    )
    assert lampe.PRESETS["llama3.1"].mapping(131072) == math.floor(
        82358.52413056031 / (1 + math.exp(-(4.505261149632588e-05 * 131072 - 2.788576860718702)))
    )
    assert lampe.PRESETS["mistral"].mapping(10**9) == 24576


def test_the_default_models_preset_is_its_sweeps():
    assert lampe.PRESETS["smollm2"] == lampe.load_preset(Path(__file__).parents[2] / "assets" / "smollm2.json")


@given(st.floats(1, 1e6), st.floats(-1, 1), st.floats(-1e4, 1e4), st.integers(1, 2**40))
def test_the_curve_has_a_value_everywhere(maximum, slope, intercept, length):
    assert 0 <= lampe.ScaledSigmoid(maximum, slope, intercept)(length) <= maximum


LLAMA3 = {"vocab_size": 128256, "max_position_embeddings": 8192}


def test_a_model_gets_its_familys_preset_or_a_rescaled_curve():
    llama3 = lampe.LampeConfig.for_model(LlamaConfig(**LLAMA3))
    assert (llama3, llama3.basis) == (lampe.PRESETS["llama3"], "family")
    named = LlamaConfig(**LLAMA3)
    named._name_or_path = "meta-llama/Meta-Llama-3-8B-Instruct"
    assert lampe.LampeConfig.for_model(named).basis == "measured"
    named._name_or_path = "meta-llama/Llama-2-7b-chat-hf"
    assert lampe.LampeConfig.for_model(named).basis == "family", "a name of another family says nothing"
    smollm2 = lampe.LampeConfig.for_model(LlamaConfig(vocab_size=49152, max_position_embeddings=8192))
    assert (smollm2, smollm2.basis) == (lampe.PRESETS["smollm2"], "family")
    assert family_of(MistralConfig(vocab_size=32000, max_position_embeddings=32768)) == "mistral"
    other = lampe.LampeConfig.for_model(Qwen2Config(max_position_embeddings=32768))
    assert (other.basis, other.doubt) == ("rescaled", "not calibrated for this model")
    assert other.mapping.maximum == 0.75 * 32768
    # The same share of the window at the same share of the input as Llama-3's curve (with its L rounded to ¾).
    assert other.mapping(4 * 12000) / 32768 == pytest.approx(
        lampe.ScaledSigmoid(0.75 * 8192, 0.00010493097327094324, -2.466638011138158)(12000) / 8192, abs=1e-3
    )


@pytest.mark.parametrize("window", [1, 2, 3, 64])
def test_the_rescaled_curve_has_a_value_at_the_smallest_windows(window):
    config = rescaled(window)
    assert config.window == window
    assert lampe.position_map(config, 10 * window).mapping_length >= 1


def test_the_window_is_the_one_before_scaling():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "rope_theta": 1e4}
    assert pretraining_window(LlamaConfig(max_position_embeddings=16384, rope_parameters=yarn)) == 4096
    layers = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": yarn}
    assert pretraining_window(Gemma3TextConfig(max_position_embeddings=16384, rope_parameters=layers)) == 4096
    long = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
    assert pretraining_window(Phi3Config(max_position_embeddings=131072, rope_parameters=long)) == 4096
    dynamic = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    assert pretraining_window(LlamaConfig(max_position_embeddings=4096, rope_parameters=dynamic)) == 4096
    llama3 = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert pretraining_window(LlamaConfig(max_position_embeddings=131072, rope_parameters=llama3)) == 131072
    with pytest.raises(ValueError, match="max_position_embeddings"):
        pretraining_window(object())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: lampe.LampeConfig(-1, 8, 5, 32), "window"),
        (lambda: lampe.LampeConfig(64, -1, 5, 32), "Head"),
        (lambda: lampe.LampeConfig(64, 8, 5, 0), "mapping length"),
        (lambda: lampe.LampeConfig(64, 8, 5, 32, attention_scale=float("nan")), "attention scale"),
        (lambda: lampe.ScaledSigmoid(float("inf"), 1, 1), "finite"),
        (lambda: lampe.ScaledSigmoid(0, 1, 1), "at least 1"),
        (lambda: lampe.position_map(lampe.LampeConfig(64, 8, 5, 32), 0), "at least 1 token"),
    ],
)
def test_impossible_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_sizes_are_whole_numbers_of_any_integer_type():
    config = lampe.LampeConfig(np.int64(64), np.int32(8), 5, np.int64(32))
    assert config == lampe.LampeConfig(64, 8, 5, 32)
    assert lampe.position_map(config, 100).mapping_length == 32
    for wrong in ({"head": 10.5}, {"mapping": "32"}, {"mapping": None}):
        with pytest.raises(TypeError, match="whole number"):
            lampe.LampeConfig(**{"window": 64, "head": 8, "tail": 5, "mapping": 32, **wrong})


def test_a_map_widens_its_indices_itself():
    position_map = lampe.position_map(lampe.LampeConfig.for_model(LlamaConfig(**LLAMA3)), 1_048_576)
    middle = position_map.regions[1]
    index = np.array([1_000_000], dtype=np.int32)
    assert middle.query_map(index)[0] == middle.query_map(1_000_000)
    assert middle.contains(index, index * 0)[0]


def test_a_stretched_model_gets_the_preset_of_its_own_window():
    yarn = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8192, "rope_theta": 5e5}
    config = LlamaConfig(vocab_size=128256, max_position_embeddings=131072, rope_parameters=yarn)
    assert lampe.LampeConfig.for_model(config) == lampe.PRESETS["llama3"]
