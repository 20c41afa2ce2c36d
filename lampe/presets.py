"""Curves published for model families, and the choice of one for a loaded model."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import nn

from lampe.errors import InputError
from lampe.methods.lampe import LampeConfig, ScaledSigmoid
from lampe.models.weights import weights_hash

REFERENCE_ATTENTION_SCALE = (0.1 * math.log(2) + 1) ** 2
"""Factor on the logits in the authors' evaluation scripts, which scale cos and sin of both query and key."""

# The fits are those of the authors' code (`remap_uselen`), with its head and tail of 512 and 200 tokens.
_LLAMA3_SLOPE, _LLAMA3_INTERCEPT = 0.00010493097327094324, -2.466638011138158

PRESETS: dict[str, LampeConfig] = {
    "llama2": LampeConfig(
        4096, 512, 200, ScaledSigmoid(2489.1055552214357, 8.673006440952035e-05, -0.648012322406978, 8192, 1536)
    ),
    "llama3": LampeConfig(
        8192, 512, 200, ScaledSigmoid(6204.409324666837, _LLAMA3_SLOPE, _LLAMA3_INTERCEPT, 8192, 1536)
    ),
    "mistral": LampeConfig(32768, 512, 200, ScaledSigmoid(24576, _LLAMA3_SLOPE, _LLAMA3_INTERCEPT, 8192, 1536)),
    "llama3.1": LampeConfig(
        131072, 512, 200, ScaledSigmoid(82358.52413056031, 4.505261149632588e-05, -2.788576860718702)
    ),
    # Our sweep in assets/smollm2.json: this constant cost less than the fitted curve.
    "smollm2": LampeConfig(8192, 512, 200, 6654),
}

# What they were measured on, as far as is known: the paper's models by their names on the Hub, and our own by the hash
# of its weights (the embedded model's, in 4 bits).
_MODELS: dict[str, str] = {
    "meta-llama/Llama-2-7b-chat-hf": "llama2",
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "llama3.1",
}
_WEIGHTS: dict[str, str] = {"smollm2": "d4f7a4ac26eb7682"}
_SIZES: dict[str, tuple[int, int]] = {"smollm2": (30, 576)}  # layers and width: others needn't be hashed

# What tells a family from others of the same architecture: type, vocabulary and window.
_FAMILIES: dict[tuple[str, int, int], str] = {
    ("llama", 32000, 4096): "llama2",
    ("llama", 128256, 8192): "llama3",
    ("llama", 128256, 131072): "llama3.1",
    ("mistral", 32000, 32768): "mistral",
    ("mistral", 32768, 32768): "mistral",
    ("llama", 49152, 8192): "smollm2",
}


def family_config(name: str) -> Any:
    """A config that tells as much as is known of all models of a preset's family, where the model's own isn't at hand.

    Parameters
    ----------
    name : str
        A key of `PRESETS`.
    """
    kind, vocabulary, window = next(key for key, family in _FAMILIES.items() if family == name)
    return SimpleNamespace(model_type=kind, vocab_size=vocabulary, max_position_embeddings=window)


def pretraining_window(config: Any) -> int:
    """W₀ in tokens: the window before RoPE was stretched.

    Raises
    ------
    ValueError
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


def preset_name(model_or_config: Any) -> str | None:
    """Key of `PRESETS` for this model, None when no published curve is known to fit it.

    Raises
    ------
    ValueError
        If the config names no window.
    """
    config = _text_config(model_or_config)
    return _FAMILIES.get((config.model_type, getattr(config, "vocab_size", 0), pretraining_window(config)))


def config_for(model_or_config: Any) -> LampeConfig:
    """See `LampeConfig.for_model`."""
    name = preset_name(model_or_config)
    if name is None:
        return rescaled(pretraining_window(_text_config(model_or_config)))
    return replace(PRESETS[name], basis="measured" if _measured_on(name, model_or_config) else "family")


def _measured_on(name: str, model_or_config: Any) -> bool:
    """Whether a preset was measured on this model, not on another one of its family."""
    config = _text_config(model_or_config)
    if _MODELS.get(str(getattr(config, "name_or_path", ""))) == name:
        return True
    if not isinstance(model_or_config, nn.Module) or name not in _WEIGHTS:
        return False
    size = config.num_hidden_layers, config.hidden_size
    return size == _SIZES[name] and weights_hash(model_or_config) == _WEIGHTS[name]


def published(model_or_config: Any, short: bool = False) -> LampeConfig:
    """The authors' curve for a model's family, or else Llama-3's stretched to its window.

    Parameters
    ----------
    model_or_config : transformers model or its config
    short : bool
        With the authors' one mapping length for short inputs, where they have it; see `rescaled`.
    """
    config = config_for(model_or_config)
    ours = not isinstance(config.mapping, ScaledSigmoid) or preset_name(model_or_config) in _WEIGHTS
    return rescaled(config.window, short) if ours or config.basis == "rescaled" else config


def rescaled(window: int, short: bool = False) -> LampeConfig:
    """Llama-3's curve stretched to another window, for a model nobody has calibrated.

    Parameters
    ----------
    window : int
        W₀ in tokens. The greatest mapping length is three quarters of it, the slope goes with 1/W₀, and Head
        and Tail keep the share of the window they have in Llama-3's preset (1/16 and about 1/41).
    short : bool
        Whether inputs shorter than the window take one mapping length, as in the authors' code.
    """
    base = PRESETS["llama3"]
    assert isinstance(base.mapping, ScaledSigmoid)
    scale = window / base.window
    # A window of one token still holds one position.
    curve = ScaledSigmoid(max(1.0, 0.75 * window), _LLAMA3_SLOPE / scale, _LLAMA3_INTERCEPT)
    if short and base.mapping.short_mapping:
        least = max(1, round(base.mapping.short_mapping * scale))
        curve = replace(curve, short_length=round(base.mapping.short_length * scale), short_mapping=least)
    return LampeConfig(window, round(base.head * scale), round(base.tail * scale), curve, basis="rescaled")


def window_of(model_or_config: Any) -> int:
    """W₀ of a model or a config, in tokens; see `pretraining_window`."""
    return pretraining_window(_text_config(model_or_config))


def _text_config(model_or_config: Any) -> Any:
    config = getattr(model_or_config, "config", model_or_config)
    return config.get_text_config() if hasattr(config, "get_text_config") else config
