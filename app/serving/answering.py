"""Reading a prompt and answering it with the loaded model, and what there is to tell about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

import lampe
from app.serving.computing import Tell
from app.serving.models import Loaded
from app.serving.reports import Attention, RunReport, Update
from app.serving.requests import Prompt, Request, planned_length
from app.serving.speed import Countdown, Pace
from lampe.inference.prefill import PromptReader
from lampe.inference.speed import Speed
from lampe.methods import Method, Rope
from lampe.needle import Reading, Result
from lampe.patching.patch import in_steps
from lampe.positions import PositionMap


@dataclass(frozen=True)
class Run:
    """One answer to be given.

    Parameters
    ----------
    loaded : Loaded
    request : Request
    prompt : Prompt
    method : Method
        The request's, with the settings that run.
    speed : Speed
        Of this machine; for the time left.
    """

    loaded: Loaded
    request: Request
    prompt: Prompt
    method: Method
    speed: Speed

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.ids)

    @cached_property
    def planned(self) -> int:
        """Tokens that it is mapped for."""
        return planned_length(self.length, self.request.max_new_tokens, self.method)

    @property
    def plan(self) -> tuple[Any, ...]:
        """What its keys depend on besides its tokens: equal plans can share a cache."""
        plain = isinstance(self.method, Rope)  # whose keys are the same whatever the prompt's length
        return (self.loaded,) if plain else (self.loaded, self.method, self.planned)

    @cached_property
    def position_map(self) -> PositionMap:
        """What is planned."""
        plain = isinstance(self.method, Rope)
        return self.method.position_map(self.length if plain else self.planned, self.length)


DECODED = 16
"""Tokens of an answer that are written in one turn."""


def answer(run: Run, reader: PromptReader, stop: threading.Event, outgrown: int | None, tell: Tell) -> Iterator[Update]:
    """Read what the reader doesn't hold of a prompt, and answer it; each step to be made in the model's thread.

    Others may use the model between two steps.

    Parameters
    ----------
    run : Run
    reader : PromptReader
    stop : threading.Event
        Ends the run within a layer, or after a token.
    outgrown : int, optional
        For the report.
    tell : callable
        Called with an `Update` for each piece of the answer.

    Yields
    ------
    Update
        After each chunk that is read, and each so many tokens; the last one has the report.
    """
    return in_steps(run.loaded.model, run.method, partial(_answer, run, reader, stop, outgrown, tell))


def _answer(
    run: Run,
    reader: PromptReader,
    stop: threading.Event,
    outgrown: int | None,
    tell: Tell,
    patched: lampe.Patched | None,
) -> Iterator[Update]:
    if patched:
        patched.plan(run.planned, run.length)
    request, prompt, loaded, length, speed = run.request, run.prompt, run.loaded, run.length, run.speed
    note = run.method.beyond(length)
    started = time.perf_counter()
    pace: Pace | None = None
    to_write = request.max_new_tokens * speed.answer
    yield Update("Reading", 0, length, "tokens", note=note)
    for done in reader.read(prompt.ids, run.position_map if patched else None, stop.is_set):
        pace = pace or Pace(speed.reading(reader.kept, length))
        left = pace(speed.reading(done, length))
        yield Update("Reading", done, length, "tokens", note=note, seconds_left=left, run_left=left + to_write)
    watch = _Watch(stop, patched, loaded.model)
    writer = _Writer(loaded.decoder, run, watch, note, tell)
    if not stop.is_set():
        yield from _generate(run, reader, watch, writer)
    ended = time.perf_counter()
    first = watch.first_token or ended
    position_map = watch.position_map or run.position_map  # generating may have planned anew since
    shares = watch.head_shares[0].float().mean(1) if watch.head_shares else None
    attention = None
    if watch.position_map:
        texts = tuple(loaded.decoder.decode([token]) for token in watch.queries)
        layers = tuple(layer.index for layer in patched.layers if layer.mapped) if patched else ()
        attention = Attention(
            position_map,
            run.method,
            texts,
            tuple(watch.queries),
            request,
            prompt,
            layers,
            torch.stack(watch.head_shares),
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
        outgrown=outgrown,
        window=run.method.window,
        mapping_length=position_map.mapping_length if position_map.compresses else length,
        doubt=run.method.doubt,
        regions=region_rows(position_map, length, shares),
        layer_shares=[] if shares is None else shares.tolist(),
        prefill_seconds=first - started,
        decode_seconds=ended - first,
        new_tokens=watch.new_tokens,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=int(request.sampling.seed),
        stopped=stop.is_set(),
        cut_short=watch.new_tokens == request.max_new_tokens and not watch.ended,
    )
    stage = "Stopped" if stop.is_set() else "Done"
    yield Update(stage, length, length, "tokens", writer.answer.strip(), report, attention, note)


def _generate(run: Run, reader: PromptReader, watch: _Watch, writer: _Writer) -> Iterator[Update]:
    """Write the answer, so many tokens at a time; generate() goes on with what is in the cache."""
    sampling, most = run.request.sampling, run.request.max_new_tokens
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    ids, drawing = reader.ids, _Drawing(int(sampling.seed), reader.ids.device)
    while not watch.over and watch.new_tokens < most:
        with torch.inference_mode(), drawing:
            ids = run.loaded.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=reader.cache,
                max_new_tokens=min(DECODED, most - watch.new_tokens),
                streamer=writer,
                stopping_criteria=StoppingCriteriaList([watch]),
                **chosen,
            )
        yield writer.update(watch.new_tokens)
    writer.finish()


class _Drawing:
    """Random numbers of one answer, which goes on with them though others draw in between."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=self._cuda):
            torch.manual_seed(seed)
            self._keep()

    def _keep(self) -> None:
        self._states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(one) for one in self._cuda)]

    def __enter__(self) -> None:
        torch.set_rng_state(self._states[0])
        for device, state in zip(self._cuda, self._states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)

    def __exit__(self, *_: object) -> None:
        self._keep()


