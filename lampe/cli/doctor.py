"""`python -m lampe doctor`: what LaMPE makes of a model."""

from __future__ import annotations

import argparse
import re
import sys

from tqdm import tqdm

from lampe.cli.arguments import add_model
from lampe.inference.speed import measure
from lampe.models.doctor import NO_COPY, diagnose, families, layers_in_words, report
from lampe.models.load import DEFAULT_MODEL_NAME, load, load_config


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Says of a model: family, window, RoPE, the layers that are mapped and why the others aren't, its preset, "
        "whether the patch is active, the memory and the time it takes here, and what to do next."
    )
    add_model(parser, positional=True)
    parser.add_argument("--config-only", action="store_true", help="read its config alone, and try a narrow copy of it")
    parser.add_argument("--length", type=int, help="tokens for memory and time (default: twice the window)")
    parser.add_argument("--families", action="store_true", help="a table of all families that transformers has")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print the report of a model, or the table of families; 1 if the model can't be patched."""
    if given.families:
        print(families_table())
        return 0
    if given.length is not None and given.length < 1:
        print(f"The length must be at least 1 token, not {given.length}.", file=sys.stderr)
        return 2
    config = load_config(given.model)
    model = None if given.config_only else load(given.model, bits=given.bits)[0]
    found = diagnose(config, model)
    length = given.length or 2 * (found.window or 4096)
    speed = None if model is None or found.refusal else measure(model)
    print(report(given.model or DEFAULT_MODEL_NAME, found, config, length, speed))
    return bool(found.refusal)


def families_table() -> str:
    """The families that can be patched, and the others with the reason, in Markdown."""
    works: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    untried: list[str] = []
    for name, found in tqdm(families(), unit="family"):
        if found.refusal.startswith(NO_COPY):
            untried.append(name)
        elif found.refusal:
            reason = re.sub(r"^LaMPE can't patch this \w+: ", "", found.refusal).rstrip(".")
            refused.setdefault(re.sub(r"layers? [\d, …]+", "some layers ", reason), []).append(name)
        else:
            unmapped = layers_in_words(found.layers).partition("; ")[2]
            works.setdefault(unmapped or "all layers mapped", []).append(name)
    lines = ["| families | what LaMPE makes of their default configs |", "|---|---|"]
    lines += [f"| {', '.join(names)} | {what} |" for what, names in works.items()]
    lines += [f"| {', '.join(names)} | refused: {reason} |" for reason, names in refused.items()]
    return "\n".join([*lines, f"| {', '.join(untried)} | not tried: a narrow copy can't be made of the config alone |"])
