"""Room in a cache for the tokens that are still to come, so that a chunk or a token is written where it will stay.

Transformers' own dynamic cache puts all keys and values together anew for each token.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lampe.attention.token import NearKeys

_SHARE, _LEAST = 16, 64  # where nothing is planned: room for a sixteenth more, and so many tokens


class RoomyLayer(DynamicLayer):
    """A layer of a dynamic cache whose keys and values are views of larger tensors, and are written into them.

    Attributes
    ----------
    planned : int
        Tokens there will be, as far as is known.
    near : dict of int to NearKeys
        For rows of the batch from each number on, what the attention of a single token keeps for the next.
    """

    planned = 0  # for what becomes a layer of this kind without being made as one
    near: dict[int, NearKeys]
    _room: tuple[Tensor, Tensor] | None = None

    def __init__(self, planned: int = 0) -> None:
        super().__init__()
        self.planned = planned

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before, tokens = self.get_seq_length(), key_states.shape[2]
        if tokens != 1 or "near" not in self.__dict__:
            self.near = {}
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            return super().update(key_states, value_states, *args, **kwargs)
        stop = before + tokens
        if self._room is None or not self._fits(key_states, before, stop):
            self._move(key_states, value_states, before, stop)
        assert self._room is not None
        self.keys, self.values = (room[:, :, :stop] for room in self._room)
        self.keys[:, :, before:] = key_states
        self.values[:, :, before:] = value_states
        return self.keys, self.values

    def _fits(self, new: Tensor, before: int, stop: int) -> bool:
        """Whether the keys still lie where they were written, in a room that holds the new ones too."""
        assert self._room is not None
        room = self._room[0]
        there = not before or (self.keys is not None and self.keys.data_ptr() == room.data_ptr())
        alike = (room.shape[0], room.dtype, room.device) == (new.shape[0], new.dtype, new.device)
        return there and alike and stop <= room.shape[2]

    def _move(self, key_states: Tensor, value_states: Tensor, before: int, stop: int) -> None:
        """Put what there is into a larger room."""
        tokens = max(stop + bool(before) * max(_LEAST, stop // _SHARE), self.planned)
        self.near, rooms = {}, []
        for old, new in ((self.keys, key_states), (self.values, value_states)):
            with torch.inference_mode(False):  # a later pass may write into it, in whichever mode
                room = torch.empty((*new.shape[:2], tokens, new.shape[3]), dtype=new.dtype, device=new.device)
            if old is not None and before:
                room[:, :, :before] = old
            rooms.append(room)
        self._room = (rooms[0], rooms[1])

    def __copy__(self) -> RoomyLayer:
        # Two layers must not write into one room: both look for another one.
        self._room = None
        copied = type(self)()
        copied.__dict__.update(self.__dict__, near={})
        return copied


def make_room(cache: Any, planned: int = 0) -> None:
    """Let the ordinary layers of a dynamic cache keep room; the others stay as they are.

    Parameters
    ----------
    cache : transformers Cache
    planned : int
        Tokens there will be, as far as is known: so much room is made at once.
    """
    if not isinstance(cache, DynamicCache) or cache.offloading:
        return
    kind: Any = cache.layer_class_to_replicate
    if kind is DynamicLayer or isinstance(kind, partial):
        made: Any = partial(RoomyLayer, planned)
        cache.layer_class_to_replicate = made
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            layer.__class__ = RoomyLayer
        if type(layer) is RoomyLayer:
            layer.planned = planned
