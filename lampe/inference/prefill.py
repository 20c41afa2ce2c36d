"""Reading a long prompt in parts, and several that begin alike without reading their beginning twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from lampe.errors import InputError
from lampe.models.device import input_device
from lampe.patching.room import make_room
from lampe.patching.rotary import grows
from lampe.positions import PositionMap

CHUNK, GPU_CHUNK = 512, 4096
"""Tokens read at once, on a CPU and at most on a GPU: it is known often how far the reading is, and a chunk's
activations stay small. A GPU has done 512 long before the next ones are told it: chunks four times as large took a
quarter of the time there (`python -m benchmarks.gpu`)."""

_GPU_ACTIVATIONS = 2**25  # numbers in a chunk's widest tensor: 64 MB in 16 bits, of which a layer has about four


def chunk_for(model: Any) -> int:
    """Tokens that a model reads at once, where it is: on a GPU the fewer, the wider it is."""
    if input_device(model).type != "cuda":
        return CHUNK
    config = model.config.get_text_config()
    width = max(getattr(config, "intermediate_size", 0) or 0, config.hidden_size)
    return max(CHUNK, min(GPU_CHUNK, 2 ** int(math.log2(_GPU_ACTIVATIONS / width))))


class _Stopped(Exception):
    pass


@torch.inference_mode()
def read(
    model: Any,
    cache: Cache,
    ids: Tensor,
    start: int = 0,
    chunk: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """Fill a cache with the keys and values of a prompt (prefill), a chunk at a time.

    Parameters
    ----------
    model : transformers model
        If it is patched, `Patched.plan` has fixed the final length.
    cache : transformers Cache
        Holds the first `start` tokens.
    ids : Tensor, shape (1, tokens)
    start : int
        The first token to read.
    chunk : int, optional
        Tokens read at once; by default those of `chunk_for`.
    stop : callable
        Asked before each layer, for a chunk of a long text takes seconds. True ends the reading; the cache is then
        filled in part and of no more use.

    Yields
    ------
    int
        How many tokens the cache holds, after each chunk.
    """

    for part in ids[:, start:].split(chunk or chunk_for(model), dim=1):
        if part.shape[1]:  # nothing to read is one empty part
            try:
                with _stoppable(model, stop):
                    model(part.to(input_device(model)), past_key_values=cache, use_cache=True, logits_to_keep=1)
            except _Stopped:
                return
            start += part.shape[1]
            yield start


@contextmanager
def _stoppable(model: Any, stop: Callable[[], bool]) -> Iterator[None]:
    """Have a model ask before each layer whether to stop; not beyond: others use it between two chunks."""

    def look(*_: Any) -> None:
        if stop():
            raise _Stopped

    hooks = [module.register_forward_pre_hook(look) for module in model.modules() if hasattr(module, "layer_idx")]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class PromptReader:
    """A cache that keeps from one prompt to the next whole steps of what both begin with.

    Where the prompts are planned for one length their keys are the same up to where Tail takes part, so what follows
    is that of the prompt read alone.

    Parameters
    ----------
    model : transformers model
        If it isn't patched, and its RoPE's frequencies change with the input length, each prompt is read whole: in
        chunks, the first would be rotated as in a shorter text.
    step : int, optional
        Tokens. What is kept is a multiple of it: with a whole chunk, the default, the same kernel calls are made as for
        the prompt alone, and the result has the same bits; with less, more is kept.

    Attributes
    ----------
    cache : transformers DynamicCache
        Holds all of the last prompt but its last token, and whatever was put in since.
    ids : Tensor, shape (1, tokens)
        The last prompt, on the model's device.
    kept : int
        Tokens of it that were kept from the one before.
    """

    def __init__(self, model: Any, step: int | None = None) -> None:
        self._chunk = chunk_for(model)
        self.model, self.step, self.kept = model, step or self._chunk, 0
        self.cache: Any = DynamicCache(config=model.config)
        self.ids = torch.empty(1, 0, dtype=torch.long, device=input_device(model))
        self._held: list[int] = []
        self._map: PositionMap | None = None  # that they were read under
        self._plan: Any = None

    def keeps(self, ids: Sequence[int], position_map: PositionMap | None = None) -> int:
        """How many of a prompt's tokens reading it would keep; arguments as in `read`."""
        same = next((k for k, (a, b) in enumerate(zip(self._held, ids, strict=False)) if a != b), len(self._held))
        # A layer with a sliding window has dropped the keys that a shorter text ends with.
        slides = any(getattr(layer, "is_sliding", False) for layer in self.cache.layers)
        if slides or self._whole:
            return 0
        if position_map != self._map:
            if position_map is None or self._map is None or _plan(position_map) != _plan(self._map):
                return 0
            same = min(same, position_map.shared, self._map.shared)
        return min(same, len(ids) - 1) // self.step * self.step

    def read(
        self, ids: list[int], position_map: PositionMap | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[int]:
        """Read a prompt but for its last token, which whoever goes on needs as an unread one.

        Parameters
        ----------
        ids : list of int
        position_map : PositionMap, optional
            What `Patched.plan` has fixed for this prompt; None for a model that isn't patched.
        stop : callable
            As in `lampe.inference.prefill.read`.

        Yields
        ------
        int
            How many tokens the cache holds, after each chunk.
        """
        self.kept = self.keeps(ids, position_map)
        if self.kept:
            self.cache.crop(self.kept - self.cache.get_seq_length())  # so many tokens less
            # An answer that reached the window had a plan of its own, which isn't the next prompt's.
            self.cache.lampe_plan = self._plan
        else:
            self.cache = DynamicCache(config=self.model.config)
        make_room(self.cache, position_map.length if position_map else len(ids) + self._chunk)
        self._held, self._map = ids[: self.kept], position_map  # no more, should somebody stop before the end
        self.ids = torch.tensor([ids], device=self.ids.device)
        done = self.kept
        chunk = max(1, len(ids) - 1) if self._whole else self._chunk
        try:
            for done in read(self.model, self.cache, self.ids[:, :-1], self.kept, chunk, stop):
                yield done
        except Exception:  # some layers hold a chunk that others don't
            self._held = []
            raise
        if done < len(ids) - 1:  # stopped: the cache is filled in part
            self._held = []
            return
        self._held = ids[:-1]
        self._plan = getattr(self.cache, "lampe_plan", None)  # none for a model that isn't patched

    @torch.inference_mode()
    def score(self, words: Sequence[int], count: int | None = None) -> tuple[float, bool]:
        """How likely some tokens are after the prompt that was read last.

        Parameters
        ----------
        words : sequence of int
        count : int, optional
            How many of them, the last, are scored; those before them are given. By default all are.

        Returns
        -------
        (float, bool)
            The mean of their log-likelihoods, in nats, and whether each is the likeliest one.

        Raises
        ------
        InputError
            If the model gives no numbers there: in halves they may have overflowed.
        """
        count = count or len(words)
        if since := self.cache.get_seq_length() - (self.ids.shape[1] - 1):  # an answer was made, or others scored
            self.cache.crop(-since)
            if self._plan is not None:  # the answer may have had a plan of its own
                self.cache.lampe_plan = self._plan
        expected = torch.tensor(words, device=self.ids.device)
        given = torch.cat([self.last, expected[None, :-1]], dim=1)
        out = self.model(given, past_key_values=self.cache, use_cache=True, logits_to_keep=count)
        logits, scored = out.logits[0].float(), expected[-count:].to(out.logits.device)
        mean = -torch.nn.functional.cross_entropy(logits, scored).item()
        if not math.isfinite(mean):
            raise InputError(
                f"After {self.ids.shape[1]:,} tokens the model's scores aren't numbers in {self.model.dtype}: its "
                "values have overflowed. Load it in another type."
            )
        return min(0.0, mean), bool((logits.argmax(-1) == scored).all())

    @property
    def _whole(self) -> bool:
        """Whether the model must read each prompt whole."""
        return any(grows(module) for module in self.model.modules())

    @property
    def last(self) -> Tensor:
        """The last prompt's last token, shape (1, 1)."""
        return self.ids[:, -1:]


def _plan(position_map: PositionMap) -> tuple[int, int, int, int]:
    """What the keys of a prompt's beginning depend on, of one method's maps."""
    return position_map.length, position_map.mapping_length, position_map.head, position_map.tail
