"""What LaMPE makes of a model: its window, its RoPE, its layers, its memory, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from lampe.families import family_of
from lampe.inference.speed import Speed
from lampe.methods import BASES, LampeConfig
from lampe.models.device import attention_here, compute_dtype, default_place
from lampe.models.memory import cache_bytes, free_bytes, heads_of, weight_bytes
from lampe.models.narrow import narrow_model
from lampe.patching.patch import patch
from lampe.patching.probe import Layer, UnsupportedModelError

NO_COPY = "A narrow copy of it can't be made"


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Parameters
    ----------
    family : str
        The config's model type.
    window : int or None
        W₀ in tokens; None if the config names none.
    rope : tuple of str
        The types of RoPE: more than one where types of layers have their own; empty without RoPE.
    rotary_size, head_size : int
        Dimensions of a head that RoPE rotates, and all of them; 0 where they aren't known.
    preset : str or None
        Key of `PRESETS`; None is a model of a family that nobody has calibrated.
    basis : str
        What the mapping length rests on: see `lampe.methods.BASES`.
    layers : tuple of Layer
        Empty where the patch was refused.
    refusal : str
        Why; empty if the model can be patched.
    with_weights : bool
        Whether the model itself was patched, not a narrow copy with random weights.
    attention : str
        What computes attention on this machine, and how well; empty without weights.
    weights : dict of int to int
        Bytes of the weights in 4 and in 16 bits; empty where they aren't known.
    """

    family: str
    window: int | None
    rope: tuple[str, ...]
    rotary_size: int
    head_size: int
    preset: str | None
    basis: str
    layers: tuple[Layer, ...]
    refusal: str
    with_weights: bool
    attention: str
    weights: dict[int, int]


def diagnose(config: Any, model: Any = None) -> Diagnosis:
    """Look at a model, or at a narrow copy of it where only its config is at hand.

    Parameters
    ----------
    config : transformers config
    model : transformers model, optional
        With its weights.
    """
    text = config.get_text_config()
    refusal, window, name, basis = "", None, None, "rescaled"
    layers: tuple[Layer, ...] = ()
    try:
        settings = LampeConfig.for_model(config if model is None else model)
        window, name, basis = settings.window, family_of(config), settings.basis
        tried = narrow_model(config) if model is None else model
        with patch(tried, settings) as patched:
            layers = patched.layers
    except UnsupportedModelError as error:
        refusal = str(error)
    except Exception as error:
        refusal = str(error) if window is None or model is not None else f"{NO_COPY} ({error!r:.150})."
    rotary_size, weights = 0, {}
    try:
        with torch.device("meta"):
            whole = transformers.AutoModelForCausalLM.from_config(config)
        frequencies = [buffer.numel() for of, buffer in whole.named_buffers() if of.endswith("inv_freq")]
        rotary_size = 2 * max(frequencies, default=0)
        weights = {bits: weight_bytes(whole, bits) for bits in (4, 16)}
    except Exception as error:
        refusal = refusal or f"A model of this config can't be made ({error!r:.150})."
    return Diagnosis(
        family=text.model_type,
        window=window,
        rope=_rope_types(text) if rotary_size else (),
        rotary_size=rotary_size,
        head_size=heads_of(config).size,
        preset=name,
        basis=basis,
        layers=layers,
        refusal=refusal,
        with_weights=model is not None,
        attention="" if model is None else attention_here(heads_of(config).size or 64, model.device, model.dtype),
        weights=weights,
    )


def _rope_types(config: Any) -> tuple[str, ...]:
    given = getattr(config, "rope_parameters", None) or {}
    inside = [value for value in given.values() if isinstance(value, dict)] or [given]
    return tuple(dict.fromkeys(str(one.get("rope_type", "default")) for one in inside))


