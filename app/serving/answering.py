"""Reading a prompt and answering it with the loaded model, and what there is to tell about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

import lampe
from app.serving.computing import Tell
from app.serving.evidence import Evidence, spans
from app.serving.models import Loaded
from app.serving.reports import Attention, RunReport, Update
from app.serving.requests import Prompt, Request, planned_length
from app.serving.speed import Pace
from app.settings import ModelChoice
from lampe.inference.prefill import PromptReader
from lampe.inference.speed import Speed
from lampe.methods import Method, Rope
from lampe.patching.patch import in_steps
from lampe.positions import PositionMap


@dataclass(frozen=True)
class Answer:
    """One answer to be given: see `Job`.

    Parameters
    ----------
    choice : ModelChoice
    request : Request
    prompt : Prompt
    method : Method
        The request's, with the settings that run.
    outgrown : int or None
        For the report.
    """

    choice: ModelChoice
    request: Request
    prompt: Prompt
    method: Method
    outgrown: int | None = None

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.ids)

    @property
    def longest(self) -> int:
        return self.length + self.request.max_new_tokens

    def seconds(self, speed: Speed, kept: int = 0) -> float:
        """See `Job.seconds`; some of the prompt's tokens needn't be read."""
        written = self.request.max_new_tokens * (1 + self.request.look)  # each is run once more to see where it looked
        return speed.reading(kept, self.length) + written * speed.answer

    @cached_property
    def note(self) -> str:
        """What is to be known before there is an answer."""
        return self.method.beyond(self.length)

    @cached_property
    def planned(self) -> int:
        """Tokens that it is mapped for."""
        return planned_length(self.length, self.request.max_new_tokens, self.method)

    @property
    def plan(self) -> tuple[Any, ...]:
        """What its keys depend on besides its tokens and the model: equal plans can share a cache."""
        plain = isinstance(self.method, Rope)  # whose keys are the same whatever the prompt's length
        return () if plain else (self.method, self.planned)

    @cached_property
    def position_map(self) -> PositionMap:
        """What is planned."""
        plain = isinstance(self.method, Rope)
        return self.method.position_map(self.length if plain else self.planned, self.length)

    def steps(
        self, loaded: Loaded, speed: Speed, reader: PromptReader, stop: threading.Event, tell: Tell
    ) -> Iterator[Update]:
        """Read what the reader doesn't hold of the prompt, and answer it: see `Job.steps`.

        The last update has the report. `tell` is called for each piece of the answer.
        """
        return in_steps(loaded.model, self.method, partial(_answer, self, loaded, speed, reader, stop, tell))


DECODED = 16
"""Tokens of an answer that are written in one turn."""


def _answer(
    run: Answer,
    loaded: Loaded,
    speed: Speed,
    reader: PromptReader,
    stop: threading.Event,
    tell: Tell,
    patched: lampe.Patched | None,
) -> Iterator[Update]:
    if patched:
        patched.plan(run.planned, run.length)
    request, prompt, length = run.request, run.prompt, run.length
    started = time.perf_counter()
    pace: Pace | None = None
    to_write = request.max_new_tokens * speed.answer
    yield Update("Reading", 0, length, "tokens", note=run.note)
    for done in reader.read(prompt.ids, run.position_map if patched else None, stop.is_set):
        pace = pace or Pace(speed.reading(reader.kept, length))
        left = pace(speed.reading(done, length))
        yield Update("Reading", done, length, "tokens", note=run.note, seconds_left=left, run_left=left + to_write)
    writing = _Writing(run, loaded, speed, stop, tell, patched)
    if not stop.is_set():
        yield from writing.steps(loaded.model, reader)
    ended = time.perf_counter()
    first = writing.first_token or ended
    position_map = writing.position_map or run.position_map  # generating may have planned anew since
    shares = writing.head_shares[0].float().mean(1) if writing.head_shares else None
    attention = None
    if patched and writing.position_map:
        texts = tuple(loaded.decoder.decode([token]) for token in writing.queries)
        layers = tuple(layer.index for layer in patched.layers if layer.mapped)
        queries, where = tuple(writing.queries), torch.stack(writing.head_shares)
        attention = Attention(position_map, run.method, texts, queries, request, prompt, layers, where)
    report = RunReport(
        method=request.method,
        cut=request.cut,
        model=loaded.choice.name,
        bits=loaded.choice.bits,
        input_length=length,
        planned_length=position_map.length,
        left_out=prompt.left_out,
        kept=reader.kept,
        outgrown=run.outgrown,
        window=run.method.window,
        mapping_length=position_map.mapping_length if position_map.compresses else length,
        doubt=run.method.doubt,
        regions=region_rows(position_map, length, shares),
        layer_shares=[] if shares is None else shares.tolist(),
        prefill_seconds=first - started,
        decode_seconds=ended - first,
        new_tokens=writing.new_tokens,
        temperature=request.sampling.temperature,
        top_p=request.sampling.top_p,
        seed=int(request.sampling.seed),
        stopped=stop.is_set(),
        cut_short=writing.new_tokens == request.max_new_tokens and not writing.ended,
    )
    evidence = None
    if request.look and attention:
        for event in look_back(loaded, attention, reader, stop, patched):
            if isinstance(event, Update):
                yield replace(event, answer=writing.answer, note=run.note)
            else:
                evidence = event
    stage = "Stopped" if stop.is_set() else "Done"
    yield Update(stage, length, length, "tokens", writing.answer, report, attention, run.note, evidence=evidence)


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


@dataclass(frozen=True)
class LookBack:
    """Finding where an answer looked: see `Job`.

    Parameters
    ----------
    choice : ModelChoice
    attention : Attention
        Of that answer.
    """

    choice: ModelChoice
    attention: Attention

    @property
    def plan(self) -> tuple[Any, ...]:
        """See `Answer.plan`: that answer's."""
        return self.attention.method, self.attention.position_map.length

    @property
    def longest(self) -> int:
        return len(self.attention.prompt.ids) + len(self.attention.ids)

    def seconds(self, speed: Speed) -> float:
        return speed.reading(0, len(self.attention.prompt.ids)) + len(self.attention.ids) * speed.answer

    def steps(
        self, loaded: Loaded, speed: Speed, reader: PromptReader, stop: threading.Event, tell: Tell
    ) -> Iterator[Update | Evidence]:
        """See `Job.steps`; the last event is the `Evidence`, unless it was stopped."""
        work = partial(look_back, loaded, self.attention, reader, stop)
        return in_steps(loaded.model, self.attention.method, work)


