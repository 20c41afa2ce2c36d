"""bitsandbytes' 4-bit layer on a CPU, fast for many tokens and for one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor

_FEW = 32  # tokens up to which multiplying by packed weights is faster than unpacking them first
_SPARE = 8  # of so many bytes of free memory one may be taken by unpacked weights


def speed_up(layers: Iterable[Linear4bit], free: int) -> None:
    """Make 4-bit layers of a model on a CPU quicker, by what this CPU has.

    Parameters
    ----------
    layers : iterable of Linear4bit
        All of the model's, loaded and never run.
    free : int
        Bytes of memory that are free: unpacked weights take an eighth of it at most, or are not kept.
    """
    rest = []
    for layer in layers:
        packs = layer.support_avx512bf16_for_cpu and layer.compute_dtype == torch.bfloat16
        layer.support_avx512bf16_for_cpu = False
        if packs and layer.out_features % 32 == 0 and layer.in_features % 64 == 0:  # it crashes on others
            layer.__class__ = PackedLinear4bit
        elif not packs:
            rest.append(layer)
    if _SPARE * sum(layer.in_features * layer.out_features * layer.compute_dtype.itemsize for layer in rest) <= free:
        for layer in rest:
            layer.__class__ = UnpackedLinear4bit


class _Twinned(Linear4bit):
    """A `Linear4bit` that has its weights once more in another form, made when it is first wanted."""

    _make: Callable[[], Callable[[Tensor], Tensor]]
    _twin: Callable[[Tensor], Tensor] | None = None
    _made_from: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `torch.nn.Linear`."""
        if self.training or x.requires_grad or x.device.type != "cpu":
            return super().forward(x)
        # A weight made in inference mode has no version, and can't be changed outside of it.
        made_from = (id(self.weight), 0 if self.weight.is_inference() else self.weight._version)
        if self._twin is None or self._made_from != made_from:
            # Past PyTorch: the twin is no part of the model's state, and what hooks this layer has are its own.
            self.__dict__.update(_twin=self._make(), _made_from=made_from)
        assert self._twin is not None
        return self._twin(x)


class PackedLinear4bit(_Twinned):
    """A `Linear4bit` with its weights in both of bitsandbytes' layouts, each used where it is the faster.

    bitsandbytes has a kernel for packed weights (AVX-512 with bf16), and repacks a layer for it at the first forward:
    decode is then faster than in 16 bits, but a prefill of 4k tokens takes three times as long. Here a few tokens
    take a packed twin, and many take the weights as they were loaded. The twin costs half a byte for each weight again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `torch.nn.Linear`."""
        return Linear4bit.forward(self, x) if x.numel() > _FEW * x.shape[-1] else super().forward(x)

    def _make(self) -> Callable[[Tensor], Tensor]:
        twin: Any = Linear4bit(1, 1, bias=False, compute_dtype=self.compute_dtype)
        twin.weight, twin.bias, twin.training = copy.deepcopy(self.weight), self.bias, False
        twin.support_avx512bf16_for_cpu = True
        return twin


class UnpackedLinear4bit(_Twinned):
    """A `Linear4bit` that keeps its weights unpacked too, for CPUs without a kernel for packed ones.

    There bitsandbytes unpacks all weights for each token, which takes longer than what is then done with them. The
    numbers are the same.
    """

    def _make(self) -> Callable[[Tensor], Tensor]:
        packed: Any = self.weight
        weight = dequantize_4bit(packed.data, packed.quant_state).to(self.compute_dtype)
        return partial(_linear, weight=weight, bias=self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As a `Linear4bit` does it: computed in the weight's dtype, given in the input's."""
    bias = None if bias is None else bias.to(weight.dtype)
    return torch.nn.functional.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
