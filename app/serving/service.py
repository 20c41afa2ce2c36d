"""The one loaded model, and what a visitor may ask of it. No gradio here: generators of plain values."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import lampe
from app.documents.cutting import Cut, cut
from app.documents.document import Part, text_of
from app.errors import AskError
from app.limits import MAX_CHARACTERS, too_long, whole_number
from app.serving.answering import Loaded, answered
from app.serving.computing import Computing, Line, Place, with_progress
from app.serving.document_cache import FIRST, Kept
from app.serving.evidence import Evidence, look_back, spans
from app.serving.models import Models
from app.serving.reports import Attention, Needs, Update
from app.serving.requests import Chosen, Prompt, Request, planned_length, prompt_of
from app.serving.speed import MEASURED, Countdown, Speed, measure
from app.settings import ModelChoice, Settings
from lampe import needle
from lampe.inference.prefill import PromptReader
from lampe.inference.prompt import build_prompt
from lampe.methods import LampeConfig, Method, PaperLampe, Rope
from lampe.models.load import Progress
from lampe.models.memory import cache_bytes, free_bytes
from lampe.needle import Cell, Haystack, Needles, Result, TokenizedHaystack
from lampe.patching.patch import applied

_NO_MEMORY = ("not enough memory", "out of memory", "can't allocate memory", "alloc_failed")


@dataclass
class Session:
    """The loaded model and tokenizer, shared by all visitors; requests run one at a time, in one thread."""

    settings: Settings
    _kept: Kept = field(init=False)
    _models: Models = field(init=False)
    _speeds: dict[ModelChoice, Speed] = field(default_factory=dict)
    _line: Line = field(default_factory=Line)
    _computing: Computing = field(default_factory=Computing)

    def __post_init__(self) -> None:
        self._kept = Kept(self.settings.kept_bytes)
        self._models = Models(self.settings, self._computing, lambda: self._kept.shrink(0), lambda: self._kept.bytes)

    def chosen(self, chosen: Chosen | None) -> ModelChoice:
        """The model that is to run.

        Raises
        ------
        AskError
            If this deployment doesn't offer it.
        """
        model = chosen.model if chosen else self.settings.own
        self._models.check(model)
        return model

    def tokenizer_ready(self, chosen: Chosen | None = None) -> bool:
        """Whether it can be had without waiting."""
        return self._models.tokenizer_ready(self.chosen(chosen))

    def tokenizer(self, chosen: Chosen | None = None, progress: Callable[[Progress], None] | None = None) -> Any:
        """The tokenizer, fetched at its first use.

        Raises
        ------
        AskError, lampe.LoadError
        """
        return self._models.tokenizer(self.chosen(chosen), progress)

    def model(self, chosen: Chosen | None = None) -> Any:
        """The model, fetched and loaded unless it is the loaded one.

        Raises
        ------
        AskError, lampe.LoadError, lampe.UnsupportedModelError
        """
        return self._models.load(self.chosen(chosen)).model

    def config(self, chosen: Chosen | None = None) -> lampe.LampeConfig:
        """The LaMPE settings that run: the chosen ones, or the model's own; no weights are needed.

        Raises
        ------
        AskError, lampe.LoadError
        """
        return (chosen and chosen.config) or self._models.config(self.chosen(chosen))

    def method(self, key: str, chosen: Chosen | None = None) -> Method:
        """A method with the settings that run: LaMPE's as `config` has them, others by their authors' rule.

        Raises
        ------
        AskError, lampe.LoadError, lampe.MethodError
        """
        return self.config(chosen) if key == LampeConfig.key else self._models.method(key, self.chosen(chosen))

    def published(self, chosen: Chosen) -> LampeConfig:
        """LaMPE with the curve that its authors published for the chosen model, or else Llama-3's stretched to it.

        Raises
        ------
        AskError, lampe.LoadError
        """
        return LampeConfig.like(self._models.method(PaperLampe.key, self.chosen(chosen)))

    def methods_of(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> dict[str, Method]:
        """The methods of some cells by their keys, as `method` has them."""
        return {key: self.method(key, chosen) for key in dict.fromkeys(cell.method for cell in cells)}

    def prepare(self, chosen: Chosen, stop: threading.Event) -> Iterator[Update]:
        """Make a model the loaded one, in turn with all else.

        Raises
        ------
        AskError, lampe.LoadError, lampe.UnsupportedModelError
            Nothing has changed for the visitor.
        """
        yield from with_progress(lambda progress: self.config(chosen), stop)  # it may have to be fetched
        with self._line.place() as place:
            yield from self._until_ready(place, stop, chosen)

    def prompt(self, request: Request) -> Prompt:
        """The tokens of a request that may be run.

        Raises
        ------
        AskError
            If it can't be run, or exceeds the limit.
        """
        request.check()
        prompt = prompt_of(request, self.tokenizer(request.chosen), self.config(request.chosen).window)
        length, limit = len(prompt.ids), self.settings.max_input_tokens
        if length > limit:
            raise AskError(
                f"The text and question have {length:,} tokens; the limit here is {limit:,}. Nothing was cut or "
                f"run: read only a part of the text, shorten it by {length - limit:,} tokens, or raise "
                "MAX_INPUT_TOKENS where you run the app."
            )
        return prompt

    def cut(
        self, way: str, parts: Sequence[Part], question: str, most: float | None, first: float, last: float,
        chosen: Chosen | None = None,
    ) -> Cut:  # fmt: skip
        """A text cut to so many tokens with its question, at most the limit here; see `app.documents.cutting.cut`.

        Raises
        ------
        AskError
            If it can't be cut so.
        lampe.LoadError
        """
        limit = self.settings.max_input_tokens
        if most is not None:
            limit = min(limit, whole_number("The number of tokens", most))
        if sum(len(part.text) for part in parts) + len(question) > MAX_CHARACTERS:
            raise AskError(too_long(text_of(parts) + question))
        tokenizer = self.tokenizer(chosen)
        ends = whole_number("The first number", first), whole_number("The last number", last)
        return cut(way, parts, lambda text: len(build_prompt(tokenizer, text, question)), limit, *ends)

    def ask(
        self, request: Request, stop: threading.Event | None = None, visitor: str | None = None
    ) -> Iterator[Update]:
        """Answer a question about a text; yields what there is to show as it comes.

        Parameters
        ----------
        request : Request
        stop : threading.Event
            Set it, and the run ends within a layer's prefill or a token, with what it has; before the prefill it
            ends without an update.
        visitor : str, optional
            Who asks: what is read is kept for their next question, until `forget`. None keeps nothing.

        Raises
        ------
        AskError
            A request that can't be run; nothing was done.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        request.check()
        self._kept.come(visitor)
        stop = stop or threading.Event()
        if not self.tokenizer_ready(request.chosen):
            yield from with_progress(partial(self.tokenizer, request.chosen), stop)
        if stop.is_set():
            return
        prompt = self.prompt(request)
        with self._line.place() as place:
            place.seconds = partial(self._seconds, len(prompt.ids), request.max_new_tokens, request.chosen)
            yield from self._until_ready(place, stop, request.chosen)
            if stop.is_set():
                return
            loaded = self._models.load(self.chosen(request.chosen))
            speed = yield from self._speed_known(loaded, stop)
            if speed is None:
                return
            self._check_fits(loaded.model, len(prompt.ids) + request.max_new_tokens)
            with _enough_memory(len(prompt.ids)):
                for update in self._answer(loaded, request, prompt, stop, visitor):
                    answering = update.stage == "Answering"
                    to_write = request.max_new_tokens - (update.done if answering else 0)
                    if answering or update.seconds_left is not None:
                        left = (update.seconds_left or 0) + to_write * speed.answer
                        place.seconds = partial(float, left)
                    yield update

    def _answer(
        self, loaded: Loaded, request: Request, prompt: Prompt, stop: threading.Event, visitor: str | None
    ) -> Iterator[Update]:
        method = self.method(request.method, request.chosen)
        length, plain = planned_length(len(prompt.ids), request.max_new_tokens, method), isinstance(method, Rope)
        # Plain RoPE's keys are the same whatever the prompt's length.
        kind, plan = request.way, (loaded,) if plain else (loaded, method, length)
        # A conversation that has outgrown its plan is planned again, and read again: its keys lie elsewhere.
        before = self._kept.plan(visitor, kind) if request.earlier and not plain else None
        outgrown = before[-1] if before and before[:-1] == plan[:-1] and before[-1] < length else None
        model = loaded.model
        reader = self._kept.take(visitor, kind, plan) or PromptReader(model)
        with self._computing(applied, model, method) as patched:
            if patched:
                patched.plan(length, len(prompt.ids))
            position_map = method.position_map(len(prompt.ids) if plain else length, len(prompt.ids))
            sound = True
            try:
                for update in answered(
                    loaded, self._computing, reader, request, prompt, method, patched, position_map, stop,
                    self._speeds.get(loaded.choice),
                ):  # fmt: skip
                    report = update.report and replace(update.report, outgrown=outgrown)
                    yield replace(update, report=report, note=method.beyond(len(prompt.ids)))
            except Exception:
                sound = False  # it may have failed between two layers
                raise
            finally:
                if sound:
                    self._kept.put(visitor, kind, plan, reader)

    def needs(
        self, ids: Sequence[int], max_new_tokens: int, chosen: Chosen | None = None, visitor: str | None = None
    ) -> Needs | None:
        """What LaMPE's longest answer to a prompt takes here; None while the model isn't loaded.

        Parameters
        ----------
        ids : sequence of int
            The prompt's tokens.
        max_new_tokens : int
        chosen : Chosen, optional
        visitor : str, optional
            As in `ask`: what is kept for them isn't read again.
        """
        choice, loaded = self.chosen(chosen), self._models.loaded
        if loaded is None or loaded.choice != choice:
            return None
        config = self.config(chosen)
        length = planned_length(len(ids), max_new_tokens, config)
        plan = loaded, config, length
        kept = self._kept.of_use(visitor, FIRST, plan, ids, config.position_map(length, len(ids)))
        seconds = self._seconds(len(ids), max_new_tokens, chosen, kept)
        return Needs(seconds, _bytes_for(loaded.model, len(ids) + max_new_tokens), kept)

    def _seconds(self, tokens: int, new_tokens: int, chosen: Chosen | None, kept: int = 0) -> float | None:
        """For reading those of so many tokens that aren't kept, and writing; None before the speed was measured."""
        speed = self._speeds.get(self.chosen(chosen))
        return speed.reading(kept, tokens) + new_tokens * speed.answer if speed else None

    def evidence(
        self, attention: Attention, stop: threading.Event | None = None, visitor: str | None = None
    ) -> Iterator[Update | Evidence]:
        """Where an answer looked: its tokens are run once more, on what was kept of the text or read again.

        Parameters
        ----------
        attention : Attention
            Of that answer.
        stop : threading.Event
            Ends it without evidence.
        visitor : str, optional
            As in `ask`.

        Yields
        ------
        Update
            What is being done; then the `Evidence`.
        """
        stop = stop or threading.Event()
        request, method = attention.request, attention.method
        prompt = self.prompt(request)
        with self._line.place() as place:
            place.seconds = partial(self._seconds, len(prompt.ids), len(attention.ids), request.chosen)
            yield from self._until_ready(place, stop, request.chosen)
            if stop.is_set():
                return
            loaded = self._models.load(self.chosen(request.chosen))
            plan, model = (loaded, method, attention.position_map.length), loaded.model
            reader = self._kept.take(visitor, request.way, plan)
            if reader is None:  # it is read again
                self._check_fits(model, len(prompt.ids) + len(attention.ids))
                reader = PromptReader(model)
            with _enough_memory(len(prompt.ids)), self._computing(lampe.patch, model, method) as patched:
                position_map = patched.plan(attention.position_map.length, len(prompt.ids))
                reading, done = reader.read(prompt.ids, position_map, stop.is_set), 0
                while done is not None and not stop.is_set():
                    yield Update("Reading", done, len(prompt.ids), "tokens")
                    done = self._computing(next, reading, None)
                weights: Any = None
                if not stop.is_set():
                    looking = look_back(model, self._computing, reader, patched, attention.ids, prompt.document)
                    for weights in looking:
                        if stop.is_set():
                            break
                        if isinstance(weights, Update):
                            yield weights
            self._kept.put(visitor, request.way, plan, reader)
        if stop.is_set():
            return
        first, last = prompt.document
        decode, ids = loaded.decoder.decode, prompt.ids[first:last]
        parts = tuple((a, b, decode(ids[a:b])) for a, b in spans([decode([token]) for token in ids]))
        yield Evidence(attention.position_map, len(prompt.ids) - 1, attention.layers, weights, first, parts)

    def _check_fits(self, model: Any, tokens: int) -> None:
        """Refuse a prompt and answer of so many tokens if their keys and values don't fit in the free memory."""
        if _bytes_for(model, tokens) > free_bytes(model.device):
            self._kept.shrink(0)  # what others have read can be read again
        needed, free = _bytes_for(model, tokens), free_bytes(model.device)
        if needed > free:
            raise AskError(
                f"{tokens:,} tokens take about {needed / 1e6:,.0f} MB of memory here, and {free / 1e6:,.0f} MB are "
                f"free: at most {free // _bytes_for(model, 1):,} tokens fit now. Nothing was run: take a shorter text."
            )

    def forget(self, visitor: str) -> None:
        """A visitor has left: nothing of what they asked about stays."""
        self._kept.forget(visitor)

    def needles(
        self,
        haystack: Haystack,
        cells: Sequence[Cell],
        own: Needles | None = None,
        stop: threading.Event | None = None,
        chosen: Chosen | None = None,
    ) -> Iterator[Update | Result]:
        """Run needle tests; yields what there is to show as it comes, and each result.

        Parameters
        ----------
        haystack : Haystack
        cells : sequence of Cell
        own : Needles, optional
            Hidden in all cells in place of one that each draws.
        stop : threading.Event
            Set it, and the run ends within a layer's prefill or a token, without a result for the cell under way.
        chosen : Chosen, optional
            What answers; the deployment's own by default.

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
        if not self.tokenizer_ready(chosen):
            yield from with_progress(partial(self.tokenizer, chosen), stop)
        if stop.is_set():
            return
        tokenized = TokenizedHaystack(haystack, self.tokenizer(chosen))
        make = partial(_hidden, own) if own else needle.prompt_of
        for cell in {cell.length: cell for cell in cells}.values():
            make(tokenized, cell)  # what can't be made is refused before anything is run
        with self._line.place() as place:
            place.seconds = partial(self.time_for, cells, chosen)
            yield from self._until_ready(place, stop, chosen)
            if stop.is_set():
                return
            loaded = self._models.load(self.chosen(chosen))
            speed = yield from self._speed_known(loaded, stop)
            if speed is None:
                return
            self._check_fits(loaded.model, longest)
            left, methods = Countdown(speed, cells), self.methods_of(cells, chosen)
            events: queue.SimpleQueue[Update | Result | None] = queue.SimpleQueue()

            def told(cell: Cell, tokens: int) -> None:
                events.put(Update("Reading", tokens, cell.length, "tokens", seconds_left=left(cell, tokens)))

            def work() -> None:
                try:
                    for result in needle.run(loaded.model, tokenized, cells, methods, stop.is_set, told, make):
                        events.put(result)
                finally:
                    events.put(None)

            with _enough_memory(longest):
                running = self._computing.start(work)
                try:
                    while (event := events.get()) is not None:
                        if isinstance(event, Update) and event.seconds_left is not None:
                            place.seconds = partial(float, event.seconds_left)
                        yield event
                except GeneratorExit:  # the visitor has left
                    stop.set()
                    raise
                running.result()

    def time_for(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> float | None:
        """About how many seconds these tests will take here; None before this machine's speed was measured."""
        speed = self._speeds.get(self.chosen(chosen))
        return Countdown(speed, cells).total if speed else None

    def measured(self, chosen: Chosen | None = None, stop: threading.Event | None = None) -> Iterator[Update]:
        """Have the model loaded and this machine's speed with it measured, if that hasn't been done yet.

        Parameters
        ----------
        chosen : Chosen, optional
            What is to run; the deployment's own by default.
        stop : threading.Event
            Ends it.

        Raises
        ------
        AskError, lampe.LoadError, lampe.UnsupportedModelError
        """
        stop = stop or threading.Event()
        if self.chosen(chosen) not in self._speeds:
            with self._line.place() as place:
                yield from self._until_ready(place, stop, chosen)
                if not stop.is_set():
                    yield from self._speed_known(self._models.load(self.chosen(chosen)), stop)

    def _speed_known(self, loaded: Loaded, stop: threading.Event) -> Generator[Update, None, Speed | None]:
        """This machine's speed, measured at its first use; None if it was stopped."""
        if loaded.choice not in self._speeds:
            yield Update("Measuring this machine's speed")
            with _enough_memory(MEASURED):
                speed = self._computing(partial(measure, loaded.model, stop=stop.is_set))
            if speed is None:
                return None
            self._speeds[loaded.choice] = speed
        return self._speeds[loaded.choice]

    def _until_ready(self, place: Place, stop: threading.Event, chosen: Chosen | None) -> Iterator[Update]:
        """Wait for one's turn, and for the model."""
        while waiting := place.before(0.5):
            if stop.is_set():
                return
            known = [seconds for one in waiting if (seconds := one.seconds()) is not None]
            left = sum(known) if len(known) == len(waiting) else None
            yield Update(f"Waiting for the model: {len(waiting)} before you", seconds_left=left)
        # Also where it is loaded: another load that somebody stopped may still be under way.
        try:
            yield from with_progress(partial(self._models.load, self.chosen(chosen), stopped=stop.is_set), stop)
        except GeneratorExit:  # the visitor has left
            stop.set()
            raise


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


def _bytes_for(model: Any, tokens: int) -> int:
    """Memory that reading and writing so many tokens takes.

    A cache that grows is copied, a layer at a time, and chunks take some: twice the cache is what is asked for.
    """
    return 2 * cache_bytes(model.config, tokens, model.dtype.itemsize)


def _hidden(own: Needles, tokenized: TokenizedHaystack, cell: Cell) -> needle.NeedlePrompt:
    return needle.hide(tokenized, own, cell.length, cell.depth, cell.rng())
