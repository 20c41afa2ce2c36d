"""The tab "Ask a document": a text, questions on it, answers side by side, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gradio as gr

from app.ask import views
from app.ask.conversation import MOST_BESIDE, Conversation, Opened, Turn
from app.ask.examples import EXAMPLES, Example, recorded_answers
from app.ask.saving import report
from app.documents.cutting import WAYS
from app.documents.document import Part, text_of
from app.documents.kinds import EXTENSIONS
from app.limits import MAX_MAP_LENGTH, whole_number
from app.map.figures import Frame, distance_figure, regions_figure
from app.map.settings import MapSettings
from app.map.views import map_sentence
from app.serving.document_cache import LAMPE
from app.serving.evidence import Evidence, passages
from app.serving.reports import Attention, Needs, RunReport, Update
from app.serving.requests import MAX_NEW_TOKENS, Chosen, Request, Sampling, planned_length
from app.serving.service import ModelService
from app.ui.downloads import saves
from app.ui.events import AT_ONCE, INTERNAL, Shown
from app.ui.figure import as_plot
from app.ui.html import message, note, side_by_side, status
from app.ui.runs import Runs, measuring, visitor_of
from app.ui.state import PageState
from app.ui.words import word
from lampe.errors import InputError, LampeError
from lampe.methods import METHODS

BESIDE = [(method.title, key) for key, method in METHODS.items() if key != LAMPE.method]
SHOWN_WITHOUT_TEXT = MapSettings().length
_CHARACTERS_PER_TOKEN = 4.3  # English prose; only until the tokenizer is there
CUTS = list(zip(("Its beginning", "Its beginning and its end", "Pages or chapters"), WAYS, strict=True))
LEFT = " To edit the text, take the whole of it again."
_TO_THE_ANSWER = """() => document.querySelector("#asked").scrollIntoView({
  block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth"})"""
"""What comes is in sight: on a phone it is below the question."""
_OVER = """(text, label) => {
  const [update, of] = [{__type__: "update"}, JSON.stringify([text, label])];
  if (globalThis.lampeAsked === of) return [update, update, update];
  globalThis.lampeAsked = of;
  return [{...update, interactive: false}, {...update, visible: false}, {...update, visible: !text.trim()}];
}"""
"""What was said about one text, or with one model, is no conversation about another, and what was recorded stands where
there is no text. The browser does it: the server's word might come after the answer to a question that was asked
meanwhile. It is told first, for gradio tells one after the other, and waits for what each does; and of what it tells
again later, as it does where something else was put off, nothing has changed."""
_KEEP = """(keep, text, question) => {
  try {
    if (keep) localStorage.setItem("lampe-draft", JSON.stringify([text, question]));
    else localStorage.removeItem("lampe-draft");
  } catch { /* no room, or not allowed: then it isn't kept */ }
}"""
RESTORE = """() => {
  try {
    const [text, question] = JSON.parse(localStorage.getItem("lampe-draft"));
    return [true, text, question];
  } catch { return [0, 0, 0].map(() => ({__type__: "update"})); }
}"""
"""What was kept, in the browser alone; nothing if nothing was."""
LAYERS = ("All layers", "First third", "Middle third", "Last third")


class AskTab:
    """The tab's components and events, within the page's `Blocks`.

    Parameters
    ----------
    service : ModelService
    state : PageState
        Its `lengths` and `attention` are set.

    Attributes
    ----------
    text : gr.Textbox
        The document.
    draft : list of components
        What a browser keeps for its visitor, if they say so: `RESTORE` brings it back.
    """

    def __init__(self, service: ModelService, state: PageState) -> None:
        self.service, self.state, self.runs = service, state, Runs(service.presence)
        # A GPU that is lent has read nothing when the answer is there, and its time, which is the visitor's, is told.
        self.lent = service.settings.borrowed
        self.opened, self.conversation, self.found = gr.State(None), gr.State(None), gr.State(None)
        self.ran = gr.State(())  # the last turn's figures
        with gr.Row(elem_classes="columns"):
            with gr.Column(scale=5, min_width=320):
                self._lay_out_document()
                self._lay_out_question()
                self._lay_out_answers()
            with gr.Column(scale=4, min_width=320):
                self.length = gr.HTML(elem_id="length")
                self.plot = gr.Plot(show_label=False, label="Position map of this text", elem_id="plot-text")
                self.plane = gr.Plot(show_label=False, label="Attention regions of this text")
                self.sentence = gr.HTML(elem_id="sentence")
                self.timing = gr.Button(word("time"), size="sm", visible=not self.lent, elem_id="ask-time")
        self.draft: list[Any] = [self.keep, self.text, self.question]
        self._wire_document()
        self._wire_questions()

    # Layout

    def _lay_out_document(self) -> None:
        with gr.Row(elem_classes="examples"):
            self.examples = [
                gr.Button(word(example.word), size="sm", elem_id=f"example-{number}")
                for number, example in enumerate(EXAMPLES)
            ]
            self.file = gr.UploadButton(str(word("open_file")), size="sm", file_types=list(EXTENSIONS), type="filepath")
        # Empty, not nothing: the page's events read it also while another view is open.
        self.text = gr.Textbox(
            "", label=word("document"), placeholder=word("document_hint"), lines=7, max_lines=7, elem_id="document"
        )
        self.about = gr.HTML(elem_id="about-document")
        self.left_out = gr.HTML(elem_id="left-out")
        with gr.Accordion(word("cut"), open=False, elem_id="cut"):
            self.way = gr.Radio(CUTS, value=WAYS[0], label=word("cut_way"), elem_id="cut-way")
            with gr.Row(visible=False) as self.pages:
                self.first = gr.Number(1, label=word("cut_first"), min_width=100, elem_id="cut-first")
                self.last = gr.Number(1, label=word("cut_last"), min_width=100, elem_id="cut-last")
            limit = self.service.settings.max_input_tokens
            self.most = gr.Number(limit, label=word("cut_most"), elem_id="cut-most")
            with gr.Row(elem_classes="points"):
                self.cut_it = gr.Button(word("cut_it"), size="sm", elem_id="cut-it")
                self.uncut = gr.Button(word("uncut"), size="sm", visible=False, elem_id="uncut")

    def _lay_out_question(self) -> None:
        self.question = gr.Textbox("", label=word("question"), placeholder=word("question_hint"), elem_id="question")
        self.beside = gr.Dropdown(
            BESIDE, value=[] if self.lent else ["rope"], multiselect=True, max_choices=MOST_BESIDE,
            label=word("beside"), elem_id="beside",
        )  # fmt: skip
        with gr.Row(elem_classes="actions"):
            self.go = gr.Button(word("ask"), variant="primary", elem_id="ask-button")
            self.on = gr.Button(word("follow"), interactive=False, elem_id="follow-button")
            self.halt = gr.Button(word("stop"), variant="stop", elem_id="stop-button")
        with gr.Accordion(word("options"), open=False):
            self.cut_too = gr.Checkbox(False, label=word("beside_cut"), elem_id="beside-cut")
            self.budget = gr.Slider(1, MAX_NEW_TOKENS, 48, step=1, label=word("budget"), elem_id="budget")
            self.temperature = gr.Slider(0, 2, 0, step=0.05, label=word("temperature"), elem_id="temperature")
            self.top_p = gr.Slider(0.05, 1, 1, step=0.05, label=word("top_p"), elem_id="top-p")
            self.seed = gr.Number(0, label=word("seed"), elem_id="seed")
            self.at_once = gr.Checkbox(False, label=word("look"), visible=self.lent, elem_id="look-at-once")
            self.keep = gr.Checkbox(False, label=word("keep"), elem_id="keep-draft")

    def _lay_out_answers(self) -> None:
        with gr.Column(elem_id="asked"):
            self.status = gr.HTML("", elem_id="status")
            self.answers = gr.HTML(elem_id="answers")
            with gr.Column(elem_id="recorded") as self.recorded:
                gr.HTML(views.recorded(recorded_answers(), EXAMPLES[-1]))
                self.live = gr.Button(word("live"), size="sm", visible=not self.lent, elem_id="run-live")
        self.report = gr.HTML("", elem_id="report")
        with gr.Column(visible=False) as self.kept:
            with gr.Row(elem_classes="points"):
                self.save = gr.Button(word("report"), size="sm", elem_id="save-report")
                self.with_text = gr.Checkbox(False, label=word("with_text"), elem_id="save-text")
            self.saved = gr.DownloadButton(visible="hidden", elem_id="report-file")
        with gr.Column(visible=False) as self.looked:
            with gr.Row(elem_classes="points"):
                self.look = gr.Button(word("look"), size="sm", visible=not self.lent, elem_id="look")
            layers = list(LAYERS)
            self.layers = gr.Radio(layers, value=layers[0], label=word("layers"), visible=False, elem_id="look-layers")
            self.evidence = gr.HTML(elem_id="evidence")

    # Events

    def _wire_document(self) -> None:
        written = [self.text.change, self.state.chosen.change]  # each time, for `count` has the text's `LATEST`
        shown = [self.on, self.kept, self.recorded]
        of = [self.text, self.state.label]
        gr.on(written, None, of, shown, js=_OVER, trigger_mode="multiple", **AT_ONCE)
        counted = self._counted()
        # The page paints first: another model's config may have to be fetched.
        changed = [self.state.loaded.change, *(part.change for part in counted[1])]
        gr.on(changed, *counted, trigger_mode="always_last", **INTERNAL)
        gone = [self.opened, self.about, self.left_out, self.uncut]
        gr.on(written, self.new_text, [self.text, self.opened], gone, trigger_mode="multiple", **AT_ONCE)
        for button, example in zip(self.examples, EXAMPLES, strict=True):
            button.click(self.take(example), None, [self.text, self.question], **AT_ONCE)
        document = [self.text, self.opened, self.about, self.left_out, self.uncut, self.status]
        self.file.upload(self.open_file, self.file, [*document, self.first, self.last], **INTERNAL)
        self.way.change(lambda way: gr.Row(visible=way == "parts"), self.way, self.pages, **AT_ONCE)
        cut = [self.text, self.question, self.opened, self.way, self.first, self.last, self.most, self.state.chosen]
        self.cut_it.click(self.cut_text, cut, document, **INTERNAL)
        self.uncut.click(self.take_back, self.opened, document, **AT_ONCE)

    def _wire_questions(self) -> None:
        counted = self._counted()
        given = [
            self.text, self.question, self.beside, self.cut_too, self.at_once, self.budget, self.temperature,
            self.top_p, self.seed, self.conversation, self.state.chosen, self.state.label,
        ]  # fmt: skip
        answered = [
            self.status, self.answers, self.report, self.conversation, self.on, self.state.attention, self.looked,
            self.found, self.evidence, self.layers, self.ran, self.kept,
        ]  # fmt: skip
        for asks in (self.go.click, self.on.click, self.question.submit, self.live.click):
            asks(None, js=_TO_THE_ANSWER, **AT_ONCE)
        filled = self.live.click(self.take(EXAMPLES[-1]), None, [self.text, self.question], **AT_ONCE)
        asked = partial(gr.on, [self.go.click, self.question.submit])
        for asks, following in ((asked, False), (filled.then, False), (self.on.click, True)):
            asks(self.answer, [gr.State(following), *given], answered, **INTERNAL).then(*counted, **INTERNAL)
        self.halt.click(self.runs.stop, **AT_ONCE)
        for part in self.draft:
            part.change(None, self.draft, None, js=_KEEP, trigger_mode="multiple", **AT_ONCE)
        looking = [self.status, self.found, self.evidence, self.layers]
        self.look.click(self.look_back, self.state.attention, looking, **INTERNAL)
        self.layers.input(self.show_evidence, [self.found, self.layers], self.evidence, **AT_ONCE)
        kept = [self.conversation, self.ran, self.with_text]
        saves(self.save, kept, self.in_file, self.saved, self.status, self.service.desk)
        measure = measuring(self.service.measured, self.runs)
        self.timing.click(measure, self.state.chosen, self.status, **INTERNAL).then(*counted, **INTERNAL)

    def _counted(self) -> tuple[Any, list[Any], list[Any]]:
        """What counts a text's tokens, what it needs, and what it shows."""
        given = [self.text, self.question, self.budget, self.at_once, self.state.chosen]
        return self.count, given, [self.length, self.sentence, self.plot, self.plane, self.state.lengths]

    # The document

    def take(self, example: Example) -> Callable[[], Shown]:
        """A button's example: its text and its question."""
        return lambda: {self.text: gr.Textbox(example.text, interactive=True), self.question: example.question}

    def count(
        self, text: str, question: str, budget: float, look: bool, chosen: Chosen, request: gr.Request
    ) -> Iterator[Shown]:
        """Readout, sentence, figures, and both lengths of the text's plan; fetches the tokenizer at its first use."""
        try:
            if not text.strip():
                drawn = self._show_length(chosen, SHOWN_WITHOUT_TEXT, 0, True)
                yield drawn | {self.length: views.no_text(SHOWN_WITHOUT_TEXT), self.state.lengths: None}
                return
            asked, visitor = Request(text, question, chosen=chosen), visitor_of(request)
            asked.check_length()
            estimate: Shown = {}
            if not self.service.texts.ready(chosen):
                about = max(1, round(len(text) / _CHARACTERS_PER_TOKEN))
                estimate = self._show_length(chosen, about, budget, False)
                yield estimate
            for event in self.service.texts.counting(asked, visitor):
                if isinstance(event, Update):
                    yield {self.length: estimate.get(self.length, "") + status(event)}
                    continue
                fits = event.length <= self.service.settings.max_input_tokens
                needs = self.service.needs(event, int(budget), chosen, visitor, bool(look)) if fits else None
                yield self._show_length(chosen, event.length, budget, True, needs)
        except LampeError as error:
            yield {self.length: message(str(error)), self.sentence: ""}

    def _show_length(
        self, chosen: Chosen, tokens: int, budget: float, exact: bool, needs: Needs | None = None
    ) -> Shown:
        config, limit = self.service.config(chosen), self.service.settings.max_input_tokens
        planned = min(planned_length(tokens, int(budget), config), MAX_MAP_LENGTH) if budget else tokens
        position_map = config.position_map(planned, min(tokens, planned))
        readout = views.length_readout(tokens, exact, config.window, limit)
        return {
            self.length: readout + views.document_strip(position_map) + views.needed(needs),
            self.sentence: map_sentence(position_map, config),
            self.plot: as_plot(distance_figure(position_map, config.window), "lampe-distance"),
            self.plane: as_plot(regions_figure(position_map, Frame.whole(position_map)), "lampe-regions"),
            self.state.lengths: (position_map.end, planned),
        }

    def open_file(self, path: str, request: gr.Request) -> Iterator[Shown]:
        """Read an uploaded file into the text box."""
        try:
            for event in self.service.files.read(path, visitor_of(request)):
                if isinstance(event, Update):
                    yield {self.status: status(event)}
                    continue
                document = event
        except InputError as error:
            yield {self.status: message(str(error))}
            return
        opened = Opened.of(document)
        ends = {self.first: 1, self.last: len(opened.parts)}
        yield self._put(opened) | ends | {self.about: views.about(document), self.status: ""}

    def cut_text(
        self, text: str, question: str, opened: Opened | None, way: str, first: float, last: float, most: float,
        chosen: Chosen, request: gr.Request,
    ) -> Shown:  # fmt: skip
        """Leave out a part of the whole text, also where one was left out before; it is told, and can be had again."""
        try:
            if not text.strip():
                raise InputError("There is no text to cut.")
            before = opened if opened and opened.text == text else Opened((Part("the text", text),))
            whole = before.whole or before.parts
            made = self.service.texts.cut(way, whole, question, most, first, last, chosen, visitor_of(request))
        except LampeError as error:
            return {self.status: message(str(error))}
        cut = Opened((Part("the text", made.text),), whole) if made.left_out else Opened(whole)
        left_out = note(made.sentence + LEFT * bool(made.left_out))
        return self._put(cut) | {self.left_out: left_out, self.status: ""}

    def take_back(self, opened: Opened | None) -> Shown:
        """The whole text again."""
        return self._put(Opened(opened.whole)) if opened and opened.whole else {self.status: gr.skip()}

    def _put(self, opened: Opened) -> Shown:
        """A document in the text box. A cut one can't be edited: its whole text would take the edits away."""
        return {
            self.text: gr.Textbox(opened.text, interactive=not opened.whole),
            self.opened: opened,
            self.left_out: "",
            self.uncut: gr.Button(visible=bool(opened.whole)),
        }

    def new_text(self, text: str, opened: Opened | None) -> Shown:
        """A file's pages aren't another text's; the change that it made itself, cut or whole, may come late."""
        if opened and text in (opened.text, text_of(opened.whole)):
            return {self.opened: gr.skip()}
        return {self.opened: None, self.about: "", self.left_out: "", self.uncut: gr.Button(visible=False)}

    # Questions

    def answer(
        self, following: bool, text: str, question: str, beside: list[str], cut_too: bool, look: bool,
        budget: float, temperature: float, top_p: float, seed: float, conversation: Conversation | None,
        chosen: Chosen, label: str, request: gr.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Run LaMPE, then what is to stand beside it: status, answers, figures, and where the attention went."""
        turn: Turn | None = None
        try:
            self.state.check(chosen, label)
            sampling = Sampling(temperature, top_p, whole_number("The seed", seed))
            longest = whole_number("The answer's length", budget)
            turn = Turn.new(question, beside or [], bool(cut_too))
            if following:
                turn = turn.after(conversation, text, chosen)
            with self.runs.started(request) as stop:
                for variant in turn.variants:
                    earlier, (method, cut) = turn.earlier.get(variant, ()), variant
                    asked = Request(
                        text, question, method, longest, earlier, sampling, chosen, cut, bool(look) and variant == LAMPE
                    )
                    for update in self.service.ask(asked, stop, visitor_of(request)):
                        turn.take(variant, update)
                        ended = note(f"{variant.title}: {update.stage}.") if update.report else ""
                        yield {self.status: ended or status(update, variant.title), **self._show(turn)}
            words = "Stopped." if stop.is_set() else views.done(turn.reports, following, turn.behind)
            yield {self.status: note(words), **self._ended(turn, text, chosen)}
        except LampeError as error:
            answered = self._ended(turn, text, chosen) if turn and turn.reports else {}
            yield {self.status: message(str(error)), **answered}

    def _show(self, turn: Turn) -> Shown:
        threads = [
            views.thread(v, turn.earlier.get(v, ()), turn.question, turn.answers.get(v, ""), turn.notes.get(v, ""))
            for v in turn.variants
        ]
        return {self.answers: side_by_side(threads), self.report: views.run_report(turn.reports)}

    def _ended(self, turn: Turn, text: str, chosen: Chosen) -> Shown:
        exchanges = turn.exchanges
        return self._show(turn) | {
            self.conversation: Conversation(text, chosen, exchanges),
            self.ran: tuple(turn.reports),
            self.kept: gr.Column(visible=bool(turn.reports and exchanges)),
            self.on: gr.Button(interactive=bool(exchanges.get(LAMPE))),
            self.state.attention: turn.attention or gr.skip(),
            self.looked: gr.Column(visible=bool(turn.attention)),
            **self._seen(turn.evidence),
        }

    def in_file(
        self, conversation: Conversation | None, ran: tuple[RunReport, ...], with_text: bool
    ) -> tuple[str, str]:
        """The report's name and text."""
        if conversation is None or not ran:
            raise InputError("There is no answer to save: ask first.")
        config = self.service.config(conversation.chosen)
        figures = views.run_report(ran)
        return "lampe-report.html", report(conversation, ran[0], figures, config, bool(with_text))

    # Where an answer looked

    def look_back(self, attention: Attention | None, request: gr.Request) -> Iterator[Shown]:
        """Which passages the last answer looked at: its tokens are run once more."""
        try:
            if attention is None:
                raise InputError("There is no answer yet: ask first.")
            with self.runs.started(request) as stop:
                for event in self.service.evidence(attention, stop, visitor_of(request)):
                    if not isinstance(event, Evidence):
                        yield {self.status: status(event)}
                        continue
                    yield {self.status: note("Done."), **self._seen(event)}
            if stop.is_set():
                yield {self.status: note("Stopped.")}
        except LampeError as error:
            yield {self.status: message(str(error))}

    def _seen(self, evidence: Evidence | None) -> Shown:
        if evidence is None:
            return {self.evidence: "", self.layers: gr.Radio(visible=False)}
        return {
            self.found: evidence,
            self.evidence: self.show_evidence(evidence, LAYERS[0]),
            self.layers: gr.Radio(visible=True, value=LAYERS[0]),
        }

    def show_evidence(self, evidence: Evidence | None, which: str) -> Any:
        """The passages that some of the layers looked at."""
        if evidence is None:
            return gr.skip()
        third, count = LAYERS.index(which) - 1, len(evidence.layers)
        some = evidence.layers if third < 0 else evidence.layers[count * third // 3 : count * (third + 1) // 3]
        return views.evidence(evidence, some, passages(evidence, some))
