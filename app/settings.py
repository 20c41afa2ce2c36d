"""What the deployment decides, read from the environment once."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass

from lampe.errors import InputError
from lampe.models.candidates import suited
from lampe.models.device import default_place
from lampe.models.load import DEFAULT_MODEL_NAME, refusal
from lampe.models.memory import free_bytes

BYTES_PER_TOKEN = 64 * 1024
"""Memory one input token is allowed: the default model's cache takes 23 kB of it, a prefill chunk the rest."""
LENT_BYTES = 40 * 10**9
"""Of a GPU that is lent, less than any that is: nothing can be asked of it before it is."""
LENT_SECONDS = 120
"""For how long it is lent to a visitor without an account in a day."""


@dataclass(frozen=True)
class ModelChoice:
    """A model and its precision.

    Parameters
    ----------
    model_id : str or None
        A Hub id or a folder; None is the embedded default.
    bits : int
        4 (NF4) or 16.
    """

    model_id: str | None
    bits: int

    @property
    def name(self) -> str:
        """What to call it."""
        return self.model_id or DEFAULT_MODEL_NAME


@dataclass(frozen=True)
class Settings:
    """The deployment's choices.

    Parameters
    ----------
    model_id : str or None
        `MODEL_ID`: a Hub id or a folder; None is the embedded default. By default what suits the machine: see
        `lampe.models.candidates`.
    bits : int
        `BITS`: 4 (NF4) or 16.
    max_input_tokens : int
        `MAX_INPUT_TOKENS`: longest prompt, in tokens; by default what half of the free memory holds.
    kept_bytes : int
        `KEPT_MB`, in bytes: what documents that were read may take, so that further questions needn't read them again;
        by default an eighth of the free memory.
    max_minutes : int
        `MAX_MINUTES`: longest answer or run of needle tests, as it is estimated before it begins; by default an hour.
    more_models : tuple of str
        `MODEL_IDS`, with commas between them: what visitors may choose besides.
    allow_any_model : bool
        `ALLOW_ANY_MODEL`: whether they may name any model of the Hugging Face Hub; 1 or 0, by default not.
    allowed_hosts : tuple of str
        `ALLOWED_HOSTS`, with commas between them: the names that the app answers to, "*" for any. By default this
        machine's own where it is reached from this machine, and any from elsewhere.
    allowed_origins : tuple of str
        `ALLOWED_ORIGINS`, with commas between them: other sites whose pages may use the app, as https://example.org.
    mcp : bool
        `MCP`: whether programs that speak the Model Context Protocol find the endpoints as tools; 1 or 0, by default
        not. It takes the package `mcp`.
    borrowed : bool
        `SPACES_ZERO_GPU`, which such a Space sets: a GPU is lent for each question.
    why : str
        Why this model runs, where `MODEL_ID` names none; a sentence or two.
    """

    model_id: str | None
    bits: int
    max_input_tokens: int
    kept_bytes: int = 2**30
    max_minutes: int = 60
    more_models: tuple[str, ...] = ()
    allow_any_model: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    mcp: bool = False
    borrowed: bool = False
    why: str = ""

    @property
    def own(self) -> ModelChoice:
        """What runs as long as nobody chooses another."""
        return ModelChoice(self.model_id, self.bits)

    @property
    def offered(self) -> tuple[str | None, ...]:
        """What can be chosen from, the deployment's own first."""
        named = (None if name == DEFAULT_MODEL_NAME else name for name in self.more_models)
        return tuple(dict.fromkeys((self.model_id, *named)))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; one that isn't understood stops the start with a sentence.

        Raises
        ------
        InputError
            If a variable's value can't be used.
        """
        bits = environment.get("BITS") or "4"
        if bits not in ("4", "16"):
            raise InputError(f"BITS is {bits!r}; it must be 4 or 16.")
        limit = environment.get("MAX_INPUT_TOKENS") or str(default_token_limit(free_bytes()))
        if not limit.isdecimal() or int(limit) < 64:
            raise InputError(f"MAX_INPUT_TOKENS is {limit!r}; it must be a whole number of at least 64.")
        kept = environment.get("KEPT_MB") or str(free_bytes() // 8 // 2**20)
        if not kept.isdecimal():
            raise InputError(f"KEPT_MB is {kept!r}; it must be a whole number of megabytes, 0 to keep nothing.")
        minutes = environment.get("MAX_MINUTES") or "60"
        if not minutes.isdecimal() or not int(minutes):
            raise InputError(f"MAX_MINUTES is {minutes!r}; it must be a whole number of at least 1.")
        anything = environment.get("ALLOW_ANY_MODEL") or "0"
        if anything not in ("0", "1"):
            raise InputError(f"ALLOW_ANY_MODEL is {anything!r}; it must be 1 or 0.")
        mcp = environment.get("MCP") or "0"
        if mcp not in ("0", "1"):
            raise InputError(f"MCP is {mcp!r}; it must be 1 or 0.")
        if mcp == "1" and importlib.util.find_spec("mcp") is None:
            raise InputError('MCP is 1, and the package mcp isn\'t here: pip install "gradio[mcp]", or leave MCP out.')
        own, why = environment.get("MODEL_ID") or None, ""
        borrowed = environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")  # as the package reads it

        def names(variable: str) -> tuple[str, ...]:
            return tuple(name.strip() for name in environment.get(variable, "").split(",") if name.strip())

        others = names("MODEL_IDS")
        if own is None:
            own, why = suited(LENT_BYTES if borrowed else _gpu_bytes(), refusal)
            others += (DEFAULT_MODEL_NAME,)

        return cls(
            None if own == DEFAULT_MODEL_NAME else own,
            int(bits),
            int(limit),
            int(kept) * 2**20,
            int(minutes),
            others,
            anything == "1",
            names("ALLOWED_HOSTS"),
            names("ALLOWED_ORIGINS"),
            mcp == "1",
            borrowed,
            why,
        )


def _gpu_bytes() -> int | None:
    device = default_place().device
    return free_bytes(device) if device.type == "cuda" else None


def default_token_limit(available_bytes: int) -> int:
    """Tokens that half of the free memory holds, in steps of 1024, from 4096 to 65,536."""
    return min(65_536, max(4096, available_bytes // 2 // BYTES_PER_TOKEN // 1024 * 1024))
