"""All that the position map shows of its settings, in the page and as files."""

from __future__ import annotations

import csv
import io
import json
import time
from collections import deque
from dataclasses import asdict, replace
from functools import partial
from html import escape
from typing import NamedTuple

import plotly.graph_objects as go

import lampe
from app.map import figures, more_figures, views
from app.map.figures import curves, formula
from app.map.settings import CUSTOM, MODELS, MapSettings
from app.ui.figure import COLOURS
from lampe.errors import InputError
from lampe.methods import LampeConfig


class Drawn(NamedTuple):
    """One view's figures, each with its title, and its words as HTML. Words of a figure's name stand below it."""

    figures: dict[str, tuple[str, go.Figure]]
    words: dict[str, str]


def draw(view: MapSettings) -> Drawn:
    """All that the tab shows of a view."""
    position_map, config, big = view.position_map, view.config, view.big
    own = replace(view, planned=None)
    curves = {"these settings": lambda length: replace(own, length=length).position_map.mapping_length}
    for name, key in MODELS.items():
        if key not in (CUSTOM, view.model):
            curves[name] = partial(_mapping_length, lampe.PRESETS[key])
    longest = max(view.length, 262_144)
    drawn = {
        "distance": (
            "1 · Relative distance → mapped position",
            figures.distance_figure(position_map, config.window, big),
        ),
        **{
            f"regions-{figures.FRAMES.index(name)}": (
                f"2 · Attention regions: {name}",
                figures.regions_figure(position_map, frame, big),
            )
            for name, frame in figures.frames(position_map).items()
        },
        "matrix": ("3 · Mapped-position matrix", more_figures.matrix_figure(position_map, view.frame, big)),
        "curve": ("4 · Mapping length", more_figures.curve_figure(position_map, config.window, curves, longest, big)),
        "row": ("5 · One query token's row", more_figures.row_figure(position_map, view.row, big)),
    }
    words = {
        "sentence": views.map_sentence(position_map, config, plain=view.kind == "plain"),
        "distance": views.distance_caption(view, position_map),
        "regions": views.regions_caption(position_map),
        "matrix": views.matrix_caption(position_map, view.frame),
        "curve": views.curve_caption(view, position_map),
        "row": views.map_table(position_map, view.row),
        "numbers": views.numbers_table(view, position_map),
    }
    return Drawn(drawn, words)


def _mapping_length(config: LampeConfig, length: int) -> int:
    return config.position_map(length).mapping_length


def standalone(view: MapSettings) -> str:
    """The whole view as one HTML file that needs no network: plotly's script is in it."""
    _count_large_file()
    drawn = draw(view)
    parts = ""
    for number, (name, (title, figure)) in enumerate(drawn.figures.items()):
        body = figure.to_html(full_html=False, include_plotlyjs=not number, config={"displaylogo": False})
        parts += f"<section><h2>{escape(title)}</h2>{body}{drawn.words.get(name.removesuffix('-0'), '')}</section>"
    chips = "".join(f".region-{role}{{background:{colour}}}" for role, colour in COLOURS.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LaMPE position map</title>'
        '<meta name="viewport" content="width=device-width"><style>body{font-family:system-ui,sans-serif;'
        "max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2733}table{border-collapse:collapse}"
        "th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-bottom:1px solid #d8dde4}"
        f".chip{{display:inline-block;width:.8em;height:.8em;margin-right:.4em}}{chips}</style></head><body>"
        f"<h1>LaMPE position map</h1>{drawn.words['sentence']}{parts}{drawn.words['numbers']}</body></html>"
    )


def as_json(view: MapSettings) -> str:
    """All numbers of a view: its settings, the map's regions and formulas, and sampled points for the query."""
    position_map = view.position_map
    found = {
        "view": asdict(view),
        "window": view.config.window,
        "basis": view.config.basis,
        "mapping_length": position_map.mapping_length,
        "compresses": position_map.compresses,
        "regions": [
            {**asdict(region), "formula": formula(region), "keys": keys}
            for region, keys in zip(position_map.regions, position_map.key_counts(view.row), strict=True)
        ],
        "query": view.row,
        "points": [asdict(curve) for curve in curves(position_map, view.row)],
    }
    return json.dumps(found, ensure_ascii=False, indent=1)


def as_csv(view: MapSettings) -> str:
    """The drawn points of the query's row, a line each."""
    position_map = view.position_map
    formulas = {region.name: formula(region) for region in position_map.regions}
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["region", "query", "key", "distance", "mapped_position", "formula"])
    for curve in curves(position_map, view.row):
        for distance, position in zip(curve.distances, curve.positions, strict=True):
            key = view.row - distance
            lines.writerow([curve.region, view.row, key, distance, position, formulas[curve.region]])
    return text.getvalue()


FILES = {"CSV": ("csv", as_csv), "JSON": ("json", as_json), "One HTML file": ("html", standalone)}
"""What can be saved, by its name for people: the file's ending, and what makes its text."""

_LARGE_FILES_AN_HOUR = 60  # each is 6 MB, and gradio keeps its copy for an hour
_large_files: deque[float] = deque(maxlen=_LARGE_FILES_AN_HOUR)


def _count_large_file() -> None:
    """Keep visitors from filling the server's disk."""
    now = time.monotonic()
    if len(_large_files) == _LARGE_FILES_AN_HOUR and now - _large_files[0] < 3600:
        raise InputError(f"This server has made {_LARGE_FILES_AN_HOUR} HTML files within an hour; try again later.")
    _large_files.append(now)
