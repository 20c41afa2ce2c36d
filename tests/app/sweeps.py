"""A preset of a made-up sweep."""

from __future__ import annotations

import math

from lampe.calibration import CalibratedPreset, Row, Source, Sweep, make_preset
from lampe.methods import LampeConfig, ScaledSigmoid

LENGTHS = (2048, 4096, 8192, 16384)
BASE = LampeConfig(8192, 512, 200, 2048)


def made(objective: str = "both", source: str = "owner/model") -> CalibratedPreset:
    """A preset whose best mapping lengths lie on a curve; needles are missed far from it."""
    sweep = Sweep(BASE, LENGTHS, 10**6, objective, windows=1, needles=2)
    curve = ScaledSigmoid(5000.0, 0.0004, -2.4)
    rows: list[Row] = []
    for length in LENGTHS:
        while missing := sweep.missing(length, rows):
            for one in missing:
                off = abs(math.log(one.mapping_length / min(curve(length), length)))
                if one.kind == "loss":
                    rows.append(Row(**vars(one), loss=2 + off, tokens=512, seconds=1.0))
                else:
                    found = off < (1.0 if one.asked else 0.5)
                    rows.append(Row(**vars(one), found=found, log_likelihood=-off, tokens=4, seconds=1.0))
    return make_preset(sweep, rows, Source(source, 4, "0123456789abcdef", "a text 01234567"))
