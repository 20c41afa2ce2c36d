"""Where an answer looked: the attention of its tokens to the text, by passage. A hint, not a proof."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lampe.positions import PositionMap, Role

_LONGEST, _SHORTEST = 64, 6  # tokens of a passage; a shorter sentence goes with the next one


@dataclass(frozen=True)
class Evidence:
    """The attention of an answer's tokens to a text.

    Parameters
    ----------
    position_map : PositionMap
        What the run was mapped by.
    query : int
        The prompt's last token: what distances are measured from.
    layers : tuple of int
        The layers that are mapped.
    weights : Tensor, shape (layers, tokens of the text), float32
        The mean over heads and over the answer's tokens; what fell on the question, the template and the answer itself
        isn't there.
    first : int
        The text's first token in the prompt.
    spans : tuple of (int, int, str)
        The text's passages: first token, one past the last, both counted from the text's first, and what it says.
    """

    position_map: PositionMap
    query: int
    layers: tuple[int, ...]
    weights: Tensor
    first: int
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Passage:
    """A part of a text, and how much was looked at it.

    Parameters
    ----------
    text : str
    start, stop : int
        Its tokens in the prompt.
    share : float
        Of the attention that fell on the text.
    distance, position : int
        From the prompt's last token to its middle: in tokens, and as it is mapped.
    region : str
    role : Role
        What that region does with distances.
    """

    text: str
    start: int
    stop: int
    share: float
    distance: int
    position: int
    region: str
    role: Role


def spans(pieces: Sequence[str]) -> list[tuple[int, int]]:
    """Passages of a text's tokens: sentences, the long ones in parts, the very short ones with what follows."""
    found, start = [], 0
    for number, piece in enumerate(pieces, 1):
        ends = re.search(r"[.!?…。！？][\"'”’)\]]*\s*$|\n", piece) and number - start >= _SHORTEST
        if ends or number - start == _LONGEST:
            found.append((start, number))
            start = number
    return [*found, (start, len(pieces))] if start < len(pieces) else found


def passages(evidence: Evidence, layers: Sequence[int] | None = None, most: int = 5) -> list[Passage]:
    """The passages that the answer looked at most, the most first.

    Parameters
    ----------
    evidence : Evidence
    layers : sequence of int, optional
        Their numbers in the model; all by default.
    most : int
    """
    weights = by_token(evidence, layers)
    total = weights.sum().item() or 1.0
    sums = torch.cat([weights.new_zeros(1), weights.cumsum(0)])
    ranked = sorted(((sums[stop] - sums[start]).item(), start, stop, text) for start, stop, text in evidence.spans)
    found = []
    for share, start, stop, text in reversed(ranked[-most:]):
        key = evidence.first + (start + stop - 1) // 2
        region = evidence.position_map.regions[evidence.position_map.region(evidence.query, key)]
        found.append(
            Passage(
                text.strip(),
                evidence.first + start,
                evidence.first + stop,
                share / total,
                evidence.query - key,
                evidence.position_map.relative(evidence.query, key),
                region.name,
                region.role,
            )
        )
    return found


def by_token(evidence: Evidence, layers: Sequence[int] | None = None) -> Tensor:
    """The mean attention over layers to each token of the text, shape (tokens,)."""
    rows = [evidence.layers.index(layer) for layer in (evidence.layers if layers is None else layers)]
    return evidence.weights[rows].mean(0).double()
