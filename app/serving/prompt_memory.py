"""The memory that a prompt takes, and the sentence for where it isn't there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.serving.models import out_of_memory
from lampe.errors import InputError
from lampe.models.memory import cache_bytes


@contextmanager
def enough_memory(tokens: int) -> Iterator[None]:
    """Turns running out of memory into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise InputError(
                f"There isn't enough memory for a prompt of {tokens:,} tokens on this machine. The model is still "
                "loaded: try a shorter text, or close other programs."
            ) from error
        raise


def bytes_for(model: Any, tokens: int) -> int:
    """Memory that reading and writing so many tokens takes.

    A cache that outgrows its room is copied, a layer at a time, and chunks take some: twice the cache is what is asked
    for.
    """
    return 2 * cache_bytes(model.config, tokens, model.dtype.itemsize)
