"""The one loaded model, and what a visitor may ask of it. No gradio here: generators of plain values."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

import lampe
from app.checks import MAX_CHARACTERS, AskError, too_long, whole_number
from app.computing import Computing, Line, with_progress
from app.reports import METHODS, Attention, Method, RunReport, Update
from app.settings import Settings
from app.speed import MEASURED, Speed, measure
from lampe.load import DEFAULT_MODEL_NAME, Progress, load, load_config, load_tokenizer
from lampe.needle import Cell, Haystack, Needles, Prompt, Result, Straw, hide, prompt_of, run, to_read
from lampe.positions import PositionMap, plain_map
from lampe.prompt import build_prompt
from lampe.reading import read

MAX_NEW_TOKENS = 512
_NO_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "alloc_failed")
_SETTLED = 3.0  # seconds after which a run's own pace says more than what was measured before
_STREAM_TIMEOUT = 600.0  # seconds for one token, after which the run is taken for dead


@dataclass
class Session:
    """The loaded model and tokenizer, shared by all visitors; requests run one at a time, in one thread."""

    settings: Settings
    _tokenizer: Any = None
    _model: Any = None
    _decoder: Any = None  # a tokenizer of its own: one that decodes can't be set to encode special tokens as text
    _lampe_config: lampe.LampeConfig | None = None
    speed: Speed | None = None
    _line: Line = field(default_factory=Line)
    _computing: Computing = field(default_factory=Computing)
    _model_lock: threading.Lock = field(default_factory=threading.Lock)
    _tokenizer_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def tokenizer_ready(self) -> bool:
        return self._tokenizer is not None

    @property
    def model_ready(self) -> bool:
        return self._model is not None

    def tokenizer(self, progress: Callable[[Progress], None] | None = None) -> Any:
        """The tokenizer, fetched at its first use.

        Raises
        ------
        lampe.LoadError
        """
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(self.settings.model_id, progress=progress)
            return self._tokenizer

    def model(self, progress: Callable[[Progress], None] | None = None) -> Any:
        """The model, fetched and loaded at its first use.

        Raises
        ------
        lampe.LoadError
        lampe.UnsupportedModelError
        """
        with self._model_lock:
            if self._model is None:
                self._model, self._decoder = self._computing(self._load, progress)
            return self._model

    def _load(self, progress: Callable[[Progress], None] | None) -> tuple[Any, Any]:
        model, tokenizer = load(self.settings.model_id, bits=self.settings.bits, progress=progress)
        lampe.patch(model).remove()  # refuse now, not after a long document was read
        return model, tokenizer

    def config(self) -> lampe.LampeConfig:
        """The LaMPE settings of the model, from its preset or its config; no weights are needed.

        Raises
        ------
        lampe.LoadError
        """
        if self._lampe_config is None:
            model_id = self.settings.model_id
            embedded = model_id in (None, DEFAULT_MODEL_NAME)  # known without fetching it
            self._lampe_config = (
                lampe.PRESETS["smollm2"] if embedded else lampe.LampeConfig.for_model(load_config(model_id))
            )
        return self._lampe_config

    def prompt(self, text: str, question: str) -> list[int]:
        """The token ids of a request that may be run.

        Raises
        ------
        AskError
            If the text or the question is empty, or both together exceed the limit.
        """
        if not text.strip():
            raise AskError("There is no text to ask about: paste one, upload a file or take an example.")
        if not question.strip():
            raise AskError("There is no question: type what you want to know about the text.")
        prompt = build_prompt(self.tokenizer(), text, question)
        limit = self.settings.max_input_tokens
        if len(prompt) > limit:
            raise AskError(
                f"The text and question have {len(prompt):,} tokens; the limit here is {limit:,}. Nothing was cut or "
                f"run: shorten the text by {len(prompt) - limit:,} tokens, or raise MAX_INPUT_TOKENS where you run "
                "the app."
            )
        return prompt

    def ask(
        self,
        text: str,
        question: str,
        method: Method,
        max_new_tokens: float,
        stop: threading.Event | None = None,
        config: lampe.LampeConfig | None = None,
    ) -> Iterator[Update]:
        """Answer a question about a text, greedily; yields what there is to show as it comes.

        Parameters
        ----------
        text, question : str
        method : "lampe" or "rope"
            The patched model, or the same model unpatched.
        max_new_tokens : int
            A whole number from 1 to `MAX_NEW_TOKENS`.
        stop : threading.Event
            Set it, and the run ends within a layer's prefill or a token, with what it has; before the prefill it
            ends without an update.
        config : LampeConfig, optional
            What LaMPE runs with; the model's own by default.

        Raises
        ------
        AskError
            A request that can't be run; nothing was done.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        if not (isinstance(text, str) and isinstance(question, str)):
            raise AskError("The text and the question must both be text.")
        if method not in METHODS:
            raise AskError(f"The method must be one of {', '.join(METHODS)}, not {method!r}.")
        budget = whole_number("The answer's length", max_new_tokens)
        if not 1 <= budget <= MAX_NEW_TOKENS:
            raise AskError(f"The answer's length must be 1 to {MAX_NEW_TOKENS} tokens, not {budget}.")
        if len(text) + len(question) > MAX_CHARACTERS:
            raise AskError(too_long(text + question))
        stop = stop or threading.Event()
        if not self.tokenizer_ready:
            yield from with_progress(self.tokenizer, stop)
        if stop.is_set():
            return
        prompt = self.prompt(text, question)
        with self._line.place() as before:
            yield from self._until_ready(before, stop)
            if stop.is_set():
                return
            with _enough_memory(len(prompt)):
                config = config or self.config()
                lampe_or_not = self._computing(lampe.patch, self._model, config) if method == "lampe" else nullcontext()
                with lampe_or_not as patched:
                    yield from self._run(patched, config, prompt, budget, stop)

    def needles(
        self,
        haystack: Haystack,
        cells: Sequence[Cell],
        needle: Needles | None = None,
        stop: threading.Event | None = None,
        config: lampe.LampeConfig | None = None,
    ) -> Iterator[Update | Result]:
        """Run needle tests; yields what there is to show as it comes, and each result.

        Parameters
        ----------
        haystack : Haystack
        cells : sequence of Cell
        needle : Needles, optional
            Hidden in all cells in place of one that each draws.
        stop : threading.Event
            Set it, and the run ends within a layer's prefill or a token, without a result for the cell under way.
        config : LampeConfig, optional
            What LaMPE runs with; the model's own by default.

        Raises
        ------
        AskError
            If a cell is beyond the limit.
        NeedleError
            If a prompt can't be made.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        stop = stop or threading.Event()
        longest = max(cell.length for cell in cells)
        if longest > self.settings.max_input_tokens:
            raise AskError(
                f"The limit here is {self.settings.max_input_tokens:,} tokens, and the longest prompt would have "
                f"{longest:,}. Nothing was run: take shorter ones, or raise MAX_INPUT_TOKENS where you run the app."
            )
        if not self.tokenizer_ready:
            yield from with_progress(self.tokenizer, stop)
        if stop.is_set():
            return
        straw = Straw(haystack, self.tokenizer())
        make = partial(_hidden, needle) if needle else prompt_of
        for cell in {cell.length: cell for cell in cells}.values():
            make(straw, cell)  # what can't be made is refused before anything is run
        with self._line.place() as before:
            yield from self._until_ready(before, stop)
            if stop.is_set():
                return
            with _enough_memory(max(longest, MEASURED)):
                yield from self._speed_known()
            assert self.speed
            left = Countdown(self.speed, cells)
            events: queue.SimpleQueue[Update | Result | None] = queue.SimpleQueue()

            def told(cell: Cell, tokens: int) -> None:
                events.put(Update("Reading", tokens, cell.length, "tokens", seconds_left=left(cell, tokens)))

            def work() -> None:
                try:
                    for result in run(self._model, straw, cells, config or self.config(), stop.is_set, told, make):
                        events.put(result)
                finally:
                    events.put(None)

            with _enough_memory(longest):
                running = self._computing.start(work)
                try:
                    while (event := events.get()) is not None:
                        yield event
                except GeneratorExit:  # the visitor has left
                    stop.set()
                    raise
                running.result()

    def time_for(self, cells: Sequence[Cell]) -> float | None:
        """About how many seconds these tests will take here; None before this machine's speed was measured."""
        return Countdown(self.speed, cells).total if self.speed else None

    def measured(self) -> Iterator[Update]:
        """Have the model loaded and this machine's speed measured, if that hasn't been done yet.

        Raises
        ------
        lampe.LoadError, lampe.UnsupportedModelError
        """
        if self.speed is None:
            with self._line.place() as before:
                yield from self._until_ready(before, threading.Event())
                with _enough_memory(MEASURED):
                    yield from self._speed_known()

    def _speed_known(self) -> Iterator[Update]:
        if self.speed is None:
            yield Update("Measuring this machine's speed")
            self.speed = self._computing(measure, self._model)

    def _until_ready(self, before: Callable[[float], int], stop: threading.Event) -> Iterator[Update]:
        """Wait for one's turn, and for the model."""
        while waiting := before(0.5):
            if stop.is_set():
                return
            yield Update(f"Waiting for the model: {waiting} before you")
        if not self.model_ready:
            yield from with_progress(self.model, stop)

    def _run(
        self,
        patched: lampe.Patched | None,
        config: lampe.LampeConfig,
        prompt: list[int],
        max_new_tokens: int,
        stop: threading.Event,
    ) -> Iterator[Update]:
        model, length = self._model, len(prompt)
        planned = patched.plan(length) if patched else None
        ids = torch.tensor([prompt], device=model.device)
        cache = DynamicCache(config=model.config)
        watch = _Watch(stop, patched)
        started = time.perf_counter()
        done: int | None = 0
        # The last token is generate()'s: it needs one that isn't read yet.
        reading = read(model, cache, ids[:, :-1], stop=stop.is_set)
        while done is not None and not stop.is_set():
            yield Update("Reading", done, length, "tokens")
            done = self._computing(next, reading, None)
        answer, new_tokens = "", 0
        if not stop.is_set():
            for answer in self._generate(ids, cache, max_new_tokens, watch):
                yield Update("Answering", watch.new_tokens, max_new_tokens, "tokens", answer.strip())
            new_tokens = watch.new_tokens
        ended = time.perf_counter()
        first = watch.first_token or ended
        # What the last prompt token ran on, or would have: generating may have planned anew since.
        position_map = watch.position_map or planned or plain_map(length)
        shares = watch.head_shares[0].float().mean(1) if watch.head_shares else None
        attention = None
        if watch.position_map:
            texts = tuple(self._decoder.decode([token]) for token in watch.queries)
            layers = tuple(layer.index for layer in patched.layers if layer.mapped) if patched else ()
            attention = Attention(position_map, config, texts, layers, torch.stack(watch.head_shares))
        report = RunReport(
            "lampe" if patched else "rope",
            model_name(self.settings),
            self.settings.bits,
            length,
            config.window,
            position_map.mapping_length,
            config.calibrated,
            region_rows(position_map, length, shares),
            [] if shares is None else shares.tolist(),
            first - started,
            ended - first,
            new_tokens,
            stop.is_set(),
        )
        stage = "Stopped" if stop.is_set() else "Done"
        yield Update(stage, length, length, "tokens", answer.strip(), report, attention)

    def _generate(self, ids: torch.Tensor, cache: DynamicCache, max_new_tokens: int, watch: _Watch) -> Iterator[str]:
        """The answer so far, after each token; ends the worker if the consumer goes away."""
        streamer = TextIteratorStreamer(
            self._decoder, skip_prompt=True, timeout=_STREAM_TIMEOUT, skip_special_tokens=True
        )

        def work() -> None:
            try:
                with torch.inference_mode():
                    self._model.generate(
                        ids,
                        attention_mask=torch.ones_like(ids),
                        past_key_values=cache,
                        max_new_tokens=max_new_tokens,
                        do_sample=False,
                        streamer=streamer,
                        stopping_criteria=StoppingCriteriaList([watch]),
                    )
            except BaseException:
                streamer.end()
                raise

        worker = self._computing.start(work)
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
        worker.result()