def report(name: str, found: Diagnosis, config: Any, length: int, speed: Speed | None = None) -> str:
    """A diagnosis in lines for people.

    Parameters
    ----------
    name : str
    found : Diagnosis
    config : transformers config
    length : int
        Input length that memory and time are stated for, in tokens.
    speed : Speed, optional
        The model's on this machine, where it was measured.
    """
    lines = [("family", found.family), ("window", f"{found.window:,} tokens" if found.window else "not in its config")]
    rotated = f", {found.rotary_size} of {found.head_size} dimensions of a head" if found.rotary_size else ""
    lines.append(("RoPE", (", ".join(found.rope) or "none") + rotated))
    if found.layers:
        lines.append(("layers", layers_in_words(found.layers)))
    unseen = found.basis == "family" and not found.with_weights
    rests = "whether it was measured on this model, its weights will tell" if unseen else BASES[found.basis]
    lines.append(("preset", f"{found.preset or 'none'}: {rests}"))
    seen = "in the model itself" if found.with_weights else "in a narrow copy with random weights"
    lines.append(("patch", found.refusal or f"active, {seen}: queries and keys arrive where the map says"))
    if found.attention:
        lines.append(("kernel", found.attention))
    each = torch.finfo(compute_dtype(default_place().device)).bits // 8
    gigabytes = f"{cache_bytes(config, length, each) / 1e9:.2f} GB of keys and values"
    weights = " or ".join(f"{size / 1e9:.2f} GB in {bits} bits" for bits, size in found.weights.items())
    weights = f"{weights} for the weights, and " if weights else ""
    lines.append(("memory", f"{weights}{gigabytes} for {length:,} tokens"))
    lines.append(("here", _room(found, config)))
    if speed:
        took = f"about {speed.reading(0, length):,.0f} s for reading {length:,} tokens"
        lines.append(("time", f"{took}, and {speed.answer:.2g} s for each token of an answer, as measured now"))
    lines.append(("next", _next(name, found)))
    return "\n".join([name, *(f"  {what:<8}{text}" for what, text in lines)])


def _room(found: Diagnosis, config: Any) -> str:
    """What this machine has free, and the longest input that fits there."""
    device, free = default_place().device, free_bytes()
    place = f"{'this GPU' if device.type == 'cuda' else 'this CPU'}, {free / 1e9:.1f} GB free"
    left = free - (0 if found.with_weights else found.weights.get(4, 0))
    each = torch.finfo(compute_dtype(device)).bits // 8
    # The cache, the copy that grows it, and a chunk's activations.
    token = 3 * cache_bytes(config, 1, each)
    if not token:
        return place
    return f"{place}: " + (f"room for about {left // token:,} tokens" if left > token else "no room for it in 4 bits")


def _next(name: str, found: Diagnosis) -> str:
    if found.refusal.startswith(NO_COPY):
        return f"`python -m lampe doctor {name}` tries it with its weights"
    if found.window is None:
        return "give `lampe.patch` a `LampeConfig` with the window that the model was trained with"
    if found.refusal:
        return "choose a model of another family: `python -m lampe doctor --families` lists them"
    if not found.with_weights:
        return f"`python -m lampe doctor {name}` tries it with its weights"
    if found.basis != "measured":
        return f"`python -m lampe calibrate --model {name}` finds the mapping lengths that suit it"
    return "`with lampe.patch(model): …`"


def layers_in_words(layers: tuple[Layer, ...]) -> str:
    """How many layers are mapped, and why the others aren't."""
    others: dict[str, int] = {}
    for layer in layers:
        if not layer.mapped:
            others[layer.reason] = others.get(layer.reason, 0) + 1
    mapped = len(layers) - sum(others.values())
    reasons = "".join(f"; {count} left as they are: {reason}" for reason, count in others.items())
    return f"{mapped} of {len(layers)} mapped{reasons}"


def families() -> Iterator[tuple[str, Diagnosis]]:
    """Each causal language model that this transformers knows, as its default config has it, by name."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    for name in sorted(NAMES):
        try:
            config = transformers.CONFIG_MAPPING[name]()
            if config.is_encoder_decoder:
                continue
            yield name, diagnose(config)
        except Exception:  # a config that needs more than its defaults says nothing about its family
            continue
