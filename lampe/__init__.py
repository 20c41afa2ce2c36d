"""LaMPE for Hugging Face models: length-aware multi-grained positional encoding (arXiv 2508.02308)."""

from lampe.calibration import CalibrationError, calibrate, load_preset
from lampe.errors import LampeError
from lampe.inference.prefill import PromptReader
from lampe.methods import (
    METHODS,
    PRESETS,
    REFERENCE_ATTENTION_SCALE,
    Constant,
    LampeConfig,
    Method,
    ScaledSigmoid,
    position_map,
)
from lampe.models.load import LoadError, load
from lampe.patching.patch import Patched, patch, probe
from lampe.patching.probe import Layer, Support, UnsupportedModelError
from lampe.positions import IndexMap, PositionMap, Region

__all__ = [
    "METHODS",
    "PRESETS",
    "REFERENCE_ATTENTION_SCALE",
    "CalibrationError",
    "Constant",
    "IndexMap",
    "LampeConfig",
    "LampeError",
    "Layer",
    "LoadError",
    "Method",
    "Patched",
    "PositionMap",
    "PromptReader",
    "Region",
    "ScaledSigmoid",
    "Support",
    "UnsupportedModelError",
    "calibrate",
    "load",
    "load_preset",
    "patch",
    "position_map",
    "probe",
]
