"""What one forward pass reads: where each row's text lies, how it is mapped, and how its keys rest in the cache.

Several texts may lie in one batch, padded before or after; a cache may have been filled in parts, cropped, copied or
reordered. The plan of its first fill stays with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lampe.attention.step import Step, resting_map
from lampe.attention.token import TokenStep, make_step
from lampe.attention.turning import Table
from lampe.errors import InputError
from lampe.methods import Frequencies, Method
from lampe.patching.rotary import Rotary
from lampe.positions import IndexMap, PositionMap, plain_map

_MANY = 64  # more tokens than speculative decoding checks at once: a part of an input

Planned = tuple[PositionMap, ...]
"""A map for each prompt of a batch, or a single one for all."""


@dataclass
class Group:
    """Neighbouring rows of a batch whose texts lie alike and are mapped alike."""

    rows: range
    query: slice  # where the texts lie among the tokens of this pass
    key: slice  # and among the keys at hand
    step: Step | TokenStep


@dataclass(frozen=True)
class RowPlan:
    """How one row of a batch is mapped, and how its keys lie in the cache."""

    start: int  # column of the text's first token
    position_map: PositionMap
    resting: Any  # see `resting_map`; that of the cache's first map, also where a longer one had to be made
    frequencies: Frequencies | None  # those of its first map, too: its keys are rotated by them


@dataclass(frozen=True)
class CachePlan:
    """What a cache was filled under: it stays with the cache, through copies, crops and reordered rows."""

    method: Method
    rows: list[RowPlan]
    planned: Planned | None  # what `Patched.plan` had fixed then

    def of_row(self, row: int, start: int, rows: int) -> RowPlan:
        """The plan of a row of this batch, which may have had another number when the cache was filled."""
        plans = [plan for plan in self.rows if plan.start == start]
        if plans and all(plan == plans[0] for plan in plans):
            return plans[0]
        if plans and rows == len(self.rows) and self.rows[row].start == start:
            return self.rows[row]
        raise InputError(f"The {rows} rows of this batch aren't those that its cache was filled with.")


@dataclass
class Pass:
    """What one forward pass of the decoder has shown of itself, piece by piece, before the first layer attends."""

    cache: Any
    offset: int | None = None  # tokens in the cache, padding included
    total: int = 0  # and with this pass's
    batch: int = 0  # rows
    mask: Tensor | None = None  # of padding
    known_spans: list[tuple[int, int]] | None = None
    rows: list[RowPlan] = field(default_factory=list)
    like: Tensor | None = None  # a tensor with the dtype and device of the rotations
    groups: list[Group] = field(default_factory=list)  # of the mapped layers
    others: dict[int | None, list[Group]] = field(default_factory=dict)  # of the others, by their sliding window
    key_start: dict[int | None, int] = field(default_factory=dict)  # the token of a sliding layer's first key
    own: Any = None  # the model's own rotation, where another one was given in its place
    given: Any = None

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The columns of each row's text."""
        if self.known_spans is None:
            self.known_spans = text_spans(self.mask, self.batch, self.total)
        return self.known_spans

    def is_whole(self, positions: Tensor) -> bool:
        """Whether no row has padding, and positions count all columns: most often so, and seen by one look at the
        device, for which a GPU has to finish what it is told. `positions` as in `check_positions`.
        """
        assert self.offset is not None
        if positions.shape[-1] != self.total - self.offset:
            return False
        counted = torch.arange(self.offset, self.total, device=positions.device)
        whole = (positions == counted).all()
        if self.mask is not None:
            whole = whole & self.mask[:, : self.total].all().to(whole.device)
        if found := bool(whole):
            self.known_spans = [(0, self.total)] * self.batch
        return found


