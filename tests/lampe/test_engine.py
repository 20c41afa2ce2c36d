"""The engine against a dense reference that knows nothing but `PositionMap.relative`."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

import lampe
from lampe.attention.backends import Backend, choose
from lampe.attention.kernels import _attend_band, attend_tile
from lampe.attention.step import resting_map
from lampe.attention.tiles import Shape, tiles
from lampe.attention.token import NearKeys, TokenStep, make_step
from lampe.methods import METHODS
from lampe.positions import IndexMap, plain_map
from tests.lampe import cuda_ops

DIM = 16
FREQUENCIES = 1.0 / 100 ** (torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)


def table_for(dtype=torch.float32, device="cpu"):
    def tables(positions):
        angle = positions.double()[None, :, None] * FREQUENCIES.to(device)
        return angle.cos().to(dtype), angle.sin().to(dtype)

    return tables


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def dense(position_map, query, key, value, first, scaling):
    """Every score from its own relative position, in float64: softmax over an n × n matrix."""
    query, key, value = query.double(), key.double(), value.double()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    i = torch.arange(first, key.shape[2])[:, None]
    j = torch.arange(key.shape[2])[None, :]
    angle = position_map.relative(i, j)[..., None].double() * FREQUENCIES
    cos, sin = angle.cos(), angle.sin()
    a, b = query[..., None, :].chunk(2, -1)
    turned = torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
    scores = (turned * key[:, :, None]).sum(-1) * scaling
    scores = scores.masked_fill(j > i, -torch.inf)
    region = position_map.region(i, j)
    lse = torch.stack(
        [
            scores[:, :, -1].masked_fill(region[-1] != r, -torch.inf).logsumexp(-1)
            for r in range(len(position_map.regions))
        ]
    )
    weights = scores.softmax(-1)
    return weights @ value, lse, weights[:, :, -1]


def inputs(stop, first, heads=4, key_heads=2, dtype=torch.float32, rows=1, device="cpu"):
    generator = torch.Generator().manual_seed(stop * 1000 + first)
    make = lambda h, n: torch.randn(rows, h, n, DIM, generator=generator).to(dtype).to(device)  # noqa: E731
    return make(heads, stop - first) * 3, make(key_heads, stop), make(key_heads, stop)


def check(position_map, first, stop, atol=1e-5, **kwargs):
    """At rest where the map's own keys are, unrotated, at plain RoPE's positions, and where a longer plan found the
    keys of a shorter one: all must give the same.
    """
    query, key, value = inputs(stop, first, **kwargs)
    tables, exact = table_for(query.dtype), table_for(torch.promote_types(query.dtype, torch.float32))
    expected, expected_lse, expected_weights = dense(position_map, query, key, value, first, 0.3)
    for resting in (resting_map(position_map), IndexMap(0), IndexMap(), resting_map(CONFIG.position_map(120))):
        step = make_step(position_map, resting, first, stop, exact, torch.device("cpu"))
        resting_query = rotate(query, *tables(resting(torch.arange(first, stop))))
        resting_key = rotate(key, *tables(resting(torch.arange(stop))))
        out, lse = step.attend(resting_query, resting_key, value, rotate, 0.3)
        torch.testing.assert_close(out.double(), expected, atol=atol, rtol=0)
        torch.testing.assert_close(lse().double(), expected_lse, atol=atol * 10, rtol=1e-5)
        weights = step.weights(resting_query, resting_key, rotate, 0.3)
        torch.testing.assert_close(weights.double(), expected_weights, atol=atol, rtol=0)


CONFIG = lampe.LampeConfig(200, 24, 10, 96)
BORDERS = sorted(
    {
        127,
        128,
        129,
        24 + 127,
        24 + 128,
        24 + 129,
        24,
        25,
        26,
        34,
        35,
        36,
        95,
        96,
        97,
        98,
        24 * 5,
        25 * 5,
        25 * 5 + 1,
        300,
        513,
    }
)


@pytest.mark.parametrize("length", BORDERS)
def test_prefill_at_every_border(length):
    check(CONFIG.position_map(length), 0, length)


@pytest.mark.parametrize("length", [97, 130, 300])
@pytest.mark.parametrize("first", [1, 24, 25, 60, 96])
def test_a_chunk_of_queries_at_every_border(length, first):
    check(CONFIG.position_map(300), first, length)


@pytest.mark.parametrize("end", [35, 36, 60, 129, 299])
def test_a_prompt_that_ends_before_its_plan(end):
    """Whole, in a chunk across where Tail begins, and the answer after it; from the least end that there can be."""
    position_map = CONFIG.position_map(300, end)
    check(position_map, 0, end)
    check(position_map, max(1, end - 30), end)
    check(position_map, end - 1, end + 20)
    check(position_map, end + 19, end + 20)


@pytest.mark.parametrize("beyond", [1, 2, 40])
def test_queries_beyond_the_plan(beyond):
    check(CONFIG.position_map(150), 150 + beyond - 1, 150 + beyond)
    check(CONFIG.position_map(150), 149, 150 + beyond)


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (9, 3), (8, 1)])
def test_grouped_heads_and_batches(heads, key_heads):
    check(CONFIG.position_map(140), 0, 140, heads=heads, key_heads=key_heads, rows=2)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.bfloat16, 0.06), (torch.float16, 0.01)])
def test_other_dtypes(dtype, atol):
    check(CONFIG.position_map(140), 0, 140, atol=atol, dtype=dtype)


@pytest.mark.parametrize(("head", "tail"), [(0, 0), (0, 10), (24, 0), (1, 1)])
def test_empty_head_or_tail(head, tail):
    check(lampe.LampeConfig(200, head, tail, 60).position_map(150), 0, 150)


def test_more_tokens_than_are_turned_at_once():
    check(CONFIG.position_map(1300), 0, 1300, heads=1, key_heads=1)


def test_a_head_too_wide_for_masks():
    config = lampe.LampeConfig(9000, 4200, 10, 4300)
    check(config.position_map(4600), 4500, 4600, heads=1, key_heads=1)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_random_maps_and_passes(data):
    head, tail = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    config = lampe.LampeConfig(500, head, tail, data.draw(st.integers(1, 120)))
    stop = data.draw(st.integers(1, 300))
    check(config.position_map(data.draw(st.integers(1, 160))), data.draw(st.integers(0, stop - 1)), stop)


# Other methods are further values of the same type; the engine must take them as they are.
OTHERS = {
    "rope": plain_map(130),
    **{key: METHODS[key](60, *given).position_map(130) for key, given in {
        "rerope": (20,), "leaky-rerope": (20, 3.7), "selfextend": (20, 4), "string": (8, 40), "dca": (20, 8),
    }.items()},
}  # fmt: skip


@pytest.mark.parametrize("method", OTHERS)
@pytest.mark.parametrize(("first", "stop"), [(0, 130), (0, 7), (50, 130), (129, 130), (48, 61)])
def test_other_methods_are_values_of_the_same_type(method, first, stop):
    check(OTHERS[method], first, stop)


TOKENS = {**OTHERS, "lampe": CONFIG.position_map(300, 120), "no tail": lampe.LampeConfig(200, 24, 0, 96).position_map(
    300
)}  # fmt: skip


@pytest.mark.parametrize("method", TOKENS)
def test_tokens_one_after_the_other_keep_their_near_keys(method, monkeypatch):
    """So many that all of Head's keys have been replaced, and Tail's have had to be fetched twice; then others."""
    monkeypatch.setattr("lampe.attention.token._AHEAD", 12)
    position_map, first, stop = TOKENS[method], 119, 160
    query, key, value = inputs(stop, 0, rows=2)
    # What a cache rests at comes from its whole plan.
    resting, tables = resting_map(CONFIG.position_map(300) if method == "lampe" else position_map), table_for()
    turned = resting(torch.arange(stop))
    query_, key_ = rotate(query, *tables(turned)), rotate(key, *tables(turned))
    near, built = NearKeys(), []

    def attend(i):
        step = TokenStep(position_map, resting, i, tables, torch.device("cpu"))
        keys, values = (x[:, :, : i + 1] for x in (key, value))
        out, lse = step.attend(query_[:, :, i : i + 1], key_[:, :, : i + 1], values, rotate, 0.3, None, near)
        expected, expected_lse, _ = dense(position_map, query[:, :, i : i + 1], keys, values, i, 0.3)
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(lse().double(), expected_lse, atol=1e-4, rtol=1e-5)
        if near.layout:
            built.append(near.pairs)

    for i in range(first, stop):
        attend(i)
    fetched = len({id(pairs) for pairs in built})
    assert fetched == {"lampe": 4}.get(method, bool(built))  # 41 tokens: Tail's keys come 12 at a time
    attend(stop - 1)  # the same place again, as after a crop
    attend(stop - 5)


def window(rows, columns, left):
    """What flash attention sees: up to the diagonal that ends in the last corner, and so many keys before it."""
    seen = torch.ones(rows, columns).tril(columns - rows)
    return seen if left is None else seen.triu(columns - rows - left)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_tiles_hold_each_pair_once(data):
    config = lampe.LampeConfig(
        500, data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9)), data.draw(st.integers(1, 50))
    )
    position_map = data.draw(st.sampled_from([config.position_map(data.draw(st.integers(1, 60))), OTHERS["dca"]]))
    stop = data.draw(st.integers(1, 400))
    first = data.draw(st.integers(0, stop - 1))
    backend = data.draw(st.sampled_from(Backend))
    found = torch.full((stop, stop), -1)
    for number, region in enumerate(position_map.regions):
        for tile in tiles(region, first, stop, backend):
            rows, columns = tile.query[1] - tile.query[0], tile.key[1] - tile.key[0]
            square = torch.ones(rows, columns)
            mask = {
                Shape.FULL: square,
                Shape.CAUSAL: square.tril(),
                Shape.ANTICAUSAL: square.triu(),
                Shape.BAND: square.triu().tril(columns - rows),
                Shape.WINDOW: window(rows, columns, tile.left),
            }[tile.shape].bool()
            assert mask.any(1).all()  # flash attention gives +∞ for a row without a key
            part = found[slice(*tile.query), slice(*tile.key)]
            assert (part[mask] == -1).all()
            part[mask] = number
    i = torch.arange(first, stop)[:, None]
    assert torch.equal(found[first:], position_map.region(i, torch.arange(stop)[None]))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("backend", [Backend.CPU, Backend.EFFICIENT])
def test_both_ways_to_attend_to_a_band(backend, rows, monkeypatch):
    """With a mask, and in two triangles for each block where the kernel takes none."""
    queries, width = 768, 97
    query = torch.randn(rows, 4, queries, DIM)
    key, value = (torch.randn(rows, 2, queries + width - 1, DIM) for _ in range(2))
    monkeypatch.setattr("lampe.attention.backends._chosen", {})
    choose(query, backend)
    with cuda_ops.on_the_cpu():
        out, lse = _attend_band(query, key, value, 0.3)
    seen = torch.ones(queries, key.shape[2]).triu().tril(width - 1).bool()
    scores = query @ key.repeat_interleave(2, 1).mT * 0.3
    scores = scores.masked_fill(~seen, -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ value.repeat_interleave(2, 1))
    torch.testing.assert_close(lse, scores.logsumexp(-1))


@pytest.mark.parametrize("scores", [1, 2**22])
@pytest.mark.parametrize("shape", [shape for shape in Shape if shape is not Shape.WINDOW])
def test_capped_scores(shape, scores, monkeypatch):
    """Each tile, one row at a time too."""
    monkeypatch.setattr("lampe.attention.kernels._SCORES", scores)
    rows, columns = {Shape.FULL: (64, 90), Shape.BAND: (128, 150)}.get(shape, (64, 64))
    query, key, value = (torch.randn(2, heads, n, DIM) for heads, n in ((4, rows), (2, columns), (2, columns)))
    seen = torch.ones(rows, columns)
    seen = {
        Shape.FULL: seen,
        Shape.CAUSAL: seen.tril(),
        Shape.ANTICAUSAL: seen.triu(),
        Shape.BAND: seen.triu().tril(columns - rows),
    }[shape]
    out, lse = attend_tile(query, key, value, shape, 0.5, 1.5)
    scores = 1.5 * (query @ key.repeat_interleave(2, 1).mT * 0.5 / 1.5).tanh()
    scores = scores.masked_fill(seen == 0, -torch.inf)
    torch.testing.assert_close(out, scores.softmax(-1) @ value.repeat_interleave(2, 1))
    torch.testing.assert_close(lse, scores.logsumexp(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [Shape.FULL, Shape.CAUSAL, Shape.ANTICAUSAL])
def test_the_cuda_kernels_take_each_tile(dtype, shape):
    """Shapes, dtypes and devices of every CUDA kernel call, checked without a GPU; not its numbers.

    A band is a batch of two of these shapes there.
    """
    with FakeTensorMode():
        query, key, value = (torch.empty(2, heads, 30, DIM, dtype=dtype, device="cuda") for heads in (4, 2, 2))
        out, lse = attend_tile(query, key, value, shape, 0.3)
    assert (out.shape, out.dtype, out.device.type) == (query.shape, dtype, "cuda")
    assert (lse.shape, lse.dtype, lse.device.type) == (query.shape[:3], torch.float32, "cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("first", [0, 100, 149])
def test_a_whole_step_fits_together_off_the_cpu(dtype, first):
    """The same for the code around the kernels, on PyTorch's meta device: tensors without numbers."""
    query, key, value = inputs(150, first, dtype=dtype, device="meta")
    frequencies = torch.empty(DIM // 2, device="meta")

    def tables(positions):
        angle = positions[None, :, None] * frequencies
        return angle.cos().to(dtype), angle.sin().to(dtype)

    position_map = CONFIG.position_map(150)
    step = make_step(position_map, resting_map(position_map), first, 150, tables, torch.device("meta"))
    out, lse = step.attend(query, key, value, rotate, 0.3)
    assert (out.shape, out.dtype, out.device.type) == ((1, 4, 150 - first, DIM), dtype, "meta")
    assert (lse().shape, lse().dtype) == ((3, 1, 4), torch.float32)