def region_rows(position_map: PositionMap, length: int, shares: torch.Tensor | None = None) -> list[dict[str, Any]]:
    """For each region: its name, the keys that the last of `length` tokens meets there, its share of attention."""
    counts = position_map.key_counts(length - 1)
    means = [None] * len(counts) if shares is None else shares.mean(0).tolist()
    return [
        {"name": region.name, "keys": count, "share": share}
        for region, count, share in zip(position_map.regions, counts, means, strict=True)
    ]


def model_name(settings: Settings) -> str:
    """What to call the model on the page."""
    return settings.model_id or DEFAULT_MODEL_NAME


class Countdown:
    """The time left of a run of needle tests: what was measured before, at the pace of this run so far."""

    _ANSWER = 24  # tokens, about: a number and a few words

    def __init__(self, speed: Speed, cells: Sequence[Cell]) -> None:
        self._speed = speed
        self._after: dict[Cell, float] = {}
        self.total = 0.0
        for cell, start in reversed(to_read(cells).items()):
            self._after[cell] = self.total
            self.total += speed.reading(start, cell.length) + self._ANSWER * speed.answer
        self._started = time.perf_counter()

    def __call__(self, cell: Cell, tokens: int) -> float:
        """Seconds left when so many tokens of a cell are read."""
        speed = self._speed
        left = speed.reading(tokens, cell.length) + self._ANSWER * speed.answer + self._after[cell]
        done, took = self.total - left, time.perf_counter() - self._started
        return left * (took / done if took > _SETTLED and done > 0 else 1)


