"""A model's rotary embedding: where it is, how its family rotates, and its cosines and sines for any positions."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn

import torch
import transformers  # its modules load when they are first named: `import lampe` stays quick
from torch import Tensor, nn

from lampe.attention.turning import Rotate, Table, Tables
from lampe.errors import InputError
from lampe.families import pretraining_window
from lampe.methods import Frequencies

RopeKind = tuple[Any, ...]
"""What a rotary embedding is called with besides positions: nothing, or the type of the layers it is for."""

_GROWING = ("dynamic", "longrope")  # RoPE types whose frequencies change with the greatest position seen


def grows(module: nn.Module) -> list[str]:
    """Those RoPE types of a rotary embedding whose frequencies change with the greatest position of a forward."""
    types = getattr(module, "rope_type", "default")
    return [name for name in (types.values() if isinstance(types, dict) else [types]) if name in _GROWING]


class UnsupportedModelError(InputError):
    """The model can't be patched; the message says which model and why."""


class Rotary:
    """The rotary embedding of a model.

    Parameters
    ----------
    model : transformers model

    Attributes
    ----------
    module : nn.Module
        It gives cosine and sine for position ids, once per forward (and kind).
    decoder : nn.Module
        The module that owns it and runs once per forward.
    kind : tuple
        That of the mapped layers; see `RopeKind`.
    factor : float
        On its cosine and sine.

    Raises
    ------
    UnsupportedModelError
        If there is none, or more than one, or it runs outside a decoder.
    """

    def __init__(self, model: nn.Module) -> None:
        self._family = type(model).__name__
        self.kind: RopeKind = ()
        self.factor = 1.0
        self._held: dict[str, Any] = {}
        self._computed: dict[Any, tuple[Tensor, float]] = {}  # the frequencies that were last asked for
        found = [
            (name, module)
            for name, module in model.named_modules()
            if any(buffer.endswith("inv_freq") for buffer, _ in module.named_buffers(recurse=False))
        ]
        if not found:
            self.refuse(
                "it has no rotary position embedding (RoPE) of transformers' kind, so there are no positions to map"
            )
        if len(found) > 1:
            self.refuse("it has more than one rotary embedding, and LaMPE can't tell which of its layers use which")
        ((name, self.module),) = found
        self.decoder: Any = model.get_submodule(name.rpartition(".")[0])
        if getattr(self.decoder, "config", None) is None:
            self.refuse("its rotary embedding doesn't belong to a model that runs once per forward")

    def refuse(self, why: str, cause: Exception | None = None) -> NoReturn:
        """Raise the error that says why this model can't be patched."""
        raise UnsupportedModelError(f"LaMPE can't patch this {self._family}: {why}.") from cause

    def hold(self, window: int) -> None:
        """Keep frequencies that would change with the input length at what they are for short inputs.

        Mapped positions stay below the window, and keys of one cache have to be rotated by the same frequencies.

        Parameters
        ----------
        window : int
            The window that positions are mapped into, in tokens.
        """
        growing = grows(self.module)
        if not growing:
            return
        types: Any = self.module.rope_type
        base = pretraining_window(self.decoder.config)
        if window > base:
            self.refuse(
                f"its RoPE ({growing[0]}) changes its frequencies beyond {base} positions; give a LampeConfig with a "
                f"window of at most {base}, not {window}"
            )
        buffers = dict(self.module.named_buffers(recurse=False))
        originals = [name for name in buffers if name.endswith("original_inv_freq")]
        if not originals:
            self.refuse(f"its RoPE ({growing[0]}) changes its frequencies with the input length, and keeps no original")
        self._held = {"rope_type": types}
        self.module.rope_type = dict.fromkeys(types, "default") if isinstance(types, dict) else "default"
        for name in originals:
            used = name.replace("original_inv_freq", "inv_freq")
            self._held[used] = buffers[used]
            setattr(self.module, used, buffers[name])

    def release(self) -> None:
        """Undo `hold`, to the bit."""
        for name, value in self._held.items():
            setattr(self.module, name, value)
        self._held.clear()

    def at(self, like: Tensor, positions: Tensor, kind: RopeKind, frequencies: Frequencies | None = None) -> Table:
        """Cosine and sine at positions of shape (rows, tokens), in the dtype and on the device of `like`.

        Parameters
        ----------
        like, positions : Tensor
        kind : tuple
            See `RopeKind`.
        frequencies : Frequencies, optional
            Instead of the model's own.
        """
        if frequencies is None:
            # forward() itself, past the hooks: every kind of RoPE scaling comes with it.
            return self.module.forward(like, positions, *kind)
        changed = dict(zip(self._names(), self._changed(frequencies, like.device), strict=True))
        own = {name: getattr(self.module, name) for name in changed}
        try:
            for name, value in changed.items():
                setattr(self.module, name, value)
            return self.module.forward(like, positions, *kind)
        finally:
            for name, value in own.items():
                setattr(self.module, name, value)

    def tables(self, like: Tensor, frequencies: Frequencies | None = None) -> Tables:
        """For rotating further what is rotated already, on the device of `like`; `frequencies` as in `at`."""
        exact = like.to(torch.promote_types(like.dtype, torch.float32))
        # YaRN's factor on the cosine and sine is in queries and keys before they are rotated further.
        factor = self._changed(frequencies, like.device)[1] if frequencies else self.factor

        def tables(positions: Tensor) -> Table:
            cos, sin = self.at(exact, positions.unsqueeze(0), self.kind, frequencies)
            return (cos, sin) if factor == 1 else (cos / factor, sin / factor)

        return tables

    def check_frequencies(self) -> None:
        """Refuse where this model's frequencies can't be changed: they are scaled already, or not kept as usual."""
        missing = [name for name in self._names() if not hasattr(self.module, name)]
        scaled = self._own_parameters(self.decoder.config).get("rope_type", "default")
        if scaled != "default" or missing:
            why = f"its RoPE is scaled already ({scaled})" if scaled != "default" else "its RoPE keeps no inv_freq"
            self.refuse(f"{why}, and a method that changes its frequencies would undo that; take one that doesn't")

    def _names(self) -> tuple[str, str]:
        """The attributes in which the module keeps frequencies and the factor on cosine and sine."""
        before = f"{self.kind[0]}_" if self.kind else ""
        return f"{before}inv_freq", f"{before}attention_scaling"

    def _own_parameters(self, config: Any) -> dict[str, Any]:
        return config.rope_parameters[self.kind[0]] if self.kind else config.rope_parameters

    def _changed(self, frequencies: Frequencies, device: torch.device) -> tuple[Tensor, float]:
        """Transformers' own frequencies for a model that is configured so, and its factor on cosine and sine."""
        key = (frequencies, device, self.kind)
        if key not in self._computed:
            config = copy.deepcopy(self.decoder.config)
            config.max_position_embeddings = frequencies.window
            self._own_parameters(config).update(
                rope_type=frequencies.rope_type,
                factor=frequencies.factor,
                original_max_position_embeddings=frequencies.window,
            )
            compute = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS[frequencies.rope_type]
            layer_type = self.kind[0] if self.kind else None
            self._computed = {key: compute(config, device, seq_len=frequencies.length, layer_type=layer_type)}
        return self._computed[key]

    def choose(self, kind: RopeKind, factor: float) -> None:
        """Give this kind's cosine and sine from now on; they have this factor on them."""
        self.kind, self.factor = kind, factor

    def factor_of(self, kind: RopeKind, like: Tensor) -> float:
        """The factor on a kind's cosine and sine."""
        nowhere = torch.zeros((1, 1), dtype=torch.long, device=like.device)
        return self.at(like.float(), nowhere, kind)[0].max().item()


def rotation(module: nn.Module) -> Rotate:
    """The rotation that stands beside an attention class in its modelling file; the same object for the same file."""
    for cls in type(module).__mro__:
        apply = getattr(sys.modules.get(cls.__module__), "apply_rotary_pos_emb", None)
        if apply is not None:
            return _rotation(apply)
    raise ValueError(f"the file of its {type(module).__name__} has no apply_rotary_pos_emb")


@cache
def _rotation(apply: Callable[..., tuple[Tensor, Tensor]]) -> Rotate:
    """The rotation of one tensor, of which some dimensions may carry no position."""

    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        size = cos.shape[-1]
        # It rotates a query and a key by one table; a key of no heads costs nothing.
        if size == x.shape[-1]:
            return apply(x, x[:, :0], cos, sin)[0]
        part = x[..., :size]  # the others carry no position
        return torch.cat((apply(part, part[:, :0], cos, sin)[0], x[..., size:]), -1)

    return rotate
