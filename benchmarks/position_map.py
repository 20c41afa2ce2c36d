"""The position map page: the server's part of one change, and what goes to the browser.

    python -m benchmarks.position_map [--repeats 9] [--quick]

For lengths up to 1,048,576 tokens: the median and the greatest of the seconds that checking the settings, drawing all
figures and turning them into JSON take, and the bytes of that JSON as gradio sends it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from statistics import median

from app.map.drawing import draw
from app.map.more_figures import BINS
from app.map.settings import MapSettings
from app.ui.figure import as_plot
from benchmarks.measure import arguments, machine, seconds

LENGTHS = [64, 1000, 12_000, 131_072, 1_048_576]


def change(view: MapSettings) -> int:
    """One change of a control, as the page's handler does it; the bytes that go to the browser."""
    drawn = draw(MapSettings.checked(**asdict(view)))
    plots = [as_plot(figure, name).model_dump() for name, (_, figure) in drawn.figures.items()]
    return len(json.dumps([plots, drawn.words], ensure_ascii=False).encode())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    print(json.dumps(machine()), flush=True)
    for length in LENGTHS[:2] if given.quick else LENGTHS:
        for view in (
            MapSettings(length=length),
            MapSettings(length=length, kind="plain"),
            MapSettings("llama3.1", length, 131_072),
            MapSettings(length=length, across=BINS, at_query=length - 1, at_key=length // 2),  # no blank cell
        ):
            size = change(view)
            times = [seconds(partial(change, view)) for _ in range(1 if given.quick else given.repeats)]
            name = f"{length:,} tokens, {view.model}, {view.kind}{', zoomed' * bool(view.across)}"
            spent = f"{median(times) * 1e3:.0f} ms (at most {max(times) * 1e3:.0f})"
            print(f"{name}: {spent}, {size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
