"""What is told of a model: the same as its patch, its cache and its weights say."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    Mamba2Config,
    MixtralConfig,
    Phi3Config,
    Qwen3MoeConfig,
)

import lampe
from lampe import __main__ as cli
from lampe.cli import doctor as doctor_command
from lampe.inference.speed import Speed
from lampe.models import doctor, memory
from lampe.models.doctor import NO_COPY, diagnose, layers_in_words, report
from lampe.models.memory import cache_bytes, weight_bytes
from lampe.models.narrow import narrow_model
from tests.lampe.tiny import FAMILIES, LEFT_ALONE, build, tokens

LLAMA3 = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, max_position_embeddings=8192,
)  # fmt: skip


@pytest.fixture
def computing_in(monkeypatch):
    """Sets what models compute in on this machine."""

    def set_to(dtype):
        for module in (doctor, memory):
            monkeypatch.setattr(module, "compute_dtype", lambda device: dtype)

    return set_to


def test_a_config_alone_tells_of_a_model_that_is_far_too_large_for_this_machine(computing_in):
    computing_in(torch.bfloat16)
    found = diagnose(LLAMA3)
    assert (found.family, found.window, found.rope, found.preset) == ("llama", 8192, ("default",), "llama3")
    assert (found.rotary_size, found.head_size) == (128, 128)
    assert len(found.layers) == 32
    assert all(layer.mapped for layer in found.layers)
    assert found.weights[16] == 2 * 8_030_261_248, "the published number of parameters"
    assert 5.5e9 < found.weights[4] < 5.8e9
    text = report("Llama-3-8B", found, LLAMA3, 8192)
    assert "1.07 GB of keys and values for 8,192 tokens" in text
    assert "llama3: whether it was measured on this model, its weights will tell" in text
    named = LlamaConfig(**LLAMA3.to_dict())
    named._name_or_path = "meta-llama/Meta-Llama-3-8B-Instruct"
    assert "llama3: measured on this model" in report("it", diagnose(named), named, 8192)
    assert "narrow copy" in text
    assert "doctor Llama-3-8B` tries it with its weights" in text


@pytest.mark.parametrize(("free", "words"), [(8e9, "room for about"), (4e9, "no room for it in 4 bits")])
def test_it_says_what_fits_on_this_machine(free, words, monkeypatch, computing_in):
    monkeypatch.setattr(doctor, "free_bytes", lambda: int(free))
    computing_in(torch.bfloat16)
    found = diagnose(LLAMA3)
    text = report("it", found, LLAMA3, 8192)
    assert f"{free / 1e9:.1f} GB free: {words}" in text
    if free == 8e9:  # two tensors of 32 layers, 8 heads, 128 dimensions and 2 bytes, three times
        assert f"about {(8_000_000_000 - found.weights[4]) // (3 * 2 * 32 * 8 * 128 * 2):,} tokens" in text


def test_it_says_how_long_reading_takes_on_this_machine(monkeypatch, capsys):
    model = build(FAMILIES["llama"])
    monkeypatch.setattr(doctor_command, "load_config", lambda _: model.config)
    monkeypatch.setattr(doctor_command, "load", lambda *_, **__: (model, None))
    monkeypatch.setattr(doctor_command, "measure", lambda _: Speed(0.002, 1e-6, 0.0512))
    assert cli.main(["doctor", "--length", "4000"]) == 0
    told = "about 16 s for reading 4,000 tokens, and 0.051 s for each token of an answer, as measured now"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Gemma2Config(), "13 of 26 mapped; 13 left as they are: sliding window of 4,096 tokens"),
        (MixtralConfig(), "32 of 32 mapped"),
        (Qwen3MoeConfig(), "24 of 24 mapped"),
        (Phi3Config(sliding_window=None), "32 of 32 mapped"),
    ],
    ids=["gemma2", "mixtral", "qwen3-moe", "phi3"],
)
def test_the_narrow_copy_has_the_layers_of_the_whole(config, words):
    before = config.to_dict()
    copy = narrow_model(config)
    assert sum(weight.numel() for weight in copy.parameters()) < 40e6
    assert layers_in_words(diagnose(config).layers) == words
    assert config.to_dict() == before, "the config is left as it was"


@pytest.mark.parametrize("name", ["smollm3", "gemma3", "llama", "qwen2-windows"])
def test_what_the_narrow_copy_shows_is_what_the_patch_finds(name):
    config = FAMILIES[name]
    with lampe.patch(build(config), lampe.LampeConfig(64, 10, 6, 32)) as patched:
        layers = patched.layers
    assert diagnose(config).layers == layers
    assert {layer.index: layer.reason for layer in layers if not layer.mapped} == LEFT_ALONE.get(name, {})


def test_where_models_compute_in_float32_they_take_twice_as_much(computing_in):
    computing_in(torch.float32)
    found = diagnose(LLAMA3)
    assert found.weights[16] == 4 * 8_030_261_248
    assert "2.15 GB of keys and values for 8,192 tokens" in report("it", found, LLAMA3, 8192)


@pytest.mark.parametrize("config", [GPT2Config(), Mamba2Config()], ids=["gpt2", "mamba2"])
def test_a_model_that_cant_be_patched_gets_the_reason_and_a_way_on(config):
    found = diagnose(config)
    assert found.layers == ()
    text = report("some/model", found, config, 100) if found.head_size else found.refusal
    assert found.refusal
    assert "can't" in text or "window" in text


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_memory_is_what_the_tensors_take(name):
    model = build(FAMILIES[name], torch.bfloat16)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(tokens(40), past_key_values=cache)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    told = cache_bytes(model.config, 40)
    # transformers keeps one token less than the window.
    assert held <= told <= held * 1.07
    assert weight_bytes(model, 16, 2) == sum(weight.nbytes for weight in model.parameters())


def test_the_command_reports_and_says_by_its_status_whether_it_works(default_folder, tmp_path, capsys):
    assert cli.main(["doctor", "--config-only"]) == 0
    said = capsys.readouterr().out
    for words in ("SmolLM2-135M-Instruct", "8,192 tokens", "64 of 64 dimensions", "30 of 30 mapped", "smollm2"):
        assert words in said
    GPT2Config().save_pretrained(tmp_path)
    assert cli.main(["doctor", str(tmp_path), "--config-only", "--length", "1000"]) == 1
    assert "no rotary position embedding" in capsys.readouterr().out
    assert cli.main(["doctor", str(tmp_path / "none")]) == 2
    assert "s for reading" not in capsys.readouterr().out, "only what was measured is told"
    assert cli.main(["doctor", "--length", "0"]) == 2
    assert "at least 1 token" in capsys.readouterr().err


def test_a_config_that_no_model_can_be_made_of_is_told_in_words():
    found = diagnose(LlamaConfig(hidden_act="none such"))
    assert found.refusal.startswith(NO_COPY)
    assert found.weights == {}
    assert "tries it with its weights" in report("x", found, LLAMA3, 100)


def test_deep_models_are_counted_to_the_last_layer():
    deep = LlamaConfig(num_hidden_layers=80, hidden_size=256, num_attention_heads=4, max_position_embeddings=4096)
    assert layers_in_words(diagnose(deep).layers) == "80 of 80 mapped"


def test_the_table_of_families_says_what_works_and_why_others_dont(monkeypatch):
    tried = {
        "llama": FAMILIES["llama"], "qwen3": FAMILIES["qwen3"], "gemma2": Gemma2Config(), "gpt2": GPT2Config(),
        "odd": LlamaConfig(hidden_act="none such"),
    }  # fmt: skip
    found = [(name, diagnose(config)) for name, config in tried.items()]
    monkeypatch.setattr(doctor_command, "families", lambda: iter(found))
    assert doctor_command.families_table().splitlines()[2:] == [
        "| llama, qwen3 | all layers mapped |",
        "| gemma2 | 13 left as they are: sliding window of 4,096 tokens |",
        "| gpt2 | refused: it has no rotary position embedding (RoPE) of transformers' kind, so there are no positions "
        "to map |",
        "| odd | not tried: a narrow copy can't be made of the config alone |",
    ]
