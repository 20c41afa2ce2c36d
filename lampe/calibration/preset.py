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
from typing import Any

import torch

from lampe.calibration.checked import Kind, checked
from lampe.calibration.fit import Best, Costs, Priced, best_constant, best_of, fit_curve, mean_cost, price, residual
from lampe.calibration.measure import Row
from lampe.calibration.points import CalibrationError
from lampe.calibration.rows import Measured
from lampe.calibration.sweep import Sweep
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

    model: str
    bits: int
    weights: str
    text: str


@dataclass(frozen=True)
class Made:
    """When, where and with what a preset was made."""

    date: str
    machine: str
    python: str
    torch: str
    transformers: str
    lampe: str

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

    objective: str
    weight: float
    windows: int
    needles: int
    seed: int
    steps: int
    refine: int


@dataclass(frozen=True)
class Preset:
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
    why: str
    curve: ScaledSigmoid
    constant: int
    points: tuple[Best, ...]
    curve_costs: tuple[Priced, ...]
    constant_costs: tuple[Priced, ...]
    llama3_costs: tuple[Priced, ...]
    measured: tuple[Measured, ...]
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


def make_preset(sweep: Sweep, rows: Iterable[Row], source: Source) -> Preset:
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
        # What a longer input costs unmapped is shown, but no mapping length comes to it.
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
    if curve.slope < 0:
        # Where it has come down to Head + Tail it maps nothing, and positions are plain RoPE's.
        end = (-math.log(max(curve.maximum / least - 1, 1e-9)) - curve.intercept) / curve.slope
        why += (
            " The curve falls: longer inputs were best with smaller mapping lengths. Beyond about "
            f"{round(max(end, 0), -2):,.0f} tokens it would map nothing."
        )
    return Preset(
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


def report(preset: Preset) -> str:
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


def write_preset(preset: Preset, path: Path) -> None:
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


def read_preset(path: str | os.PathLike[str]) -> Preset:
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
        given = json.loads(path.read_bytes())
        if not isinstance(given, dict) or given.get("format") != FORMAT:
            raise CalibrationError(
                f"{path.name} is no preset file: it doesn't begin with the format {FORMAT!r}. One is made by "
                "`python -m lampe calibrate`."
            )
        return _preset(given)
    except CalibrationError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else f"{error}"
        raise CalibrationError(f"The preset {path.name} is broken: {what:.200}. Calibrate the model again.") from error


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


def _preset(given: dict[str, Any]) -> Preset:
    points = _all(Best, given["points"])
    chosen = checked(_Chosen, given)
    if not chosen.constant:
        raise ValueError("constant must be at least 1")
    if not (points and given["measured"]):
        raise ValueError("it has no points")
    preset = Preset(
        config=_config(given["config"]),
        why=chosen.why,
        curve=checked(ScaledSigmoid, given["curve"]),
        constant=chosen.constant,
        points=points,
        curve_costs=_all(Priced, given["curve_costs"]),
        constant_costs=_all(Priced, given["constant_costs"]),
        llama3_costs=_all(Priced, given["llama3_costs"]),
        measured=_all(Measured, given["measured"]),
        how=checked(How, given["how"]),
        source=checked(Source, given["source"]),
        made=checked(Made, given["made"]),
    )
    for one in preset.measured:
        one.cost(preset.how.objective, preset.how.weight)  # refuses what can't be drawn
    for costs in (preset.curve_costs, preset.constant_costs, preset.llama3_costs):
        if [one.length for one in costs] != [point.length for point in points]:
            raise ValueError("its costs are of other lengths than its points")
    return preset


@dataclass(frozen=True)
class _Chosen:
    why: str
    constant: int


def _all(kind: type[Kind], given: Any) -> tuple[Kind, ...]:
    if not isinstance(given, list):
        raise TypeError(f"{given!r:.40} is no list")
    return tuple(checked(kind, one) for one in given)


def _config(given: Any) -> LampeConfig:
    if not isinstance(given, dict):
        raise TypeError("config is no object")
    mapping = given["mapping"]
    curve = (
        checked(ScaledSigmoid, mapping) if isinstance(mapping, dict) else checked(Constant, {"mapping_length": mapping})
    )
    config = checked(LampeConfig, {"basis": "measured", **given, "mapping": curve})  # the first files had no basis
    greatest = curve.bound(config.window)
    if config.head + config.tail >= greatest:
        raise ValueError(
            f"Head and Tail ({config.head} and {config.tail}) leave nothing to map in {greatest} positions"
        )
    return config
