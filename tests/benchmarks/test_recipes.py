"""Each recipe is a command that can be given, and costs what its table says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import datasets
import pytest

from benchmarks.cost import MODELS, RECIPES, arguments_of, cost_of
from lampe.__main__ import main
from lampe.evaluation import read_rows
from lampe.evaluation.harness import leaves
from lampe.families import family_config
from lampe.methods import METHODS, methods_for

FILES = sorted(RECIPES.glob("*.sh"))
FAMILIES = {
    "meta-llama/Meta-Llama-3-8B-Instruct": "llama3",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "meta-llama/Llama-2-7b-chat-hf": "llama2",
}


def test_each_names_tasks_and_methods_that_there_are():
    assert len(FILES) == 6
    tasks = {task for file in FILES for task in arguments_of(file).tasks}
    assert set(leaves(sorted(tasks))) >= {"niah_single_1", "longbench_qasper", "infinitebench_kv_retrieval"}
    for file in FILES:
        given = arguments_of(file)
        assert set(given.methods) <= set(METHODS)
        assert given.model in MODELS
        assert given.out == Path("evaluation") / file.stem
        for method in methods_for(given.methods, family_config(FAMILIES[given.model])).values():
            for length in given.lengths:
                if method.key != "rope":
                    assert not method.beyond(length), f"{file.stem}: {method.title} doesn't reach {length}"


def test_the_table_is_what_the_command_reckons():
    """One cell by hand: 6.6 · 10¹⁵ operations at 35 % of 989 TFLOP/s, and 128 tokens of 0.03 s."""
    given = arguments_of(RECIPES / "ruler-llama-3-8b.sh")
    given.lengths, given.methods = [131_072], ["lampe"]
    cost = cost_of(given, 989, 0.35, 0.03)
    one = (2 * 8.03e9 * 131_072 + 2 * 32 * 4096 * 131_072**2) / (989e12 * 0.35) + 128 * 0.03
    assert cost.hours == pytest.approx(13 * 500 * one / 3600)
    table = (RECIPES / "README.md").read_text(encoding="utf-8")
    for file in FILES:
        cost = cost_of(arguments_of(file), 989, 0.35, 0.03)
        assert f"| {file.stem} | {cost.prompts:,} | {cost.tokens / 1e9:.2f} billion | {cost.hours:,.0f} |" in table


@pytest.mark.long
def test_one_runs_with_what_is_given_after_its_name(small, tmp_path):
    more = ["--model", small["llama"], "--bits", "16", "--tasks", "niah_single_1", "--lengths", "600", "--samples", "1"]
    more += ["--methods", "rope,lampe", "--out", str(tmp_path)]
    subprocess.run([str(RECIPES / "ruler-llama-3-8b.sh"), *more], check=True, cwd=Path(__file__).parents[2])
    assert [row.method for row in read_rows(tmp_path / "rows.jsonl")] == ["rope", "lampe"]


def shelf(path: str, name: str | None = None, **_: object) -> dict[str, datasets.Dataset]:
    """A dataset of one document with the columns that the suite's has on the Hub, in whichever split is asked for."""
    text = "The quay was built of grey stone by the harbour master, def func_1(x): return func_2(x). " * 40
    doc = {"context": text, "answers": ["Paragraph 3"], "answer": ["the harbour master"]}
    doc |= {"question": "Who built the quay?", "input": "What is func_1(3)? Who built the quay?", "id": 0}
    doc |= {"all_classes": ["the harbour master", "nobody"], "options": ["the harbour master", "nobody", "a", "b"]}
    columns = {
        "Xnhyacinth/LongBench": ("question", "context", "answers", "all_classes"),
        "xinrongzhang2022/InfiniteBench": ("id", "context", "input", "answer", "options"),
    }[path]
    return AnySplit(datasets.Dataset.from_list([{key: doc[key] for key in columns}]))


class AnySplit(dict):
    def __init__(self, only: datasets.Dataset) -> None:
        super().__init__(test=only)
        self.only = only

    def __missing__(self, split: str) -> datasets.Dataset:
        return self.only


@pytest.mark.long
@pytest.mark.parametrize("suite", ["longbench", "infinitebench"])
def test_each_task_of_a_suite_is_asked_cut_and_scored(suite, small, tmp_path, monkeypatch):
    """One document stands in for what the Hub has; the prompts and scores are the harness's own."""
    monkeypatch.setattr(datasets, "load_dataset", shelf)
    given = arguments_of(RECIPES / f"{suite}-llama-3-8b.sh")
    tasks = leaves(given.tasks)
    more = ["--model", small["llama"], "--bits", "16", "--cut", "300", "--samples", "1", "--out", str(tmp_path)]
    assert main(["evaluate", "--tasks", ",".join(given.tasks), "--methods", "lampe", *more]) == 0
    rows = read_rows(tmp_path / "rows.jsonl")
    assert [row.task for row in rows] == tasks
    for row in rows:
        assert row.error is None, f"{row.task}: {row.error}"
        assert row.tokens == 300
        assert row.left_out > 100
        assert row.log_likelihood < 0
