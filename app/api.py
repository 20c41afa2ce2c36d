"""The public endpoints: what a program may ask of the page."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import gradio as gr
import msgspec

import lampe
from app.documents.document import Part
from app.limits import MAX_MAP_LENGTH, whole_number
from app.map.figures import curves
from app.map.settings import check
from app.needle.forms import checked_grid, given_haystack
from app.serving.evidence import passages
from app.serving.reports import Update
from app.serving.requests import Chosen, Request, Sampling
from app.serving.service import ModelService
from app.settings import ModelChoice
from app.ui.runs import Runs, visitor_of
from lampe.errors import InputError, LampeError
from lampe.methods import METHODS, LampeConfig
from lampe.methods.lampe import rescaled
from lampe.needle import HAYSTACKS

_MOST_PASSAGES = 50


def build_api(service: ModelService) -> None:
    """The endpoints, within the page's `Blocks`."""
    runs = Runs(service.presence)

    def model_of(model: str | None, bits: int | None) -> Chosen:
        own = service.settings.own
        names = {ModelChoice(one, own.bits).name: one for one in service.settings.offered}
        named = own.model_id if model is None else names.get(model, model)
        return Chosen(ModelChoice(named, own.bits if bits is None else whole_number("bits", bits)))

    def ask(
        text: str,
        question: str,
        method: str = "lampe",
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        earlier: list[list[str]] = [],  # noqa: B006
        passages_looked_at: int = 0,
        model: str | None = None,
        bits: int | None = None,
        cut: bool = False,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> tuple[str, dict]:
        """Answer a question about a text with the model patched by a method, or unpatched.

        What was read is kept for the same caller's next question on the same text.

        Args:
            text: the document
            question: what to ask about it
            method: one of the keys that the methods tool lists; "rope" is the model unpatched
            max_new_tokens: tokens of the answer at most, 1 to 512
            temperature: 0 is greedy, up to 2
            top_p: share of probability that is drawn from, above 0 to 1
            seed: what is drawn with it is drawn again with it
            earlier: the turns before, each a question and its answer
            passages_looked_at: how many of the passages that the answer looked at most are wanted, 0 to 50
            model: another model that is offered here, or null
            bits: 4 or 16, or null for this server's own
            cut: whether to read only the text's beginning, as much as the window holds

        Returns:
            What the model wrote, and the run's figures: input length, window, mapping length, regions with their keys
            and attention shares, seconds, tokens, and the passages if any were asked for.
        """
        visitor = visitor_of(request)
        with _said():
            if not isinstance(earlier, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in earlier):
                raise InputError("Each earlier turn is a question and its answer.")
            wanted = whole_number("passages_looked_at", passages_looked_at)
            if not 0 <= wanted <= _MOST_PASSAGES:
                raise InputError(f"passages_looked_at must be 0 to {_MOST_PASSAGES}, not {wanted}.")
            turns = tuple((str(asked), str(said)) for asked, said in earlier)
            sampling, chosen = Sampling(temperature, top_p, seed), model_of(model, bits)
            asked = Request(text, question, method, max_new_tokens, turns, sampling, chosen, cut, wanted > 0)
            with runs.started(request, beside=True) as stop:
                # To its end: leaving it would stop it.
                ended = deque(service.ask(asked, stop, visitor), maxlen=1)
                if not ended or not (report := ended[0].report):
                    raise InputError("The caller has left.")
                update, figures = ended[0], asdict(report)
                if update.evidence:
                    figures["passages"] = [asdict(one) for one in passages(update.evidence, most=wanted)]
        return update.answer, figures

    def document(path: str, request: gr.Request) -> dict:
        """The text of an uploaded document: TXT, Markdown, HTML, PDF, DOCX or EPUB.

        Args:
            path: the uploaded file

        Returns:
            Its name, its kind, its parts (pages or chapters: label and text), and notes on what was found odd.
        """
        with _said():
            (document,) = deque(service.files.read(path, visitor_of(request)), maxlen=1)
            return asdict(document)

    def cut(
        parts: list[str], question: str, keep: str = "beginning", most_tokens: int | None = None,
        first: int = 1, last: int | None = None, model: str | None = None, bits: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> dict:  # fmt: skip
        """Cut a text that is too long for the limit.

        Args:
            parts: the text, in one or more parts (pages or chapters)
            question: what will be asked about it
            keep: "beginning", "both ends", or "parts" for those from number first to last
            most_tokens: of text and question; null is this server's limit
            first: number of the first part that is kept, from 1
            last: number of the last one; null is the last of all
            model: another model that is offered here, whose tokens are counted, or null
            bits: 4 or 16, or null for this server's own

        Returns:
            The text that is left, its tokens with the question, and a sentence on what was left out.
        """
        with _said():
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts) or not parts:
                raise InputError("parts must be a list of texts.")
            if not isinstance(question, str):
                raise InputError("question must be a text.")
            named = [Part(f"Part {number}", text) for number, text in enumerate(parts, 1)]
            until, chosen = len(parts) if last is None else last, model_of(model, bits)
            made = service.texts.cut(keep, named, question, most_tokens, first, until, chosen, visitor_of(request))
        return {"text": made.text, "tokens": made.tokens, "left_out": made.sentence}

    def position_map(
        length: int, window: int = 8192, head: int = 512, tail: int = 200, mapping_length: int | None = None,
        planned: int | None = None,
    ) -> dict:  # fmt: skip
        """The LaMPE position map of an input length.

        Args:
            length: input length in tokens
            window: the model's window in tokens
            head: tokens whose distances stay exact, next to the query
            tail: tokens of the text's start whose distances stay exact among themselves
            mapping_length: in positions; null is the loaded model's own for its window, else Llama-3's curve rescaled
            planned: tokens that it is planned for, with room for an answer and further questions; null is the length

        Returns:
            The mapping length and what it rests on ("measured" on this model, on its "family", a published curve
            "rescaled", or "given"), the regions with their maps, and sampled points (relative distance, mapped
            position) for the last query.
        """
        with _said():
            given = {"length": length, "window": window, "head": head, "tail": tail}
            if mapping_length is not None:
                given["mapping_length"] = mapping_length
            if planned is not None:
                given["planned"] = planned
            for name, value in given.items():
                given[name] = whole_number(name, value)
                if given[name] > MAX_MAP_LENGTH:
                    raise InputError(f"{name} must be at most {MAX_MAP_LENGTH:,}, not {value:,}.")
            length, window, head, tail = (given[name] for name in ("length", "window", "head", "tail"))
            own = service.config()
            curve = own if window == own.window else rescaled(max(1, window))
            mapping: Any = given.get("mapping_length", curve.mapping)
            config = LampeConfig(window, head, tail, mapping)
            whole = given.get("planned", length)
            position_map = lampe.position_map(config, whole, length)
            check(config, whole, chosen=mapping_length is not None)
        return {
            **msgspec.to_builtins(position_map),
            "basis": "given" if mapping_length is not None else curve.basis,
            "key_counts": position_map.key_counts(length - 1),
            "points": [msgspec.to_builtins(curve) for curve in curves(position_map)],
        }

    def needle(
        length: int,
        depth: float = 0.5,
        seed: int = 0,
        task: str = "single",
        method: str = "lampe",
        haystack: str | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> dict:
        """Hide a fact in a long text, ask for it, and score the answer.

        Args:
            length: tokens of the whole prompt
            depth: where the fact goes, 0 (start) to 1 (end)
            seed: of what is hidden
            task: single, numbers, uuid, multi-key, multi-value, multi-query or passkey
            method: one of the keys that the methods tool lists
            haystack: a text to hide it in, or null for Python's language reference

        Returns:
            The test's figures: the expected values, the answer, the score from 0 to 1, the needle's place, distance,
            mapped position and region, the attention that fell on it, and seconds.
        """
        with _said():
            for row in needle_grid([length], [depth], 1, seed, task, [method], haystack, request):
                return row
            raise InputError("The caller has left.")

    def needle_grid(
        lengths: list[int],
        depths: list[float],
        trials: int = 1,
        seed: int = 0,
        task: str = "single",
        methods: list[str] = ["rope", "lampe"],  # noqa: B006
        haystack: str | None = None,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> Iterator[dict]:
        """Run a grid of needle tests and stream a row for each: compares methods on the same hidden facts.

        Args:
            lengths: tokens of whole prompts
            depths: where the fact goes, 0 (start) to 1 (end)
            trials: facts for each length and depth
            seed: of what is hidden
            task: as for needle
            methods: keys that the methods tool lists
            haystack: as for needle

        Returns:
            Rows as needle gives them.
        """
        with _said():
            cells = checked_grid(task, lengths, depths, methods, trials, seed)
            text = HAYSTACKS["reference"]() if haystack is None else given_haystack(haystack)
            with runs.started(request, beside=True) as stop:
                for event in service.needles(text, cells, stop=stop, visitor=visitor_of(request)):
                    if not isinstance(event, Update):
                        yield asdict(event)

    def methods() -> list[dict]:
        """The methods that can be compared, with their settings for this server's model.

        Returns:
            For each its key, title, source, settings, and reach in tokens. A setting that is null is chosen for each
            input length; a reach that is null has no end.
        """
        with _said():
            found = [service.method(key) for key in METHODS]
        return [
            {"key": m.key, "title": m.title, "source": m.source, "settings": m.settings(), "reach": m.reach}
            for m in found
        ]

    # A file comes through a component: gradio checks that it is one that was uploaded.
    file, found = gr.File(visible=False, type="filepath"), gr.JSON(visible=False)
    file.upload(document, file, found, api_name="document", show_progress="hidden")
    gr.api(ask, api_name="ask")
    gr.api(cut, api_name="cut")
    gr.api(position_map, api_name="position_map", queue=False)
    gr.api(methods, api_name="methods")
    gr.api(needle, api_name="needle")
    gr.api(needle_grid, api_name="needle_grid")


@contextmanager
def _said() -> Iterator[None]:
    """What can't be done is a sentence for the caller: no failure of the server's, and not logged."""
    try:
        yield
    except LampeError as error:
        raise gr.Error(str(error), print_exception=False) from error
