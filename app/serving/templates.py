"""Chat templates that strangers wrote are filled in by a process apart: a template is a program, and may never end.

Run as a module it is that process. What it fills in are marks, never a document (`lampe.inference.prompt`), so that
the same few conversations come again and again, and each is filled in once.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from functools import lru_cache
from typing import Any

from app.sandbox.process import run_apart
from lampe.errors import InputError

_SECONDS = 30.0  # for one conversation, with the process's start
_COMPUTING = 5.0  # seconds of it, once it has started
_MEMORY = 200_000_000  # bytes, beside the interpreter
_LONGEST = 200_000  # characters of a template, and bytes of what comes of it


def fill_in_apart(tokenizer: Any) -> Any:
    """The same tokenizer, whose chat template is filled in apart from now on."""

    def apply_chat_template(messages: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        assert not tokenize
        given = {
            "conversations": [messages],
            "chat_template": tokenizer.get_chat_template(),
            "add_generation_prompt": add_generation_prompt,
            **tokenizer.special_tokens_map,
        }
        answer = filled_in(json.dumps(given))
        if "refused" in answer:
            raise InputError(answer["refused"])
        return answer["rendered"]

    if tokenizer.chat_template:
        tokenizer.apply_chat_template = apply_chat_template
    return tokenizer


@lru_cache(64)  # 26 MB at most
def filled_in(given: str) -> dict[str, str]:
    """What comes of a template: "rendered", or the sentence why it is "refused", which isn't tried again either."""
    with suppress(TimeoutError, ValueError):  # it was ended, or has written nothing
        if len(given) <= _LONGEST:
            command = [sys.executable, "-m", "app.serving.templates"]
            return json.loads(run_apart(command, given.encode(), _SECONDS, _LONGEST))
    return {
        "refused": f"This model's chat template is damaged, or takes more than {_COMPUTING:.0f} seconds, "
        f"{_MEMORY / 1e6:.0f} MB of memory or {_LONGEST / 1e3:.0f} kB of text. Choose another model."
    }


def main() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    from app.sandbox.confine import confine

    given = json.loads(sys.stdin.buffer.read())
    render_jinja_template(**given | {"chat_template": "{{ messages }}"})  # imports what it needs
    confine(_MEMORY, _COMPUTING)
    rendered = render_jinja_template(**given)[0][0]
    sys.stdout.write(json.dumps({"rendered": rendered}))


if __name__ == "__main__":
    main()
