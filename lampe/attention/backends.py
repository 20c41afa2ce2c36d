"""Which kernel computes attention: the one place that decides it, for a device, a dtype and a head size."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor


class Backend(StrEnum):
    """A way to compute a tile of attention together with the log-sum-exp of its scores."""

    CPU = "CPU kernel"
    FLASH = "flash attention"
    EFFICIENT = "memory-efficient attention"
    PLAIN = "plain operations"


_HALVES = (torch.float16, torch.bfloat16)
_AMPERE = (8, 0)

_chosen: dict[tuple[torch.device, torch.dtype, int], Backend] = {}


def backend_for(like: Tensor, softcap: float | None = None) -> Backend:
    """The backend for queries like this one, of shape (batch, heads, tokens, head_dim).

    The best that the device has, unless `choose` has said otherwise. No fused kernel bends scores.
    """
    if softcap is not None:
        return Backend.PLAIN
    return _chosen.get(_key(like)) or candidates(like)[0]


def choose(like: Tensor, backend: Backend) -> None:
    """Compute attention of this device, dtype and head size so from now on."""
    _chosen[_key(like)] = backend


def candidates(like: Tensor) -> list[Backend]:
    """The backends that a device should have for a dtype and head size, the quickest first.

    As PyTorch's source has it: its flash attention wants an Ampere GPU or a newer one, halves and at most 256
    dimensions, and isn't built on Windows; its memory-efficient one takes bfloat16 from Ampere on.
    """
    if like.device.type == "cpu":
        return [Backend.CPU, Backend.PLAIN] if like.is_floating_point() else [Backend.PLAIN]
    if like.device.type not in ("cuda", "meta"):
        return [Backend.PLAIN]
    there = torch.cuda.is_available()
    capability = torch.cuda.get_device_capability(like.device) if there else _AMPERE
    flash = torch.backends.cuda.is_flash_attention_available() if there else True
    found = []
    if flash and like.dtype in _HALVES and like.shape[-1] <= 256 and capability >= _AMPERE:
        found.append(Backend.FLASH)
    if like.dtype in (torch.float16, torch.float32) or (like.dtype == torch.bfloat16 and capability >= _AMPERE):
        found.append(Backend.EFFICIENT)
    return [*found, Backend.PLAIN]


def _key(like: Tensor) -> tuple[torch.device, torch.dtype, int]:
    return like.device, like.dtype, like.shape[-1]
