"""The web app: `python app.py`, or a Hugging Face Space."""

import sys

import gradio as gr

from app.errors import AskError
from app.page import LAUNCH, build
from app.settings import Settings

try:
    settings = Settings.from_environment()
except AskError as error:
    sys.exit(str(error))
demo: gr.Blocks = build(settings)

if __name__ == "__main__":
    demo.launch(**LAUNCH)
