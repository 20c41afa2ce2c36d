"""The cache that a patched model writes into: transformers' own in all but where the numbers lie."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import lampe
from lampe.attention import one_query
from lampe.attention.one_query import Layout, pieces_for
from lampe.methods import Constant
from lampe.patching.room import RoomyLayer, make_room
from tests.lampe.tiny import FAMILIES, build, close

CONFIG = lampe.LampeConfig(60, 6, 4, Constant(30))


STEPS = ["token", "chunk", "crop", "reorder", "repeat", "select", "copy", "shallow"]


def states(rows, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, 2, tokens, 4, generator=generator) for _ in range(2))


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.sampled_from(["token", "chunk", "crop", "reorder", "repeat", "select", "copy", "shallow"]), max_size=25)
)
@pytest.mark.parametrize("planned", [0, 30])
def test_whatever_is_done_to_it_it_holds_what_transformers_holds(planned, steps):
    own, roomy = DynamicCache(), DynamicCache()
    make_room(roomy, planned)
    rows = 2
    for number, step in enumerate(["chunk", *steps]):
        held = own.get_seq_length()
        if step in ("token", "chunk"):
            keys, values = states(rows, 1 if step == "token" else 7, number)
            given_back = [cache.update(keys, values, 0) for cache in (own, roomy)]
            assert all(torch.equal(a, b) for a, b in zip(*given_back, strict=True))
            make_room(roomy, planned)
        elif step == "crop" and held > 3:
            own.crop(-3)
            roomy.crop(-3)
        elif step == "reorder":
            order = torch.arange(rows).flip(0)
            own.reorder_cache(order)
            roomy.reorder_cache(order)
        elif step == "repeat" and rows < 8:
            rows *= 2
            own.batch_repeat_interleave(2)
            roomy.batch_repeat_interleave(2)
        elif step == "select" and rows > 1:
            rows -= 1
            own.batch_select_indices(torch.arange(1, rows + 1))
            roomy.batch_select_indices(torch.arange(1, rows + 1))
        elif step == "copy":
            roomy = copy.deepcopy(roomy)
        elif step == "shallow":  # what is written into the one must not show in the other
            other = copy.copy(roomy.layers[0])
            other.update(*states(rows, 1, 99))
        assert type(roomy.layers[0]) is RoomyLayer
        assert torch.equal(own.layers[0].keys, roomy.layers[0].keys)
        assert torch.equal(own.layers[0].values, roomy.layers[0].values)


def test_a_planned_length_is_made_room_for_once():
    """A chunk and a token are written in place: no copy of what is there."""
    cache = DynamicCache()
    make_room(cache, 100)
    places = [cache.update(*states(1, tokens, 0), 0)[0].data_ptr() for tokens in (40, 40, *[1] * 20)]
    assert len(set(places)) == 1
    beyond = [cache.update(*states(1, 1, 0), 0)[0].data_ptr() for _ in range(60)]
    assert len(set(beyond)) == 1


def test_sliding_and_filled_layers_keep_their_own_ways():
    config = build(FAMILIES["gemma2"]).config
    cache = DynamicCache(config=config)
    kinds = [type(layer).__name__ for layer in cache.layers]
    make_room(cache)
    assert [type(layer).__name__ for layer in cache.layers] == [
        "RoomyLayer" if kind == "DynamicLayer" else kind for kind in kinds
    ]
    make_room(None)
    make_room((torch.zeros(1),))


def test_an_answer_is_the_same_from_a_cache_without_room():
    """Tokens one by one, after a prompt, beside `generate` over transformers' own static cache."""
    llama = build(FAMILIES["llama"])
    ids = torch.arange(50)[None] % 90
    with lampe.patch(llama, CONFIG) as patched:
        patched.plan(80, 50)
        roomy = llama.generate(ids, max_new_tokens=25, do_sample=False)
        static = llama.generate(ids, max_new_tokens=25, do_sample=False, cache_implementation="static")
        assert torch.equal(roomy, static)
        beams = [llama.generate(ids, max_new_tokens=12, do_sample=False, num_beams=3, **cache) for cache in (
            {}, {"cache_implementation": "static"},
        )]  # fmt: skip
        assert torch.equal(*beams)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("threads", [2, 4, 5])
@pytest.mark.parametrize("keys", [1, 9, 64, 301])
def test_each_layout_of_one_query_gives_the_same(layout, threads, keys, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    query = torch.randn(1, 3, 2, 16)
    key, value = (torch.randn(1, 3, keys + 5, 16)[:, :, :keys] for _ in range(2))
    out, lse = one_query._laid_out(layout, query, key, value, 0.3)
    scores = query @ key.mT * 0.3
    close(out, scores.softmax(-1) @ value)
    close(lse, scores.logsumexp(-1))


def test_as_many_pieces_as_keep_all_threads_busy():
    assert [pieces_for(3, threads) for threads in (1, 2, 3, 4, 6, 8)] == [1, 2, 1, 4, 2, 8]
