"""Work spread over a local Ray cluster of two actors: nothing is lost, nothing is done twice."""

from __future__ import annotations

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


@pytest.mark.long
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
