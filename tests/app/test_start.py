"""`python app.py`: what Spaces runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import gradio as gr
from packaging.requirements import Requirement

from app.ask.page import AskTab
from app.serving.requests import Chosen
from app.serving.service import ModelService
from app.settings import Settings
from app.ui.state import PageState

ROOT = Path(__file__).parents[2]


def test_app_py_gives_a_demo_without_touching_the_network_or_the_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMPE_CACHE", str(tmp_path / "cache"))
    module = runpy.run_path(str(ROOT / "app.py"))
    assert isinstance(module["demo"], gr.Blocks)
    assert not (tmp_path / "cache").exists()


def test_the_readme_names_the_gradio_that_is_required():
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("---")[1]
    facts = dict(line.split(": ", 1) for line in front.splitlines() if ": " in line)
    assert f"gradio=={facts['sdk_version']}" in (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert facts["sdk_version"] == gr.__version__
    assert facts["app_file"] == "app.py"


def test_the_lock_pins_what_the_requirements_allow_by_hash():
    """The lock names the command that writes it anew."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", "").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", pin) for pin in pins)
    pinned = [Requirement(pin.split("--hash")[0]) for pin in pins]
    here = {pin.name: str(pin.specifier) for pin in pinned if pin.marker is None or pin.marker.evaluate()}
    asked = [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    for one in map(Requirement, asked):
        assert here[one.name].startswith("=="), one
        assert one.specifier.contains(here[one.name].removeprefix("==")), one


def test_a_model_that_cant_be_had_doesnt_stop_the_page():
    settings = Settings("no such model", 4, 9000)
    with gr.Blocks() as demo:
        state = PageState.of(settings)
        tab = AskTab(ModelService(settings), demo, state)
    visitor = gr.Request(session_hash="ann")
    (shown,) = tab.count("Some text.", "What?", 48, Chosen(settings.own), visitor)
    assert "neither a folder" in shown[tab.length]
