"""The tab "Ask a document": a text, questions on it, answers side by side, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from app.ask import views as ask_views
from app.ask.examples import EXAMPLES, Example
from app.documents.cutting import WAYS
from app.documents.document import Document, Part, text_of
from app.documents.kinds import EXTENSIONS
from app.documents.reading import read_document
from app.errors import AskError
from app.limits import MAX_CHARACTERS, too_long, whole_number
from app.map.figures import Frame, distance_figure, regions_figure
from app.map.settings import MAX_MAP_LENGTH, MapView
from app.serving.document_cache import LAMPE
from app.serving.evidence import Evidence, passages
from app.serving.reports import Attention, Needs, RunReport
from app.serving.requests import MAX_NEW_TOKENS, Chosen, Request, Sampling, Variant, planned_length
from app.serving.service import ModelService
from app.ui import html as views
from app.ui.downloads import QUIET
from app.ui.figure import as_plot
from app.ui.runs import Runs, measuring
from lampe.errors import LampeError
from lampe.inference.prompt import build_prompt
from lampe.methods import METHODS

BESIDE = [(method.title, key) for key, method in METHODS.items() if key != LAMPE.method]
MOST_BESIDE = 4
CUT = Variant("rope", cut=True)
SHOWN_WITHOUT_TEXT = MapView().length
_CHARACTERS_PER_TOKEN = 4.3  # English prose; only until the tokenizer is there
CUTS = dict(zip(("Its beginning", "Its beginning and its end", "Pages or chapters"), WAYS, strict=True))
LAYERS = ("All layers", "First third", "Middle third", "Last third")


@dataclass(frozen=True)
class Conversation:
    """What was said about one text.

    Parameters
    ----------
    text : str
    chosen : Chosen
        What answered.
    turns : dict of Variant to tuple of (question, answer)
        As each method had them; one that was left out of a turn, or stopped in it, has fewer.
    """

    text: str
    chosen: Chosen
    turns: dict[Variant, tuple[tuple[str, str], ...]]

    def all_along(self, way: Variant) -> bool:
        """Whether a method has answered every turn that LaMPE has."""
        return len(self.turns.get(way, ())) == len(self.turns.get(LAMPE, ()))


@dataclass(frozen=True)
class Opened:
    """A document as it was opened or cut, to tell whether the text box still holds it.

    Parameters
    ----------
    parts : tuple of Part
    whole : tuple of Part
        Those it had before it was cut; none where it wasn't.
    """

    parts: tuple[Part, ...]
    whole: tuple[Part, ...] = ()


def held(text: str, opened: Opened | None) -> Opened:
    """What was opened or cut, if the text box still holds it; else the text as one part."""
    return opened if opened and text_of(opened.parts) == text else Opened((Part("the text", text),))


def edited(text: str, opened: Opened | None) -> bool:
    """Whether a text is one that was cut, with no more than half of it changed at one place."""
    if opened is None or not opened.whole:
        return False
    was = text_of(opened.parts)
    return _same(was, text) + _same(was[::-1], text[::-1]) >= len(was) / 2


def _same(one: str, other: str) -> int:
    """How many characters both begin with."""
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def marked(document: Document) -> tuple[Part, ...]:
    """A document's parts as they are put into the text box: a PDF's pages begin with their numbers.

    Chapters begin with their headings anyway.
    """
    if document.kind != "pdf":
        return document.parts
    return tuple(Part(part.label, f"[{part.label}]\n{part.text}") for part in document.parts)


def build_ask_tab(
    service: ModelService, demo: gr.Blocks, chosen: gr.State, tokens: gr.State, attention: gr.State, visitors: int
) -> gr.Textbox:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    demo : gr.Blocks
        The page.
    chosen : gr.State of Chosen
        What this visitor runs.
    tokens : gr.State of int
        Set to the length that a prompt is mapped for: the map follows it.
    attention : gr.State of Attention or None
        Set to where the last answer's attention went.
    visitors : int
        How many may wait in the service's line at once, where they see their place.

    Returns
    -------
    gr.Textbox
        The document.
    """

    runs = Runs(demo)

    # Layout

    opened, conversation, found = gr.State(None), gr.State(None), gr.State(None)
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=5, min_width=320):
            with gr.Row(elem_classes="examples"):
                buttons = [gr.Button(example.label, size="sm") for example in EXAMPLES]
                file = gr.UploadButton("Open a file", size="sm", file_types=list(EXTENSIONS), type="filepath")
            text = gr.Textbox(
                label="Document",
                placeholder="Paste a long text here, take an example, or open a PDF, Word, EPUB, HTML or text file.",
                lines=14,
                max_lines=14,
                elem_id="document",
            )
            about = gr.HTML(elem_id="about-document")
            left_out = gr.HTML(elem_id="left-out")
            with gr.Accordion("Read only a part of it", open=False, elem_id="cut"):
                way = gr.Radio(list(CUTS.items()), value=WAYS[0], label="Keep", elem_id="cut-way")
                with gr.Row(visible=False) as pages:
                    first = gr.Number(1, label="From number", min_width=100, elem_id="cut-first")
                    last = gr.Number(1, label="to number", min_width=100, elem_id="cut-last")
                most = gr.Number(service.settings.max_input_tokens, label="At most (tokens)", elem_id="cut-most")
                with gr.Row(elem_classes="points"):
                    cut_it = gr.Button("Cut it", size="sm", elem_id="cut-it")
                    uncut = gr.Button("Whole text again", size="sm", visible=False, elem_id="uncut")
            question = gr.Textbox(
                label="Question", placeholder="What do you want to know about it?", elem_id="question"
            )
            with gr.Row(elem_classes="actions"):
                go = gr.Button("Ask", variant="primary", elem_id="ask-button")
                on = gr.Button("Follow up", interactive=False, elem_id="follow-button")
                halt = gr.Button("Stop", variant="stop", elem_id="stop-button")
            beside = gr.Dropdown(
                BESIDE,
                value=["rope"],
                multiselect=True,
                max_choices=MOST_BESIDE,
                label=f"Beside LaMPE, on the same prompt (up to {MOST_BESIDE})",
                elem_id="beside",
            )
            cut_too = gr.Checkbox(False, label="And plain RoPE on what fits its window", elem_id="beside-cut")
            with gr.Accordion("Options", open=False):
                budget = gr.Slider(1, MAX_NEW_TOKENS, 48, step=1, label="Longest answer (tokens)", elem_id="budget")
                temperature = gr.Slider(
                    0, 2, 0, step=0.05, label="Temperature (0: always the likeliest token)", elem_id="temperature"
                )
                top_p = gr.Slider(0.05, 1, 1, step=0.05, label="Top-p", elem_id="top-p")
                seed = gr.Number(0, label="Seed", elem_id="seed")
        with gr.Column(scale=4, min_width=320):
            length = gr.HTML(elem_id="length")
            plot = gr.Plot(show_label=False, label="Position map of this text", elem_id="plot-text")
            plane = gr.Plot(show_label=False, label="Attention regions of this text")
            sentence = gr.HTML(elem_id="sentence")
            timing = gr.Button("How long will it take here?", size="sm", elem_id="ask-time")
    status = gr.HTML("", elem_id="status")
    answers_shown = gr.HTML(elem_id="answers")
    report = gr.HTML("", elem_id="report")
    with gr.Column(visible=False) as looked:
        with gr.Row(elem_classes="points"):
            look = gr.Button("Which passages did LaMPE's answer look at?", size="sm", elem_id="look")
        layers = gr.Radio(list(LAYERS), value=LAYERS[0], label="Attention of", visible=False, elem_id="look-layers")
        evidence = gr.HTML(elem_id="evidence")

    # Handlers

    def count(
        text: str, question: str, budget: float, chosen: Chosen, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Readout, sentence, figures, and both lengths of the text's plan; fetches the tokenizer at its first use."""
        try:
            if not text.strip():
                _, *drawn, _ = show_length(chosen, SHOWN_WITHOUT_TEXT, 0, True)
                yield views.no_text(SHOWN_WITHOUT_TEXT), *drawn, None
                return
            if len(text) + len(question) > MAX_CHARACTERS:
                raise AskError(too_long(text + question))
            if not service.tokenizer_ready(chosen):
                estimate = show_length(chosen, max(1, round(len(text) / _CHARACTERS_PER_TOKEN)), budget, False)
                yield estimate
                for update in service.fetch_tokenizer(chosen):
                    yield estimate[0] + views.status(update), *[gr.skip()] * 4
            ids = build_prompt(service.tokenizer(chosen), text, question)
            needs = service.needs(ids, int(budget), chosen, request.session_hash)
            yield show_length(chosen, len(ids), budget, True, needs)
        except LampeError as error:
            yield views.message(str(error)), "", *[gr.skip()] * 3

    def show_length(
        chosen: Chosen, tokens: int, budget: float, exact: bool, needs: Needs | None = None
    ) -> tuple[Any, ...]:
        config = service.config(chosen)
        planned = min(planned_length(tokens, int(budget), config), MAX_MAP_LENGTH) if budget else tokens
        position_map = config.position_map(planned, min(tokens, planned))
        return (
            views.length_readout(tokens, exact, config.window, service.settings.max_input_tokens)
            + ask_views.document_strip(position_map)
            + ask_views.needed(needs),
            views.map_sentence(position_map, config),
            as_plot(distance_figure(position_map, config.window), "lampe-distance"),
            as_plot(regions_figure(position_map, Frame.whole(position_map)), "lampe-regions"),
            (position_map.end, planned),
        )

    def open_file(path: str) -> Iterator[list[Any]]:
        yield [*[gr.skip()] * 3, views.note("Reading the file…"), *[gr.skip()] * 4]
        try:
            document = read_document(path)
            parts = marked(document)
            told = ask_views.about(document)
            yield [text_of(parts), Opened(parts), told, "", 1, len(parts), "", gr.Button(visible=False)]
        except AskError as error:
            yield [*[gr.skip()] * 3, views.message(str(error)), *[gr.skip()] * 4]

    def cut_text(
        text: str, question: str, opened: Opened | None, way: str, first: float, last: float, most: float,
        chosen: Chosen,
    ) -> list[Any]:  # fmt: skip
        """Leave out a part of the whole text, also where one was left out before; it is told, and can be had again."""
        try:
            if not text.strip():
                raise AskError("There is no text to cut.")
            before = held(text, opened)
            whole = before.whole or before.parts
            made = service.cut(way, whole, question, most, first, last, chosen)
            kept = Opened((Part("the text", made.text),), whole) if made.left_out else Opened(whole)
            return [
                text_of(kept.parts),
                kept,
                views.note(made.sentence),
                "",
                gr.Button(visible=bool(made.left_out)),
            ]
        except LampeError as error:
            return [gr.skip(), gr.skip(), gr.skip(), views.message(str(error)), gr.skip()]

    def take_back(opened: Opened | None) -> list[Any]:
        if opened is None or not opened.whole:
            return [gr.skip()] * 4
        return [text_of(opened.whole), Opened(opened.whole), "", gr.Button(visible=False)]

    def new_text(text: str, opened: Opened | None) -> list[Any]:
        """What was said about one text is no conversation about another, and its pages aren't the other's."""
        over = [None, gr.Button(interactive=False)]
        # A change from before a cut may come after it, with the whole text.
        if opened and (held(text, opened) is opened or (opened.whole and text == text_of(opened.whole))):
            return [*over, *[gr.skip()] * 3, gr.Button(visible=bool(opened.whole))]
        if edited(text, opened):  # what was left out of it still is; the whole text would take the edits away
            return [*over, gr.skip(), "", gr.skip(), gr.Button(visible=False)]
        return [*over, None, "", "", gr.Button(visible=False)]

    def answer(
        following: bool, text: str, question: str, beside: list[str], cut_too: bool, budget: float, temperature: float,
        top_p: float, seed: float, conversation: Conversation | None, chosen: Chosen, request: gr.Request,
    ) -> Iterator[list[Any]]:  # fmt: skip
        """Run LaMPE, then what is to stand beside it: status, answers, figures, and where the attention went."""
        ways = [LAMPE, *map(Variant, beside or []), *[CUT] * bool(cut_too)]
        earlier = conversation.turns if following and conversation else {}
        answers: dict[Variant, str] = {}
        notes: dict[Variant, str] = {}
        reports: list[RunReport] = []
        measured: Attention | None = None

        def shown(words: str) -> list[Any]:
            threads = [
                ask_views.thread(way, earlier.get(way, ()), question, answers.get(way, ""), notes.get(way, ""))
                for way in ways
            ]
            held = views.side_by_side(threads if answers or reports else [])
            return [words, held, views.run_report(reports), *[gr.skip()] * 6]

        def ended(words: str) -> list[Any]:
            said = earlier | {
                report.variant: (*earlier.get(report.variant, ()), (question, answers[report.variant]))
                for report in reports
                if not report.stopped
            }
            *before, _, _, _, _, _, _ = shown(words)
            over = bool(said.get(LAMPE))
            return [
                *before, Conversation(text, chosen, said), gr.Button(interactive=over), measured or gr.skip(),
                gr.Column(visible=bool(measured)), "", gr.Radio(visible=False),
            ]  # fmt: skip

        try:
            sampling = Sampling(temperature, top_p, whole_number("The seed", seed))
            longest = whole_number("The answer's length", budget)
            if len(ways) > len(set(ways)) or len(beside or []) > MOST_BESIDE:
                raise AskError(f"Choose up to {MOST_BESIDE} different methods beside LaMPE.")
            behind: list[Variant] = []
            if following:
                if not conversation or (conversation.text, conversation.chosen) != (text, chosen):
                    raise AskError("The conversation was about another text or with another model: ask anew.")
                behind = [way for way in ways if not conversation.all_along(way)]
                ways = [way for way in ways if way not in behind]
            with runs.started(request) as stop:
                for way in ways:
                    turns = earlier.get(way, ())
                    asked = Request(text, question, way.method, longest, turns, sampling, chosen, way.cut)
                    answers[way] = ""
                    for update in service.ask(asked, stop, request.session_hash):
                        answers[way], notes[way] = update.answer, update.note or notes.get(way, "")
                        stage = f"{way.title}: {update.stage}"
                        if update.report:
                            reports.append(update.report)
                            if way == LAMPE:
                                measured = update.attention or measured
                            yield shown(views.note(f"{stage}."))
                        else:
                            yield shown(views.status(replace(update, stage=stage)))
            yield ended(views.note("Stopped." if stop.is_set() else ask_views.done(reports, bool(following), behind)))
        except LampeError as error:
            yield ended(views.message(str(error))) if reports else [
                views.message(str(error)), *[gr.skip()] * (len(answered_in) - 1)
            ]  # fmt: skip

    def look_back(attention: Attention | None, request: gr.Request) -> Iterator[list[Any]]:
        """Which passages the last answer looked at: its tokens are run once more."""
        try:
            if attention is None:
                raise AskError("There is no answer yet: ask first.")
            with runs.started(request) as stop:
                for event in service.evidence(attention, stop, request.session_hash):
                    if isinstance(event, Evidence):
                        choice = gr.Radio(visible=True, value=LAYERS[0])
                        yield [views.note("Done."), event, show_evidence(event, LAYERS[0]), choice]
                    else:
                        yield [views.status(event), *[gr.skip()] * 3]
            if stop.is_set():
                yield [views.note("Stopped."), *[gr.skip()] * 3]
        except LampeError as error:
            yield [views.message(str(error)), *[gr.skip()] * 3]

    def show_evidence(evidence: Evidence | None, which: str) -> Any:
        if evidence is None:
            return gr.skip()
        third = LAYERS.index(which) - 1
        count = len(evidence.layers)
        some = evidence.layers if third < 0 else evidence.layers[count * third // 3 : count * (third + 1) // 3]
        return ask_views.evidence(evidence, some, passages(evidence, some))

    # Events

    counted: dict[str, Any] = {"fn": count, "inputs": [text, question, budget, chosen], **QUIET}
    counted |= {"trigger_mode": "always_last", "outputs": [length, sentence, plot, plane, tokens]}
    # The page paints first: another model's config may have to be fetched.
    gr.on([demo.load, text.change, question.change, budget.change, chosen.change], **counted, concurrency_limit=4)
    said_of = [conversation, on, opened, about, left_out, uncut]
    another: dict[str, Any] = {"queue": False, "trigger_mode": "always_last", **QUIET}
    gr.on([text.change, chosen.change], new_text, [text, opened], said_of, **another)
    for button, example in zip(buttons, EXAMPLES, strict=True):
        button.click(_filled(example), None, [text, question], queue=False, **QUIET)
    file.upload(open_file, file, [text, opened, about, status, first, last, left_out, uncut], **QUIET)
    way.change(lambda way: gr.Row(visible=way == "parts"), way, pages, queue=False, **QUIET)
    asked_to_cut = [text, question, opened, way, first, last, most, chosen]
    cut_it.click(cut_text, asked_to_cut, [text, opened, left_out, status, uncut], **QUIET)
    uncut.click(take_back, opened, [text, opened, left_out, uncut], queue=False, **QUIET)
    answered_in = [status, answers_shown, report, conversation, on, attention, looked, evidence, layers]
    anew, further = gr.State(False), gr.State(True)
    given = [text, question, beside, cut_too, budget, temperature, top_p, seed, conversation, chosen]
    running: dict[str, Any] = {"concurrency_limit": visitors, **QUIET}
    gr.on([go.click, question.submit], answer, [anew, *given], answered_in, **running).then(**counted)
    on.click(answer, [further, *given], answered_in, **running).then(**counted)
    halt.click(runs.stop, queue=False, **QUIET)
    look.click(look_back, attention, [status, found, evidence, layers], **running)
    layers.input(show_evidence, [found, layers], evidence, queue=False, **QUIET)
    timing.click(measuring(service, runs), chosen, status, **running).then(**counted)
    return text


def _filled(example: Example) -> Any:
    return lambda: (example.text, example.question)
