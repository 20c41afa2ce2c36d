"""Is the patch really in a model's path? What reaches attention with and without it, and how a family rotates."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from lampe.engine import Rotate, Tables

PROBE_TOKENS = 32  # so many that even a RoPE stretched a hundredfold turns its fastest pair visibly
_TOLERANCE = 0.02  # relative; a wrong or missing rotation is off by the order of 1, bf16 noise by 0.004


class UnsupportedModelError(ValueError):
    """The model can't be patched; the message says which model and why."""


class Probe:
    """Queries and keys of each layer: as they came to attention, and as rotated here."""

    def __init__(self, hooked: bool) -> None:
        self.hooked = hooked
        self.arrived: dict[int, tuple[Tensor, Tensor]] = {}
        self.rotated: dict[int, tuple[Tensor, Tensor]] = {}

    def watch(self, module: Any, query: Tensor, key: Tensor, rotate: Rotate, tables: Tables) -> None:
        """Take them down."""
        # A model spread over several GPUs has its layers elsewhere than its rotary embedding.
        table = [t.to(query.device) for t in tables(torch.arange(query.shape[2]))]
        self.arrived[module.layer_idx] = query, key
        try:
            self.rotated[module.layer_idx] = rotate(query, *table), rotate(key, *table)
        except RuntimeError as error:
            raise ValueError(
                "its rotation doesn't fit the queries and keys that reach its attention, as with multi-head latent "
                f"attention: {error}"
            ) from error

    def differs_from(self, own: Probe, layers: int) -> str | None:
        """Why this isn't the same model as its own run, None if it is."""
        missing = sorted(set(range(layers)) - set(self.arrived))
        if missing:
            return f"layers {_numbers(missing)} don't use transformers' attention interface"
        unmoved = [layer for layer in range(layers) if not self._moved(self.arrived[layer], own.arrived[layer])]
        if len(unmoved) == layers:
            return "a changed rotation doesn't reach its attention"
        if unmoved:
            return f"layers {_numbers(unmoved)} don't rotate by position"
        wrong = [layer for layer in range(layers) if self._moved(self.rotated[layer], own.arrived[layer])]
        if wrong:
            return f"in layers {_numbers(wrong)} its own rotation, applied here, doesn't give its own queries and keys"
        return None

    @staticmethod
    def _moved(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> bool:
        return any(
            not (a.float() - b.float()).norm() <= _TOLERANCE * b.float().norm()
            for a, b in zip(ours, theirs, strict=True)
        )


def rotation(module: nn.Module) -> Rotate:
    """The rotation that stands beside an attention class in its modelling file."""
    for cls in type(module).__mro__:
        apply = getattr(sys.modules.get(cls.__module__), "apply_rotary_pos_emb", None)
        if apply is not None:
            # It rotates a query and a key by one table; a key of no heads costs nothing.
            return lambda x, cos, sin: apply(x, x[:, :0], cos, sin)[0]
    raise UnsupportedModelError(f"LaMPE can't patch a {type(module).__name__}: its file has no apply_rotary_pos_emb.")


def _numbers(layers: list[int]) -> str:
    return ", ".join(map(str, layers[:6])) + (", …" if len(layers) > 6 else "")
