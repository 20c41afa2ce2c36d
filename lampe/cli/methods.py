"""`python -m lampe methods`: what can be compared."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lampe.cli.arguments import add_model
from lampe.methods import METHODS, Method
from lampe.models.load import load_config


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The methods that can be compared: each one's key, its settings by its authors' rule for a model (for LaMPE, "
        "the best that is known), how far it reaches, and where it comes from. A setting that is null is chosen for "
        "each input length."
    )
    add_model(parser, positional=True)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Print a paragraph for each method."""
    config = load_config(given.model)
    for key, method in METHODS.items():
        print(told(key, method.for_model(config)))
    return 0


def told(key: str, method: Method) -> str:
    """A method in four lines."""
    reach = "any length" if method.reach is None else f"{method.reach:,} tokens"
    doubt = f" ({method.doubt})" if method.doubt else ""
    settings: dict[str, Any] = method.settings()
    return (
        f"{key}: {method.title}\n"
        f"    settings  {json.dumps(settings)}{doubt}\n"
        f"    reach     {reach}\n"
        f"    source    {method.source}"
    )
