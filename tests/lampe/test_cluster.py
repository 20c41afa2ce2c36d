"""Work spread over a local Ray cluster of two actors: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from lampe.__main__ import main
from lampe.cli import needle as needle_command
from lampe.cluster import ACTOR, Cluster, ClusterError, Failed, room, spread
from lampe.needle import read_results

TWO = Cluster(actors=2)


def stations(folder: Path, threads: int):
    """In an actor: what it does depends on the unit's name."""
    assert threads >= 1

    def work(unit: str):
        with (folder / unit).open("a") as file:
            file.write("x")
        if unit == "wrong":
            raise ValueError("a tide that never turns")
        if unit == "once" and (folder / unit).stat().st_size == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == "always":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit.startswith("slow"):
            time.sleep(0.2)
        return [f"{unit} {number}" for number in range(2)]

    return work


def none(threads: int):
    raise OSError("no such model")


@pytest.mark.long
def test_lost_actors_are_started_again_and_what_fails_says_why(tmp_path):
    units = ["a", "wrong", "once", "b", "always", "c"]
    done = list(spread(TWO, partial(stations, tmp_path), units))
    failed = {one.unit: one.why for one in done if isinstance(one, Failed)}
    rows = dict(one for one in done if not isinstance(one, Failed))
    assert len(done) == len(units)
    assert rows == {unit: [f"{unit} 0", f"{unit} 1"] for unit in ("a", "once", "b", "c")}
    assert failed["wrong"] == "a tide that never turns"
    assert "was lost 3 times" in failed["always"]
    assert {name: (tmp_path / name).stat().st_size for name in units} == dict.fromkeys(units, 1) | {
        "once": 2, "always": 3,
    }  # fmt: skip


def test_an_actor_that_is_killed_in_the_middle_costs_nothing(tmp_path):
    import ray

    units = [f"slow {number}" for number in range(12)]
    found: Counter = Counter()
    for number, (unit, rows) in enumerate(spread(TWO, partial(stations, tmp_path), units)):
        found[unit] += 1
        assert rows == [f"{unit} 0", f"{unit} 1"]
        if not number:
            ray.kill(ray.get_actor(f"{ACTOR}0"))
    assert found == dict.fromkeys(units, 1)


def comparable(path):
    """Results by their cells, without what depends on what was read before, and how fast."""
    results = read_results(path)
    assert len({result.cell for result in results}) == len(results), "one is there twice"
    return {result.cell: replace(result, seconds=0, read_tokens=0, megabytes=None) for result in results}


@pytest.mark.long
def test_two_actors_give_what_one_process_gives_and_a_stopped_run_goes_on(small, tmp_path, monkeypatch, capsys):
    arguments = ["needle", "--model", small["llama"], "--bits", "16", "--haystack", "filler", "--lengths", "300,500"]
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert main([*arguments, "--depths", "0.2,0.8", "--out", str(one)]) == 0
    spread_out = [*arguments, "--depths", "0.2,0.8", "--out", str(two), "--ray", "--actors", "2"]

    def stopped(*given):
        for number, done in enumerate(spread(*given)):
            yield done
            if number == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(needle_command, "spread", stopped)
    assert main(spread_out) == 130
    assert len(read_results(two)) == 3
    monkeypatch.setattr(needle_command, "spread", spread)
    assert main(spread_out) == 0
    assert comparable(one) == comparable(two)
    assert "failed" not in capsys.readouterr().err


COMMANDS = {
    "needle": "--haystack filler --lengths 300 --depths 0.2,0.8",
    "perplexity": "--lengths 100,300 --windows 1 --methods rope,selfextend",
    "calibrate": "--lengths 160,300,400 --windows 1 --needles 1 --steps 2 --refine 0 --head 16 --tail 8",
    "evaluate": "--tasks niah_single_1 --lengths 600 --samples 1",
}


def given(command: str, small: dict[str, str], folder: Path) -> tuple[list[str], Path]:
    """One of the commands on a tiny model, on a text of one's own where it takes one; and where its rows will be."""
    folder.mkdir(exist_ok=True)
    text, rows = folder / "tides.txt", folder / "rows.jsonl"
    text.write_text("The tide turns twice a day, and the boats wait for it. " * 120, encoding="utf-8")
    own = ["--text", str(text)] if command in ("perplexity", "calibrate") else []
    if command == "calibrate":
        own += ["--sweep", str(rows)]
    out = {"calibrate": folder / "preset.json", "evaluate": folder}.get(command, rows)
    return [
        command,
        "--model",
        small["llama"],
        "--bits",
        "16",
        "--out",
        str(out),
        *own,
        *COMMANDS[command].split(),
    ], rows


