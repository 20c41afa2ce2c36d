"""From the costs of a sweep to a curve, and what the curve is worth: pure functions.

The curve is LaMPE's (arXiv 2508.02308, section 3.2): m(l) = L / (1 + e^−(a·l + b)).
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from lampe.calibration.points import CalibrationError, check_lengths
from lampe.files import Size
from lampe.methods import Constant, LampeConfig, ScaledSigmoid


@dataclass(frozen=True)
class Costs:
    """What each mapping length that was tried at an input length costs.

    Parameters
    ----------
    length : int
    mapping_lengths : tuple of int
        Rising.
    costs : tuple of float
    """

    length: int
    mapping_lengths: tuple[int, ...]
    costs: tuple[float, ...]

    def at(self, mapping_length: float) -> float | None:
        """The cost of any mapping length, by straight lines over ln m; below those tried, that of the smallest.

        None above those tried, which end with the window or the length: what more would cost isn't known.
        """
        if mapping_length > self.mapping_lengths[-1]:
            return None
        tried = np.log(self.mapping_lengths)
        return float(np.interp(math.log(mapping_length), tried, self.costs))


@dataclass(frozen=True)
class Best:
    """The best point of a length.

    Parameters
    ----------
    length, mapping_length : int
    cost : float
    sharpness : float
        How much the cost rises when m is √2 times as great or as small: the mean of both. A side on which less was
        tried counts with its last one; a side without any doesn't count.
    at_least : bool
        Whether m = l, no mapping, was best: a curve that passes above is as good, since m is never more than l.
    """

    length: Size
    mapping_length: Size
    cost: float
    sharpness: float
    at_least: bool


def best_of(costs: Costs) -> Best:
    """See `Best`."""
    cost = min(costs.costs)
    place = costs.costs.index(cost)
    m = costs.mapping_lengths[place]
    sides = []
    if place > 0:
        sides.append(max(m / math.sqrt(2), costs.mapping_lengths[0]))
    if place < len(costs.costs) - 1:
        sides.append(min(m * math.sqrt(2), costs.mapping_lengths[-1]))
    rises = [(costs.at(side) or 0.0) - cost for side in sides]
    return Best(costs.length, m, cost, fmean(rises) if rises else 0.0, m == costs.length)


def weights_of(points: Sequence[Best]) -> list[float]:
    """How much each point counts in the fit: its sharpness as a share of the mean, and a tenth at least."""
    mean = fmean(point.sharpness for point in points)
    return [max(0.1, point.sharpness / mean) if mean > 0 else 1.0 for point in points]


def fit_curve(points: Sequence[Best], window: int, least: int) -> ScaledSigmoid:
    """The curve nearest to the best points.

    It minimises Σ w · (ln m(l) − ln m)² with the weights of `weights_of`; where a point says "at least l", m(l) counts
    as l if it is more. L is from `least` to the window. The curve rises, unless one that falls is nearer.

    Parameters
    ----------
    points : sequence of Best
    window : int
        W₀, in tokens.
    least : int
        The smallest usable mapping length.

    Raises
    ------
    CalibrationError
        If there are fewer than three lengths.
    """
    try:
        from scipy.optimize import OptimizeWarning, curve_fit  # heavy, and needed nowhere else
    except ImportError as error:
        raise CalibrationError("Fitting a curve needs scipy: pip install 'lampe-lab[calibrate]'.") from error

    check_lengths(point.length for point in points)
    lengths = np.array([point.length for point in points], dtype=float)
    wanted = np.log([point.mapping_length for point in points])
    bound = np.where([point.at_least for point in points], np.log(lengths), np.inf)
    errors = 1 / np.sqrt(weights_of(points))
    # In windows: what is fitted is then of the order of 1 whatever the model.
    middle = lengths.mean() / window

    def log_mapping(length: Any, maximum: float, slope: float, intercept: float) -> Any:
        curve = np.log(maximum * window) - np.logaddexp(0, -(slope * length + intercept))
        return np.minimum(curve, bound)

    def nearest(slopes: tuple[float, float]) -> tuple[float, Any]:
        limits = ([least / window, slopes[0], -40.0], [1.0, slopes[1], 40.0])
        found: tuple[float, Any] = (math.inf, None)
        for maximum, slope in itertools.product((0.3, 0.9), (0.3, 2.0, 10.0)):
            slope = math.copysign(slope, sum(slopes))
            start = [max(maximum, least / window * 1.01), slope, -slope * middle]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OptimizeWarning)  # of uncertainties that aren't used
                values, _ = curve_fit(
                    log_mapping, lengths / window, wanted, np.clip(start, *limits), errors, bounds=limits, max_nfev=2000
                )
            error = float((((log_mapping(lengths / window, *values) - wanted) / errors) ** 2).sum())
            if error < found[0]:
                found = error, values
        return found

    rising, falling = nearest((0.0, 60.0)), nearest((-60.0, 0.0))
    _, (maximum, slope, intercept) = falling if falling[0] < 0.999 * rising[0] - 1e-12 else rising
    return ScaledSigmoid(float(maximum) * window, float(slope) / window, float(intercept))


def residual(point: Best, curve: ScaledSigmoid) -> int:
    """Positions by which the curve, not clamped, passes above the best point; 0 where it is above an "at least"."""
    above = curve(point.length) - point.mapping_length
    return min(above, 0) if point.at_least else above


@dataclass(frozen=True)
class Priced:
    """What a way to choose the mapping length costs at a length.

    Parameters
    ----------
    length, mapping_length : int
    cost : float or None
        None where nothing like it was tried.
    """

    length: Size
    mapping_length: Size
    cost: float | None


def price(config: LampeConfig, sweep: Iterable[Costs]) -> list[Priced]:
    """What a configuration costs on the sweep's own figures."""
    mapped = [(costs, config.position_map(costs.length).mapping_length) for costs in sweep]
    return [Priced(costs.length, m, costs.at(m)) for costs, m in mapped]


def mean_cost(prices: Sequence[Priced]) -> float:
    """The mean over lengths; infinite if one has no cost."""
    costs = [one.cost for one in prices]
    return fmean(cost for cost in costs if cost is not None) if None not in costs else math.inf


def best_constant(base: LampeConfig, sweep: Sequence[Costs]) -> int:
    """The constant mapping length of least mean cost.

    Between two that were tried, the cost is a straight line over ln m: so the least one was tried.
    """
    tried = sorted({m for costs in sweep for m in costs.mapping_lengths})
    return min(tried, key=lambda m: mean_cost(price(replace(base, mapping=Constant(m)), sweep)))
