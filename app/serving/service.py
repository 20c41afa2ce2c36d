"""The one loaded model, and what a visitor may ask of it. No gradio here: generators of plain values."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import lampe
from app.documents.reading import Files
from app.serving.answering import Run, answer, told
from app.serving.computing import Computing, Tell
from app.serving.document_cache import LAMPE, DocumentCache
from app.serving.evidence import Evidence, look_back
from app.serving.models import Loaded, Models
from app.serving.presence import Presence
from app.serving.prompt_memory import bytes_for, enough_memory
from app.serving.reports import GETTING_READY, Attention, Needs, Update, telling
from app.serving.requests import Chosen, Request, Variant, planned_length
from app.serving.speed import Countdown
from app.serving.texts import Texts, hidden
from app.serving.visitors import Visitor
from app.serving.waiting_line import Ticket, WaitingLine
from app.settings import ModelChoice, Settings
from lampe import needle
from lampe.errors import InputError
from lampe.inference.prefill import PromptReader
from lampe.inference.speed import Speed, measure, measured_tokens
from lampe.methods import LampeConfig, Method, PaperLampe
from lampe.models.memory import free_bytes
from lampe.needle import Cell, Haystack, Needles, Result

_AT_THE_DESK = 24  # of one visitor: a page draws all its figures when it loads
_ALONE = 120.0  # seconds that another model than the deployment's own may keep that one waiting
_LOOK = 0.5  # seconds between two looks for a Stop while waiting


@dataclass
class ModelService:
    """The loaded model, shared by all visitors: they take turns, and all its work is done in one thread.

    Attributes
    ----------
    texts : Texts
        What needs no model.
    files : Files
        That visitors upload.
    desk : WaitingLine
        Where short work waits that needs no model: figures, tokens.
    presence : Presence
        Who is here; of those who have left nothing stays.
    """

    settings: Settings
    documents: DocumentCache = field(init=False)
    models: Models = field(init=False)
    texts: Texts = field(init=False)
    presence: Presence = field(default_factory=Presence)
    speeds: dict[ModelChoice, Speed] = field(default_factory=dict)
    files: Files = field(default_factory=Files)
    desk: WaitingLine = field(default_factory=partial(WaitingLine, most=_AT_THE_DESK))
    _line: WaitingLine = field(default_factory=WaitingLine)
    _setting_aside: threading.Lock = field(default_factory=threading.Lock)
    _computing: Computing = field(default_factory=partial(Computing, "model"))

    def __post_init__(self) -> None:
        self.documents = DocumentCache(self.settings.kept_bytes)
        self.models = Models(self.settings, lambda: self.documents.shrink(0), lambda: self.documents.bytes)
        self.texts = Texts(self.settings, self.models, self.desk)
        self.presence.on_leave(self.documents.forget)

    # What a visitor has chosen

    def config(self, chosen: Chosen | None = None) -> lampe.LampeConfig:
        """See `Models.settled`."""
        return self.models.settled(chosen)

    def method(self, key: str, chosen: Chosen | None = None) -> Method:
        """A method with the settings that run: LaMPE's as `config` has them, others by their authors' rule.

        Raises
        ------
        InputError, lampe.LoadError, lampe.MethodError
        """
        return self.config(chosen) if key == LampeConfig.key else self.models.method(key, self.models.choice(chosen))

    def methods_of(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> dict[str, Method]:
        """The methods of some cells by their keys, as `method` has them."""
        return {key: self.method(key, chosen) for key in dict.fromkeys(cell.method for cell in cells)}

    def published(self, chosen: Chosen) -> LampeConfig:
        """LaMPE with the curve that its authors published for the chosen model, or else Llama-3's stretched to it.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return LampeConfig.like(self.models.method(PaperLampe.key, self.models.choice(chosen)))

    def model(self, chosen: Chosen | None = None) -> Any:
        """The model, fetched and loaded unless it is the loaded one.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
        """
        return self._computing(self.models.load, self.models.choice(chosen)).model

    # What a question takes

    def needs(
        self, ids: Sequence[int], max_new_tokens: int, chosen: Chosen | None = None, visitor: Visitor | None = None
    ) -> Needs | None:
        """What LaMPE's longest answer to a prompt takes here; None while the model isn't loaded.

        Parameters
        ----------
        ids : sequence of int
            The prompt's tokens.
        max_new_tokens : int
        chosen : Chosen, optional
        visitor : Visitor, optional
            As in `ask`: what is kept for them isn't read again.
        """
        choice, loaded = self.models.choice(chosen), self.models.loaded
        if loaded is None or loaded.choice != choice:
            return None
        config = self.config(chosen)
        length = planned_length(len(ids), max_new_tokens, config)
        plan = loaded, config, length
        kept = self.documents.reusable(visitor, LAMPE, plan, ids, config.position_map(length, len(ids)))
        seconds = self._seconds(choice, len(ids), max_new_tokens, kept)
        return Needs(seconds, bytes_for(loaded.model, len(ids) + max_new_tokens), kept)

    def time_for(self, cells: Sequence[Cell], chosen: Chosen | None = None) -> float | None:
        """About how many seconds these tests will take here; None before this machine's speed was measured."""
        speed = self.speeds.get(self.models.choice(chosen))
        return Countdown(speed, cells).total if speed else None

    def _seconds(self, choice: ModelChoice, tokens: int, new_tokens: int, kept: int = 0) -> float | None:
        """For reading those of so many tokens that aren't kept, and writing; None before the speed was measured."""
        speed = self.speeds.get(choice)
        return speed.reading(kept, tokens) + new_tokens * speed.answer if speed else None

    # What waits for the model

    def prepare(self, chosen: Chosen, stop: threading.Event, visitor: Visitor | None = None) -> Iterator[Update]:
        """Make a model the loaded one, in turn with all else.

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
            Nothing has changed for the visitor.
        """
        choice = self.models.choice(chosen)
        # Its config may have to be fetched, and its weights, before anybody's turn is used for it.
        yield from self.texts.fetching(chosen, lambda _: self.config(chosen), stop)
        fetch = partial(self.models.fetch, choice, stopped=stop.is_set)
        yield from self.texts.fetching(chosen, telling(fetch), stop, weights=True)
        if not stop.is_set():
            with self._line.join(visitor, choice) as ticket:
                yield from self._loaded(ticket, choice, stop)

    def measured(
        self, chosen: Chosen | None = None, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Iterator[Update]:
        """Have the model loaded and this machine's speed with it measured, if that hasn't been done yet.

        Parameters
        ----------
        chosen : Chosen, optional
            What is to run; the deployment's own by default.
        stop : threading.Event
            Ends it.
        visitor : Visitor, optional

        Raises
        ------
        InputError, lampe.LoadError, lampe.UnsupportedModelError
        """
        choice, stop = self.models.choice(chosen), stop or threading.Event()
        if choice not in self.speeds:
            with self._line.join(visitor, choice) as ticket:
                yield from self._ready(ticket, choice, stop, lambda loaded: 0)

    def ask(
        self, request: Request, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Iterator[Update]:
        """Answer a question about a text; yields what there is to show as it comes.

        Parameters
        ----------
        request : Request
        stop : threading.Event
            Set it, and the run ends within a layer's prefill or a token, with what it has; before the prefill it
            ends without an update.
        visitor : Visitor, optional
            Who asks: what is read is kept for their next question, until they have left. None keeps nothing.

        Raises
        ------
        InputError
            A request that can't be run; nothing was done.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        choice, stop = self.models.choice(request.chosen), stop or threading.Event()
        prompt = yield from self.texts.prompt(request, stop, visitor)
        if prompt is None:
            return
        self.documents.enter(visitor)
        method = self.method(request.method, request.chosen)
        longest = prompt.length + request.max_new_tokens
        with self._line.join(visitor, choice) as ticket:
            ticket.seconds = partial(self._seconds, choice, prompt.length, request.max_new_tokens)
            loaded = yield from self._ready(ticket, choice, stop, lambda loaded: longest)
            if loaded is None:
                return
            run = Run(loaded, request, prompt, method, self.speeds[choice])
            # A conversation that has outgrown its plan is planned again, and read again: its keys lie elsewhere.
            variant, plan = request.variant, run.plan
            before = self.documents.plan_of(visitor, variant) if request.earlier and len(plan) > 1 else None
            outgrown = before[-1] if before and before[:-1] == plan[:-1] and before[-1] < run.planned else None
            with enough_memory(prompt.length), self._reader(loaded, visitor, variant, plan) as reader:
                yield from self._in_turns(ticket, partial(answer, run, reader, stop, outgrown), stop)

    def evidence(
        self, attention: Attention, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Iterator[Update | Evidence]:
        """Where an answer looked: its tokens are run once more, on what was kept of the text or read again.

        Parameters
        ----------
        attention : Attention
            Of that answer.
        stop : threading.Event
            Ends it without evidence.
        visitor : Visitor, optional
            As in `ask`.

        Yields
        ------
        Update
            What is being done; then the `Evidence`.
        """
        choice, stop = self.models.choice(attention.request.chosen), stop or threading.Event()
        length, again = len(attention.prompt.ids), len(attention.ids)
        variant = attention.request.variant

        def plan(loaded: Loaded) -> tuple[Any, ...]:
            return loaded, attention.method, attention.position_map.length

        def tokens(loaded: Loaded) -> int:
            kept = self.documents.plan_of(visitor, variant) == plan(loaded)
            return 0 if kept else length + again  # else it is read again

        with self._line.join(visitor, choice) as ticket:
            ticket.seconds = partial(self._seconds, choice, length, again)
            loaded = yield from self._ready(ticket, choice, stop, tokens)
            if loaded is None:
                return
            with enough_memory(length), self._reader(loaded, visitor, variant, plan(loaded)) as reader:
                yield from self._in_turns(ticket, lambda _: look_back(loaded, attention, reader, stop), stop)

    def needles(
        self,
        haystack: Haystack,
        cells: Sequence[Cell],
        own: Needles | None = None,
        stop: threading.Event | None = None,
        chosen: Chosen | None = None,
        visitor: Visitor | None = None,
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
        visitor : Visitor, optional

        Raises
        ------
        InputError
            If a cell is beyond the limit.
        NeedleError
            If a prompt can't be made.
        lampe.LoadError, lampe.UnsupportedModelError
            The model can't be had or patched; the message is for the person.
        """
        choice, stop = self.models.choice(chosen), stop or threading.Event()
        longest = max(cell.length for cell in cells)
        if longest > self.settings.max_input_tokens:
            raise InputError(
                f"The limit here is {self.settings.max_input_tokens:,} tokens, and the longest prompt would have "
                f"{longest:,}. Nothing was run: take shorter ones, or raise MAX_INPUT_TOKENS where you run the app."
            )
        yield from self.texts.fetched(chosen, stop)
        if stop.is_set():
            return
        make = partial(hidden, own) if own else needle.prompt_of
        tokenized = self.texts.haystack(haystack, cells, make, chosen, visitor)
        methods = self.methods_of(cells, chosen)
        left = list(cells)
        with self._line.join(visitor, choice) as ticket:
            while left and not stop.is_set():  # again where others had another model loaded between two tests
                ticket.seconds = partial(self.time_for, left, chosen)
                loaded = yield from self._ready(ticket, choice, stop, lambda loaded: longest)
                if loaded is None:
                    return
                countdown = Countdown(self.speeds[choice], left)
                steps = partial(needle.steps, loaded.model, tokenized, left, methods, stop.is_set, make)
                del loaded  # nothing here may hold it while others have another one loaded
                going = self._in_turns(ticket, partial(told, steps, countdown), stop)
                del steps
                with enough_memory(longest), closing(going) as events:
                    for event in events:
                        yield event
                        if isinstance(event, Result):
                            left.remove(event.cell)
                            if ticket.blocks:
                                break
                del going, events
                ticket.bytes = 0
                ticket.give_back(rest=True)

    # On the way to the model

    def _ready(
        self, ticket: Ticket, choice: ModelChoice, stop: threading.Event, tokens: Callable[[Loaded], int]
    ) -> Generator[Update, None, Loaded | None]:
        """The model loaded, this machine's speed with it measured, and memory set aside; None if it was stopped.

        Parameters
        ----------
        ticket : Ticket
            Its `seconds` may say how long the work will take.
        choice : ModelChoice
        stop : threading.Event
        tokens : callable
            For how many tokens' keys and values memory is needed.

        Raises
        ------
        InputError
            If there is never memory enough, or the work would take longer than is allowed here.
        """
        while True:
            loaded = yield from self._loaded(ticket, choice, stop)
            if loaded is None:
                return None
            if choice not in self.speeds:
                if not (yield from self._turn(ticket, stop)):
                    return None
                yield Update("Measuring this machine's speed")
                with enough_memory(measured_tokens(loaded.model)):
                    timing = partial(_measured, loaded.model, stop)
                    speed = yield from self._computing.stream(timing, stop, ended=ticket.give_back)
                if speed is None:
                    return None
                self.speeds[choice] = speed
            self._check_time(ticket.seconds())
            if self._set_aside(ticket, loaded.model, tokens(loaded)):
                return loaded
            ticket.give_back(rest=True)
            yield Update("Waiting for memory that others' texts take")
            if stop.wait(_LOOK):
                return None

    def _loaded(
        self, ticket: Ticket, choice: ModelChoice, stop: threading.Event
    ) -> Generator[Update, None, Loaded | None]:
        """Wait for one's turn, and for the model; None if it was stopped."""
        if not (yield from self._turn(ticket, stop)):
            return None
        # Also where it is loaded: another load that somebody stopped may still be under way.
        load = partial(self.models.load, choice, stopped=stop.is_set)
        return (yield from self._computing.stream(telling(load), stop, GETTING_READY, ticket.give_back))

    def _turn(self, ticket: Ticket, stop: threading.Event, last: Update | None = None) -> Generator[Update, None, bool]:
        """Wait for a place; False, without one, if it was stopped while nothing of it lay in memory.

        Meanwhile what was last told of the run, if anything, stays in sight.
        """
        while not ticket.wait(_LOOK):
            if stop.is_set() and not ticket.begun:
                return False
            ahead = ticket.ahead
            if last:
                yield replace(last, waiting=len(ahead))
                continue
            seconds = [seconds for one in ahead if one.begun and (seconds := one.seconds()) is not None]
            other = any(one.kind != ticket.kind for one in ahead)  # which ends before this begins
            yield Update(
                f"Waiting for the model: {len(ahead)} before you", seconds_left=sum(seconds) if other else None
            )
        return True

    def _in_turns(
        self, ticket: Ticket, work: Callable[[Tell], Iterator[Any]], stop: threading.Event
    ) -> Generator[Any, None, None]:
        """The steps of some work in the model's thread, each in its visitor's turn; what they tell and give.

        Parameters
        ----------
        ticket : Ticket
        work : callable
            See `Computing.slices`.
        stop : threading.Event

        Raises
        ------
        InputError
            If it isn't done with the deployment's own model, has had long, and others wait for that one.
        """
        last: Update | None = None

        def turn() -> Generator[Update, None, bool]:
            if ticket.kind != self.settings.own and ticket.blocks and time.monotonic() - begun > _ALONE:
                raise InputError(
                    f"Others wait for {self.settings.own.name} in {self.settings.own.bits} bits, which answers here by "
                    f"default: this ran for more than {_ALONE / 60:.0f} minutes and was ended. Take a shorter text, or "
                    "try again when it is quieter."
                )
            return not (yield from self._turn(ticket, stop, last))

        begun = time.monotonic()
        with closing(self._computing.slices(work, stop, turn, ticket.give_back)) as events:
            for event in events:
                if isinstance(event, Update):
                    last = event
                    if event.run_left is not None:
                        ticket.seconds = partial(float, event.run_left)
                yield event

    @contextmanager
    def _reader(
        self, loaded: Loaded, visitor: Visitor | None, variant: Variant, plan: tuple[Any, ...]
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

    def _check_time(self, seconds: float | None) -> None:
        """Refuse what would take longer than is allowed here."""
        limit = self.settings.max_minutes
        if seconds is not None and seconds > limit * 60:
            raise InputError(
                f"This would take about {seconds / 60:,.0f} minutes here; the limit is {limit}. Nothing was run: take "
                "a shorter text, a shorter answer or fewer tests, or raise MAX_MINUTES where you run the app."
            )

    def _set_aside(self, ticket: Ticket, model: Any, tokens: int) -> bool:
        """Set memory aside for the keys and values of so many tokens; whether there is enough beside what others have.

        Raises
        ------
        InputError
            If there wouldn't be enough without the others either.
        """
        needed = bytes_for(model, tokens)
        if not needed:
            return True
        with self._setting_aside:
            others = self._line.bytes - ticket.bytes
            if free_bytes(model.device) < needed + others <= free_bytes(model.device) + self.documents.bytes:
                self.documents.shrink(0)  # what others have read can be read again
            free = free_bytes(model.device)
            enough = needed + others <= free
            ticket.bytes = needed if enough else 0
        if not enough and not others:
            raise InputError(
                f"{tokens:,} tokens take about {needed / 1e6:,.0f} MB of memory here, and {free / 1e6:,.0f} MB are "
                f"free: at most {free // bytes_for(model, 1):,} tokens fit now. Nothing was run: take a shorter text."
            )
        return enough


def _measured(model: Any, stop: threading.Event, tell: Tell) -> Speed | None:
    return measure(model, stop=stop.is_set)