def look_back(
    loaded: Loaded, attention: Attention, reader: PromptReader, stop: threading.Event, patched: lampe.Patched | None
) -> Iterator[Update | Evidence]:
    """Run an answer's tokens once more after their prompt, and keep where each looked: never a matrix of all pairs.

    What the reader doesn't hold of the prompt is read again. The model is patched with that answer's method.

    Yields
    ------
    Update
        After each chunk and each token.
    Evidence
        At the end, unless it was stopped.
    """
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
    patched.keep_weights = False
    decode, text = loaded.decoder.decode, ids[first:last]
    parts = tuple((a, b, decode(text[a:b])) for a, b in spans([decode([token]) for token in text]))
    mean = weights / max(1, len(attention.ids))
    yield Evidence(attention.position_map, len(ids) - 1, attention.layers, mean, first, parts)


def region_rows(position_map: PositionMap, length: int, shares: torch.Tensor | None = None) -> list[dict[str, Any]]:
    """For each region: name, role, the keys that the last of `length` tokens meets there, and their share."""
    counts = position_map.key_counts(length - 1)
    means = [None] * len(counts) if shares is None else shares.mean(0).tolist()
    return [
        {"name": region.name, "role": region.role, "keys": count, "share": share}
        for region, count, share in zip(position_map.regions, counts, means, strict=True)
    ]


class _Writing(TextStreamer, StoppingCriteria):
    """Writes an answer, and follows it through both of generate()'s ways to be told of a token.

    As the streamer it tells the answer as it grows, in whole words. As the criterion, after that, it counts each token,
    notes its attention and the first one's time, and passes on a Stop.
    """

    def __init__(
        self, run: Answer, loaded: Loaded, speed: Speed, stop: threading.Event, tell: Tell,
        patched: lampe.Patched | None,
    ) -> None:  # fmt: skip
        super().__init__(loaded.decoder, skip_prompt=True, skip_special_tokens=True)
        self._run, self._speed, self._stop, self._tell, self._patched = run, speed, stop, tell, patched
        endings = loaded.model.generation_config.eos_token_id
        self._endings = endings if isinstance(endings, list) else [endings]
        self._text = ""
        self.new_tokens = 0
        self.ended = False  # by the model
        self.first_token: float | None = None
        self.position_map: PositionMap | None = None
        self.head_shares: list[torch.Tensor] = []
        self.queries: list[int] = []  # the prompt's last token, then the answer's

    @property
    def answer(self) -> str:
        return self._text.strip()

    def steps(self, model: Any, reader: PromptReader) -> Iterator[Update]:
        """Write it, so many tokens at a time; generate() goes on with what is in the cache."""
        sampling, most = self._run.request.sampling, self._run.request.max_new_tokens
        chosen: dict[str, Any] = {"do_sample": False}
        if sampling.temperature:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        ids, drawing = reader.ids, _Drawing(int(sampling.seed), reader.ids.device)
        while self.new_tokens < most and not self.ended and not self._stop.is_set():
            with torch.inference_mode(), drawing:
                ids = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    past_key_values=reader.cache,
                    max_new_tokens=min(DECODED, most - self.new_tokens),
                    streamer=self,
                    stopping_criteria=StoppingCriteriaList([self]),
                    **chosen,
                )
            yield self._update(self.new_tokens)
        super().end()

    def end(self) -> None:
        """Of some tokens, not of the answer: a word may go on."""
        self.next_tokens_are_prompt = True

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._text += text
        self._tell(self._update(self.new_tokens + (not stream_end)))  # the token is counted after this

    def _update(self, written: int) -> Update:
        """How far the answer is."""
        most = self._run.request.max_new_tokens
        written = min(written, most)  # a word's end is told after its token
        left = (most - written) * self._speed.answer
        return Update("Answering", written, most, "tokens", self.answer, note=self._run.note, run_left=left)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self.new_tokens += 1
        self.ended = int(input_ids[0, -1]) in self._endings
        if self.first_token is None:
            self.first_token = time.perf_counter()
        if self._patched:
            now = self._patched.position_map
            self.position_map = self.position_map or now
            if now.regions == self.position_map.regions:  # not planned anew since
                self.queries.append(int(input_ids[0, -2]))
                self.head_shares.append(self._patched.head_shares().half())
        return torch.full((len(input_ids),), self._stop.is_set(), device=input_ids.device)
