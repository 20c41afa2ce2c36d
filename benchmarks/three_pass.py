"""The method in three plain passes, as a yardstick for what the engine saves.

Each region is attended to by itself over blocks of queries: all queries and all keys are rotated to that
region's positions at every step, grouped keys are repeated for each query head, and a mask takes out the pairs
of other regions. The three outputs are merged by their log-sum-exp. It gives the engine's output.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import lampe
from lampe.attention.step import RegionLse, Step
from lampe.attention.turning import Rotate, Tables
from lampe.patching import cache_plan, forward_pass
from lampe.positions import IndexMap, PositionMap, Region

ROWS = 512  # queries in a block: a mask of all pairs at once would not fit at 32k tokens


class ThreePass(Step):
    """Like `Step`, without any of its economies."""

    def __init__(
        self, position_map: PositionMap, resting: Any, first: int, stop: int, tables: Tables, device: torch.device
    ) -> None:
        self.position_map, self.first, self.stop = position_map, first, stop
        i, j = torch.arange(first, stop, device=device), torch.arange(stop, device=device)
        self.passes = [
            (
                region,
                tables(region.query_map(i) - resting(i)),
                tables(region.key_map(j) - resting(j)),
                [self._keys(region, range(row, min(row + ROWS, stop))) for row in range(first, stop, ROWS)],
            )
            for region in position_map.regions
        ]

    @staticmethod
    def _keys(region: Region, queries: range) -> slice:
        """The keys that any of these queries meets in the region."""
        spans = [span for span in map(region.key_span, queries) if span[1]]
        return slice(min((a for a, _ in spans), default=0), max((b for _, b in spans), default=0))

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rotate: Rotate,
        scaling: float,
        softcap: float | None = None,
        near: object = None,
    ) -> tuple[Tensor, RegionLse]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        outputs, sums = [], []
        for region, query_table, key_table, blocks in self.passes:
            q, k = (rotate(x, *table).to(x.dtype) for x, table in ((query, query_table), (key, key_table)))
            output = torch.zeros_like(query, dtype=torch.float32)
            lse = torch.full(query.shape[:3], -torch.inf, device=query.device)
            for row, span in zip(range(0, self.stop - self.first, ROWS), blocks, strict=True):
                if span.stop:
                    rows = slice(row, row + ROWS)
                    i = torch.arange(self.first, self.stop, device=query.device)[rows]
                    mask = region.contains(i[:, None], torch.arange(span.start, span.stop, device=query.device)[None])
                    part = self._masked(q[:, :, rows], k[:, :, span], value[:, :, span], mask, scaling)
                    some = mask.any(1)
                    output[:, :, rows] = torch.where(some[:, None], part[0].float(), 0)
                    lse[:, :, rows] = torch.where(some, part[1].float(), -torch.inf)
            outputs.append(output)
            sums.append(lse)
        weights = torch.stack(sums).softmax(0)
        merged = sum(weight[..., None] * output for weight, output in zip(weights, outputs, strict=True))
        return torch.as_tensor(merged).to(query.dtype), lambda: torch.stack([lse[:, :, -1] for lse in sums])

    @staticmethod
    def _masked(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(~mask, -torch.inf)
        if query.device.type == "cpu":
            kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            return kernel(query, key, value, 0.0, False, attn_mask=bias, scale=scaling)
        scores = query @ key.transpose(2, 3) * scaling + bias
        return scores.softmax(-1) @ value, scores.float().logsumexp(-1)


@contextmanager
def three_pass(model: Any, config: lampe.LampeConfig | None = None) -> Iterator[lampe.Patched]:
    """`lampe.patch` with `ThreePass` for its engine and keys that rest unrotated."""
    own = vars(forward_pass)["make_step"], vars(cache_plan)["resting_map"]
    vars(forward_pass)["make_step"], vars(cache_plan)["resting_map"] = ThreePass, lambda position_map: IndexMap(0)
    try:
        with lampe.patch(model, config) as patched:
            yield patched
    finally:
        vars(forward_pass)["make_step"], vars(cache_plan)["resting_map"] = own
