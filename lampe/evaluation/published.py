"""Figures that others have published, to be shown apart from those measured here: other models, other machines."""

from __future__ import annotations

from typing import NamedTuple

LAMPE_PAPER = "arXiv 2508.02308"


class Published(NamedTuple):
    """One figure.

    Parameters
    ----------
    benchmark : str
    model : str
    method : str
        Key of `lampe.METHODS`.
    setting : str
        Length, or what was averaged over.
    value : float
    source : str
    """

    benchmark: str
    model: str
    method: str
    setting: str
    value: float
    source: str = LAMPE_PAPER


def _row(benchmark: str, model: str, method: str, **values: float) -> list[Published]:
    return [Published(benchmark, model, method, setting.strip("_"), value) for setting, value in values.items()]


_LLAMA3, _LLAMA31, _LLAMA2 = "Llama-3-8B-Instruct", "Llama-3.1-8B-Instruct", "Llama-2-7B-Chat"

PUBLISHED: tuple[Published, ...] = (
    *_row("RULER, average score", _LLAMA3, "rope", _8K=88.76),
    *_row("RULER, average score", _LLAMA3, "lampe", _8K=90.57, _16K=87.32, _64K=69.46, _128K=59.48),
    *_row("RULER, average score", _LLAMA3, "selfextend", _8K=87.59, _16K=75.44, _64K=61.95, _128K=35.97),
    *_row("RULER, average score", _LLAMA3, "dca", _8K=89.35, _16K=72.28, _64K=47.01, _128K=15.96),
    *_row("RULER, average score", _LLAMA3, "yarn", _16K=62.93, _64K=5.02, _128K=12.17),
    *_row("∞Bench, average score", _LLAMA3, "lampe", _32K=27.02, _64K=33.98),
    *_row("∞Bench, average score", _LLAMA3, "dca", _32K=24.22, _64K=31.03),
    *_row("∞Bench, average score", _LLAMA3, "selfextend", _32K=23.22, _64K=30.98),
    *_row("∞Bench, average score", _LLAMA31, "rope", _128K=54.80),
    *_row("∞Bench, average score", _LLAMA31, "string", _128K=60.72),
    *_row("∞Bench, average score", _LLAMA31, "lampe", _128K=62.85),
    *_row("LongBench, 16 tasks", _LLAMA2, "rope", average=31.52),
    *_row("LongBench, 16 tasks", _LLAMA2, "lampe", average=35.07),
    *_row("LongBench, 16 tasks", _LLAMA3, "rope", average=42.38),
    *_row("LongBench, 16 tasks", _LLAMA3, "lampe", average=46.99),
    *_row("L-Eval, 5 closed tasks", _LLAMA2, "rope", average=39.53),
    *_row("L-Eval, 5 closed tasks", _LLAMA2, "lampe", average=48.13),
    *_row("L-Eval, 5 closed tasks", _LLAMA3, "rope", average=67.07),
    *_row("L-Eval, 5 closed tasks", _LLAMA3, "lampe", average=71.78),
)
"""LaMPE's own paper. Jet-Long's (which doesn't compare with LaMPE) gives gains over the best of YaRN, dynamic NTK,
SelfExtend and DCA only, and has no row here."""
