"""What was asked and answered, as one HTML file to keep: no script in it, and the text only if asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html import escape

from app.ask.conversation import Conversation
from app.map.views import map_sentence
from app.see.figures import squeeze_chart
from app.see.words import filled, strings
from app.serving.reports import RunReport
from app.ui.figure import COLOURS, UNSEEN
from lampe.methods import LampeConfig

_LOOK = """
body { font-family: system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733;
  line-height: 1.5; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h3 { font-size: 1rem; margin-bottom: 0.2rem; }
blockquote { margin: 0; padding: 0.4rem 1rem; border-left: 4px solid #d8dde4; white-space: pre-wrap; }
table { border-collapse: collapse; } th, td { text-align: left; vertical-align: top; padding: 0.3rem 1rem 0.3rem 0;
  border-bottom: 1px solid #d8dde4; } caption { text-align: left; color: #55606e; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f8fa; padding: 0.8rem; }
.soft { color: #55606e; } svg { max-width: 40rem; height: auto; } svg text { font-size: 14px; }
svg path { fill: none; stroke-width: 3; } svg .grid { stroke: #d8dde4; stroke-width: 1; }
svg .window { stroke: #1c2733; stroke-width: 1.5; stroke-dasharray: 6 5; }
svg .plain { stroke: #55606e; stroke-width: 2; stroke-dasharray: 3 5; }
.shares { display: flex; width: 12rem; height: 10px; } .shares i { display: block; height: 100%; }
"""


def report(
    conversation: Conversation, first: RunReport, figures: str, config: LampeConfig, with_text: bool = False
) -> str:
    """A report of one conversation.

    Parameters
    ----------
    conversation : Conversation
        Its questions and answers, and the text they are about.
    first : RunReport
        The figures of LaMPE's answer in its last turn.
    figures : str
        Those of all answers in it, as HTML.
    config : LampeConfig
        What LaMPE ran with.
    with_text : bool
        Whether the text itself goes into it.
    """
    turns = ""
    count = max(map(len, conversation.exchanges.values()))
    for number in range(count):
        said = [(v, some[number]) for v, some in conversation.exchanges.items() if number < len(some)]
        turns += f"<h2>{escape(said[0][1][0])}</h2>"
        for variant, (_, answer) in said:
            turns += (
                f"<h3>{escape(variant.title)}</h3><blockquote>{escape(answer.strip()) or '(no answer)'}</blockquote>"
            )
    position_map = config.position_map(first.planned_length, min(first.input_length, first.planned_length))
    chart = filled(squeeze_chart(config, first.input_length), strings()["en"])
    settings = {
        "model": {"name": first.model, "bits": first.bits, "window": first.window},
        "lampe": config.settings(),
        "sampling": {"temperature": first.temperature, "top_p": first.top_p, "seed": first.seed},
    }
    text = conversation.text
    kept = f"<pre>{escape(text)}</pre>" if with_text else f"<p>{len(text):,} characters, not kept in this file.</p>"
    colours = "".join(
        f".region-{role}, .chip.region-{role} {{ background: {colour} }} svg path.{role} {{ stroke: {colour} }}"
        for role, colour in (*COLOURS.items(), ("unseen", UNSEEN))
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LaMPE Lab: a report</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_LOOK}{colours}</style></head><body>'
        f"<h1>LaMPE Lab: what was asked and answered</h1>"
        f'<p class="soft">{escape(first.model)} in {first.bits} bits, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC</p>{turns}'
        f"<h2>How it was read</h2>{figures}"
        f"<h2>The position map</h2>{map_sentence(position_map, config)}{chart}"
        f"<h2>Settings</h2><pre>{escape(json.dumps(settings, indent=1, ensure_ascii=False))}</pre>"
        f"<h2>The text</h2>{kept}</body></html>"
    )
