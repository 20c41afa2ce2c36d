"""The web app: `python app.py`, or a Hugging Face Space."""

import gradio as gr

from app.page import LAUNCH, build
from app.settings import Settings

demo: gr.Blocks = build(Settings.from_environment())

if __name__ == "__main__":
    demo.launch(**LAUNCH)
