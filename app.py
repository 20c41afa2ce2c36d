"""The web app: `python app.py`, or a Hugging Face Space."""

import io
import sys

import gradio as gr

from app.page import build
from app.settings import Settings
from lampe.errors import InputError

try:
    settings = Settings.from_environment()
except InputError as error:
    sys.exit(str(error))
page = build(settings)
demo: gr.Blocks = page.demo

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file or pipe on Windows may have no letter for what gradio says
            stream.reconfigure(errors="backslashreplace")
    page.launch()
