"""The page: its head and its tabs."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr

from app.api import build_api
from app.ask.page import AskTab
from app.calibration.page import CalibrationTab
from app.documents.kinds import MAX_BYTES
from app.map.page import MapTab
from app.needle.page import NeedleTab
from app.serving.service import ModelService
from app.settings import Settings
from app.ui.figure import COLOURS, UNSEEN
from app.ui.mapping_row import MappingRow
from app.ui.model_row import ModelRow
from app.ui.state import PageState

STYLE = str(files("app") / "assets" / "style.css")
THEME = gr.themes.Base(
    primary_hue="blue",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    radius_size="sm",
)
REGION_COLOURS = " ".join(f"--{role}: {colour};" for role, colour in COLOURS.items())
LAUNCH: dict[str, Any] = {
    "theme": THEME,
    "css": f":root {{ --unseen: {UNSEEN}; {REGION_COLOURS} }}",
    "css_paths": STYLE,
    "max_file_size": MAX_BYTES,
    "run_history": False,
    "state_session_capacity": 40,  # gradio keeps every visitor's last figures, half a MB, until there are more
    "show_error": True,
    "footer_links": ["api", "settings"],
}
"""What `launch` needs for this page."""

_VISITORS = 20  # at once; those beyond wait in gradio's queue before they wait in the model's line


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
    service = ModelService(settings)

    def forget(request: gr.Request) -> None:
        service.forget(request.session_hash or "")

    with gr.Blocks(title="LaMPE Lab", analytics_enabled=False, fill_width=True, delete_cache=(60, 120)) as demo:
        state = PageState.of(settings)
        ModelRow(service, demo, state, _VISITORS)
        mapping = MappingRow(service.published, state)
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # a menu would hide one on a phone, by chance
            with gr.Tab("Ask a document", id="ask"):
                ask = AskTab(service, demo, state, _VISITORS)
            with gr.Tab("Needle test", id="needle"):
                NeedleTab(service, demo, ask.text, state, _VISITORS)
            with gr.Tab("Position map", id="map"):
                MapTab(service, demo, tabs, state)
            with gr.Tab("Calibration", id="calibration"):
                CalibrationTab(service, demo, state, mapping)
        demo.unload(forget)
        build_api(service, demo, _VISITORS)
    demo.queue(max_size=2 * _VISITORS, default_concurrency_limit=4)
    return demo
