"""Where models run by default, in which dtype, and what computes attention there."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

from lampe.attention.selfcheck import checked
from lampe.errors import first_line


class Place(NamedTuple):
    """A device, and why it isn't the GPU where there is one that can't be used; empty otherwise."""

    device: torch.device
    refusal: str = ""


@cache
def default_place() -> Place:
    """The GPU if PyTorch can compute on it, else the CPU. It is tried once: a driver may list a GPU that this PyTorch
    has no code for.
    """
    if not torch.cuda.is_available():
        return Place(torch.device("cpu"))
    try:
        one = torch.ones(2, device="cuda")
        if (one + one).tolist() == [2.0, 2.0]:
            return Place(torch.device("cuda"))
        why = "it adds wrongly"
    except RuntimeError as error:
        why = first_line(error)
    return Place(
        torch.device("cpu"), f"This PyTorch can't compute on the GPU that is here ({why}), so models run on the CPU."
    )


def compute_dtype(device: torch.device) -> torch.dtype:
    """What models compute in there: bfloat16 where the hardware has it, else float16 on a GPU and float32 on a CPU."""
    if device.type == "cuda":
        # PyTorch calls emulated bfloat16 supported too; float16 is faster on such GPUs.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if fast and torch.cpu._is_avx512_supported():
        # PyTorch calls AVX-512 enough. Without its bfloat16 instructions a linear layer takes several times as long.
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def input_device(model: Any) -> torch.device:
    """Where a model takes its token ids: with its embeddings, or where accelerate brings those for their turn."""
    embeddings = model.get_input_embeddings()
    device = embeddings.weight.device
    if device.type == "meta" and hasattr(embeddings, "_hf_hook"):
        return torch.device(embeddings._hf_hook.execution_device)
    return device


def attention_here(head_dim: int = 64, device: torch.device | None = None, dtype: torch.dtype | None = None) -> str:
    """What computes attention for heads of a size, by default where models run by default: a phrase for people.

    Raises
    ------
    RuntimeError
        If nothing gives the right numbers there.
    """
    refusal = "" if device else default_place().refusal
    device = device or default_place().device
    like = torch.empty(1, 1, 1, head_dim, dtype=dtype or compute_dtype(device), device=device)
    return " ".join(filter(None, (checked(like).in_words(), refusal)))
