"""L-Eval's closed tasks: how answers are read, and that the harness asks and scores them."""

from __future__ import annotations

import json

import pytest

from lampe.__main__ import main
from lampe.evaluation import EvaluationError, harness, leval, read_rows

READ = {
    "coursera": [
        ("AC", "AC"), ("C, A", "AC"), ("(B) It is so. A and C are not.", "B"), ("A and B.", "AB"),
        ("A. Because D", "A"), ("The answer is", ""), ("Apples", ""), ("", ""),
    ],
    "quality": [("(B) Their subconscious knew", "B"), ("The answer is C.", "C"), ("BAD", ""), ("none", "")],
    "tpo": [("D", "D"), ("d", "")],
    "gsm100": [
        ("18", "18"), ("She has 3 * 6 = 18 eggs. The answer is $1,018.50 for 2 days.", "1018.5"), ("3 + 4 = 7.0", "7"),
        ("no number", ""),
    ],
    "topic_retrieval_longchat": [
        ("The role of art in society", "role of art in society"),
        (" the Role of Art in Society.\nIt is", "role of art in society"),
    ],
    "sci_fi": [("True [fact: False]", "true"), ("It is FALSE.", "false"), ("Untrue", "")],
}  # fmt: skip


def written(folder, task, *documents):
    (folder / f"{task}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents), encoding="utf-8")


DOCUMENT = {
    "input": "The boat is called Heron. " * 20,
    "instructions": ["Which one?\nA. Heron\nB. Swan", "Which one isn't?\nA. Heron\nB. Swan"],
    "outputs": ["A", "B"],
    "evaluation": "exam",
}


@pytest.mark.parametrize(("task", "text", "found"), [(task, *pair) for task, pairs in READ.items() for pair in pairs])
def test_what_of_an_answer_counts(task, text, found):
    assert leval.TASKS[leval.PREFIX + task].read(text) == found


def test_the_group_is_its_tasks_and_stands_beside_the_harnesss_own():
    assert harness.leaves(["leval"]) == list(leval.TASKS)
    assert harness.leaves(["niah_single_1", "leval_tpo"]) == ["niah_single_1", "leval_tpo"]
    with pytest.raises(EvaluationError, match="has no task 'leval_nothing'"):
        harness.leaves(["leval_nothing"])


@pytest.mark.parametrize(("answer", "score"), [("A", 1.0), ("B.", 0.0), ("", 0.0)])
def test_an_answer_is_scored_by_the_harness(tmp_path, answer, score):
    written(tmp_path, "tpo", DOCUMENT)
    task = harness.prepared("leval_tpo", 0, 5, "", tmp_path, tmp_path)
    assert [task.doc_to_target(doc) for doc in task.eval_docs] == ["A", "B"]
    assert task.process_results(task.eval_docs[0], [answer]) == {"exact_match": score}


def test_the_command_asks_them_and_goes_on(small, tmp_path, capsys):
    written(tmp_path, "tpo", DOCUMENT)
    written(tmp_path, "sci_fi", {**DOCUMENT, "outputs": ["True [fact: False]"], "instructions": ["True or False?"]})
    asked = ["evaluate", "--model", small["llama"], "--bits", "16", "--tasks", "leval_tpo,leval_sci_fi,leval_gsm100"]
    asked += ["--methods", "rope,lampe", "--samples", "5", "--out", str(tmp_path / "out")]
    assert main([*asked, "--leval", str(tmp_path)]) == 0
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [(row.task, row.number, row.method) for row in rows] == [
        ("leval_tpo", 0, "rope"), ("leval_tpo", 1, "rope"), ("leval_tpo", 0, "lampe"), ("leval_tpo", 1, "lampe"),
        ("leval_sci_fi", 0, "rope"), ("leval_sci_fi", 0, "lampe"),
    ]  # fmt: skip
    assert {row.metric for row in rows} == {"exact_match"}
    assert all(row.log_likelihood is not None for row in rows)
    assert "gsm100.jsonl can't be read, and leval_gsm100 is in it" in capsys.readouterr().err
    assert main([*asked, "--leval", str(tmp_path)]) == 0
    assert len(read_rows(tmp_path / "out" / "rows.jsonl")) == 6


def test_where_the_texts_are_is_told(tmp_path):
    with pytest.raises(EvaluationError, match=r"lie in L-Eval's repository.*--leval"):
        leval.docs_of("leval_tpo", None)
    written(tmp_path, "tpo", DOCUMENT, {"input": "x", "instructions": ["a"], "outputs": []})
    with pytest.raises(EvaluationError, match=r"Line 2 of tpo\.jsonl is no document"):
        leval.docs_of("leval_tpo", tmp_path)
