"""What goes into the log: the place of a failure, and nothing that a visitor sent."""

from __future__ import annotations

import sys
import traceback
from types import SimpleNamespace

import gradio.queueing
import gradio.routes


def keep_values_out() -> None:
    """Have gradio print failures without their messages, which quote the values that a handler was given."""
    for module in (gradio.queueing, gradio.routes):
        module.traceback = SimpleNamespace(print_exc=print_place)  # type: ignore[attr-defined]


def print_place() -> None:
    """Print the kind of the exception that is being handled, and the lines that it passed through."""
    kind, _, trace = sys.exc_info()
    if kind is not None:
        lines = "".join(traceback.format_tb(trace))
        print(f"{lines}{kind.__name__} (its message isn't logged: it may quote a visitor)", file=sys.stderr)
