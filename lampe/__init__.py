"""LaMPE for Hugging Face models: length-aware multi-grained positional encoding (arXiv 2508.02308)."""

from lampe.load import LoadError, load
from lampe.patch import Patched, patch
from lampe.positions import IndexMap, LampeConfig, PositionMap, Region, ScaledSigmoid, position_map
from lampe.presets import PRESETS, REFERENCE_ATTENTION_SCALE
from lampe.probe import Layer, UnsupportedModelError

__all__ = [
    "PRESETS",
    "REFERENCE_ATTENTION_SCALE",
    "IndexMap",
    "LampeConfig",
    "Layer",
    "LoadError",
    "Patched",
    "PositionMap",
    "Region",
    "ScaledSigmoid",
    "UnsupportedModelError",
    "load",
    "patch",
    "position_map",
]
