"""The page: tabs, their handlers, and the public API endpoints."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gradio as gr

import lampe
from app import views
from app.calibration_page import build_calibration_tab
from app.checks import MAX_CHARACTERS, AskError, too_long, whole_number
from app.computing import with_progress
from app.examples import EXAMPLES, Example
from app.figures import Frame, curves, distance_figure, regions_figure
from app.map_page import build_map_tab
from app.map_view import MAX_MAP_LENGTH, MapView, check
from app.needle_forms import checked_grid, given_haystack
from app.needle_page import build_needle_tab
from app.reports import Method, RunReport, Update
from app.session import MAX_NEW_TOKENS, Session, model_name
from app.settings import Settings
from app.sheet import COLOURS, UNSEEN, as_plot
from app.uploads import EXTENSIONS, MAX_BYTES, read_text
from lampe.needle import HAYSTACKS
from lampe.positions import LampeConfig
from lampe.presets import rescaled
from lampe.prompt import build_prompt

STYLE = Path(__file__).parent.parent / "assets" / "style.css"
THEME = gr.themes.Base(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    radius_size="sm",
)
REGION_COLOURS = " ".join(f"--{region.lower()}: {colour};" for region, colour in COLOURS.items())
LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": f":root {{ --unseen: {UNSEEN}; {REGION_COLOURS} }}",
    "css_paths": STYLE,
    "max_file_size": MAX_BYTES,
    "run_history": False,
    "state_session_capacity": 200,  # gradio keeps every visitor's last figures until there are more
    "show_error": True,
    "footer_links": ["api", "settings"],
}
"""What `launch` needs for this page."""

SHOWN_WITHOUT_TEXT = MapView().length
_CHARACTERS_PER_TOKEN = 4.3  # English prose; only until the tokenizer is there
_VISITORS = 20  # at once; those beyond wait in gradio's queue before they wait in the session's line

REFUSALS = (ValueError, lampe.LoadError)
"""What the session and the library raise with a sentence for the person."""


def build(settings: Settings) -> gr.Blocks:
    """The page for one deployment; no weights are touched before the first use.

    Parameters
    ----------
    settings : Settings

    Returns
    -------
    gr.Blocks
        Launch it with `LAUNCH`.
    """
    session = Session(settings)
    stops: dict[str, threading.Event] = {}  # each visitor's, for answers and for needle tests
    needle_stops: dict[str, threading.Event] = {}

    # Handlers

    def count(text: str, question: str, chosen: LampeConfig | None) -> Iterator[tuple[Any, ...]]:
        """Readout, sentence, both figures and token count of the text; fetches the tokenizer at its first use."""
        try:
            if not text.strip():
                _, *drawn, _ = show_length(chosen, SHOWN_WITHOUT_TEXT, True)
                yield views.no_text(SHOWN_WITHOUT_TEXT), *drawn, 0
                return
            if len(text) + len(question) > MAX_CHARACTERS:
                raise AskError(too_long(text + question))
            if not session.tokenizer_ready:
                estimate = show_length(chosen, max(1, round(len(text) / _CHARACTERS_PER_TOKEN)), False)
                yield estimate
                for update in with_progress(session.tokenizer):
                    yield estimate[0] + views.status(update), *[gr.skip()] * 4
            yield show_length(chosen, len(build_prompt(session.tokenizer(), text, question)), True)
        except REFUSALS as error:
            yield views.message(str(error)), "", *[gr.skip()] * 3

    def show_length(chosen: LampeConfig | None, tokens: int, exact: bool) -> tuple[Any, ...]:
        config = chosen or session.config()
        position_map = lampe.position_map(config, min(tokens, MAX_MAP_LENGTH))
        return (
            views.length_readout(tokens, exact, config.window, settings.max_input_tokens),
            views.map_sentence(position_map, config),
            as_plot(distance_figure(position_map, config.window), "lampe-distance"),
            as_plot(regions_figure(position_map, Frame.whole(position_map)), "lampe-regions"),
            tokens,
        )

    def upload(path: str) -> tuple[Any, str]:
        try:
            return read_text(path), ""
        except AskError as error:
            return gr.skip(), views.message(str(error))
        finally:
            Path(path).unlink(missing_ok=True)  # a visitor's document doesn't stay on the server

    def answer(
        text: str,
        question: str,
        compare: bool,
        max_new_tokens: float,
        chosen: LampeConfig | None,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Run LaMPE, then plain RoPE if asked to: status, both answers, figures, and where the attention went."""
        stop = stops[request.session_hash or ""] = threading.Event()
        methods: list[Method] = ["lampe", "rope"] if compare else ["lampe"]
        answers = dict.fromkeys(methods, "")
        reports: list[RunReport] = []

        def shown(status: str, measured: Any = None) -> tuple[Any, ...]:
            cards = [views.answer(m, answers[m]) if reports or any(answers.values()) else "" for m in methods]
            return status, cards[0], cards[1] if compare else "", views.run_report(reports), measured or gr.skip()

        yield *shown("")[:-1], None  # what an earlier answer looked at isn't this one's
        try:
            for method in methods:
                for update in session.ask(text, question, method, max_new_tokens, stop, chosen):
                    answers[method] = update.answer
                    if update.report:
                        reports.append(update.report)
                        yield shown(views.note(f"{views.METHOD_NAMES[method]}: done."), update.attention)
                    else:
                        stage = f"{views.METHOD_NAMES[method]}: {update.stage}"
                        yield shown(views.status(replace(update, stage=stage)))
            yield shown(views.note("Stopped." if stop.is_set() else "Done."))
        except REFUSALS as error:
            yield shown(views.message(str(error)))
        finally:
            stop.set()

    def stop_run(request: gr.Request) -> None:
        if event := stops.get(request.session_hash or ""):
            event.set()

    def forget(request: gr.Request) -> None:
        for running in (stops, needle_stops):
            if event := running.pop(request.session_hash or "", None):
                event.set()

    # Public API

    def api_ask(text: str, question: str, method: str = "lampe", max_new_tokens: int = 64) -> tuple[str, dict]:
        """Answer a question about a text with the LaMPE-patched model, or the same model unpatched.

        text: the document; question: what to ask about it; method: "lampe" or "rope"; max_new_tokens: 1 to 512.
        Returns the answer and the run's figures: input length, window, mapping length, regions with their keys and
        attention shares, seconds, tokens.
        """
        try:
            for update in session.ask(text, question, method, max_new_tokens):  # type: ignore[arg-type]
                if update.report:
                    return update.answer, asdict(update.report)
        except REFUSALS as error:
            raise gr.Error(str(error)) from error
        raise AssertionError("a run that nobody stops ends with its report")

    def api_position_map(
        length: int, window: int = 8192, head: int = 512, tail: int = 200, mapping_length: int | None = None
    ) -> dict:
        """The LaMPE position map of an input length.

        length, window, head, tail: in tokens; mapping_length: in positions, or null for the loaded model's own
        (where the window is its window) or Llama-3's curve rescaled to the window, which no model was calibrated for.
        Returns the mapping length, whether it is calibrated or given, the regions with their maps, and sampled points
        (relative distance, mapped position) for the last query.
        """
        try:
            given = {"length": length, "window": window, "head": head, "tail": tail}
            if mapping_length is not None:
                given["mapping_length"] = mapping_length
            for name, value in given.items():
                given[name] = whole_number(name, value)
                if given[name] > MAX_MAP_LENGTH:
                    raise AskError(f"{name} must be at most {MAX_MAP_LENGTH:,}, not {value:,}.")
            length, window, head, tail = (given[name] for name in ("length", "window", "head", "tail"))
            own = session.config()
            curve = own if window == own.window else rescaled(max(1, window))
            mapping: Any = given.get("mapping_length", curve.mapping)
            config = LampeConfig(window, head, tail, mapping)
            position_map = lampe.position_map(config, length)
            check(config, length, chosen=mapping_length is not None)
        except REFUSALS as error:
            raise gr.Error(str(error)) from error
        return {
            **asdict(position_map),
            "calibrated": mapping_length is not None or curve.calibrated,
            "key_counts": position_map.key_counts(length - 1),
            "points": [asdict(curve) for curve in curves(position_map)],
        }

    def api_needle(
        length: int,
        depth: float = 0.5,
        seed: int = 0,
        task: str = "single",
        method: str = "lampe",
        haystack: str | None = None,
    ) -> dict:
        """Hide a fact in a long text, ask for it, and score the answer.

        length: tokens of the whole prompt; depth: 0 (start) to 1 (end); task: single, numbers, uuid, multi-key,
        multi-value, multi-query or passkey; method: "lampe" or "rope"; haystack: a text to hide it in, or null for
        Python's language reference. Returns the test's figures: the expected values, the answer, the score from 0 to 1,
        the needle's place, distance, mapped position and region, the attention that fell on it, and seconds.
        """
        for row in api_needle_grid([length], [depth], 1, seed, task, [method], haystack):
            return row
        raise AssertionError("a test that nobody stops ends with its result")

    def api_needle_grid(
        lengths: list[int],
        depths: list[float],
        trials: int = 1,
        seed: int = 0,
        task: str = "single",
        methods: list[str] = ["rope", "lampe"],  # noqa: B006
        haystack: str | None = None,
    ) -> Iterator[dict]:
        """Run a grid of needle tests and stream a row for each; arguments and rows as in /needle."""
        try:
            cells = checked_grid(task, lengths, depths, methods, trials, seed)
            text = HAYSTACKS["reference"]() if haystack is None else given_haystack(haystack)
            for event in session.needles(text, cells):
                if not isinstance(event, Update):
                    yield asdict(event)
        except REFUSALS as error:
            raise gr.Error(str(error)) from error

    # Layout

    with gr.Blocks(title="LaMPE Lab", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as demo:
        gr.HTML(views.header(model_name(settings), settings.bits))
        tokens, attention, pair = gr.State(0), gr.State(None), gr.State(None)
        chosen = gr.State(None)  # this visitor's LampeConfig from an opened preset; None is the model's own
        in_use = gr.HTML(elem_id="preset-in-use")
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # a menu would hide one on a phone, by chance
            with gr.Tab("Ask a document", id="ask"):
                with gr.Row(elem_classes="columns"):
                    with gr.Column(scale=5, min_width=320):
                        with gr.Row(elem_classes="examples"):
                            buttons = [gr.Button(example.label, size="sm") for example in EXAMPLES]
                            file = gr.UploadButton(
                                "Upload .txt or .md", size="sm", file_types=list(EXTENSIONS), type="filepath"
                            )
                        text = gr.Textbox(
                            label="Document",
                            placeholder="Paste a long text here, or take an example.",
                            lines=14,
                            max_lines=14,
                            elem_id="document",
                        )
                        question = gr.Textbox(
                            label="Question", placeholder="What do you want to know about it?", elem_id="question"
                        )
                        with gr.Row(elem_classes="actions"):
                            go = gr.Button("Ask", variant="primary", elem_id="ask-button")
                            halt = gr.Button("Stop", variant="stop", elem_id="stop-button")
                            compare = gr.Checkbox(label="Plain RoPE beside it", value=True, elem_id="compare")
                        with gr.Accordion("Options", open=False):
                            budget = gr.Slider(
                                1, MAX_NEW_TOKENS, 48, step=1, label="Longest answer (tokens)", elem_id="budget"
                            )
                    with gr.Column(scale=4, min_width=320):
                        length = gr.HTML(elem_id="length")
                        plot = gr.Plot(show_label=False, label="Position map of this text", elem_id="plot-text")
                        plane = gr.Plot(show_label=False, label="Attention regions of this text")
                        sentence = gr.HTML(elem_id="sentence")
                status = gr.HTML("", elem_id="status")
                with gr.Row(elem_classes="answers"):
                    lampe_answer = gr.HTML(elem_id="lampe-answer")
                    rope_answer = gr.HTML(elem_id="rope-answer")
                report = gr.HTML("", elem_id="report")
            with gr.Tab("Needle test", id="needle"):
                build_needle_tab(session, demo, needle_stops, text, chosen, tokens, pair, _VISITORS)
            with gr.Tab("Position map", id="map"):
                build_map_tab(session, demo, tabs, chosen, tokens, attention, pair)
            with gr.Tab("Calibration", id="calibration"):
                build_calibration_tab(session, demo, chosen, in_use)

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        counted = {
            "fn": count,
            "inputs": [text, question, chosen],
            "outputs": [length, sentence, plot, plane, tokens],
            **quiet,
        }
        # The page paints first: another model's config may have to be fetched.
        gr.on(
            [demo.load, text.change, question.change, chosen.change],
            **counted,
            trigger_mode="always_last",
            concurrency_limit=4,
        )
        for button, example in zip(buttons, EXAMPLES, strict=True):
            button.click(_filled(example), None, [text, question], queue=False, **quiet)
        file.upload(upload, file, [text, status], **quiet)
        asked = {
            "fn": answer,
            "inputs": [text, question, compare, budget, chosen],
            **quiet,
            "concurrency_limit": _VISITORS,
        }
        gr.on([go.click, question.submit], **asked, outputs=[status, lampe_answer, rope_answer, report, attention])
        halt.click(stop_run, queue=False, **quiet)
        demo.unload(forget)
        gr.api(api_ask, api_name="ask", concurrency_limit=_VISITORS)
        gr.api(api_position_map, api_name="position_map", queue=False)
        gr.api(api_needle, api_name="needle", concurrency_limit=_VISITORS)
        gr.api(api_needle_grid, api_name="needle_grid", concurrency_limit=_VISITORS)
    demo.queue(max_size=2 * _VISITORS, default_concurrency_limit=4)
    return demo


def _filled(example: Example) -> Any:
    return lambda: (example.text, example.question)
