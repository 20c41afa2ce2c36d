"""Names that have moved."""

from lampe.families import family_config
from lampe.methods.lampe import PRESETS, rescaled

__all__ = ["PRESETS", "family_config", "rescaled"]
