"""Prompts that begin alike, read one after the other without reading their beginning twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from lampe.reading import CHUNK, read
from lampe.rotary import grows


class PromptReader:
    """A cache that keeps from one prompt to the next whole chunks of what both begin with.

    Under one plan their keys are the same, so what follows is that of the prompt read alone.

    Parameters
    ----------
    model : transformers model
        If it is patched, `Patched.plan` has fixed the prompts' length. If it isn't, and its RoPE's frequencies change
        with the input length, each prompt is read whole: in chunks, the first would be turned as in a shorter text.

    Attributes
    ----------
    cache : transformers DynamicCache
        Holds all of the last prompt but its last token, and whatever was put in since.
    ids : Tensor, shape (1, tokens)
        The last prompt, on the model's device.
    kept : int
        Tokens of it that were kept from the one before.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.kept = model, 0
        self.cache: Any = DynamicCache(config=model.config)
        self.ids = torch.empty(1, 0, dtype=torch.long, device=model.device)
        self._held: list[int] = []
        self._plan: Any = None

    def keeps(self, ids: Sequence[int]) -> int:
        """How many of a prompt's tokens reading it would keep."""
        same = next((k for k, (a, b) in enumerate(zip(self._held, ids, strict=False)) if a != b), len(self._held))
        # A layer with a sliding window has dropped the keys that a shorter text ends with.
        slides = any(getattr(layer, "is_sliding", False) for layer in self.cache.layers)
        return 0 if slides or self._whole else min(same, len(ids) - 1) // CHUNK * CHUNK

    def read(self, ids: list[int], stop: Callable[[], bool] = lambda: False) -> Iterator[int]:
        """Read a prompt but for its last token, which whoever goes on needs as an unread one; `stop` as in `read`.

        Yields
        ------
        int
            How many tokens the cache holds, after each chunk.
        """
        self.kept = self.keeps(ids)
        if self.kept:
            self.cache.crop(self.kept - self.cache.get_seq_length())  # so many tokens less
            # An answer that reached the window had a plan of its own, which isn't the next prompt's.
            self.cache.lampe_plan = self._plan
        else:
            self.cache = DynamicCache(config=self.model.config)
        self._held = ids[: self.kept]  # no more, should somebody stop before the end
        self.ids = torch.tensor([ids], device=self.model.device)
        done = self.kept
        chunk = max(1, len(ids) - 1) if self._whole else CHUNK
        for done in read(self.model, self.cache, self.ids[:, :-1], self.kept, chunk, stop):
            yield done
        if done < len(ids) - 1:  # stopped: the cache is filled in part
            self._held = []
            return
        self._held = ids[:-1]
        self._plan = getattr(self.cache, "lampe_plan", None)  # none for a model that isn't patched

    @property
    def _whole(self) -> bool:
        """Whether the model must read each prompt whole."""
        return any(grows(module) for module in self.model.modules())

    @property
    def last(self) -> Tensor:
        """The last prompt's last token, shape (1, 1)."""
        return self.ids[:, -1:]
