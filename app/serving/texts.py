"""What is done with visitors' texts before the model: counting and cutting, putting prompts together.

A long text takes long and much memory for it, so all of it is done in turn, a part at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any

from app.documents.cutting import Cut, cut
from app.documents.document import Part, text_of
from app.limits import MAX_CHARACTERS, too_long, whole_number
from app.serving.computing import Computing
from app.serving.models import Models
from app.serving.reports import GETTING_READY, Update, telling
from app.serving.requests import Chosen, Prompt, Request, check_question
from app.serving.visitors import Visitor
from app.serving.waiting_line import WaitingLine
from app.settings import Settings
from lampe.errors import InputError
from lampe.inference.prompt import around, encode_parts
from lampe.needle import Cell, Haystack, TokenizedHaystack


class Texts:
    """What needs a tokenizer, and no model.

    Parameters
    ----------
    settings : Settings
    models : Models
        For their tokenizers.
    desk : WaitingLine
        Where texts wait for each other.
    """

    def __init__(self, settings: Settings, models: Models, desk: WaitingLine) -> None:
        self.settings, self.models = settings, models
        self._desk = desk
        # Those that visitors name may be slow to come, and hold up no one who asks for the deployment's own; nor do
        # weights hold up what is small.
        self._fetching = {
            (offered, weights): Computing("fetching") for offered in (True, False) for weights in (True, False)
        }

    # The tokenizer

    def ready(self, chosen: Chosen | None = None) -> bool:
        """Whether the tokenizer can be had without waiting."""
        return self.models.choice(chosen).model_id in self.models.tokenizers

    def tokenizer(self, chosen: Chosen | None = None) -> Any:
        """The tokenizer, fetched at its first use.

        Raises
        ------
        InputError, lampe.LoadError
        """
        return self.models.tokenizer(self.models.choice(chosen))

    def fetched(self, chosen: Chosen | None = None, stop: threading.Event | None = None) -> Iterator[Update]:
        """Have the tokenizer at hand; tells how far that is, if it takes any time.

        Raises
        ------
        InputError, lampe.LoadError
        """
        if not self.ready(chosen):
            fetch = partial(self.models.tokenizer, self.models.choice(chosen))
            yield from self.fetching(chosen, telling(fetch), stop)

    def fetching(
        self,
        chosen: Chosen | None,
        work: Callable[..., Any],
        stop: threading.Event | None = None,
        weights: bool = False,
    ) -> Iterator[Update]:
        """Have something fetched beside all else; tells how far that is."""
        offered = self.models.choice(chosen).model_id in self.settings.offered
        yield from self._fetching[offered, weights].stream(work, stop or threading.Event(), GETTING_READY)

    # Prompts

    def prompt(
        self, request: Request, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Generator[Update, None, Prompt | None]:
        """The tokens of a request that may be run; None if it was stopped.

        Raises
        ------
        InputError
            If it can't be run, or exceeds the limit.
        lampe.LoadError
        """
        request.check()
        prompt = yield from self.counted(request, stop, visitor)
        limit = self.settings.max_input_tokens
        if prompt and prompt.length > limit:
            raise InputError(
                f"The text and question have {prompt.length:,} tokens; the limit here is {limit:,}. Nothing was cut or "
                f"run: read only a part of the text, shorten it by {prompt.length - limit:,} tokens, or raise "
                "MAX_INPUT_TOKENS where you run the app."
            )
        return prompt

    def counted(
        self, request: Request, stop: threading.Event | None = None, visitor: Visitor | None = None
    ) -> Generator[Update, None, Prompt | None]:
        """The same for one that need not be fit to run: of a text beyond the limit all is counted, and less kept.

        Raises
        ------
        InputError
            If it is longer than is counted here.
        lampe.LoadError
        """
        request.check_length()
        stop = stop or threading.Event()
        yield from self.fetched(request.chosen, stop)
        if stop.is_set():
            return None
        tokenizer, window = self.tokenizer(request.chosen), self.models.settled(request.chosen).window
        ids: list[int] = []
        count, kept = 0, max(self.settings.max_input_tokens, window) + 1
        with self._desk.join(visitor) as ticket:
            with ticket.turn():
                before, after = around(tokenizer, request.question, earlier=request.earlier)
            parts: Any = encode_parts(tokenizer, request.text.strip())
            while True:
                while not ticket.wait(0.5):
                    yield Update("Counting the tokens", count, unit="tokens")
                    if stop.is_set():
                        return None
                try:
                    part = next(parts, None)
                finally:
                    ticket.give_back(rest=True)
                if part is None:
                    break
                count += len(part)
                ids += part[: max(0, kept - len(ids))]
        framing = len(before) + len(after)
        # If it is cut, the text's end is left out, so that prompt and answer fit the window.
        held = min(count, max(0, window - framing - request.max_new_tokens)) if request.cut else count
        document = len(before), len(before) + held
        return Prompt([*before, *ids[:held], *after], framing + held, document, count - held)

    def counting(self, request: Request, visitor: Visitor | None = None) -> Iterator[Update | Prompt]:
        """What `counted` tells, then what it returns."""
        if prompt := (yield from self.counted(request, None, visitor)):
            yield prompt

    def cut(
        self, way: str, parts: Sequence[Part], question: str, most: float | None, first: float, last: float,
        chosen: Chosen | None = None, visitor: Visitor | None = None,
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
        if sum(len(part.text) for part in parts) > MAX_CHARACTERS:
            raise InputError(too_long(text_of(parts)))
        check_question(question)
        tokenizer = self.tokenizer(chosen)
        frame = sum(map(len, around(tokenizer, question)))
        ends = whole_number("The first number", first), whole_number("The last number", last)
        with self._desk.join(visitor) as ticket:

            def count(text: str) -> int:
                total, parts = frame, encode_parts(tokenizer, text.strip())
                while True:
                    with ticket.turn():
                        part = next(parts, None)
                    if part is None:
                        return total
                    total += len(part)

            return cut(way, parts, count, limit, *ends)

    def haystack(
        self, haystack: Haystack, cells: Sequence[Cell], make: Callable[..., Any], chosen: Chosen | None = None,
        visitor: Visitor | None = None,
    ) -> TokenizedHaystack:  # fmt: skip
        """A haystack as tokens, as many as the longest of some cells needs; each length is tried once.

        Raises
        ------
        NeedleError
            If a prompt can't be made.
        """
        with self._desk.join(visitor) as ticket:
            with ticket.turn():
                tokenized = TokenizedHaystack(haystack, self.tokenizer(chosen), max(cell.length for cell in cells))
            for cell in {cell.length: cell for cell in cells}.values():
                with ticket.turn():
                    make(tokenized, cell)  # what can't be made is refused before anything is run
        return tokenized
