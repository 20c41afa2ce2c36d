"""`lampe tune`: the best of a method's own settings for a model."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from lampe.calibration import library_docstrings, read_trials, run_trials, source_of, trials, tuned, write_trial
from lampe.calibration.comparing import cost
from lampe.calibration.measure import check_memory
from lampe.cli.arguments import add_model, list_of, text_named
from lampe.methods import METHODS, method_class
from lampe.models.load import DEFAULT_MODEL_NAME, load
from lampe.needle import TokenizedHaystack


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Try each of a method's candidate settings on text and hidden numbers, as `calibrate` tries mapping lengths, "
        "and write the best. Each result is appended to the rows' file as it comes; the same command goes on."
    )
    parser.add_argument("method", help=f"one of {', '.join(METHODS)}")
    add_model(parser)
    parser.add_argument("--lengths", type=list_of(int), help="tokens, as 8192,12288 (default: 1 and 1½ windows)")
    parser.add_argument("--windows", type=int, default=1, help="windows of text for each length (default: 1)")
    parser.add_argument("--needles", type=int, default=8, help="needles hidden together in each window (default: 8)")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--text", default="docstrings", help="docstrings (of the standard library), or a text file")
    parser.add_argument("--out", type=Path, default=Path("tuned.json"), help="the settings' file")
    parser.add_argument("--rows", type=Path, help="the rows' file (default: beside the settings, .jsonl)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Measure what is missing of a method's candidates, and print and write the best."""
    kind = method_class(given.method)
    text = text_named(given.text, {"docstrings": library_docstrings})
    model, tokenizer = load(given.model, bits=given.bits)
    method = kind.for_model(model)
    lengths = given.lengths or [method.window, method.window * 3 // 2]
    check_memory(model, lengths)
    tokenized = TokenizedHaystack(text, tokenizer)
    source = asdict(source_of(model, tokenized, given.model or DEFAULT_MODEL_NAME))
    path = given.rows or given.out.with_suffix(".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    candidates = method.candidates()
    wanted = [one for each in candidates for one in trials(each, lengths, given.windows, given.needles, given.seed)]
    rows = {row.trial: row for row in read_trials(path, source)}
    with tqdm(total=len(wanted), initial=sum(one in rows for one in wanted), unit="row") as bar:
        try:
            for row in run_trials(model, tokenized, wanted, rows.values()):
                rows[row.trial] = row
                write_trial(path, row, source)
                bar.update()
        except KeyboardInterrupt:
            bar.close()
            print(f"Stopped. What was measured is kept in {path}; the same command goes on.", file=sys.stderr)
            return 130
    found = [rows[one] for one in wanted]
    best = tuned(method, found)
    for one in candidates:
        marks = " (authors' rule)" * (one == method) + " (best)" * (one == best)
        price = cost(row for row in found if row.method == one)
        print(f"{price:.4f}  {json.dumps(one.settings())}{marks}")
    given.out.write_text(json.dumps({"method": best.key, "settings": best.settings()}) + "\n", encoding="utf-8")
    print(f"Written to {given.out}; `lampe needle --settings {given.out}` runs with it.")
    return 0