def told(
    steps: Callable[[], Iterator[Reading | Result]], countdown: Countdown, tell: Tell
) -> Iterator[Update | Result]:
    """The steps of needle tests, as what there is to show of each."""
    with closing(steps()) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Result):
                yield event
                continue
            left = countdown(*event)
            yield Update("Reading", event.tokens, event.cell.length, "tokens", seconds_left=left, run_left=left)


def region_rows(position_map: PositionMap, length: int, shares: torch.Tensor | None = None) -> list[dict[str, Any]]:
    """For each region: name, role, the keys that the last of `length` tokens meets there, and their share."""
    counts = position_map.key_counts(length - 1)
    means = [None] * len(counts) if shares is None else shares.mean(0).tolist()
    return [
        {"name": region.name, "role": region.role, "keys": count, "share": share}
        for region, count, share in zip(position_map.regions, counts, means, strict=True)
    ]


class _Writer(TextStreamer):
    """Tells the answer as it grows, in whole words."""

    def __init__(self, decoder: Any, run: Run, watch: _Watch, note: str, tell: Tell) -> None:
        super().__init__(decoder, skip_prompt=True, skip_special_tokens=True)
        self.answer = ""
        self._run, self._watch, self._note, self._tell = run, watch, note, tell

    def end(self) -> None:
        """Of some tokens, not of the answer: a word may go on."""
        self.next_tokens_are_prompt = True

    def finish(self) -> None:
        """The answer has ended."""
        super().end()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self.answer += text
        self._tell(self.update(self._watch.new_tokens + (not stream_end)))  # the watch looks in after the writer

    def update(self, written: int) -> Update:
        """How far the answer is."""
        most = self._run.request.max_new_tokens
        left = (most - written) * self._run.speed.answer
        return Update("Answering", written, most, "tokens", self.answer.strip(), note=self._note, run_left=left)


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

    @property
    def over(self) -> bool:
        """Whether the model has ended, or somebody has stopped it."""
        return self.ended or self.stop.is_set()

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
