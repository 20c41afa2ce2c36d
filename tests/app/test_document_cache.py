"""What stays of visitors' documents: each one's own, not too much, and nothing of who has left."""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch

from app.serving.document_cache import LONGEST, DocumentCache, cache_size
from app.serving.requests import Variant
from app.serving.visitors import Visitor

A, B, C = ABC = Visitor("a"), Visitor("b"), Visitor("c")


def reader(numbers):
    layer = SimpleNamespace(
        keys=torch.zeros(numbers, dtype=torch.bfloat16), values=torch.zeros(numbers, dtype=torch.bfloat16)
    )
    return SimpleNamespace(cache=SimpleNamespace(layers=[layer, SimpleNamespace(keys=None, values=None)]))


def test_each_visitor_gets_their_own_back_once():
    kept = DocumentCache(1000)
    mine, yours = reader(10), reader(10)
    for visitor, one in ((A, mine), (B, yours)):
        kept.enter(visitor)
        assert kept.take(visitor, "lampe", 1) is None
        kept.put(visitor, "lampe", 1, one)
    assert cache_size(mine.cache) == 40
    assert kept.bytes == 80
    assert kept.take(A, "rope", 1) is None
    assert kept.take(A, "lampe", 1) is mine
    assert kept.take(A, "lampe", 1) is None, "two requests at once mustn't write into one cache"
    assert kept.take(B, "lampe", 2) is None, "another plan has other keys"
    assert kept.take(B, "lampe", 1) is None, "and what was read under the first is dropped"


def test_the_least_recently_used_goes_first():
    kept = DocumentCache(100)
    readers = {visitor: reader(10) for visitor in ABC}
    for visitor, one in readers.items():
        kept.enter(visitor)
        kept.put(visitor, "lampe", 1, one)
        if visitor == B:
            kept.put(A, "lampe", 1, kept.take(A, "lampe", 1))
    assert kept.bytes == 80
    assert kept.take(B, "lampe", 1) is None
    assert kept.take(A, "lampe", 1) is readers[A]
    kept.shrink(0)
    assert kept.bytes == 0
    kept.put(A, "lampe", 1, reader(1000))
    assert kept.bytes == 0, "what is larger than all of it isn't kept"


def test_what_ran_beside_lampe_goes_before_it():
    """Else two methods that don't fit together would each drop the other's, and nothing would ever be reused."""
    kept = DocumentCache(60)
    kept.enter(A)
    for _ in range(2):
        for kind in (Variant("lampe"), Variant("rope")):
            kept.take(A, kind, 1)
            kept.put(A, kind, 1, reader(10))
    assert kept.take(A, Variant("rope"), 1) is None
    assert kept.take(A, Variant("lampe"), 1)


def test_what_is_old_goes_where_nobody_asks(monkeypatch):
    monkeypatch.setattr("app.serving.document_cache._AGING", 0.01)
    monkeypatch.setattr("app.serving.document_cache.LONGEST", 0.05)
    kept = DocumentCache(1000)
    kept.enter(A)
    kept.put(A, "lampe", 1, reader(10))
    assert kept.bytes == 40
    ends = time.monotonic() + 20
    while kept.bytes and time.monotonic() < ends:
        time.sleep(0.01)
    assert kept.bytes == 0


def test_nothing_is_kept_for_nobody_or_for_who_has_left():
    kept = DocumentCache(1000)
    assert kept.take(None, "lampe", 1) is None
    kept.put(None, "lampe", 1, reader(10))
    kept.enter(A)
    kept.forget("a")
    assert kept.take(A, "lampe", 1) is None
    kept.put(A, "lampe", 1, reader(10))
    assert kept.bytes == 0, "they left while they waited, or while it was read"
    kept.enter(A)
    kept.put(A, "lampe", 1, reader(10))
    kept.put(A, "rope", 1, reader(10))
    kept.forget("a")
    assert kept.bytes == 0


def test_what_nobody_has_asked_about_for_long_goes(monkeypatch):
    kept, now = DocumentCache(1000), [100.0]
    monkeypatch.setattr("app.serving.document_cache.time", SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep))
    for visitor in ABC[:2]:
        kept.enter(visitor)
        kept.put(visitor, "lampe", 1, reader(10))
        now[0] += LONGEST / 2
    assert kept.bytes == 80
    now[0] += 1
    kept.put(B, "lampe", 1, kept.take(B, "lampe", 1))
    assert kept.bytes == 40
    assert kept.take(A, "lampe", 1) is None
