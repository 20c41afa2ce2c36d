"""Which family of models a loaded model is of, how long its pretraining window is, and what was measured on it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from lampe.errors import InputError
from lampe.models.weights import weights_hash

# What tells a family from others of the same architecture: type, vocabulary and window.
_FAMILIES: dict[tuple[str, int, int], str] = {
    ("llama", 32000, 4096): "llama2",
    ("llama", 128256, 8192): "llama3",
    ("llama", 128256, 131072): "llama3.1",
    ("mistral", 32000, 32768): "mistral",
    ("mistral", 32768, 32768): "mistral",
    ("llama", 49152, 8192): "smollm2",
}

# What each family's preset was measured on, as far as is known: the paper's models by their names on the Hub, and our
# own by the hash of its weights: the embedded model's in 4 bits, as a CPU packs it and as a GPU does.
_MODELS: dict[str, str] = {
    "meta-llama/Llama-2-7b-chat-hf": "llama2",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "llama3.1",
}
_WEIGHTS: dict[str, frozenset[str]] = {"smollm2": frozenset({"d4f7a4ac26eb7682", "961f0b07e7eae2cc"})}
_SIZES: dict[str, tuple[int, int]] = {"smollm2": (30, 576)}  # layers and width: others needn't be hashed

OURS = frozenset(_WEIGHTS)
"""The families that this project has calibrated, not LaMPE's authors."""


def family_config(name: str) -> Any:
    """A config that tells as much as is known of all models of a family, where the model's own isn't at hand.

    Parameters
    ----------
    name : str
        A key of `lampe.PRESETS`.
    """
    model_type, vocabulary, window = next(key for key, family in _FAMILIES.items() if family == name)
    return SimpleNamespace(model_type=model_type, vocab_size=vocabulary, max_position_embeddings=window)


def pretraining_window(config: Any) -> int:
    """W₀ in tokens: the window before RoPE was stretched.

    Raises
    ------
    InputError
        If the config names no window.
    """
    window = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    # Where types of layers have a RoPE each, theirs are inside. Llama-3.1's ("llama3") was trained as it is stretched.
    for settings in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if settings.get("rope_type") in ("yarn", "longrope", "dynamic"):
            window = settings.get("original_max_position_embeddings", window)
    if not isinstance(window, int) or window < 1:
        raise InputError(
            "This model's config has no max_position_embeddings, so its pretraining window isn't known; "
            "give a LampeConfig with the window yourself."
        )
    return window


def window_of(model_or_config: Any) -> int:
    """W₀ of a model or a config, in tokens; see `pretraining_window`."""
    return pretraining_window(_text_config(model_or_config))


def family_of(model_or_config: Any) -> str | None:
    """The key of `lampe.PRESETS` for a model or a config; None if no preset is known to fit it.

    Raises
    ------
    InputError
        If the config names no window.
    """
    config = _text_config(model_or_config)
    return _FAMILIES.get((config.model_type, getattr(config, "vocab_size", 0), pretraining_window(config)))


def measured_on(family: str, model_or_config: Any) -> bool:
    """Whether a family's preset was measured on this model, not on another one of the family."""
    config = _text_config(model_or_config)
    if _MODELS.get(str(getattr(config, "name_or_path", ""))) == family:
        return True
    if not isinstance(model_or_config, nn.Module) or family not in _WEIGHTS:
        return False
    size = config.num_hidden_layers, config.hidden_size
    return size == _SIZES[family] and weights_hash(model_or_config) in _WEIGHTS[family]


def _text_config(model_or_config: Any) -> Any:
    config = getattr(model_or_config, "config", model_or_config)
    return config.get_text_config() if hasattr(config, "get_text_config") else config
