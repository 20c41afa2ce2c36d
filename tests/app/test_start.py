"""`python app.py`: what Spaces runs."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import gradio as gr
import pytest
from packaging.requirements import Requirement

from app.ask.page import AskTab
from app.page import build
from app.serving.requests import Chosen
from app.serving.start import start
from app.settings import Settings
from app.ui.state import PageState

ROOT = Path(__file__).parents[2]


def test_app_py_gives_a_demo_without_touching_the_network_or_the_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMPE_CACHE", str(tmp_path / "cache"))
    module = runpy.run_path(str(ROOT / "app.py"))
    assert isinstance(module["demo"], gr.Blocks)
    assert not (tmp_path / "cache").exists()


@pytest.mark.long
def test_a_name_that_this_machine_hasnt_is_a_sentence():
    """A port that is taken isn't: gradio takes the next, and prints it."""
    environment = os.environ | {"GRADIO_SERVER_NAME": "192.0.2.1"}  # nobody's: it is kept for examples
    ran = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 1
    assert "Set GRADIO_SERVER_PORT or GRADIO_SERVER_NAME to another one." in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr


def test_it_may_keep_as_many_connections_open_as_visitors_do():
    """In a process of its own, whose limit is that of macOS at first."""
    code = (
        "import resource; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard));"
        "from app.page import allow_open_files; allow_open_files();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    soft, hard = map(int, ran.stdout.split())
    assert soft == (4096 if hard < 0 else min(4096, hard))


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
    with gr.Blocks():
        state = PageState(settings.own)
        tab = AskTab(start(settings), state)
    visitor = gr.Request(session_hash="ann")
    (shown,) = tab.count("Some text.", "What?", 48, False, Chosen(settings.own), visitor)
    assert "neither a folder" in shown[tab.length]


def test_no_event_sets_off_itself():
    """An event that is repeated for one listener is repeated for all: two that wait for each other never end."""
    demo = build(Settings(None, 4, 9000)).demo
    listening = defaultdict(list)
    for listener in demo.fns.values():
        for block, event in listener.targets:
            kind = "load" if event == "load" else type(demo.blocks.get(block)).__name__
            if (
                kind != "State" and block is not None
            ):  # a State's change, and what comes then, are for one listener each
                listening[kind, block, event].append(listener.trigger_mode)
    assert any("always_last" in modes for modes in listening.values())
    for (kind, block, event), modes in listening.items():
        waiting = modes.count("always_last")
        assert waiting <= (kind != "load"), f"{event} of {kind} {block}"
        assert not waiting or set(modes) <= {"always_last", "multiple"}, f"{event} of {kind} {block}"