def text_spans(mask: Tensor | None, rows: int, total: int) -> list[tuple[int, int]]:
    """The columns of each row's text, from a padding mask.

    Parameters
    ----------
    mask : Tensor, shape (rows, total or more), or None
        Not 0 where a token is.
    rows, total : int
        Rows of the batch, and columns so far.

    Raises
    ------
    ValueError
        If a text has padding within.
    """
    if mask is None or mask[:, :total].all():
        return [(0, total)] * rows
    real = mask[:, :total].to(torch.uint8)
    starts = real.argmax(1)
    counts = real.sum(1)
    ends = total - real.flip(1).argmax(1)
    if not torch.equal(torch.where(counts > 0, ends - starts, 0), counts):
        raise InputError("The attention mask has holes: LaMPE takes padding before or after a text, not within.")
    return [(start, start + count) for start, count in zip(starts.tolist(), counts.tolist(), strict=True)]


def plan_rows(now: Pass, method: Method, planned: Planned | None) -> Iterator[RowPlan]:
    """How each row of this pass is mapped: as planned, or else as its cache was, or else for its own length.

    Raises
    ------
    ValueError
        If the cache was filled otherwise, or the plan is for fewer tokens or for other rows.
    """
    assert now.offset is not None
    kept: CachePlan | None = None
    if now.offset:
        kept = getattr(now.cache, "lampe_plan", None)
        if kept is None:
            raise InputError("This cache was filled without LaMPE, so its keys lie elsewhere; start with a new cache.")
        if kept.method != method:
            raise InputError("This cache was filled by another method, or with other settings; start with a new cache.")
    rows = len(now.spans)
    if planned and rows % len(planned):
        raise InputError(f"plan() was given the ends of {len(planned)} prompts, and the batch has {rows} rows.")
    for row, (start, stop) in enumerate(now.spans):
        length, seen = stop - start, max(0, now.offset - start)
        # generate() lays the beams of a prompt side by side.
        chosen = planned[row * len(planned) // rows] if planned else None
        resting = frequencies = None
        if kept and seen:
            plan = kept.of_row(row, start, rows)
            known, resting, frequencies = plan.position_map, plan.resting, plan.frequencies
            if chosen is None or kept.planned == planned:  # which may have had to be made anew since
                chosen = known
            elif seen > chosen.length:
                raise InputError(
                    f"The cache holds {seen:,} tokens, and the plan is for {chosen.length:,}: plan for all that is to "
                    "be read, or start with a new cache."
                )
            elif method.frequencies(chosen.length) != frequencies:
                raise InputError(
                    f"The cache was filled under a plan for {known.length:,} tokens, and {method.title} rotates by "
                    f"other frequencies in one for {chosen.length:,}: start with a new cache."
                )
            if planned is None and length - seen > 1:
                if seen < known.end:  # the cache was cropped into its prompt: this is another input
                    chosen = method.position_map(length)
                elif length - seen > _MANY:
                    warnings.warn(
                        f"{length - seen} further tokens are read under the plan made for {known.length}; call "
                        "plan() with the final length before reading a text in parts.",
                        stacklevel=2,
                    )
        if planned and chosen and length - max(seen, chosen.length) > _MANY:
            raise InputError(
                f"The prompt has {length:,} tokens, and the plan is for {chosen.length:,}: call plan() with all that "
                "is to be read, answer included."
            )
        if chosen is None:
            chosen = method.position_map(max(1, length))
        if resting is None:  # alike wherever a prompt of this plan ends, so that its keys serve the others
            resting = resting_map(method.position_map(chosen.length))
            frequencies = method.frequencies(chosen.length)
        trained = int(method.window * (frequencies.stretch if frequencies else 1))
        if length and chosen.relative(length - 1, 0) >= trained:
            if length > chosen.end:
                chosen = method.position_map(max(length, chosen.length), length)
            if chosen.relative(length - 1, 0) >= trained:
                warnings.warn(
                    f"With these settings of {method.title}, positions go beyond the {trained:,} that the model was "
                    f"trained for. {method.beyond(length) or 'Nothing is mapped.'}",
                    stacklevel=2,
                )
        yield RowPlan(start, chosen, resting, frequencies)


def group_rows(
    now: Pass, plans: Sequence[Any], key_start: int, step: Callable[[Any, int, int], Step | TokenStep]
) -> list[Group]:
    """Gather the rows of a pass that can be computed together.

    Parameters
    ----------
    now : Pass
    plans : sequence
        How each row is mapped.
    key_start : int
        The column of the first key at hand.
    step : Callable
        Makes the step of a plan, a first query and a stop, counted from the text's first key.
    """
    assert now.offset is not None
    found: list[Group] = []
    for row, ((start, stop), plan) in enumerate(zip(now.spans, plans, strict=True)):
        first, start = max(start, now.offset), max(start, key_start)
        if first >= stop:
            continue
        query, key = slice(first - now.offset, stop - now.offset), slice(start - key_start, stop - key_start)
        last = found[-1] if found else None
        if last and last.rows.stop == row and (last.query, last.key) == (query, key) and plans[row - 1] == plan:
            last.rows = range(last.rows.start, row + 1)
        else:
            found.append(Group(range(row, row + 1), query, key, step(plan, first - start, stop - start)))
    return found


def plain_groups(now: Pass, window: int | None, rotary: Rotary) -> list[Group]:
    """The rows of a pass for layers that aren't mapped: every key, or those within a sliding window, where it is."""
    if window not in now.others:
        assert now.like is not None
        tables, device = rotary.tables(now.like), now.like.device

        def step(_: None, first: int, stop: int) -> Step | TokenStep:
            return make_step(plain_map(stop, reach=window), IndexMap(), first, stop, tables, device)

        now.others[window] = group_rows(now, [None] * len(now.spans), now.key_start.get(window, 0), step)
    return now.others[window]


def resting_table(now: Pass, rotary: Rotary, like: Tensor) -> Table | None:
    """The rotation of this pass's tokens, shape (rows or 1, tokens), to where they rest; None: the model's own."""
    assert now.offset is not None
    if all(row.resting == IndexMap() and not row.start and row.frequencies is None for row in now.rows):
        return None
    columns = torch.arange(now.offset, now.total, device=like.device)
    alike = dict.fromkeys((row.start, row.resting, row.frequencies) for row in now.rows)  # most often a single one
    rows = list(alike) if len(alike) == 1 else [(row.start, row.resting, row.frequencies) for row in now.rows]
    positions = torch.stack([resting((columns - start).clamp(min=0)) for start, resting, _ in rows])
    if len({frequencies for *_, frequencies in rows}) == 1:
        return rotary.at(like, positions, rotary.kind, rows[0][2])
    tables = [rotary.at(like, positions[n : n + 1], rotary.kind, row[2]) for n, row in enumerate(rows)]
    cos, sin = (torch.cat(parts) for parts in zip(*tables, strict=True))
    return cos, sin


def check_positions(now: Pass, positions: Tensor) -> None:
    """The engine counts tokens itself; positions that count otherwise would silently be ignored.

    Parameters
    ----------
    now : Pass
    positions : Tensor, shape (rows or 1, tokens of this pass)

    Raises
    ------
    ValueError
        If a text's positions don't count its tokens.
    """
    assert now.offset is not None
    wrong = []
    for row, (start, stop) in enumerate(now.spans):
        first = max(start, now.offset)
        real = positions[row % len(positions), first - now.offset : max(first, stop) - now.offset]
        if len(real):
            counted = real - torch.arange(len(real), device=real.device) if len(real) > 1 else real
            # Transformers counts either each text from 0, or all columns of a batch alike.
            wrong.append((counted != first).any() & (counted != first - start).any())
    if wrong and torch.stack(wrong).any():  # on CUDA, the only look at them
        raise InputError(
            "LaMPE needs position_ids that count each text's tokens from 0 (no packed or skipped positions)."
        )
