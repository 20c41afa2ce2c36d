"""Reading a prompt and answering it with the loaded model, and what there is to tell about it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

import lampe
from app.errors import AskError
from app.serving.computing import Computing
from app.serving.reports import Attention, RunReport, Update
from app.serving.requests import Prompt, Request
from app.serving.speed import Pace, Speed
from app.settings import ModelChoice
from lampe.inference.prefill import PromptReader
from lampe.methods import Method
from lampe.positions import PositionMap

_STREAM_TIMEOUT = 600.0  # seconds for one token, after which the run is taken for dead


@dataclass(frozen=True, eq=False)
class Loaded:
    """The model that answers; another load of the same weights is another model.

    Parameters
    ----------
    choice : ModelChoice
    model : transformers model
    decoder : transformers tokenizer
        Of its own: one that decodes can't be set to encode special tokens as text.
    """

    choice: ModelChoice
    model: Any
    decoder: Any


def answered(
    loaded: Loaded,
    computing: Computing,
    reader: PromptReader,
    request: Request,
    prompt: Prompt,
    method: Method,
    patched: lampe.Patched | None,
    position_map: PositionMap,
    stop: threading.Event,
    speed: Speed | None,
) -> Iterator[Update]:
    """Read what the reader doesn't hold of a prompt, and answer it.

    Parameters
    ----------
    loaded : Loaded
    computing : Computing
        Where the model runs.
    reader : PromptReader
    request : Request
    prompt : Prompt
    method : Method
    patched : Patched or None
        None for a model that runs unpatched.
    position_map : PositionMap
        What was planned.
    stop : threading.Event
        Ends the run within a layer, or after a token.
    speed : Speed, optional
        Of this machine; for the time left.
    """
    length = len(prompt.ids)
    watch = _Watch(stop, patched, loaded.model)
    started = time.perf_counter()
    done: int | None = 0
    pace: Pace | None = None
    reading = reader.read(prompt.ids, position_map if patched else None, stop.is_set)
    while done is not None and not stop.is_set():
        left = None
        if speed and done:
            pace = pace or Pace(speed.reading(reader.kept, length))
            left = pace(speed.reading(done, length))
        yield Update("Reading", done, length, "tokens", seconds_left=left)
        done = computing(next, reading, None)
    answer, new_tokens = "", 0
    if not stop.is_set():
        for answer in _generate(loaded, computing, reader, request, watch):
            yield Update("Answering", watch.new_tokens, request.max_new_tokens, "tokens", answer.strip())
        new_tokens = watch.new_tokens
    ended = time.perf_counter()
    first = watch.first_token or ended
    position_map = watch.position_map or position_map  # generating may have planned anew since
    shares = watch.head_shares[0].float().mean(1) if watch.head_shares else None
    attention = None
    if watch.position_map:
        texts = tuple(loaded.decoder.decode([token]) for token in watch.queries)
        layers = tuple(layer.index for layer in patched.layers if layer.mapped) if patched else ()
        attention = Attention(
            position_map, method, texts, tuple(watch.queries), request, layers, torch.stack(watch.head_shares)
        )
    report = RunReport(
        method=request.method,
        cut=request.cut,
        model=loaded.choice.name,
        bits=loaded.choice.bits,
        input_length=length,
        planned_length=position_map.length,
        left_out=prompt.left_out,
        kept=reader.kept,
        window=method.window,
        mapping_length=position_map.mapping_length if position_map.compresses else length,
        doubt=method.doubt,
        regions=region_rows(position_map, length, shares),
        layer_shares=[] if shares is None else shares.tolist(),
        prefill_seconds=first - started,
        decode_seconds=ended - first,
        new_tokens=new_tokens,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=int(request.sampling.seed),
        stopped=stop.is_set(),
        cut_short=new_tokens == request.max_new_tokens and not watch.ended,
    )
    stage = "Stopped" if stop.is_set() else "Done"
    yield Update(stage, length, length, "tokens", answer.strip(), report, attention)


def _generate(
    loaded: Loaded, computing: Computing, reader: PromptReader, request: Request, watch: _Watch
) -> Iterator[str]:
    """The answer so far, after each token; ends the worker if the consumer goes away."""
    streamer = TextIteratorStreamer(loaded.decoder, skip_prompt=True, timeout=_STREAM_TIMEOUT, skip_special_tokens=True)
    sampling = request.sampling
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}

    def work() -> None:
        try:
            torch.manual_seed(int(sampling.seed))  # one thread computes, so nobody else draws in between
            with torch.inference_mode():
                loaded.model.generate(
                    reader.ids,
                    attention_mask=torch.ones_like(reader.ids),
                    past_key_values=reader.cache,
                    max_new_tokens=request.max_new_tokens,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([watch]),
                    **chosen,
                )
        except BaseException:
            streamer.end()
            raise

    worker = computing.start(work)
    answer = ""
    try:
        for piece in streamer:
            answer += piece
            yield answer
    except queue.Empty as error:
        watch.stop.set()
        raise AskError(f"The model gave no token for {_STREAM_TIMEOUT:.0f} seconds; the run was ended.") from error
    except BaseException:  # the visitor left, or the program ends: the worker mustn't go on
        watch.stop.set()
        wait([worker])
        raise
    try:
        worker.result()
    finally:
        del worker  # its error holds this frame, which holds the cache


def region_rows(position_map: PositionMap, length: int, shares: torch.Tensor | None = None) -> list[dict[str, Any]]:
    """For each region: name, role, the keys that the last of `length` tokens meets there, and their share."""
    counts = position_map.key_counts(length - 1)
    means = [None] * len(counts) if shares is None else shares.mean(0).tolist()
    return [
        {"name": region.name, "role": region.role, "keys": count, "share": share}
        for region, count, share in zip(position_map.regions, counts, means, strict=True)
    ]


class _Watch(StoppingCriteria):
    """Looks in after each token: counts it, notes its attention and the first one's time, and passes on a Stop."""

    def __init__(self, stop: threading.Event, patched: lampe.Patched | None, model: Any) -> None:
        self.stop, self.patched = stop, patched
        endings = model.generation_config.eos_token_id
        self.endings = endings if isinstance(endings, list) else [endings]
        self.new_tokens = 0
        self.ended = False  # by the model
        self.first_token: float | None = None
        self.position_map: PositionMap | None = None
        self.head_shares: list[torch.Tensor] = []
        self.queries: list[int] = []  # the prompt's last token, then the answer's

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self.new_tokens += 1
        self.ended = int(input_ids[0, -1]) in self.endings
        if self.first_token is None:
            self.first_token = time.perf_counter()
        if self.patched:
            now = self.patched.position_map
            self.position_map = self.position_map or now
            if now.regions == self.position_map.regions:  # not planned anew since
                self.queries.append(int(input_ids[0, -2]))
                self.head_shares.append(self.patched.head_shares().half())
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)