class _Watch(StoppingCriteria):
    """Looks in after each token: counts it, notes its attention and the first one's time, and passes on a Stop."""

    def __init__(self, stop: threading.Event, patched: lampe.Patched | None) -> None:
        self.stop, self.patched = stop, patched
        self.new_tokens = 0
        self.first_token: float | None = None
        self.position_map: PositionMap | None = None
        self.head_shares: list[torch.Tensor] = []
        self.queries: list[int] = []  # the prompt's last token, then the answer's

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self.new_tokens += 1
        if self.first_token is None:
            self.first_token = time.perf_counter()
        if self.patched:
            now = self.patched.position_map
            self.position_map = self.position_map or now
            if now.regions == self.position_map.regions:  # not planned anew since
                self.queries.append(int(input_ids[0, -2]))
                self.head_shares.append(self.patched.head_shares().half())
        return torch.full((len(input_ids),), self.stop.is_set(), device=input_ids.device)


@contextmanager
def _enough_memory(tokens: int) -> Iterator[None]:
    """Turns running out of memory into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
            raise AskError(
                f"There isn't enough memory for a prompt of {tokens:,} tokens on this machine. The model is still "
                "loaded: try a shorter text, or close other programs."
            ) from error
        raise


def _hidden(needle: Needles, straw: Straw, cell: Cell) -> Prompt:
    return hide(straw, needle, cell.length, cell.depth, cell.rng())
