"""Finding the mapping lengths that suit a model: measured on a few input lengths, and fitted with a curve.

`Sweep` says what is measured and measures it; `write_row` and `read_rows` keep it. The way is that of LaMPE
(arXiv 2508.02308, section 3.2), which takes perplexity alone; needles are ours.
"""

from lampe.calibration.measure import Row, check_memory, weight_bits, weights_hash
from lampe.calibration.points import OBJECTIVES, CalibrationError, Evaluation, Point
from lampe.calibration.rows import Measured, put_together, read_rows, table, write_row
from lampe.calibration.sweep import SWEPT, Sweep
from lampe.calibration.text import library_docstrings

__all__ = [
    "OBJECTIVES",
    "SWEPT",
    "CalibrationError",
    "Evaluation",
    "Measured",
    "Point",
    "Row",
    "Sweep",
    "check_memory",
    "library_docstrings",
    "put_together",
    "read_rows",
    "table",
    "weight_bits",
    "weights_hash",
    "write_row",
]
