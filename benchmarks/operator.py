"""Attention alone: one layer's prefill under LaMPE against plain causal attention, without the model around it.

    python -m benchmarks.operator [--lengths 4096 16384 32768] [--repeats 2] [--growth] [--quick] [--fresh]

`scaled_dot_product_attention(is_causal=True)` on rotated inputs is the plain one; LaMPE's and the three passes' time
has all the turning of queries and keys in it. Shapes are the default model's and Llama-3-8B's. Rows go to
operator.jsonl beside this file. `--growth` measures the default's shape from 1k to 64k tokens instead, keeps
growth.jsonl, and draws assets/screenshots/growth.png, with the slope of log time over log length (Chromium draws it).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from app.ui.figure import COLOURS
from benchmarks.measure import TIMED, Rows, arguments, paired, seconds
from benchmarks.prefill import SLOW
from benchmarks.screenshots import picture
from benchmarks.three_pass import ThreePass
from lampe.attention.step import Step, resting_map
from lampe.attention.turning import Table
from lampe.methods.lampe import PRESETS
from lampe.positions import IndexMap, Role

LENGTHS = [4096, 16_384, 32_768]
GROWTH = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536]
SHAPES = {"default": (9, 3, 64), "Llama-3-8B": (32, 8, 128)}
"""Query heads, key-value heads, head dimension."""

FROM = 4096
"""Tokens from which the slope is taken: shorter inputs are plain RoPE or mostly Head."""

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def runs(shape: tuple[int, int, int], dtype: torch.dtype, length: int) -> dict[str, Any]:
    """The same attention in three ways, each a function that gives its seconds."""
    heads, key_heads, dim = shape
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    query, key, value = (
        torch.randn(1, length, n, dim, dtype=dtype, device=device).transpose(1, 2)
        for n in (heads, key_heads, key_heads)
    )  # as a model's projections lie in memory
    rotary = LlamaRotaryEmbedding(LlamaConfig(hidden_size=heads * dim, num_attention_heads=heads)).to(device)

    def tables(positions: torch.Tensor) -> Table:
        return rotary(query.new_empty(0, dtype=torch.float32), positions[None])

    def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return apply_rotary_pos_emb(x, x[:, :0], cos, sin)[0]

    position_map = (TIMED if shape == SHAPES["default"] else PRESETS["llama3"]).position_map(length)
    step = Step(position_map, resting_map(position_map), 0, length, tables, device)
    passes = ThreePass(position_map, IndexMap(0), 0, length, tables, device)
    attention = torch.nn.functional.scaled_dot_product_attention
    ways: dict[str, Callable[[], Any]] = {
        "plain": partial(attention, query, key, value, is_causal=True, enable_gqa=True),
        "LaMPE": partial(step.attend, query, key, value, rotate, dim**-0.5),
        "three passes": partial(passes.attend, query, key, value, rotate, dim**-0.5),
    }
    return {name: partial(seconds, way) for name, way in ways.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=None)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--growth", action="store_true", help="one shape, 1k to 64k tokens, with a plot")
    given = parser.parse_args()
    lengths = [600, 2500] if given.quick else given.lengths or (GROWTH if given.growth else LENGTHS)
    rows = Rows(None if given.quick else "growth" if given.growth else "operator", given.fresh)
    for length in lengths:
        for shape in ["default"] if given.growth else SHAPES:
            for dtype in ["bf16"] if given.growth else DTYPES:
                if not rows.has(shape=shape, dtype=dtype, tokens=length):
                    timed = runs(SHAPES[shape], DTYPES[dtype], length)
                    if length > (4 * SLOW if shape == "default" else SLOW):
                        del timed["three passes"]
                    # Only the largest takes a minute a run.
                    once = given.quick or (shape != "default" and length > 16_384)
                    with torch.inference_mode():
                        result = paired(timed, 1 if once else given.repeats)
                    rows.add(shape=shape, dtype=dtype, tokens=length, **result)
    if given.growth and not given.quick:
        picture(plot(sorted(rows.rows, key=lambda row: row["tokens"])), Path("assets/screenshots/growth.png"))


def slope(rows: list[dict[str, Any]], name: str) -> float:
    """How time grows with length from `FROM` tokens on: 2 is as the square."""
    points = [
        (math.log(row["tokens"]), math.log(row["runs"][name]["seconds"]))
        for row in rows
        if row["tokens"] >= FROM and name in row["runs"]
    ]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def plot(rows: list[dict[str, Any]]) -> go.Figure:
    """Seconds against tokens, both logarithmic, a line for each way."""
    figure = go.Figure()
    lines = {
        "plain": ("#666", "solid"),
        "LaMPE": (COLOURS[Role.NEAR], "dash"),
        "three passes": (COLOURS[Role.COMPRESSED], "dot"),
    }
    for name, (colour, dash) in lines.items():
        points = [(row["tokens"], row["runs"][name]["seconds"]) for row in rows if name in row["runs"]]
        grows = slope(rows, name)
        print(f"{name}: from {FROM:,} tokens on, time grows as length to the power of {grows:.2f}", flush=True)
        x, y = zip(*points, strict=True)
        line = {"color": colour, "dash": dash, "width": 3}
        figure.add_scatter(x=x, y=y, name=f"{name} (slope {grows:.2f})", line=line, mode="lines+markers")
    title = "Attention of one layer, reading a whole input: the default model's shape, bf16"
    figure.update_layout(title=title, font_size=15, template="plotly_white", legend={"x": 0.02, "y": 0.98})
    figure.update_xaxes(title="Input length (tokens)", type="log", tickvals=GROWTH, ticktext=[f"{n:,}" for n in GROWTH])
    figure.update_yaxes(title="Seconds", type="log", dtick=1)
    return figure


if __name__ == "__main__":
    main()
