"""Each backend against the dense reference, without its hardware; and which one is taken where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import lampe
from lampe.attention import backends, kernels, selfcheck
from lampe.attention.backends import Backend, candidates
from lampe.attention.selfcheck import checked
from lampe.attention.step import resting_map
from lampe.attention.token import NearKeys, TokenStep, make_step
from lampe.methods import METHODS
from tests.lampe import cuda_ops
from tests.lampe.test_engine import CONFIG, DIM, TOKENS, dense, inputs, rotate, table_for
from tests.lampe.tiny import FAMILIES, build, logits, tokens

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
PAIRS = [(Backend.FLASH, F16), (Backend.FLASH, BF16), (Backend.EFFICIENT, F16), (Backend.EFFICIENT, BF16),
         (Backend.EFFICIENT, F32), (Backend.PLAIN, F32)]  # fmt: skip
ALLOWED = {F16: 0.01, BF16: 0.07, F32: 2e-5}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """What other tests have found out about this machine stays theirs."""
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(selfcheck, "_found", {})


def against_the_reference(backend, dtype, position_map, first, stop, device="cpu", **kwargs):
    query, key, value = inputs(stop, first, dtype=dtype, device=device, **kwargs)
    backends.choose(query, backend)
    resting = (
        resting_map(CONFIG.position_map(300)) if position_map.end < position_map.length else resting_map(position_map)
    )
    tables = table_for(torch.promote_types(dtype, F32), device)
    lying = [
        rotate(x, *tables(resting(torch.arange(start, stop, device=device)))).to(dtype)
        for x, start in ((query, first), (key, 0))
    ]
    out, lse = make_step(position_map, resting, first, stop, tables, torch.device(device)).attend(
        *lying, value, rotate, 0.3
    )
    expected, expected_lse, _ = dense(position_map, query.cpu(), key.cpu(), value.cpu(), first, 0.3)
    torch.testing.assert_close(out.cpu().double(), expected, atol=ALLOWED[dtype], rtol=0)
    torch.testing.assert_close(lse().cpu().double(), expected_lse, atol=ALLOWED[dtype] * 10, rtol=1e-3)


@pytest.mark.parametrize(("backend", "dtype"), PAIRS)
@pytest.mark.parametrize("method", TOKENS)
@pytest.mark.parametrize(("first", "stop"), [(0, 130), (0, 7), (50, 130), (119, 125), (129, 130)])
def test_each_backend_and_method_gives_what_the_reference_gives(backend, dtype, method, first, stop):
    with cuda_ops.on_the_cpu():
        against_the_reference(backend, dtype, TOKENS[method], first, stop, rows=2)


@pytest.mark.parametrize(("backend", "dtype"), [(Backend.FLASH, F16), (Backend.EFFICIENT, F32)])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_random_maps_and_passes(backend, dtype, data):
    config = lampe.LampeConfig(
        500, data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30)), data.draw(st.integers(1, 120))
    )
    stop = data.draw(st.integers(1, 200))
    with cuda_ops.on_the_cpu():
        first = data.draw(st.integers(0, stop - 1))
        against_the_reference(backend, dtype, config.position_map(data.draw(st.integers(1, 160))), first, stop)


def tokens_against_the_reference(backend, dtype, device="cpu"):
    """Several in turn, which keep near keys."""
    position_map, first, stop = TOKENS["lampe"], 119, 135
    query, key, value = inputs(stop, 0, dtype=dtype, heads=6, device=device)
    backends.choose(query, backend)
    resting, tables = resting_map(CONFIG.position_map(300)), table_for(torch.promote_types(dtype, F32), device)
    lying = [rotate(x, *tables(resting(torch.arange(stop, device=device)))).to(dtype) for x in (query, key)]
    near, (whole_query, whole_key, whole_value) = NearKeys(), (x.cpu() for x in (query, key, value))
    for i in range(first, stop):
        step = TokenStep(position_map, resting, i, tables, torch.device(device))
        q, k = lying[0][:, :, i : i + 1], lying[1][:, :, : i + 1]
        out, _ = step.attend(q, k, value[:, :, : i + 1], rotate, 0.3, None, near)
        met = whole_query[:, :, i : i + 1], whole_key[:, :, : i + 1], whole_value[:, :, : i + 1]
        expected = dense(position_map, *met, i, 0.3)[0]
        torch.testing.assert_close(out.cpu().double(), expected, atol=ALLOWED[dtype], rtol=0)


@pytest.mark.parametrize(("backend", "dtype"), PAIRS)
def test_tokens_keep_their_near_keys_under_each(backend, dtype):
    with cuda_ops.on_the_cpu():
        tokens_against_the_reference(backend, dtype)


@pytest.mark.parametrize("backend", [Backend.FLASH, Backend.EFFICIENT])
@pytest.mark.parametrize("dim", [12, 80, 256])
def test_head_sizes_that_the_kernels_do_not_take_are_padded(backend, dim):
    query, key, value = (torch.randn(1, heads, 40, dim).half() for heads in (4, 2, 2))
    backends.choose(query, backend)
    with cuda_ops.on_the_cpu():
        out, lse = kernels.kernel(query, key, value, True, 0.2)
        window = kernels._attend_window(query[:, :, 10:], key, value, 0.2, 5)[0] if backend is Backend.FLASH else None
    scores = (query.float() @ key.float().repeat_interleave(2, 1).mT * 0.2).masked_fill(
        torch.ones(40, 40).triu(1) > 0, -torch.inf
    )
    torch.testing.assert_close(
        out.float(), scores.softmax(-1) @ value.float().repeat_interleave(2, 1), atol=0.01, rtol=0
    )
    torch.testing.assert_close(lse.float(), scores.logsumexp(-1), atol=0.01, rtol=0)
    if window is not None:
        scores = scores[:, :, 10:].masked_fill(torch.ones(30, 40).tril(4) > 0, -torch.inf)
        wanted = scores.softmax(-1) @ value.float().repeat_interleave(2, 1)
        torch.testing.assert_close(window.float(), wanted, atol=0.01, rtol=0)


def test_more_blocks_than_a_grid_takes(monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCKS", 3)
    query, key, value = (torch.randn(8, heads, 10, DIM) for heads in (4, 2, 2))
    whole = kernels._plain_kernel(query, key, value, True, 0.3, None, None)
    backends.choose(query, Backend.EFFICIENT)
    with cuda_ops.on_the_cpu():
        parts = kernels.kernel(query, key, value, True, 0.3)
        assert cuda_ops.calls["efficient"] == 3
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected)


def test_equal_heads_are_not_copied():
    query, key, value = (torch.randn(1, 4, 10, DIM) for _ in range(3))
    backends.choose(query, Backend.EFFICIENT)
    given = []
    with cuda_ops.on_the_cpu({"_scaled_dot_product_efficient_attention": lambda *args, **kwargs: (
        given.append(args[1].data_ptr()), cuda_ops.efficient(*args, **kwargs),
    )[1]}):  # fmt: skip
        kernels.kernel(query, key, value, False, 0.3)
    assert given == [key.data_ptr()]


# Which is taken where


@pytest.mark.parametrize(
    ("capability", "flash", "dtype", "dim", "expected"),
    [
        ((9, 0), True, BF16, 64, ["FLASH", "EFFICIENT", "PLAIN"]),
        ((8, 0), True, F16, 256, ["FLASH", "EFFICIENT", "PLAIN"]),
        ((8, 0), True, F16, 512, ["EFFICIENT", "PLAIN"]),
        ((8, 0), True, F32, 64, ["EFFICIENT", "PLAIN"]),
        ((8, 6), False, BF16, 64, ["EFFICIENT", "PLAIN"]),  # Windows
        ((7, 5), True, F16, 64, ["EFFICIENT", "PLAIN"]),  # a T4
        ((7, 5), True, BF16, 64, ["PLAIN"]),
        ((8, 0), True, torch.float64, 64, ["PLAIN"]),
    ],
)
def test_what_each_gpu_should_have(capability, flash, dtype, dim, expected, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: capability)
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: flash)
    like = torch.empty(1, 1, 1, dim, dtype=dtype, device="meta")
    assert [backend.name for backend in candidates(like)] == expected


def test_capped_scores_go_through_plain_operations_everywhere():
    like = torch.empty(1, 1, 1, 64, dtype=BF16, device="meta")
    assert backends.backend_for(like) is Backend.FLASH
    assert backends.backend_for(like, 30.0) is Backend.PLAIN


# The look at the first use


@pytest.mark.parametrize("dtype", [F16, BF16, F32, torch.float64])
@pytest.mark.parametrize("dim", [16, 64, 5])
def test_this_machine_passes(dtype, dim):
    found = checked(torch.empty(1, 1, 1, dim, dtype=dtype))
    assert (found.backend, found.refused) == (Backend.CPU, ())
    assert found.difference < selfcheck._ALLOWED[dtype] / 2
    assert found.in_words().startswith("CPU kernel, checked on this CPU, largest difference 0.0")


def test_a_gpus_kernels_pass(monkeypatch):
    everything = [Backend.FLASH, Backend.EFFICIENT, Backend.PLAIN]
    monkeypatch.setattr(selfcheck, "candidates", lambda like: everything)
    with cuda_ops.on_the_cpu():
        assert checked(torch.empty(1, 1, 1, 64, dtype=F16)).backend is Backend.FLASH


def test_a_kernel_that_raises_or_is_wrong_is_passed_over_and_told(monkeypatch):
    def wrong(*args, **kwargs):
        out, *others = cuda_ops.efficient(*args, **kwargs)
        return (out * 1.5, *others)

    def broken(*args, **kwargs):
        raise RuntimeError("no kernel image is available for execution on the device")

    everything = [Backend.FLASH, Backend.EFFICIENT, Backend.PLAIN]
    monkeypatch.setattr(selfcheck, "candidates", lambda like: everything)
    ops = {"_flash_attention_forward": broken, "_scaled_dot_product_flash_attention": broken,
           "_scaled_dot_product_efficient_attention": wrong}  # fmt: skip
    like = torch.empty(1, 1, 1, 64, dtype=F16)
    with cuda_ops.on_the_cpu(ops):
        found = checked(like)
    assert found.backend is Backend.PLAIN
    assert backends.backend_for(like) is Backend.PLAIN, "from then on"
    assert [backend for backend, _ in found.refused] == [Backend.FLASH, Backend.EFFICIENT]
    assert "no kernel image" in found.in_words()
    assert "off by" in found.in_words()


def test_where_nothing_is_right_it_says_so(monkeypatch):
    monkeypatch.setattr(kernels, "capped", lambda scores, softcap: scores * 2)
    monkeypatch.setattr(selfcheck, "candidates", lambda like: [Backend.PLAIN])
    with pytest.raises(RuntimeError, match="right numbers on cpu"):
        checked(torch.empty(1, 1, 1, 64))


def test_a_wrong_border_is_more_than_rounding(monkeypatch):
    """The check can fail: one token more or less in a region is seen in each dtype."""
    wrong = lampe.LampeConfig(128, 21, 12, 64).position_map(160, 150)
    right = selfcheck._MAP
    made = make_step
    monkeypatch.setattr(selfcheck, "make_step", lambda position_map, *rest: made(wrong, *rest))
    assert right != wrong
    for dtype in (F32, F16):
        assert selfcheck._difference(torch.device("cpu"), dtype, 16) > selfcheck._ALLOWED[dtype]


def test_a_whole_model_on_flash_attention(monkeypatch):
    """A patched model in bf16, as on a GPU: a prompt in chunks, then tokens."""
    model = build(FAMILIES["llama"]).to(BF16)
    config = lampe.LampeConfig(60, 6, 4, lampe.Constant(30))
    ids = tokens(50)
    with lampe.patch(model, config):
        expected = logits(model, ids)
    monkeypatch.setattr(backends, "_chosen", {})
    monkeypatch.setattr(selfcheck, "_found", {})
    monkeypatch.setattr(selfcheck, "candidates", lambda like: [Backend.FLASH])
    with cuda_ops.on_the_cpu(), lampe.patch(model, config):
        found = logits(model, ids)
        assert cuda_ops.calls["flash window"] > 3
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1)


# Kernel launches

VIEWS = ("view", "slice", "select", "transpose", "expand", "unsqueeze", "squeeze", "permute", "as_strided", "detach")
VIEWS += ("alias", "split", "unfold", "t.", "_unsafe_view", "empty", "_reshape_alias", "promote_types")


class Launches(TorchDispatchMode):
    """Counts operations that would start a kernel on a GPU."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).removeprefix("aten.")
        if not name.startswith(VIEWS):
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def launches(position_map, first, stop, passes=1):
    """Of one layer, after another one of the same pass; for a token, the last of `passes`, which kept near keys."""
    frequencies = torch.empty(DIM // 2, device="meta")

    def tables(positions):
        angle = positions[None, :, None] * frequencies
        return angle.cos(), angle.sin()

    before, near = NearKeys(), NearKeys()
    for number in range(passes):
        query, key, value = inputs(stop + number, first + number, dtype=BF16, device="meta")
        step = make_step(
            position_map, resting_map(position_map), first + number, stop + number, tables, torch.device("meta")
        )
        step.attend(query, key, value, rotate, 0.3, None, before)
        with Launches() as counted:
            step.attend(query, key, value, rotate, 0.3, None, near)
    return counted.names


REGIONS = [key for key in METHODS if key not in ("rope", "pi", "ntk", "dynamic-ntk", "yarn")]


@pytest.mark.parametrize("key", REGIONS)
def test_a_token_takes_few_launches(key):
    names = launches(METHODS[key].for_window(200).position_map(400), 350, 351, passes=3)
    assert len(names) <= (9 if key == "dca" else 8), names  # chunks are three calls


@pytest.mark.parametrize("key", REGIONS)
def test_a_chunk_takes_few_launches(key):
    position_map = METHODS[key].for_window(200).position_map(400)
    names = launches(position_map, 300, 350)
    assert sum("flash" in name for name in names) <= (3 if key == "dca" else 2), names
    assert len(names) <= (14 if key == "dca" else 11), names
    with_tail = launches(position_map, 370, 400)
    assert len(with_tail) <= (32 if key == "dca" else 23), with_tail
