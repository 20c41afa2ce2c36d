"""bitsandbytes' 4-bit layer on a CPU, fast for many tokens and for one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch import Tensor

_FEW = 32  # tokens up to which multiplying by packed weights is faster than unpacking them first


class CpuLinear4bit(Linear4bit):
    """A `Linear4bit` with its weights in both of bitsandbytes' layouts, each used where it is the faster.

    bitsandbytes has a kernel for packed weights (AVX-512 with bf16), and repacks a layer for it at the first forward:
    decode is then faster than in 16 bits, but a prefill of 4k tokens takes three times as long. Here a few tokens
    take a packed twin, made when it is first wanted, and many take the weights as they were loaded. The twin costs
    half a byte for each weight again.
    """

    _twin: Any = None
    _made_from: tuple[int, int] | None = None

    @classmethod
    def take_over(cls, layer: Linear4bit) -> None:
        """Make a layer one of these, if the kernel for packed weights is there and takes its size."""
        packs = layer.support_avx512bf16_for_cpu and layer.compute_dtype == torch.bfloat16
        layer.support_avx512bf16_for_cpu = False
        if packs and layer.out_features % 32 == 0 and layer.in_features % 64 == 0:  # it crashes on others
            layer.__class__ = cls

    def forward(self, x: Tensor) -> Tensor:
        """Shapes as in `torch.nn.Linear`."""
        many = x.numel() > _FEW * x.shape[-1]
        if many or self.training or x.requires_grad or x.device.type != "cpu":
            return super().forward(x)
        # A weight made in inference mode has no version, and can't be changed outside of it.
        made_from = (id(self.weight), 0 if self.weight.is_inference() else self.weight._version)
        if self._twin is None or self._made_from != made_from:
            twin: Any = Linear4bit(1, 1, bias=False, compute_dtype=self.compute_dtype)
            twin.weight, twin.bias, twin.training = copy.deepcopy(self.weight), self.bias, False
            twin.support_avx512bf16_for_cpu = True
            # Past PyTorch: the twin is no part of the model's state, and what hooks this layer has are its own.
            self.__dict__.update(_twin=twin, _made_from=made_from)
        return self._twin.forward(x)
