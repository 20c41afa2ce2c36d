"""Models that accelerate has spread over devices, and devices that fail."""

from __future__ import annotations

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_submodules

import lampe
from lampe.models.device import attention_here, compute_dtype, default_place
from tests.lampe.tiny import CONFIG, FAMILIES, LENGTH, build, close, logits, tokens


@pytest.mark.parametrize("family", ["llama", "qwen2-windows", "olmo3", "gemma3", "smollm3", "glm"])
def test_a_model_spread_over_devices_is_mapped_alike(family):
    """Accelerate makes new tuples and tensors on the way into each layer; what it places here is all on one CPU."""
    model, ids = build(FAMILIES[family]), tokens(LENGTH)
    with lampe.patch(model, CONFIG):
        expected = logits(model, ids)
        answer = model.generate(ids, max_new_tokens=5, do_sample=False)
    layers = model.get_decoder().layers
    for layer in layers:
        add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu", io_same_device=True))
        add_hook_to_module(layer.self_attn, AlignDevicesHook(execution_device="cpu"))
    with lampe.patch(model, CONFIG):
        close(logits(model, ids), expected)
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), answer)
    for layer in layers:
        remove_hook_from_submodules(layer)


def test_a_reading_that_fails_leaves_the_reader_usable(monkeypatch):
    """Out of memory in the middle of a chunk: some layers hold it, others don't. The next prompt is right."""
    model = build(FAMILIES["llama"])
    ids, calls = tokens(60)[0].tolist(), []
    config = lampe.LampeConfig(64, 6, 4, lampe.Constant(30))
    with lampe.patch(model, config) as patched:
        reader = lampe.PromptReader(model, step=10)
        position_map = patched.plan(70, len(ids))
        list(reader.read(ids, position_map))
        with torch.no_grad():
            expected = model(reader.last, past_key_values=reader.cache).logits
        other = ids[:30] + [5] * 30

        def fail(*_):
            calls.append(1)
            if len(calls) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

        handle = model.model.layers[1].register_forward_pre_hook(fail)
        calls.append(1)
        with pytest.raises(torch.OutOfMemoryError):
            list(reader.read(other, patched.plan(70, len(other))))
        handle.remove()
        list(reader.read(ids, patched.plan(70, len(ids))))
        assert reader.kept == 0, "what a failed reading has left is read anew"
        with torch.no_grad():
            close(model(reader.last, past_key_values=reader.cache).logits, expected)


@pytest.fixture
def afresh():
    default_place.cache_clear()
    yield
    default_place.cache_clear()


def test_a_gpu_that_pytorch_cannot_run_on_is_told_and_left_alone(monkeypatch, afresh):
    """Too old for the build, or its driver: it is listed, and the first kernel fails."""

    def ones(*args, device=None, **kwargs):
        assert device == "cuda"
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with …")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("lampe.models.device.torch.ones", ones)
    place = default_place()
    assert place.device.type == "cpu"
    assert "no kernel image is available" in place.refusal
    assert "run on the CPU" in place.refusal
    monkeypatch.undo()
    assert attention_here().endswith("run on the CPU."), "the page and the doctor say it"


def test_without_a_gpu_there_is_nothing_to_tell(afresh):
    if not torch.cuda.is_available():
        assert default_place() == (torch.device("cpu"), "")


@pytest.mark.parametrize(
    ("onednn", "avx512", "avx512_bf16", "amx_tile", "expected"),
    [
        (True, True, True, False, torch.bfloat16),  # a Xeon of 2020 on
        (True, True, False, True, torch.bfloat16),
        (True, True, False, False, torch.float32),  # one before: bfloat16 is emulated, five times as slow
        (True, False, False, False, torch.bfloat16),  # an ARM with its own instructions for it
        (False, False, False, False, torch.float32),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_where_that_is_fast(
    monkeypatch, onednn, avx512, avx512_bf16, amx_tile, expected
):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx_tile)
    assert compute_dtype(torch.device("cpu")) == expected