def rows_of(path: Path) -> list[dict]:
    """A file's rows, without what depends on the machine, in an order of their own."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for key in ("seconds", "megabytes"):
            row.pop(key, None)
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))


@pytest.mark.long
@pytest.mark.parametrize("command", ["perplexity", "calibrate", "evaluate"])
def test_the_other_commands_give_what_one_process_gives(command, small, tmp_path):
    (alone, one), (together, two) = (given(command, small, tmp_path / name) for name in ("alone", "together"))
    assert main(alone) == 0
    assert main([*together, "--ray", "--actors", "2"]) == 0
    assert len(rows_of(one)) > 1
    for mine, theirs in zip(rows_of(one), rows_of(two), strict=True):
        # An actor has half the threads, and sums in another order.
        numbers = [key for key, value in mine.items() if isinstance(value, float)]
        assert [mine.pop(key) for key in numbers] == pytest.approx([theirs.pop(key) for key in numbers], rel=1e-3)
        assert mine == theirs


@pytest.mark.parametrize("command", ["needle", "perplexity", "calibrate"])
def test_what_fails_is_a_row_beside_the_others_and_is_tried_again(command, small, tmp_path, monkeypatch, capsys):
    arguments, rows = given(command, small, tmp_path)
    asked, broken = [], []

    def failing(cluster, make, units):
        work = make(1)
        for unit in units:
            asked.append(unit)
            broken.append(unit) if not broken else None
            if unit == broken[0]:
                yield Failed(unit, "a tide that never turns")
            else:
                yield unit, list(work(unit))

    monkeypatch.setattr(f"lampe.cli.{command}.spread", failing)
    # A curve needs every length, so calibrate says what it lacks.
    assert main([*arguments, "--ray"]) == (2 if command == "calibrate" else 0)
    assert asked.count(broken[0]) == 1, "in the same run it isn't"
    (failed,) = [json.loads(line) for line in (tmp_path / "rows.failed").read_text("utf-8").splitlines()]
    assert failed["why"] == "a tide that never turns"
    assert "tokens" in failed["failed"]
    assert '"length"' in json.dumps(failed["unit"])
    assert "failed: a tide that never turns (kept in" in capsys.readouterr().err
    kept = len(rows_of(rows))
    broken[:] = [None]
    asked.clear()
    assert main([*arguments, "--ray"]) == 0
    assert len(rows_of(rows)) > kept
    assert not (tmp_path / "rows.failed").exists(), "nothing fails any more"


def test_an_address_that_doesnt_answer_is_a_sentence():
    with pytest.raises(ClusterError, match=r"No Ray cluster answers at .127\.0\.0\.1:1"):
        list(spread(Cluster("127.0.0.1:1", 1), none, ["a"]))


@pytest.mark.parametrize(
    ("there", "given", "found"),
    [
        ({"CPU": 8.0}, Cluster(), (2, 4)),  # one model for each machine
        ({"CPU": 8.0}, Cluster(actors=3), (3, 2)),
        ({"CPU": 8.0, "GPU": 4.0}, Cluster(gpus=1), (4, 2)),
        ({"CPU": 8.0, "GPU": 4.0}, Cluster(gpus=2), (2, 4)),
        ({"CPU": 8.0, "GPU": 4.0}, Cluster(gpus=0.5), (5, 1)),  # there are five units
        ({"CPU": 8.0}, Cluster(gpus=1), "Each model is to have 1 GPUs, and the cluster has 0"),
        ({"CPU": 8.0}, Cluster(actors=9), "room for 8 models of this size, not for 9"),
        ({"CPU": 8.0, "GPU": 4.0}, Cluster(actors=5, gpus=1), "room for 4 models of this size, not for 5"),
    ],
)
def test_how_many_models_a_cluster_holds(there, given, found):
    ray = SimpleNamespace(cluster_resources=lambda: there, nodes=lambda: [{"Alive": True}, {"Alive": True}])
    if isinstance(found, str):
        with pytest.raises(ClusterError, match=found):
            room(ray, given, 5)
    else:
        assert room(ray, given, 5) == found


@pytest.mark.long
def test_a_model_that_no_actor_can_load_is_a_sentence():
    with pytest.raises(ClusterError, match=r"No model could be loaded on the cluster: .*no such model"):
        list(spread(TWO, none, ["a", "b"]))


def test_ray_that_isnt_here_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r'pip install "lampe-lab\[cluster\]"'):
        list(spread(TWO, none, ["a"]))


@pytest.mark.parametrize("more", [["--actors", "0"], ["--gpus-per-model", "1.5"], ["--gpus-per-model", "-1"]])
def test_numbers_that_cant_be_are_refused_before_anything_runs(more, small, tmp_path, capsys):
    arguments = ["needle", "--model", small["llama"], "--bits", "16", "--lengths", "300", "--ray", *more]
    assert main([*arguments, "--out", str(tmp_path / "rows.jsonl")]) != 0
    assert "at least one of --actors" in capsys.readouterr().err
