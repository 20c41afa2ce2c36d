"""LaMPE for Hugging Face models: length-aware multi-grained positional encoding (arXiv 2508.02308)."""

from lampe.calibration import CalibrationError, calibrate, load_preset
from lampe.load import LoadError, load
from lampe.patch import Patched, patch
from lampe.positions import IndexMap, LampeConfig, PositionMap, Region, ScaledSigmoid, position_map
from lampe.presets import PRESETS, REFERENCE_ATTENTION_SCALE
from lampe.probe import Layer, UnsupportedModelError
from lampe.reading import PromptReader

__all__ = [
    "PRESETS",
    "REFERENCE_ATTENTION_SCALE",
    "CalibrationError",
    "IndexMap",
    "LampeConfig",
    "Layer",
    "LoadError",
    "Patched",
    "PositionMap",
    "PromptReader",
    "Region",
    "ScaledSigmoid",
    "UnsupportedModelError",
    "calibrate",
    "load",
    "load_preset",
    "patch",
    "position_map",
]
