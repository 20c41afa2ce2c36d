"""Files that a visitor saves: made when a button asks for one, and handed over by the browser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.serving.waiting_line import WaitingLine
from app.ui.events import INTERNAL
from app.ui.html import message as sentence
from app.ui.runs import visitor_of
from lampe.errors import LampeError


def saves(
    button: gr.Button, inputs: Sequence[Any], make: Callable[..., tuple[str, str]], file: gr.DownloadButton,
    message: gr.HTML, desk: WaitingLine,
) -> None:  # fmt: skip
    """Have a button save a file: `make` takes the inputs' values, and gives its name and its text.

    A LampeError's sentence goes to `message`. `file` is a hidden button with an element id; the visitor waits at the
    `desk` while others' files are made.
    """

    def save(request: gr.Request, *values: Any) -> tuple[Any, Any]:
        try:
            with desk.turn(visitor_of(request)):
                name, text = make(*values)
            path = Path(tempfile.mkdtemp()) / name  # it goes with the other temporary files
            # Spreadsheets take a CSV for UTF-8 by its mark; its line ends are there already.
            path.write_text(text, encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8", newline="")
            return str(path), gr.skip()
        except LampeError as error:
            return None, sentence(str(error))
        except OSError:
            return None, sentence("This server has no room for the file just now: try again in a few minutes.")

    made = button.click(save, inputs, [file, message], **INTERNAL)
    made.then(js=f"() => setTimeout(() => document.querySelector('#{file.elem_id}')?.click(), 300)", **INTERNAL)
