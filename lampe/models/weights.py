"""What tells a model's weights from others of its family."""

from __future__ import annotations

import hashlib
from typing import Any
from weakref import WeakKeyDictionary

import torch

_known: WeakKeyDictionary[Any, tuple[tuple[int, ...], str]] = WeakKeyDictionary()


def weights_hash(model: Any) -> str:
    """Sha256 over the weights (names, shapes and values), its first 16 digits; the same on any CPU.

    Machines compute in different types, so what isn't quantised is taken in bfloat16, and of what is, the 4-bit codes
    alone. The same weights in 4 and in 16 bits have different hashes, and so have those that a GPU has packed, which
    rounds some to another code (seen on an H100).
    """
    tensors = model.state_dict()
    changes = tuple(tensor._version for tensor in tensors.values())  # what is changed in place is hashed again
    if model in _known and _known[model][0] == changes:
        return _known[model][1]
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if name.rpartition(".")[0] in tensors:  # how a quantised weight is to be scaled
            continue
        exact = tensor.bfloat16() if tensor.is_floating_point() else tensor
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(exact.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    _known[model] = changes, digest.hexdigest()[:16]
    return _known[model][1]


def weight_bits(model: Any) -> int:
    """The bits that a weight takes: 4 where it was quantised, or those of its type."""
    return 4 if getattr(model, "is_loaded_in_4bit", False) else torch.finfo(model.dtype).bits
