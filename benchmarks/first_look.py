"""The page's two examples, asked as the page asks them, under plain RoPE and LaMPE.

    python -m benchmarks.first_look [--bits 4|16] [--quick]

Prints the answers, and writes app/assets/samples/recorded.json, which the page shows as recorded, or in 16 bits
first_look_16bit.json beside this file. `--quick` reads the beginning of one text: it shows that the command works.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from app.ask.examples import ANSWERS, EXAMPLES, Example
from app.serving.requests import Request
from app.serving.service import ModelService
from app.serving.start import start
from app.settings import Settings
from benchmarks.measure import machine

METHODS = ("lampe", "rope")
_NEW_TOKENS = 48
_KEPT = ("method", "input_length", "mapping_length", "regions", "new_tokens")


def asked(example: Example) -> dict[str, str]:
    """What tells one example's text and question from another's, or from an older one's."""
    digest = hashlib.sha256(f"{example.question}\n{example.text}".encode()).hexdigest()
    return {"example": example.label, "digest": digest[:16]}


def examples(service: ModelService, quick: bool) -> list[dict[str, Any]]:
    """Each example's answers."""
    rows = []
    for example in EXAMPLES[:1] if quick else EXAMPLES:
        text = example.text[:4000] if quick else example.text
        for method in METHODS:
            *_, last = service.ask(Request(text, example.question, method, _NEW_TOKENS))
            assert last.report is not None
            right = example.answer in last.answer
            report = {name: getattr(last.report, name) for name in _KEPT}
            rows.append({**asked(example), "answer": last.answer, "right": right, **report})
            print(
                f"{example.label}, {method}: {'right' if right else 'WRONG'}, {last.answer!r}, "
                f"prefill {last.report.prefill_seconds:.1f} s, decode {last.report.decode_seconds:.1f} s",
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=(4, 16), default=4)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    service = start(Settings(None, arguments.bits, 65_536))
    result = {**machine(), "bits": arguments.bits}
    print(result, flush=True)
    result["examples"] = examples(service, arguments.quick)
    if not arguments.quick:
        file = ANSWERS if arguments.bits == 4 else Path(__file__).with_name("first_look_16bit.json")
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
