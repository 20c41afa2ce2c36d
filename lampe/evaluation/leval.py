"""L-Eval's closed tasks (arXiv 2307.11088) for lm-evaluation-harness, which doesn't have them.

Their texts lie in L-Eval's own repository, as JSON lines in the folder LEval-data/Closed-ended-tasks: a document with
several questions, and what is expected. The prompts are ours; an answer is right if it is what L-Eval's own scoring
takes for the same: the same letters, number, word or topic. Not here are codeU, whose expected outputs are scored by a
list of phrases, and of sci_fi the question about the real world.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lampe.evaluation.rows import EvaluationError

PREFIX = "leval_"


@dataclass(frozen=True)
class Closed:
    """A task: what is said after the question, how an answer is read, and the most tokens of one.

    Parameters
    ----------
    asked : str
    read : callable
        What of an answer counts, or of what is expected.
    tokens : int
    """

    asked: str
    read: Callable[[str], str]
    tokens: int = 32


def _letters(text: str) -> str:
    """The letters of the options that an answer begins with, as "AC" of "(C) and A."."""
    found = re.match(r"[^A-Za-z]*([A-D](?:(?:\s|,|and|[().])*[A-D]\b)*)(?![a-z])", text)
    return "".join(sorted({*re.findall(r"[A-D]", found[1])})) if found else ""


def _letter(text: str) -> str:
    """The first of them."""
    found = re.search(r"\b[A-D]\b", text)
    return found[0] if found else ""


def _number(text: str) -> str:
    """What "The answer is" is followed by, or else the last number."""
    told = re.findall(r"[Tt]he answer is\D{0,9}(\d[\d,]*(?:\.\d+)?)", text) or re.findall(r"\d[\d,]*(?:\.\d+)?", text)
    return f"{float(told[-1].replace(',', '')):g}" if told else ""


def _truth(text: str) -> str:
    found = re.search(r"\b(true|false)\b", text.split("[fact")[0].lower())
    return found[0] if found else ""


def _words(text: str) -> str:
    """Words alone, without articles, marks and case: of the first line."""
    line = text.strip().split("\n")[0].lower()
    return " ".join(word for word in re.findall(r"\w+", line) if word not in ("a", "an", "the"))


_ONE = "Exactly one of the options is right. Answer with its letter alone."
TASKS = {
    f"{PREFIX}coursera": Closed("One or more of the options are right. Answer with their letters alone.", _letters),
    f"{PREFIX}quality": Closed(_ONE, _letter),
    f"{PREFIX}tpo": Closed(_ONE, _letter),
    f"{PREFIX}gsm100": Closed('End your answer with "The answer is" and the number.', _number, 512),
    f"{PREFIX}topic_retrieval_longchat": Closed("Answer with the name of the topic alone.", _words),
    f"{PREFIX}sci_fi": Closed('Answer with "True" or "False" alone.', _truth),
}
"""By the harness's name; what follows the prefix is L-Eval's own, and its file's."""


def docs_of(name: str, folder: Path | None) -> list[dict[str, Any]]:
    """A task's questions, each with its document, in the file's order.

    Raises
    ------
    EvaluationError
        If the file isn't there, or a line of it is no document with questions and answers.
    """
    if folder is None:
        raise EvaluationError(
            f"{name}'s texts lie in L-Eval's repository (OpenLMLab/LEval): clone it, and give its folder "
            "LEval-data/Closed-ended-tasks with --leval."
        )
    file = folder / f"{name.removeprefix(PREFIX)}.jsonl"
    docs: list[dict[str, Any]] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{file} can't be read, and {name} is in it: {error}.") from error
    for number, line in enumerate(lines, 1):
        try:
            given = json.loads(line)
            pairs = list(zip(given["instructions"], given["outputs"], strict=True))
            docs += [{"document": str(given["input"]), "question": str(a), "answer": str(b)} for a, b in pairs]
        except (ValueError, TypeError, KeyError) as error:
            raise EvaluationError(
                f"Line {number} of {file.name} is no document of L-Eval's with its questions."
            ) from error
    return docs


def config_of(name: str) -> dict[str, Any]:
    """What the harness makes a task of."""
    closed = TASKS[name]

    def text(doc: dict[str, Any]) -> str:
        return f"{doc['document']}\n\n{doc['question']}\n\n{closed.asked}"

    def scored(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
        expected = closed.read(doc["answer"])
        return {"exact_match": float(bool(expected) and closed.read(results[0]) == expected)}

    return {
        "task": name,
        "dataset_path": "json",
        "test_split": "test",
        "doc_to_text": text,
        "doc_to_target": lambda doc: doc["answer"],
        "process_results": scored,
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": closed.tokens, "do_sample": False, "until": []},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
