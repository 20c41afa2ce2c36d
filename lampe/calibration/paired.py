"""Two ways to map the same texts: how much better one is, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lampe.calibration.comparing import TrialRow
from lampe.calibration.measure import Row
from lampe.calibration.points import SweepPoint
from lampe.intervals import Difference, bootstrapped
from lampe.methods import LampeConfig

_WHAT = ("found", "log_likelihood", "loss")


def compare(one: Iterable[Row | TrialRow], other: Iterable[Row | TrialRow], what: str) -> Difference:
    """How much more `one` has than `other`, over what both were measured on: the same windows, or the same needles.

    Each input length keeps its share; see `bootstrapped`.

    Parameters
    ----------
    one, other : iterable of Row or TrialRow
        Each row of one length, window and needle once.
    what : str
        "found", "log_likelihood" or "loss".

    Raises
    ------
    ValueError
        If there are no pairs.
    """
    ours, theirs = _values(one, what), _values(other, what)
    lengths: dict[int, list[float]] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        lengths.setdefault(key[0], []).append(ours[key] - theirs[key])
    if not lengths:
        raise ValueError(f"nothing was measured in both ways for {what}")
    return bootstrapped(lengths.values())


def differences(rows: Iterable[Row]) -> str:
    """Each point of a sweep against the one of its length that isn't mapped, or else the first, as a table of text."""
    points: dict[int, dict[SweepPoint, list[Row]]] = {}
    for row in rows:
        points.setdefault(row.length, {}).setdefault(row.evaluation.point, []).append(row)
    lines = []
    for length, at in sorted(points.items()):
        first = next((point for point in at if point.mapping_length == length), next(iter(at)))
        for point, ours in at.items():
            if point == first:
                continue
            named = f"{length:>8,}  {point.mapping_length:>7,}  {point.head:>6,}  {point.tail:>6,}"
            cells = _heads(*(_difference(ours, at[first], what) for what in _WHAT))
            lines.append(f"{named}  {point.attention_scale:>6.3g}  {cells}")
    if not lines:
        return ""
    head = f"{'tokens':>8}  {'m':>7}  {'Head':>6}  {'Tail':>6}  {'scale':>6}  "
    return "\n".join([head + _heads("found, more", "log-lik., more", "loss, more"), *lines])


def spans(rows: Iterable[Row], config: LampeConfig) -> str:
    """Each mapping length of a sweep against the one that `config` takes, over all lengths within the window and over
    all beyond it, as a table of text.
    """
    rows = list(rows)

    def used(row: Row) -> bool:
        return row.mapping_length == config.position_map(row.length).mapping_length

    lines = []
    for name, some in (
        ("within", [row for row in rows if row.length <= config.window]),
        ("beyond", [row for row in rows if row.length > config.window]),
    ):
        ours = [row for row in some if used(row)]
        for m in sorted({row.mapping_length for row in some if row.mapping_length <= config.window}):
            theirs = [row for row in some if row.mapping_length == m and not used(row)]
            if theirs:
                lines.append((name, f"{m:,}", theirs, ours))
        plain = [row for row in some if row.mapping_length == row.length and not used(row)]
        if name == "beyond" and plain:
            lines.append((name, "not mapped", plain, ours))
    if not lines:
        return ""
    head = f"{'window':>8}  {'m':>10}  {'needles':>7}  " + _heads("found, more", "log-lik., more", "loss, more")
    return "\n".join([head, *(_span(*line) for line in lines)])


def _span(name: str, m: str, theirs: Sequence[Row], ours: Sequence[Row]) -> str:
    pairs = sum(row.asked is not None for row in theirs)
    return f"{name:>8}  {m:>10}  {pairs:>7}  " + _heads(*(_difference(theirs, ours, what) for what in _WHAT))


def _heads(*cells: str) -> str:
    return "  ".join(f"{cell:<24}" for cell in cells).rstrip()


def _difference(ours: Iterable[Row], theirs: Iterable[Row], what: str) -> str:
    try:
        return str(compare(ours, theirs, what))
    except ValueError:  # it wasn't measured in both ways
        return "–"


def _values(rows: Iterable[Row | TrialRow], what: str) -> dict[tuple[int, int, int, int], float]:
    """What was measured, by length, window, needle and seed."""
    return {
        (row.length, row.text_window, -1 if row.asked is None else row.asked, row.seed): float(value)
        for row in rows
        if (value := getattr(row, what)) is not None
    }
