"""From a model to its configuration: measure, keep every row, fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from lampe.calibration.measure import Row, check_memory, evaluate
from lampe.calibration.points import Evaluation, check_lengths, default_lengths
from lampe.calibration.preset import Source, make_preset, write_preset
from lampe.calibration.rows import read_rows, write_row
from lampe.calibration.sweep import Sweep
from lampe.calibration.text import library_docstrings
from lampe.methods import LampeConfig
from lampe.models.weights import weight_bits, weights_hash
from lampe.needle import Haystack, TokenizedHaystack

SweepCallback = Callable[[Row | None, float, float], None]
"""Told the row that came last (None at first), the work done, and the work left."""
Measure = Callable[[list[Evaluation]], Iterable[Row]]
"""Gives the rows of some evaluations."""


def calibrate(
    model: Any,
    tokenizer: Any,
    lengths: Sequence[int] | None = None,
    objective: str = "both",
    *,
    base: LampeConfig | None = None,
    text: Haystack | None = None,
    name: str | None = None,
    out: str | os.PathLike[str] | None = None,
    rows: str | os.PathLike[str] | None = None,
    progress: SweepCallback = lambda row, done, left: None,
    **settings: Any,
) -> LampeConfig:
    """Find the mapping lengths that suit a model, as LaMPE does (arXiv 2508.02308, section 3.2), or by needles.

    At each input length mapping lengths are tried; the curve m(l) = L / (1 + e^−(a·l + b)) is fitted to the best ones.
    Where the curve costs no less than the best constant, the result has that constant. Each window is read once at each
    point, for its loss and for its needles.

    Parameters
    ----------
    model : transformers model
        Not patched.
    tokenizer : transformers tokenizer
    lengths : sequence of int, optional
        Input lengths in tokens; at least three different ones, all beyond Head + Tail. By default `default_lengths`.
    objective : str
        "perplexity" is the loss of each window's last tokens, "needle" the share of hidden numbers found, "both" a
        weighted sum: see `Measured.cost`.
    base : LampeConfig, optional
        Window, Head, Tail and attention scale; by default those of the model's preset.
    text : Haystack, optional
        Where windows are cut from and needles hidden in; by default `library_docstrings`.
    name : str, optional
        What the model is called in the files; by default what it was loaded as.
    out, rows : path, optional
        The preset's file, and that of the sweep: a row of JSON for each evaluation, appended as it ends. Rows that are
        there already aren't measured again.
    progress : callable
        See `SweepCallback`.
    **settings
        `weight`, `windows`, `needles`, `seed`, `steps`, `refine`: see `Sweep`.

    Returns
    -------
    LampeConfig

    Raises
    ------
    CalibrationError
        If the lengths, the text, the memory or a file won't do; the message says what to change.
    """
    base = base or LampeConfig.for_model(model)
    lengths = default_lengths(base.window) if lengths is None else tuple(lengths)
    check_lengths(lengths)
    tokenized = TokenizedHaystack(text or library_docstrings(), tokenizer)
    sweep = Sweep(base, lengths, len(tokenized.ids), objective, **settings)
    source = source_of(model, tokenized, name)
    found = keep_measuring(model, tokenized, sweep, source, Path(rows) if rows else None, progress)
    preset = make_preset(sweep, found, source)
    if out:
        write_preset(preset, Path(out))
    return preset.config


def source_of(model: Any, tokenized: TokenizedHaystack, name: str | None = None) -> Source:
    """What a sweep with this model and text is measured on."""
    loaded_as = str(model.config.name_or_path)
    folder = Path(loaded_as)
    name = name or (folder.name if folder.is_dir() else loaded_as)  # where the folder lies belongs in no file
    return Source(name, weight_bits(model), weights_hash(model), tokenized.haystack.name)


def keep_measuring(
    model: Any, tokenized: TokenizedHaystack, sweep: Sweep, source: Source, path: Path | None, progress: SweepCallback,
    measure: Measure | None = None,
) -> list[Row]:  # fmt: skip
    """Measure what a sweep file doesn't have yet, and append each row as it comes.

    Parameters
    ----------
    path : Path or None
        None keeps no file.
    measure : callable, optional
        What measures some evaluations; by default this model does, one after the other.

    Returns
    -------
    list of Row
        All of this sweep and source, those of the file first.
    """
    check_memory(model, sweep.lengths)
    rows = read_rows(path, asdict(source)) if path else []
    done = 0.0
    progress(None, done, sweep.work_left(rows))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    here = partial(evaluate, model, tokenized, window=sweep.base.window)
    for row in sweep.run(measure or here, tuple(rows)):
        rows.append(row)
        if path:
            write_row(path, row, asdict(source))
        done += sweep.work(row)
        progress(row, done, sweep.work_left(rows))
    return rows
