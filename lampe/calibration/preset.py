"""A calibration's result with all that it rests on, and the file it is kept in."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch

from lampe.calibration.fit import Best, Costs, Priced, best_constant, best_of, fit_curve, mean_cost, price, residual
from lampe.calibration.measure import Row
from lampe.calibration.points import CalibrationError
from lampe.calibration.rows import Measured
from lampe.calibration.sweep import Sweep
from lampe.files import GREATEST, REFUSALS, Count, Size, Words, checked, decoded, reason
from lampe.methods import Constant, LampeConfig, ScaledSigmoid, rescaled

FORMAT = "LaMPE preset 1"
MOST_BYTES = 4 * 2**20
"""A preset file is not read beyond this; one of a hundred lengths has a tenth of it."""


@dataclass(frozen=True)
class Source:
    """What a sweep was measured on.

    Parameters
    ----------
    model : str
        A Hub id or a name.
    bits : int
    weights : str
        See `weights_hash`.
    text : str
        The text's name, with its hash.
    """

    model: Words
    bits: Count
    weights: Words
    text: Words


@dataclass(frozen=True)
class Made:
    """When, where and with what a preset was made."""

    date: Words
    machine: Words
    python: Words
    torch: Words
    transformers: Words
    lampe: Words

    @classmethod
    def now(cls) -> Made:
        """Here and now."""
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
        try:
            own = version("lampe-lab")
        except PackageNotFoundError:
            own = "source tree"
        return cls(
            time.strftime("%Y-%m-%d"),
            f"{platform.machine()} {device}, {torch.get_num_threads()} threads",
            platform.python_version(),
            torch.__version__,
            version("transformers"),
            own,
        )


@dataclass(frozen=True)
class How:
    """How a sweep was made: see `Sweep`."""

    objective: Words
    weight: float
    windows: Count
    needles: Count
    seed: Count
    steps: Count
    refine: Count


@dataclass(frozen=True)
class CalibratedPreset:
    """A calibration's result.

    Parameters
    ----------
    config : LampeConfig
        What to use: the fitted curve where it costs less than the best constant, or else that constant.
    why : str
        One sentence.
    curve : ScaledSigmoid
        As fitted, chosen or not.
    constant : int
        The best constant mapping length, in positions, chosen or not.
    points : tuple of Best
        What it was fitted to.
    curve_costs, constant_costs, llama3_costs : tuple of Priced
        What the fitted curve, the best constant, and Llama-3's curve rescaled to the window cost at each length, on the
        sweep's own figures.
    measured : tuple of Measured
        The sweep.
    how : How
    source : Source
    made : Made
    """

    config: LampeConfig
    why: Words
    curve: ScaledSigmoid
    constant: Size
    points: Annotated[tuple[Best, ...], msgspec.Meta(min_length=1)]
    curve_costs: tuple[Priced, ...]
    constant_costs: tuple[Priced, ...]
    llama3_costs: tuple[Priced, ...]
    measured: Annotated[tuple[Measured, ...], msgspec.Meta(min_length=1)]
    how: How
    source: Source
    made: Made

    @property
    def ways(self) -> dict[str, LampeConfig]:
        """The ways to choose the mapping length that were compared, one of which is `config`."""
        return {
            "fitted curve": replace(self.config, mapping=self.curve),
            "best constant": replace(self.config, mapping=Constant(self.constant)),
            "Llama-3's curve, rescaled": replace(self.config, mapping=rescaled(self.config.window).mapping),
        }

    @property
    def residuals(self) -> list[int]:
        """See `fit.residual`; one for each point."""
        return [residual(point, self.curve) for point in self.points]


def make_preset(sweep: Sweep, rows: Iterable[Row], source: Source) -> CalibratedPreset:
    """Fit a curve to a sweep that is complete, and compare it with the best constant.

    Raises
    ------
    CalibrationError
        If there are fewer than three lengths.
    """
    measured = sweep.measured(rows)
    how = How(**{name: getattr(sweep, name) for name in How.__dataclass_fields__})
    costs = []
    for length in sweep.lengths:
        # The cost of a longer input unmapped is shown, but it is no mapping length that can be chosen.
        here = [one for one in measured if one.length == length and one.mapping_length <= sweep.base.window]
        tried = {one.mapping_length: one.cost(how.objective, how.weight) for one in here}
        costs.append(Costs(length, tuple(tried), tuple(tried.values())))
    base = replace(sweep.base, basis="measured")
    points = [best_of(one) for one in costs]
    least = base.head + base.tail + 1
    curve = fit_curve(points, base.window, least)
    fitted = replace(base, mapping=curve)
    best = best_constant(base, costs)
    constant = replace(base, mapping=Constant(best))
    curve_costs, constant_costs = price(fitted, costs), price(constant, costs)
    llama3_costs = price(replace(base, mapping=rescaled(base.window).mapping), costs)
    better = mean_cost(curve_costs) < mean_cost(constant_costs)  # one that is as good says no more
    why = (
        f"The mean cost over the lengths is {mean_cost(curve_costs):.4f} with the fitted curve and "
        f"{mean_cost(constant_costs):.4f} with the best constant, m = {best}: "
        + (
            "the curve is used."
            if better
            else "the fit is no success: the curve is no better, and the constant is used."
        )
    )
    # One that is flat as far as was measured has a slope, too.
    if curve.slope < 0 and round(curve(sweep.lengths[-1])) < round(curve(sweep.lengths[0])):
        # Where it has come down to Head + Tail it maps nothing, and positions are plain RoPE's.
        end = (-math.log(max(curve.maximum / least - 1, 1e-9)) - curve.intercept) / curve.slope
        why += (
            " The curve falls: longer inputs were best with smaller mapping lengths. Beyond about "
            f"{round(max(end, 0), -2):,.0f} tokens it would map nothing."
        )
    return CalibratedPreset(
        config=fitted if better else constant,
        why=why,
        curve=curve,
        constant=best,
        points=tuple(points),
        curve_costs=tuple(curve_costs),
        constant_costs=tuple(constant_costs),
        llama3_costs=tuple(llama3_costs),
        measured=tuple(measured),
        how=how,
        source=source,
        made=Made.now(),
    )


def report(preset: CalibratedPreset) -> str:
    """The points, the curve and the comparison as text."""
    lines = [
        f"{'tokens':>8}  {'best m':>7}  {'sharpness':>9}  {'used m':>7}  {'residual':>8}   "
        "cost of the curve, the best constant, Llama-3's curve"
    ]
    for point, left, *priced in zip(
        preset.points, preset.residuals, preset.curve_costs, preset.constant_costs, preset.llama3_costs, strict=True
    ):
        costs = "  ".join(f"{one.cost:.4f}" if one.cost is not None else "none  " for one in priced)
        best = f"{'≥ ' if point.at_least else ''}{point.mapping_length:,}"
        lines.append(
            f"{point.length:>8,}  {best:>7}  "
            f"{point.sharpness:>9.4f}  {priced[0].mapping_length:>7,}  {left:>8,}   {costs}"
        )
    means = [mean_cost(costs) for costs in (preset.curve_costs, preset.constant_costs, preset.llama3_costs)]
    curve = preset.curve
    lines += [
        f"{'mean':>8}" + " " * 42 + "  ".join(f"{mean:.4f}" for mean in means),
        f"m(l) = {curve.maximum:.1f} / (1 + e^−({curve.slope:.6g}·l {'−' if curve.intercept < 0 else '+'} "
        f"{abs(curve.intercept):.5g}))",
        preset.why,
    ]
    return "\n".join(lines)


def write_preset(preset: CalibratedPreset, path: Path) -> None:
    """Keep a preset in a file of JSON, a line for each point."""
    config = preset.config.settings() | {"basis": preset.config.basis}
    given = {"format": FORMAT, **asdict(preset), "config": config, "residuals": preset.residuals}
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f" {json.dumps(name)}: {_lines(value)}" for name, value in given.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _lines(value: Any) -> str:
    if isinstance(value, tuple):  # of points
        return "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in value) + "\n ]"
    return json.dumps(value, ensure_ascii=False)


def read_preset(path: str | os.PathLike[str]) -> CalibratedPreset:
    """A preset from its file, checked: anybody may have written it.

    Raises
    ------
    CalibrationError
        If the file is none, or broken; the message says where.
    OSError
        If it can't be read.
    """
    path = Path(path)
    if path.stat().st_size > MOST_BYTES:
        raise CalibrationError(f"{path.name} is no preset: it has more than {MOST_BYTES // 2**20} MB.")
    try:
        given = decoded(path.read_bytes())
        if given.get("format") != FORMAT:
            raise CalibrationError(
                f"{path.name} is no preset file: it doesn't begin with the format {FORMAT!r}. One is made by "
                "`python -m lampe calibrate`."
            )
        if isinstance(config := given.get("config"), dict):
            config.setdefault("basis", "measured")  # the first files had none
        preset = checked(CalibratedPreset, given)
        _check(preset)
    except CalibrationError:
        raise
    except REFUSALS as error:
        raise CalibrationError(
            f"The preset {path.name} is broken: {reason(error)}. Calibrate the model again."
        ) from error
    return preset


def _check(preset: CalibratedPreset) -> None:
    """Refuse what can't be used or drawn, with a ValueError."""
    config = preset.config
    greatest = config.mapping.bound(config.window)
    if config.window > GREATEST:
        raise ValueError(f"the window has at most {GREATEST:,} tokens")
    if config.head + config.tail >= greatest:
        raise ValueError(
            f"Head and Tail ({config.head} and {config.tail}) leave nothing to map in {greatest} positions"
        )
    for one in preset.measured:
        one.cost(preset.how.objective, preset.how.weight)
    for costs in (preset.curve_costs, preset.constant_costs, preset.llama3_costs):
        if [one.length for one in costs] != [point.length for point in preset.points]:
            raise ValueError("its costs are of other lengths than its points")


def load_preset(path: str | os.PathLike[str]) -> LampeConfig:
    """The configuration of a preset file, for `lampe.patch`.

    Parameters
    ----------
    path : str or path
        A file that `python -m lampe calibrate` made.

    Raises
    ------
    CalibrationError
        If the file is no preset, or broken; the message says where.
    OSError
        If it can't be read.
    """
    return read_preset(path).config
