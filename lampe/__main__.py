"""The library at the command line: `python -m lampe needle --help`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lampe.load import DEFAULT_MODEL_NAME, LoadError, load
from lampe.needle import HAYSTACKS, METHODS, TASKS, Haystack, NeedleError, Straw, grid, read_results, run, summary
from lampe.probe import UnsupportedModelError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit status. 130 is Ctrl-C, 2 a request that can't be done."""
    parser = argparse.ArgumentParser(prog="python -m lampe", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    add_needle(commands.add_parser("needle", help="hide facts in long texts, ask for them, and score the answers"))
    given = parser.parse_args(arguments)
    try:
        return given.run(given)
    except (NeedleError, LoadError, UnsupportedModelError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def add_needle(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Needle tests: lengths × depths × trials × methods. Each result is appended to the file as it comes; the same "
        "command goes on where it was stopped, and ends with a table."
    )
    parser.add_argument("--model", help="a Hub id or a folder (default: the embedded model)")
    parser.add_argument("--bits", type=int, choices=(4, 16), default=4)
    parser.add_argument("--task", choices=list(TASKS), default="single")
    parser.add_argument("--haystack", default="reference", help=f"{', '.join(HAYSTACKS)}, or a text file")
    parser.add_argument("--lengths", type=_list(int), default=[2048, 4096], help="tokens, as 2048,4096")
    parser.add_argument("--depths", type=_list(float), default=[0, 0.25, 0.5, 0.75, 1], help="0 to 1, as 0,0.5,1")
    parser.add_argument("--methods", type=_list(str), default=list(METHODS), help=f"of {','.join(METHODS)}")
    parser.add_argument("--trials", type=int, default=1, help="needles for each length and depth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("needle.jsonl"))
    parser.set_defaults(run=needle)


def needle(given: argparse.Namespace) -> int:
    """Run what is missing of a grid, and print the table of it."""
    cells = grid(given.task, given.lengths, given.depths, given.methods, given.trials, given.seed)
    haystack = _haystack(given.haystack)
    ran_with = {"model": given.model or DEFAULT_MODEL_NAME, "bits": given.bits}
    kept = [
        result
        for result, row in _rows(given.out)
        if result.haystack == haystack.name and ran_with.items() <= row.items()
    ]
    done = {result.cell for result in kept}
    missing = [cell for cell in cells if cell not in done]
    if missing:
        model, tokenizer = load(given.model, bits=given.bits)
        straw = Straw(haystack, tokenizer)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        with (
            given.out.open("a", encoding="utf-8") as file,
            tqdm(
                total=sum(cell.length for cell in cells),
                initial=sum(c.length for c in cells if c in done),
                unit="token",
            ) as bar,
        ):
            try:
                for result in run(model, straw, missing):
                    file.write(json.dumps({**asdict(result), **ran_with}, ensure_ascii=False) + "\n")
                    file.flush()
                    kept.append(result)
                    bar.update(result.length)
                    bar.set_postfix_str(f"{result.method} {result.length:,} at {result.depth:g}: {result.score:g}")
            except KeyboardInterrupt:
                bar.close()
                print(
                    f"Stopped. {len(kept)} results are kept in {given.out}; the same command goes on.", file=sys.stderr
                )
                return 130
    wanted = set(cells)
    print(summary(result for result in kept if result.cell in wanted))
    return 0


def _rows(path: Path) -> list[tuple[Any, dict[str, Any]]]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(zip(read_results(path), map(json.loads, lines), strict=True))


def _haystack(name: str) -> Haystack:
    if name in HAYSTACKS:
        return HAYSTACKS[name]()
    data = Path(name).read_bytes()
    try:
        return Haystack.named(Path(name).name, data.decode("utf-8"))
    except UnicodeDecodeError:
        raise NeedleError(f"{name} isn't plain text in UTF-8.") from None


def _list(kind: Any) -> Any:
    def parse(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",") if part.strip()]

    parse.__name__ = f"list of {kind.__name__}"
    return parse


if __name__ == "__main__":
    sys.exit(main())
