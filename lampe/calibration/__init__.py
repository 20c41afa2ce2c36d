"""Finding the mapping lengths that suit a model: measured on a few input lengths, and fitted with a curve.

`Sweep` says what is measured, and measures it; `fit` holds the mathematics; a `CalibratedPreset` is what comes of
it, in a file with all that it rests on. The way is that of LaMPE (arXiv 2508.02308, section 3.2), which takes
perplexity alone; needles are ours.
"""

from lampe.calibration.calibrating import SweepCallback, calibrate, keep_measuring, source_of
from lampe.calibration.comparing import Trial, TrialRow, read_trials, run_trials, trials, tuned, write_trial
from lampe.calibration.fit import Best, Costs, Priced
from lampe.calibration.measure import Row, evaluate
from lampe.calibration.paired import Difference, compare, differences, spans
from lampe.calibration.points import (
    OBJECTIVES,
    CalibrationError,
    Evaluation,
    SweepPoint,
    check_lengths,
    default_lengths,
    evaluations,
)
from lampe.calibration.preset import (
    CalibratedPreset,
    Source,
    load_preset,
    make_preset,
    read_preset,
    report,
    write_preset,
)
from lampe.calibration.rows import Measured, table
from lampe.calibration.sweep import SWEPT, Sweep
from lampe.calibration.text import library_docstrings

__all__ = [
    "OBJECTIVES",
    "SWEPT",
    "Best",
    "CalibratedPreset",
    "CalibrationError",
    "Costs",
    "Difference",
    "Evaluation",
    "Measured",
    "Priced",
    "Row",
    "Source",
    "Sweep",
    "SweepCallback",
    "SweepPoint",
    "Trial",
    "TrialRow",
    "calibrate",
    "check_lengths",
    "compare",
    "default_lengths",
    "differences",
    "evaluate",
    "evaluations",
    "keep_measuring",
    "library_docstrings",
    "load_preset",
    "make_preset",
    "read_preset",
    "read_trials",
    "report",
    "run_trials",
    "source_of",
    "spans",
    "table",
    "trials",
    "tuned",
    "write_preset",
    "write_trial",
]
