"""What LaMPE does for the default model: loss past the window, and the page's two examples.

    python -m benchmarks.first_look [--bits 4|16] [--quick]

Runs the same model plain and patched, prints a table, and writes first_look_4bit.json (or 16bit) beside this file.
`--quick` reads shorter texts: it shows that the command works, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

import lampe
from app.ask.examples import EXAMPLES
from app.serving.requests import Request
from app.serving.service import ModelService
from app.settings import Settings
from benchmarks.measure import machine
from lampe.needle import HAYSTACKS

METHODS = ("lampe", "rope")
LAST = 512  # tokens whose loss is taken


def language_reference(tokenizer: Any) -> torch.Tensor:
    """Real long prose that comes with every Python: its language reference, shape (1, tokens)."""
    return torch.tensor(tokenizer.encode(HAYSTACKS["reference"]().text, add_special_tokens=False))[None]


@torch.inference_mode()
def last_loss(model: Any, ids: torch.Tensor) -> float:
    """Mean loss of the last `LAST` tokens; the others are read in chunks, without logits."""
    cache = DynamicCache(config=model.config)
    for chunk in ids[:, : -LAST - 1].split(1024, 1):
        model(chunk, past_key_values=cache, logits_to_keep=1)
    logits = model(ids[:, -LAST - 1 :], past_key_values=cache).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(logits, ids[0, -LAST:]).item()


def losses(service: ModelService, lengths: list[int]) -> list[dict[str, Any]]:
    """Loss on the Python language reference, plain and patched, at each length."""
    model = service.model()
    ids = language_reference(service.texts.tokenizer())
    rows = []
    for length in lengths:
        part = ids[:, :length]
        plain = last_loss(model, part)
        with lampe.patch(model) as patched:
            patched.plan(length)
            mapped = last_loss(model, part)
            mapping_length = patched.position_map.mapping_length
        rows.append({"tokens": length, "mapping_length": mapping_length, "rope": plain, "lampe": mapped})
        print(
            f"{length:>7,} tokens, m = {mapping_length:,}: loss {plain:.3f} plain RoPE, {mapped:.3f} LaMPE", flush=True
        )
    return rows


def examples(service: ModelService, new_tokens: int) -> list[dict[str, Any]]:
    """The page's examples, asked as the page asks them."""
    rows = []
    for example in EXAMPLES:
        for method in METHODS:  # plain and patched, on the whole text
            *_, last = service.ask(Request(example.text, example.question, method, new_tokens))
            assert last.report is not None
            right = example.answer in last.answer
            rows.append({"example": example.label, "answer": last.answer, "right": right, **asdict(last.report)})
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
    service = ModelService(Settings(None, arguments.bits, 65_536))
    result: dict[str, Any] = {**machine(), "bits": arguments.bits, "quick": arguments.quick}
    print(result, flush=True)
    if not arguments.quick:
        # Before this thread computes anything: see `Session`.
        result["examples"] = examples(service, 48)
    result["losses"] = losses(service, [3072] if arguments.quick else [8192, 10_240, 12_288])
    if not arguments.quick:
        file = Path(__file__).with_name(f"first_look_{arguments.bits}bit.json")
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
