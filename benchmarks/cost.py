"""What the recipes would cost on GPUs that aren't here: an estimate, with its arithmetic; nothing is measured.

    python -m benchmarks.cost [--gpus 8] [--peak 989] [--share 0.35] [--token 0.03]

For each recipe: samples × methods × (reading + writing). Reading L tokens takes 2·P·L + 2·layers·width·L² operations
(P parameters; attention is causal, two products a layer), at a share of the GPU's peak in TFLOP/s; writing takes the
task's most tokens at so many seconds each. The peak is an H100's published one, dense in bfloat16; the share and a
token's time are assumptions.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import NamedTuple

from lampe.cli import evaluate

RECIPES = Path(__file__).parents[1] / "recipes"


class Size(NamedTuple):
    """Of a model."""

    parameters: float
    layers: int
    width: int


MODELS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": Size(8.03e9, 32, 4096),
    "meta-llama/Llama-3.1-8B-Instruct": Size(8.03e9, 32, 4096),
    "meta-llama/Llama-2-7b-chat-hf": Size(6.74e9, 32, 4096),
}
RULER_TASKS = 13
SAMPLES = {"longbench": 3750, "infinitebench": 3946}
"""Of the tasks together that the recipes name, by their data cards."""
WRITTEN = {"ruler": 128, "longbench": 128, "infinitebench": 100}
"""Tokens of an answer, at most and about."""


class Cost(NamedTuple):
    """Of a recipe, on one GPU.

    Parameters
    ----------
    prompts : int
        Samples of all lengths and methods.
    tokens : float
        That are read.
    hours : float
    """

    prompts: int
    tokens: float
    hours: float


def arguments_of(recipe: Path) -> argparse.Namespace:
    """What a recipe runs, as the command itself reads it."""
    text = recipe.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith("exec python -m lampe evaluate "))
    parser = argparse.ArgumentParser()
    evaluate.add(parser)
    return parser.parse_args([word for word in shlex.split(line)[5:] if word != "$@"])


def cost_of(given: argparse.Namespace, peak: float, share: float, token: float) -> Cost:
    """What a recipe costs.

    Parameters
    ----------
    given : argparse.Namespace
        Its arguments.
    peak : float
        Of the GPU, in TFLOP/s.
    share : float
        Of it that reading reaches.
    token : float
        Seconds to write one.
    """
    size = MODELS[given.model]
    suite = given.tasks[0].split("_")[0]
    # Texts as they are count as long as they are cut to.
    runs = [(length, given.samples * RULER_TASKS) for length in given.lengths] if suite == "ruler" else []
    runs = runs or [(given.cut, SAMPLES[suite])]
    seconds = 0.0
    for length, samples in runs:
        operations = 2 * size.parameters * length + 2 * size.layers * size.width * length**2
        seconds += samples * (operations / (peak * 1e12 * share) + WRITTEN[suite] * token)
    methods = len(given.methods)
    prompts, tokens = sum(n for _, n in runs), sum(length * n for length, n in runs)
    return Cost(prompts * methods, tokens * methods, seconds * methods / 3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of one (default: 989)")
    parser.add_argument("--share", type=float, default=0.35, help="of it, in reading (default: 0.35)")
    parser.add_argument("--token", type=float, default=0.03, help="seconds to write one (default: 0.03)")
    given = parser.parse_args()
    print(f"| recipe | prompts | tokens read | GPU hours | hours on {given.gpus} |\n|---|---|---|---|---|")
    total = 0.0
    for recipe in sorted(RECIPES.glob("*.sh")):
        cost = cost_of(arguments_of(recipe), given.peak, given.share, given.token)
        total += cost.hours
        print(
            f"| {recipe.stem} | {cost.prompts:,} | {cost.tokens / 1e9:.2f} billion | {cost.hours:,.0f} | "
            f"{cost.hours / given.gpus:,.0f} |"
        )
    print(f"| together | | | {total:,.0f} | {total / given.gpus:,.0f} |")


if __name__ == "__main__":
    main()
