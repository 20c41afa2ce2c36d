"""What the deployment decides, read from the environment once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import torch

BYTES_PER_TOKEN = 64 * 1024
"""Memory one input token is allowed: the default model's cache takes 23 kB of it, a prefill chunk the rest."""


@dataclass(frozen=True)
class Settings:
    """The deployment's choices.

    Parameters
    ----------
    model_id : str or None
        `MODEL_ID`: a Hub id or a folder; None is the embedded default.
    bits : int
        `BITS`: 4 (NF4) or 16.
    max_input_tokens : int
        `MAX_INPUT_TOKENS`: longest prompt, in tokens; by default what half of the free memory holds.
    """

    model_id: str | None
    bits: int
    max_input_tokens: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; one that isn't understood stops the start with a sentence.

        Raises
        ------
        ValueError
            If a variable's value can't be used.
        """
        bits = environment.get("BITS") or "4"
        if bits not in ("4", "16"):
            raise ValueError(f"BITS is {bits!r}; it must be 4 or 16.")
        limit = environment.get("MAX_INPUT_TOKENS") or str(default_token_limit(_free_bytes()))
        if not limit.isdecimal() or int(limit) < 64:
            raise ValueError(f"MAX_INPUT_TOKENS is {limit!r}; it must be a whole number of at least 64.")
        return cls(environment.get("MODEL_ID") or None, int(bits), int(limit))


def default_token_limit(available_bytes: int) -> int:
    """Tokens that half of the free memory holds, in steps of 1024, from 4096 to 65,536."""
    return min(65_536, max(4096, available_bytes // 2 // BYTES_PER_TOKEN // 1024 * 1024))


def _free_bytes() -> int:
    """Free memory where the model will be: on the GPU if there is one."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else psutil.virtual_memory().available
