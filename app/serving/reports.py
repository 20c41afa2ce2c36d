"""What running requests tell: their progress, their figures, where their attention went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from app.serving.evidence import Evidence
from app.serving.requests import Prompt, Request, Variant
from lampe.methods import Method
from lampe.positions import PositionMap


@dataclass(frozen=True)
class RunReport:
    """The figures of one answer.

    Parameters
    ----------
    method, cut, model, bits
        What ran, and whether on the text's beginning alone.
    input_length, planned_length, left_out, kept : int
        Tokens of the prompt; those it was mapped for, with what is still to come; those of the text that weren't in
        the prompt; and those that had been read for an earlier question.
    outgrown : int or None
        The planned length of this conversation's turns before, if it is another now and all had to be read again.
    window, mapping_length : int
        In tokens; the mapping length in positions.
    doubt : str
        What is to be said of the settings: see `lampe.Method.doubt`.
    regions : list of dict
        name, role, keys (how many the last prompt token meets there) and share (of its attention, the mean over
        layers and heads; None for a model that ran unpatched).
    layer_shares : list of list of float
        The same share for each layer, regions in order.
    prefill_seconds, decode_seconds : float
    new_tokens : int
    temperature, top_p : float
    seed : int
        See `Sampling`.
    stopped : bool
        By the person, before the model had ended.
    cut_short : bool
        By the longest length that was asked for, before the model had ended.
    """

    method: str
    cut: bool
    model: str
    bits: int
    input_length: int
    planned_length: int
    left_out: int
    kept: int
    window: int
    mapping_length: int
    doubt: str
    regions: list[dict[str, Any]]
    layer_shares: list[list[float]]
    prefill_seconds: float
    decode_seconds: float
    new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stopped: bool
    cut_short: bool
    outgrown: int | None = None

    @property
    def variant(self) -> Variant:
        """The request's."""
        return Variant(self.method, self.cut)


class Needs(NamedTuple):
    """What a question takes here.

    Parameters
    ----------
    seconds : float or None
        For reading the text and giving the longest answer; None before this machine's speed was measured.
    bytes : int
        Of memory, for the text's keys and values, and for working with them.
    kept : int
        Tokens of the prompt that have been read already.
    lent : float or None
        Seconds that a GPU is asked for, of those that a visitor has in a day; None where it isn't a visitor's.
    """

    seconds: float | None
    bytes: int
    kept: int
    lent: float | None = None


@dataclass(frozen=True, eq=False)
class Attention:
    """Where the attention of one answer went, for each query token that was run; each is equal to itself alone.

    Parameters
    ----------
    position_map : PositionMap
        What the run was mapped by.
    method : Method
        What made it.
    queries : tuple of str
        The query tokens as text: the prompt's last, then the answer's.
    ids : tuple of int
        The same as token ids.
    request : Request
        What was asked.
    prompt : Prompt
        The same as tokens.
    layers : tuple of int
        The layers that are mapped; the others attend as they do without LaMPE.
    shares : Tensor, shape (queries, layers, heads, regions), float16
        Share of each region in a query's attention, in those layers.
    """

    position_map: PositionMap
    method: Method
    queries: tuple[str, ...]
    ids: tuple[int, ...]
    request: Request
    prompt: Prompt
    layers: tuple[int, ...]
    shares: torch.Tensor


@dataclass(frozen=True)
class Update:
    """What a running request shows: a stage with its progress, then the answer as it grows, then its figures.

    Parameters
    ----------
    stage : str
        For people; nothing depends on it.
    done, total : int
        How far the stage is, in `unit`; a total of 0 can't be counted.
    unit : str
    answer : str
        As far as it is written.
    report, attention
        Of a run that has ended.
    evidence : Evidence or None
        The same, if the request asked where it looked.
    note : str
        What is to be known before there is an answer.
    seconds_left : float or None
        Of the stage.
    run_left : float or None
        Of the whole run at most, for those who wait for its end.
    waiting : int
        How many others are at work meanwhile, or go before it.
    """

    stage: str
    done: int = 0
    total: int = 0
    unit: str = ""
    answer: str = ""
    report: RunReport | None = None
    attention: Attention | None = None
    note: str = ""
    seconds_left: float | None = None
    run_left: float | None = None
    waiting: int = 0
    evidence: Evidence | None = None


GETTING_READY = Update("Getting the model ready")


def telling(work: Callable[..., Any]) -> Callable[[Callable[[Any], None]], Any]:
    """Work that calls ``progress``, as the library does, as `app.serving.computing.Computing.stream` takes it."""
    return lambda tell: work(progress=lambda now: tell(Update(now.stage, now.done, now.total, now.unit)))
