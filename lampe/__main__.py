"""The library at the command line: `lampe needle --help`, or `python -m lampe needle --help`."""

from __future__ import annotations

import argparse
import sys

from lampe.cli import calibrate, doctor, evaluate, methods, needle, perplexity, tune
from lampe.errors import LampeError
from lampe.files import output_never_fails


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. 130 is Ctrl-C, 2 a request that can't be done."""
    parser = argparse.ArgumentParser(prog="lampe", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    needle.add(commands.add_parser("needle", help="hide facts in long texts, ask for them, and score the answers"))
    evaluate.add(commands.add_parser("evaluate", help="published benchmarks, by lm-evaluation-harness"))
    perplexity.add(commands.add_parser("perplexity", help="how well texts are read on, by length and method"))
    calibrate.add(commands.add_parser("calibrate", help="find the mapping lengths that suit a model"))
    methods.add(
        commands.add_parser("methods", help="the methods that can be compared, with their settings for a model")
    )
    tune.add(commands.add_parser("tune", help="find the settings of any method that suit a model"))
    doctor.add(commands.add_parser("doctor", help="what LaMPE makes of a model, and what to do next"))
    output_never_fails()
    given = parser.parse_args(arguments)
    try:
        return given.run(given)
    except (LampeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
