"""Which model suits a machine: what the page takes where nobody has named one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lampe.models.embedded import DEFAULT_MODEL_NAME

_PER_PARAMETER = 0.65  # bytes in 4 bits: the constants of their blocks, and embeddings in 16 bits, counted in
_BESIDES = 3.0  # GB: what CUDA takes for itself, keys and values of some four windows, a chunk's activations


class Candidate(NamedTuple):
    """An instruct model of the Hugging Face Hub whose window is short enough that one sees what LaMPE does.

    Parameters
    ----------
    model_id : str
    parameters : float
        In billions.
    licence : str
    window : int
        W₀ in tokens.
    preset : str
        What its mapping rests on: "published" by the paper, or "estimated" from others.
    """

    model_id: str
    parameters: float
    licence: str
    window: int
    preset: str

    @property
    def gigabytes(self) -> float:
        """Memory of a GPU that it takes in 4 bits, with room to read in."""
        return self.parameters * _PER_PARAMETER + _BESIDES


CANDIDATES = (
    Candidate("meta-llama/Meta-Llama-3-8B-Instruct", 8.0, "Llama 3 Community License", 8192, "published"),
    Candidate("allenai/OLMo-2-1124-7B-Instruct", 7.3, "Apache 2.0", 4096, "estimated"),
    Candidate("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1.7, "Apache 2.0", 8192, "estimated"),
)
"""The best first."""


class Suited(NamedTuple):
    """The model that suits a machine, and why in a sentence or two.

    Parameters
    ----------
    model_id : str or None
        None is the embedded default.
    why : str
    """

    model_id: str | None
    why: str


def suited(gpu_bytes: int | None, refusal: Callable[[str], str]) -> Suited:
    """The best candidate that a GPU holds and that may be loaded; on a CPU the embedded default.

    Parameters
    ----------
    gpu_bytes : int or None
        Free memory of the GPU; None without one.
    refusal : callable
        Why a model of the Hub can't be had, in a sentence; empty if it can. Asked of those that fit.
    """
    least = CANDIDATES[-1]
    if gpu_bytes is None:
        return Suited(
            None,
            f"{DEFAULT_MODEL_NAME}, which comes with the app, runs because this machine has no GPU for models "
            f"(CUDA): larger models take minutes for a page there. With a GPU of {least.gigabytes:.0f} GB it would be "
            f"{_called(least)}.",
        )
    free, better = gpu_bytes / 1e9, ""
    for candidate in CANDIDATES:
        if candidate.gigabytes > free:
            better = f" {_called(candidate)} would need {candidate.gigabytes:.0f} GB."
        elif why := refusal(candidate.model_id):
            better = f" {why}"
        else:
            here = f"{_called(candidate)} runs because this GPU has {free:.0f} GB free."
            return Suited(candidate.model_id, here + better)
    return Suited(
        None, f"{DEFAULT_MODEL_NAME}, which comes with the app, runs on this GPU of {free:.0f} GB free.{better}"
    )


def _called(candidate: Candidate) -> str:
    about = f"{candidate.licence}, a window of {candidate.window:,} tokens, its mapping {candidate.preset}"
    return f"{candidate.model_id} ({about})"
