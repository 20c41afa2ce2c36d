"""What stays in memory of the documents that visitors have asked about: each visitor's own, and not too much."""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from app.serving.requests import Variant
from app.serving.visitors import Visitor
from lampe.inference.prefill import PromptReader
from lampe.models.memory import release_memory
from lampe.positions import PositionMap

LAMPE = Variant("lampe")
"""The kind that a visitor's others give way to: follow-ups and the passages looked at rest on it."""

LONGEST = 1800.0
"""Seconds that a document stays without a question: a program that calls without a session never says it has left."""

_AGING = 60.0  # seconds between looks for it
_TOGETHER = 1.0  # seconds within which visitors leave together


class _Held(NamedTuple):
    """A document that was read: under which plan, and when it was last used."""

    plan: tuple[Any, ...]
    reader: PromptReader
    used: float


class DocumentCache:
    """Read documents by visitor, the least recently used dropped first.

    Parameters
    ----------
    most_bytes : int
        For all of them together.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._readers: OrderedDict[tuple[str, Hashable], _Held] = OrderedDict()
        self._here: set[str] = set()
        self._lock = threading.Lock()
        self._dropped = threading.Event()
        arguments = weakref.ref(self), self._dropped
        threading.Thread(target=_age, args=arguments, name="document cache", daemon=True).start()

    def enter(self, visitor: Visitor | None) -> None:
        """A visitor has asked something: what is read for them is kept, until `forget`."""
        if visitor is not None:
            with self._lock:
                self._here.add(visitor.session)

    def take(self, visitor: Visitor | None, kind: Hashable, plan: tuple[Any, ...]) -> PromptReader | None:
        """What a visitor has read under this plan, if it is still there; it belongs to the caller until `put`.

        Parameters
        ----------
        visitor : Visitor or None
            None keeps nothing.
        kind : hashable
            Each visitor has one of each kind.
        plan : tuple
            Equal where the keys are; what was read under another plan is dropped.
        """
        with self._lock:
            held = self._readers.pop((visitor.session, kind), None) if visitor else None
            return held.reader if held and held.plan == plan else None

    def plan_of(self, visitor: Visitor | None, kind: Hashable) -> tuple[Any, ...] | None:
        """What the visitor's document of this kind was read under; None if there is none."""
        with self._lock:
            held = self._readers.get((visitor.session, kind)) if visitor is not None else None
            return held.plan if held else None

    def reusable(
        self,
        visitor: Visitor | None,
        kind: Hashable,
        plan: tuple[Any, ...],
        ids: Sequence[int],
        position_map: PositionMap | None,
    ) -> int:
        """How many tokens of a prompt needn't be read, were it asked now; the map is None where none is put in."""
        with self._lock:
            held = self._readers.get((visitor.session, kind)) if visitor is not None else None
            return held.reader.keeps(ids, position_map) if held and held.plan == plan else 0

    def put(self, visitor: Visitor | None, kind: Hashable, plan: tuple[Any, ...], reader: PromptReader) -> None:
        """Keep a reader for the visitor's next question, unless they have left."""
        with self._lock:
            if visitor is not None and visitor.session in self._here:
                self._readers[visitor.session, kind] = _Held(plan, reader, time.monotonic())
                if (visitor.session, LAMPE) in self._readers:  # it goes last of theirs, for what ran beside it
                    self._readers.move_to_end((visitor.session, LAMPE))
        self.shrink(self.most_bytes)

    def forget(self, session: str) -> None:
        """A visitor has left: nothing of theirs stays."""
        with self._lock:
            self._here.discard(session)
            for key in [key for key in self._readers if key[0] == session]:
                del self._readers[key]
                self._dropped.set()

    def shrink(self, most_bytes: int) -> None:
        """Drop what is too old, and the least recently used until no more than so many bytes are left."""
        before, oldest = len(self._readers), time.monotonic() - LONGEST
        with self._lock:
            while self._readers and (next(iter(self._readers.values())).used < oldest or self.bytes > most_bytes):
                (visitor, _), held = self._readers.popitem(last=False)
                if held.used < oldest:
                    self._here.discard(visitor)
        if len(self._readers) < before:
            release_memory()

    @property
    def bytes(self) -> int:
        """What the caches take."""
        return sum(cache_size(held.reader.cache) for held in list(self._readers.values()))


def _age(cache: weakref.ref[DocumentCache], dropped: threading.Event) -> None:
    """Drop what is too old also where nobody asks anything any more; return memory once for all who left at a time."""
    while one := cache():
        one.shrink(one.most_bytes)
        del one
        if dropped.wait(_AGING):
            time.sleep(_TOGETHER)
            dropped.clear()
            release_memory()


def cache_size(cache: Any) -> int:
    """Bytes that a cache's keys and values hold, with the room that they have for more."""
    layers = [layer for layer in cache.layers if getattr(layer, "keys", None) is not None]
    return sum(x.untyped_storage().nbytes() for layer in layers for x in (layer.keys, layer.values))
