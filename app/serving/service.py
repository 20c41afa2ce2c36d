"""The one loaded model, and what a visitor may ask of it. No gradio here: generators of plain values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import lampe
from app.documents.cutting import Cut, cut
from app.documents.document import Part, text_of
from app.limits import MAX_CHARACTERS, too_long, whole_number
from app.serving.answering import Run, answer
from app.serving.computing import Computing, Tell
from app.serving.document_cache import LAMPE, DocumentCache
from app.serving.evidence import Evidence, look_back
from app.serving.models import Loaded, Models, out_of_memory
from app.serving.reports import Attention, Needs, Update
from app.serving.requests import Chosen, Prompt, Request, Variant, planned_length, prompt_of
from app.serving.speed import MEASURED, Countdown, Speed, measure
from app.serving.waiting_line import Ticket, WaitingLine
from app.settings import ModelChoice, Settings
from lampe import needle
from lampe.errors import InputError
from lampe.inference.prefill import PromptReader
from lampe.inference.prompt import build_prompt
from lampe.methods import LampeConfig, Method, PaperLampe
from lampe.models.memory import cache_bytes, free_bytes
from lampe.needle import Cell, Haystack, Needles, Result, TokenizedHaystack

_GETTING_READY = Update("Getting the model ready")


@dataclass
class ModelService:
    """The loaded model and tokenizer, shared by all visitors; requests run one at a time, in one thread."""

    settings: Settings
    documents: DocumentCache = field(init=False)
    models: Models = field(init=False)
    speeds: dict[ModelChoice, Speed] = field(default_factory=dict)
    _line: WaitingLine = field(default_factory=WaitingLine)
    _computing: Computing = field(default_factory=partial(Computing, "model"))
    _fetching: Computing = field(default_factory=partial(Computing, "fetching"))

    def __post_init__(self) -> None:
        self.documents = DocumentCache(self.settings.kept_bytes)
        self.models = Models(self.settings, lambda: self.documents.shrink(0), lambda: self.documents.bytes)

    # What a visitor has chosen

    def choice(self, chosen: Chosen | None) -> ModelChoice:
        """The model that is to run.

        Raises
        ------
        InputError
            If this deployment doesn't offer it.
        """
        model = chosen.model if chosen else self.settings.own
        self.models.check(model)
        return model

    def config(self, chosen: Chosen | None = None) -> lampe.LampeConfig:
        """The LaMPE settings that run: the chosen ones, or the model's own; no weights are needed.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return (chosen and chosen.config) or self.models.config(self.choice(chosen))

    def method(self, key: str, chosen: Chosen | None = None) -> Method:
        """A method with the settings that run: LaMPE's as `config` has them, others by their authors' rule.

        Raises
        ------
        InputError, lampe.LoadError, lampe.MethodError
        """
        return self.config(chosen) if key == LampeConfig.key else self.models.method(key, self.choice(chosen))

    def methods_of(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> dict[str, Method]:
        """The methods of some cells by their keys, as `method` has them."""
        return {key: self.method(key, chosen) for key in dict.fromkeys(cell.method for cell in cells)}

    def published(self, chosen: Chosen) -> LampeConfig:
        """LaMPE with the curve that its authors published for the chosen model, or else Llama-3's stretched to it.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return LampeConfig.like(self.models.method(PaperLampe.key, self.choice(chosen)))

    def model(self, chosen: Chosen | None = None) -> Any:
        """The model, fetched and loaded unless it is the loaded one.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
        """
        return self._computing(self.models.load, self.choice(chosen)).model

    # The tokenizer, and what needs only that

    def tokenizer_ready(self, chosen: Chosen | None = None) -> bool:
        """Whether it can be had without waiting."""
        return self.models.tokenizer_ready(self.choice(chosen))

    def tokenizer(self, chosen: Chosen | None = None) -> Any:
        """The tokenizer, fetched at its first use.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return self.models.tokenizer(self.choice(chosen))

    def fetch_tokenizer(self, chosen: Chosen | None = None, stop: threading.Event | None = None) -> Iterator[Update]:
        """Have the tokenizer at hand; tells how far that is, if it takes any time.

        Raises
        ------
        InputError, lampe.LoadError
        """
        if not self.tokenizer_ready(chosen):
            fetch = partial(self.models.tokenizer, self.choice(chosen))
            yield from self._fetching.stream(_telling(fetch), stop or threading.Event(), _GETTING_READY)

    def prompt(self, request: Request) -> Prompt:
        """The tokens of a request that may be run.

        Raises
        ------
        InputError
            If it can't be run, or exceeds the limit.
        """
        request.check()
        return self._prompt(request)

    def _prompt(self, request: Request) -> Prompt:
        prompt = prompt_of(request, self.tokenizer(request.chosen), self.config(request.chosen).window)
        length, limit = len(prompt.ids), self.settings.max_input_tokens
        if length > limit:
            raise InputError(
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
        InputError
            If it can't be cut so.
        lampe.LoadError
        """
        limit = self.settings.max_input_tokens
        if most is not None:
            limit = min(limit, whole_number("The number of tokens", most))
        if sum(len(part.text) for part in parts) + len(question) > MAX_CHARACTERS:
            raise InputError(too_long(text_of(parts) + question))
        tokenizer = self.tokenizer(chosen)
        ends = whole_number("The first number", first), whole_number("The last number", last)
        return cut(way, parts, lambda text: len(build_prompt(tokenizer, text, question)), limit, *ends)

    # What a question takes

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
        choice, loaded = self.choice(chosen), self.models.loaded
        if loaded is None or loaded.choice != choice:
            return None
        config = self.config(chosen)
        length = planned_length(len(ids), max_new_tokens, config)
        plan = loaded, config, length
        kept = self.documents.reusable(visitor, LAMPE, plan, ids, config.position_map(length, len(ids)))
        seconds = self._seconds(choice, len(ids), max_new_tokens, kept)
        return Needs(seconds, _bytes_for(loaded.model, len(ids) + max_new_tokens), kept)

    def time_for(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> float | None:
        """About how many seconds these tests will take here; None before this machine's speed was measured."""
        speed = self.speeds.get(self.choice(chosen))
        return Countdown(speed, cells).total if speed else None

    def _seconds(self, choice: ModelChoice, tokens: int, new_tokens: int, kept: int = 0) -> float | None:
        """For reading those of so many tokens that aren't kept, and writing; None before the speed was measured."""
        speed = self.speeds.get(choice)
        return speed.reading(kept, tokens) + new_tokens * speed.answer if speed else None

    # What waits for the model

    def prepare(self, chosen: Chosen, stop: threading.Event) -> Iterator[Update]:
        """Make a model the loaded one, in turn with all else.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
            Nothing has changed for the visitor.
        """
        # Its config may have to be fetched.
        yield from self._fetching.stream(lambda _: self.config(chosen), stop, _GETTING_READY)
        with self._line.join() as ticket:
            yield from self._turn(ticket, self.choice(chosen), stop)

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
        InputError, lampe.LoadError, lampe.UnsupportedModelError
        """
        choice, stop = self.choice(chosen), stop or threading.Event()
        if choice not in self.speeds:
            with self._line.join() as ticket:
                yield from self._ready(ticket, choice, stop, 0)

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
        InputError
            A request that can't be run; nothing was done.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        request.check()
        choice, stop = self.choice(request.chosen), stop or threading.Event()
        self.documents.enter(visitor)
        yield from self.fetch_tokenizer(request.chosen, stop)
        if stop.is_set():
            return
        prompt = self._prompt(request)
        method, length = self.method(request.method, request.chosen), len(prompt.ids)
        with self._line.join() as ticket:
            ticket.seconds = partial(self._seconds, choice, length, request.max_new_tokens)
            loaded = yield from self._ready(ticket, choice, stop, length + request.max_new_tokens)
            if loaded:
                run = Run(loaded, request, prompt, method, self.speeds[choice])
                with _enough_memory(length):
                    yield from _timed(ticket, self._answer(run, stop, visitor))

    def _answer(self, run: Run, stop: threading.Event, visitor: str | None) -> Generator[Update, None, None]:
        variant, plan = run.request.variant, run.plan
        # A conversation that has outgrown its plan is planned again, and read again: its keys lie elsewhere.
        before = self.documents.plan_of(visitor, variant) if run.request.earlier and len(plan) > 1 else None
        outgrown = before[-1] if before and before[:-1] == plan[:-1] and before[-1] < run.planned else None
        with self._reader(run.loaded, visitor, variant, plan) as reader:
            yield from self._computing.stream(partial(answer, run, reader, stop, outgrown), stop)

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
        choice, stop = self.choice(attention.request.chosen), stop or threading.Event()
        length, again = len(attention.prompt.ids), len(attention.ids)
        with self._line.join() as ticket:
            ticket.seconds = partial(self._seconds, choice, length, again)
            loaded = yield from self._ready(ticket, choice, stop, 0)
            if not loaded:
                return
            variant, plan = attention.request.variant, (loaded, attention.method, attention.position_map.length)
            if self.documents.plan_of(visitor, variant) != plan:  # it is read again
                self._check_fits(loaded.model, length + again)
            with _enough_memory(length), self._reader(loaded, visitor, variant, plan) as reader:
                looking = partial(look_back, loaded, attention, reader, stop)
                found = yield from self._computing.stream(looking, stop)
        if found:
            yield found

    def forget(self, visitor: str) -> None:
        """A visitor has left: nothing of what they asked about stays."""
        self.documents.forget(visitor)

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
        InputError
            If a cell is beyond the limit.
        NeedleError
            If a prompt can't be made.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        choice, stop = self.choice(chosen), stop or threading.Event()
        longest = max(cell.length for cell in cells)
        if longest > self.settings.max_input_tokens:
            raise InputError(
                f"The limit here is {self.settings.max_input_tokens:,} tokens, and the longest prompt would have "
                f"{longest:,}. Nothing was run: take shorter ones, or raise MAX_INPUT_TOKENS where you run the app."
            )
        yield from self.fetch_tokenizer(chosen, stop)
        if stop.is_set():
            return
        tokenized = TokenizedHaystack(haystack, self.tokenizer(chosen))
        make = partial(_hidden, own) if own else needle.prompt_of
        for cell in {cell.length: cell for cell in cells}.values():
            make(tokenized, cell)  # what can't be made is refused before anything is run
        methods = self.methods_of(cells, chosen)
        with self._line.join() as ticket:
            ticket.seconds = partial(self.time_for, cells, chosen)
            loaded = yield from self._ready(ticket, choice, stop, longest)
            if not loaded:
                return
            left = Countdown(self.speeds[choice], cells)

            def work(tell: Tell) -> None:
                def reading(cell: Cell, tokens: int) -> None:
                    seconds = left(cell, tokens)
                    update = Update("Reading", tokens, cell.length, "tokens", seconds_left=seconds, run_left=seconds)
                    tell(update)

                for result in needle.run(loaded.model, tokenized, cells, methods, stop.is_set, reading, make):
                    tell(result)

            with _enough_memory(longest):
                yield from _timed(ticket, self._computing.stream(work, stop))

    # On the way to the model

    def _ready(
        self, ticket: Ticket, choice: ModelChoice, stop: threading.Event, tokens: int
    ) -> Generator[Update, None, Loaded | None]:
        """Wait for one's turn, the model, and this machine's speed with it; None if it was stopped.

        Raises
        ------
        InputError
            If the keys and values of so many tokens don't fit in the free memory.
        """
        yield from self._turn(ticket, choice, stop)
        if stop.is_set():
            return None
        loaded: Loaded = self._computing(self.models.load, choice)
        if choice not in self.speeds:
            yield Update("Measuring this machine's speed")
            with _enough_memory(MEASURED):
                speed = self._computing(partial(measure, loaded.model, stop=stop.is_set))
            if speed is None:
                return None
            self.speeds[choice] = speed
        self._check_fits(loaded.model, tokens)
        return loaded

    def _turn(self, ticket: Ticket, choice: ModelChoice, stop: threading.Event) -> Iterator[Update]:
        """Wait for one's turn, and for the model."""
        while waiting := ticket.before(0.5):
            if stop.is_set():
                return
            known = [seconds for one in waiting if (seconds := one.seconds()) is not None]
            left = sum(known) if len(known) == len(waiting) else None
            yield Update(f"Waiting for the model: {len(waiting)} before you", seconds_left=left)
        # Also where it is loaded: another load that somebody stopped may still be under way.
        load = partial(self.models.load, choice, stopped=stop.is_set)
        yield from self._computing.stream(_telling(load), stop, _GETTING_READY)

    @contextmanager
    def _reader(
        self, loaded: Loaded, visitor: str | None, variant: Variant, plan: tuple[Any, ...]
    ) -> Iterator[PromptReader]:
        """What a visitor has read under a plan, or a new reader; kept for their next question, unless it failed."""
        reader = self.documents.take(visitor, variant, plan) or PromptReader(loaded.model)
        sound = True
        try:
            yield reader
        except Exception:
            sound = False  # it may have failed between two layers
            raise
        finally:
            if sound:
                self.documents.put(visitor, variant, plan, reader)

    def _check_fits(self, model: Any, tokens: int) -> None:
        """Refuse a prompt and answer of so many tokens if their keys and values don't fit in the free memory."""
        if _bytes_for(model, tokens) > free_bytes(model.device):
            self.documents.shrink(0)  # what others have read can be read again
        needed, free = _bytes_for(model, tokens), free_bytes(model.device)
        if needed > free:
            raise InputError(
                f"{tokens:,} tokens take about {needed / 1e6:,.0f} MB of memory here, and {free / 1e6:,.0f} MB are "
                f"free: at most {free // _bytes_for(model, 1):,} tokens fit now. Nothing was run: take a shorter text."
            )


def _telling(work: Callable[..., Any]) -> Callable[[Tell], Any]:
    """Work that calls ``progress``, as `Computing.stream` takes it."""
    return lambda tell: work(progress=lambda progress: tell(Update.of(progress)))


def _timed(ticket: Ticket, events: Generator[Any, None, Any]) -> Iterator[Any]:
    """The same events; those who wait are told how long the run still takes."""
    with closing(events):  # the work has ended before the ticket is given back
        for event in events:
            if isinstance(event, Update) and event.run_left is not None:
                ticket.seconds = partial(float, event.run_left)
            yield event


@contextmanager
def _enough_memory(tokens: int) -> Iterator[None]:
    """Turns running out of memory into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise InputError(
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
