"""Where an answer looked: the attention of its tokens to the text, by passage. A hint, not a proof."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import lampe
from app.serving.models import Loaded
from app.serving.reports import Attention, Update
from lampe.inference.prefill import PromptReader
from lampe.patching.patch import in_steps
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


def look_back(
    loaded: Loaded, attention: Attention, reader: PromptReader, stop: threading.Event
) -> Iterator[Update | Evidence]:
    """Run an answer's tokens once more after their prompt, and keep where each looked: never a matrix of all pairs.

    Each step is to be made in the model's thread; others may use the model between two.

    Parameters
    ----------
    loaded : Loaded
    attention : Attention
        Of that answer.
    reader : PromptReader
        What it doesn't hold of the prompt is read again.
    stop : threading.Event
        Ends it without evidence.

    Yields
    ------
    Update
        After each chunk and each token.
    Evidence
        At the end.
    """
    return in_steps(loaded.model, attention.method, partial(_look_back, loaded, attention, reader, stop))


def _look_back(
    loaded: Loaded, attention: Attention, reader: PromptReader, stop: threading.Event, patched: lampe.Patched | None
) -> Iterator[Update | Evidence]:
    assert patched
    model, ids, (first, last) = loaded.model, attention.prompt.ids, attention.prompt.document
    weights: Any = 0
    position_map = patched.plan(attention.position_map.length, len(ids))
    yield Update("Reading", 0, len(ids), "tokens")
    for done in reader.read(ids, position_map, stop.is_set):
        yield Update("Reading", done, len(ids), "tokens")
    patched.keep_weights = True
    for number, token in enumerate(attention.ids):
        if stop.is_set():
            return
        yield Update("Looking back", number, len(attention.ids), "tokens")
        with torch.inference_mode():
            one = torch.tensor([[token]], device=reader.ids.device)
            model(one, past_key_values=reader.cache, use_cache=True, logits_to_keep=1)
            weights = weights + patched.key_weights()[..., first:last].mean(1)
    decode, text = loaded.decoder.decode, ids[first:last]
    parts = tuple((a, b, decode(text[a:b])) for a, b in spans([decode([token]) for token in text]))
    mean = weights / max(1, len(attention.ids))
    yield Evidence(attention.position_map, len(ids) - 1, attention.layers, mean, first, parts)
