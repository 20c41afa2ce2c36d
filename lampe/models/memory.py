"""The memory that a model takes: its weights, and the keys and values of an input."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import nn

from lampe.models.device import compute_dtype, default_place

_NF4 = 0.5 + 1 / 64 + 4 / 64 / 256  # bytes for each weight: its bits, a scale for each 64, and one for 256 scales


class Heads(NamedTuple):
    """How many heads a layer has, and dimensions of each; zeros where the config doesn't say."""

    queries: int
    keys: int
    size: int


def heads_of(config: Any) -> Heads:
    """Of a model's config."""
    text = config.get_text_config()
    queries = getattr(text, "num_attention_heads", None) or 0
    keys = getattr(text, "num_key_value_heads", None) or queries
    return Heads(queries, keys, getattr(text, "head_dim", None) or (text.hidden_size // queries if queries else 0))


def cache_bytes(config: Any, length: int, each: int = 2) -> int:
    """Bytes of an input's keys and values; sliding layers keep no more than their window.

    Parameters
    ----------
    config : transformers config
    length : int
        In tokens.
    each : int
        Bytes of a number.
    """
    text, heads = config.get_text_config(), heads_of(config)
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    window = getattr(text, "sliding_window", None) or length
    tokens = sum(min(length, window) if kind == "sliding_attention" else length for kind in kinds)
    return 2 * each * heads.keys * heads.size * tokens


def free_bytes(device: torch.device | None = None) -> int:
    """Free memory where a model is; by default where one would be loaded, on the GPU if there is one."""
    device = device or default_place().device
    if device.type != "cuda":
        return min(psutil.virtual_memory().available, container_free_bytes())
    # What torch has freed and keeps for itself is free too.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


_CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = sys.maxsize
_RECLAIMED = ("inactive_file", "total_inactive_file")  # files that were read: the kernel lets go of them first


def container_free_bytes(root: Path = _CGROUPS) -> int:
    """What a container's limit leaves, of cgroup v2 or v1; `sys.maxsize` where there is none.

    Its processes see the whole machine's memory as free, and are killed when they take more than the container has.
    """
    for limit, usage, folder in (
        ("memory.max", "memory.current", root),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", root / "memory"),
    ):
        try:
            most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
            lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            files = max((int(value) for name, value in lines if name in _RECLAIMED), default=0)
        except (OSError, ValueError):
            continue
        if most.isdecimal() and int(most) < 2**60:  # v1 has a number near 2^63 where there is none
            return max(0, int(most) - used + min(used, files))
    return _NO_LIMIT


def release_memory() -> None:
    """Return freed blocks to the system, where the C library is glibc, which keeps them in pieces otherwise."""
    with suppress(OSError, TypeError, AttributeError):  # no such library, or no such function in it
        ctypes.CDLL(None).malloc_trim(0)


class Taken:
    """The most memory that is taken where a model runs, beyond what is taken when this is made.

    On GPUs by PyTorch's allocator, whose own peaks it resets; else that of the whole process, by the Linux kernel.

    Parameters
    ----------
    device : torch.device
        The model's.
    """

    def __init__(self, device: torch.device) -> None:
        self._gpus = range(torch.cuda.device_count()) if device.type == "cuda" else ()
        self._before = 0
        self.most()
        if self._gpus:
            self._before = sum(map(torch.cuda.memory_allocated, self._gpus))
        else:
            self._before = psutil.Process().memory_info().rss

    def most(self) -> int | None:
        """Megabytes since it was last asked; None where the kernel doesn't tell, and on other systems than Linux."""
        if self._gpus:
            peak = sum(map(torch.cuda.max_memory_allocated, self._gpus))
            for gpu in self._gpus:
                torch.cuda.reset_peak_memory_stats(gpu)
            return max(0, peak - self._before) // 10**6
        try:
            status = Path("/proc/self/status").read_text()
            peak = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
            release_memory()
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
        except (OSError, StopIteration):
            return None
        return max(0, peak - self._before) // 10**6


def weight_bytes(model: Any, bits: int, each: int | None = None) -> int:
    """Bytes of a model's weights, which may be on the meta device.

    Parameters
    ----------
    model : transformers model
    bits : int
        16, or 4: then the linear layers are NF4, but for the output head; embeddings and norms are left alone.
    each : int, optional
        Bytes of a number that isn't packed: by default 2, or 4 where models run by default and compute in float32.
    """
    each = each or torch.finfo(compute_dtype(default_place().device)).bits // 8
    head = model.get_output_embeddings()
    linear = {id(one.weight) for one in model.modules() if isinstance(one, nn.Linear) and one is not head}
    packed = _NF4 if bits == 4 else each
    return round(sum(weight.numel() * (packed if id(weight) in linear else each) for weight in model.parameters()))
