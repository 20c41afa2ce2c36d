"""The web app: `python app.py`, or a Hugging Face Space."""

import os
import sys

if os.environ.get("SPACES_ZERO_GPU"):  # where GPUs are lent: it stands in for CUDA, and must come before PyTorch
    import spaces  # noqa: F401

import gradio as gr

from app.page import build
from app.settings import Settings
from lampe.errors import LampeError
from lampe.files import output_never_fails

try:
    page = build(Settings.from_environment())
except LampeError as error:
    sys.exit(str(error))
demo: gr.Blocks = page.demo

if __name__ == "__main__":
    output_never_fails()
    try:
        page.launch()
    except OSError as error:  # no port is free, or this machine has no such name
        sys.exit(f"The page can't be opened: {error} Set GRADIO_SERVER_PORT or GRADIO_SERVER_NAME to another one.")
