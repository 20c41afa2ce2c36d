"""The page: its head and its tabs."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, NamedTuple

import gradio as gr
from starlette.middleware import Middleware

from app.api import build_api
from app.ask.page import RESTORE, AskTab
from app.calibration.page import CalibrationTab
from app.documents.kinds import MAX_BYTES
from app.map.page import MapTab
from app.needle.page import NeedleTab
from app.results.page import ResultsTab
from app.see.page import SeeTab, first_picture
from app.serving.service import ModelService
from app.serving.start import start
from app.settings import Settings
from app.tour.page import tour
from app.ui.events import AT_ONCE, INTERNAL
from app.ui.figure import COLOURS, UNSEEN
from app.ui.mapping_row import MappingRow
from app.ui.model_row import ModelRow
from app.ui.state import PageState
from app.ui.words import AS_LINKED, WORDS, word
from app.web.card import TITLE, Card
from app.web.gate import Gate
from app.web.log import keep_values_out
from app.web.sessions import Sessions
from app.web.temporary import TemporaryFolder

STYLES = [
    str(files("app") / "assets" / name) for name in ("style.css", "see/hero.css", "tour/tour.css", "map/live.css")
]
BLUES = gr.themes.Color(
    "#eef6fb", "#d5e9f6", "#aad3ed", "#7cc0f0", "#3f9bd1", "#0072b2", "#005a8f", "#004a76", "#003b5e", "#002c47",
    "#001d30", name="lab",
)  # fmt: skip
"""From the faintest on: the ruler's and the style sheet's blues, for gradio's own parts."""
THEME = gr.themes.Base(
    primary_hue=BLUES,
    secondary_hue=BLUES,
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    radius_size="sm",
).set(
    # Base's own are too faint for small text on their grounds.
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    input_placeholder_color="*neutral_600",
    input_placeholder_color_dark="*neutral_300",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_500",
    # The style sheet's, which has one for each colour scheme.
    **{
        f"link_text_color{state}{scheme}": "var(--link)"
        for state in ("", "_active", "_hover", "_visited")
        for scheme in ("", "_dark")
    },
)
REGION_COLOURS = " ".join(f"--{role}: {colour};" for role, colour in COLOURS.items())
_EVENTS = 500
"""That wait in gradio's queue, which gives all of them to their handlers as fast as it can; the handlers wait in lines
of this app's own, each visitor for their share, or say that it is used up."""
_THREADS = 400  # more than the events of one address: those who wait in a line hold one


class Page(NamedTuple):
    """The page, and what starts it.

    Parameters
    ----------
    demo : gr.Blocks
    options : dict
        For its `launch`.
    service : ModelService
        Behind it.
    """

    demo: gr.Blocks
    options: dict[str, Any]
    service: ModelService

    def launch(self, **more: Any) -> str:
        """Start it; the address that it answers at."""
        allow_open_files()
        return self.demo.launch(**self.options, **more)[1]


def build(settings: Settings) -> Page:
    """The page for one deployment; no weights are touched before the first use."""
    folder = TemporaryFolder()
    folder.take_over()  # before there is any component, which remembers where its files go
    service = start(settings)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as demo:
        tour()
        state = PageState(settings.own)
        ModelRow(service, state)
        mapping = MappingRow(service.published, state)
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # a menu would hide one on a phone, by chance
            views = {view: gr.Tab(word(f"view_{view}"), id=view, elem_id=f"view-{view}") for view in VIEWS}
            with views["see"]:
                see = SeeTab(tabs)
            with views["ask"]:
                ask = AskTab(service, state)
            with views["needle"]:
                needle = NeedleTab(service, demo, views["needle"], ask.text, state)
            with views["map"]:
                mapped = MapTab(service, demo, tabs, views["map"], state)
            with views["calibration"]:
                CalibrationTab(service, demo, state, mapping)
            with views["results"]:
                ResultsTab(service, views["results"])
        see.leads_to(needle.kinds, needle.length, needle.depth, needle.methods)
        demo.load(None, None, tabs, js=_landing(list(mapped.controls)), **AT_ONCE)
        demo.load(None, None, ask.draft, js=RESTORE, **AT_ONCE)
        demo.load(lambda: True, None, state.loaded, **INTERNAL)  # without the queue its change isn't told
        build_api(service)
    demo.queue(max_size=_EVENTS, default_concurrency_limit=None, api_open=False)
    return Page(demo, _options(demo, settings, service, folder), service)


def allow_open_files(least: int = 4096) -> None:
    """Have room for as many connections as visitors keep open: macOS gives a program 256 files at first."""
    if importlib.util.find_spec("resource"):  # not on Windows, which has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = least if hard == resource.RLIM_INFINITY else min(least, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


VIEWS = ("see", "ask", "needle", "map", "calibration", "results")
"""The tabs by the names that addresses have for them: ?view=needle opens that one."""


def _landing(settings: list[str]) -> str:
    """Opens the view that the address names, or the map where it has settings of it. The browser does it: by the time
    that an answer of the server came, a visitor may have chosen another."""
    return f"""() => {{
  const asked = new URLSearchParams(location.search);
  const view = asked.get("view") ?? ({json.dumps(settings)}.some((name) => asked.has(name)) ? "map" : "");
  return {{__type__: "update", ...({json.dumps(list(VIEWS))}.includes(view) ? {{selected: view}} : {{}})}};
}}"""


def _options(demo: gr.Blocks, settings: Settings, service: ModelService, folder: TemporaryFolder) -> dict[str, Any]:
    keep_values_out()
    if os.environ.get("SPACE_ID"):  # a Space's own proxy says where visitors call from
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "127.0.0.1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16")
    # Figures on all calls, which nobody is shown and which take longer with each call.
    demo._queue.ANAYLTICS_CACHE_FREQUENCY = sys.maxsize
    demo._queue.ANALYTICS_MAX_EVENTS = 1
    sessions = Sessions(demo, service.presence)

    @asynccontextmanager
    async def clearing(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(sessions.keep_clear())
        yield
        task.cancel()

    gate = Middleware(Gate, settings=settings, presence=service.presence, sessions=sessions, folder=folder)
    return {
        "theme": THEME,
        "css": f":root {{ --unseen: {UNSEEN}; {REGION_COLOURS} }}",
        "css_paths": STYLES,
        "i18n": WORDS,
        "max_file_size": MAX_BYTES,
        "max_threads": _THREADS,
        "mcp_server": settings.mcp,
        "run_history": False,
        "ssr_mode": False,  # Node before the gate would make all visitors callers from this machine
        "enable_monitoring": False,
        "state_session_capacity": 2000,  # they are cleared away by age before
        "show_error": True,
        "footer_links": ["api"],
        "app_kwargs": {
            "middleware": [gate, Middleware(Card, head=AS_LINKED, body=first_picture())],
            "lifespan": clearing,
        },
    }
