"""How much memory is free, in a container too."""

from __future__ import annotations

import sys

import pytest
import torch

from lampe.models import memory
from lampe.models.memory import Taken, container_free_bytes, free_bytes

GB = 2**30


def cgroup(root, most, used, files, version=2):
    folder = root if version == 2 else root / "memory"
    folder.mkdir(exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (most, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    field = "inactive_file" if version == 2 else "total_inactive_file"
    (folder / "memory.stat").write_text(f"anon 5\n{field} {files}\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(tmp_path, version, monkeypatch):
    assert container_free_bytes(cgroup(tmp_path, 2 * GB, GB, GB // 4, version)) == 1.25 * GB
    assert container_free_bytes(cgroup(tmp_path, GB, 2 * GB, 0, version)) == 0
    monkeypatch.setattr(memory, "container_free_bytes", lambda: 7)
    assert free_bytes(torch.device("cpu")) == 7


@pytest.mark.parametrize("most", ["max", "9223372036854771712", "what"])
def test_no_limit_is_none(tmp_path, most):
    assert container_free_bytes(cgroup(tmp_path, most, GB, 0)) == sys.maxsize


def test_a_machine_without_containers_has_none(tmp_path):
    assert container_free_bytes(tmp_path) == sys.maxsize
    (tmp_path / "memory.max").write_text("5")
    assert container_free_bytes(tmp_path) == sys.maxsize


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own measure")
def test_what_is_taken_at_most_is_told_and_forgotten(monkeypatch):
    taken = Taken(torch.device("cpu"))
    some = torch.ones(50_000_000)
    del some
    assert 195 <= taken.most() < 300
    assert taken.most() < 100
    with monkeypatch.context() as patch:
        patch.setattr(memory.Path, "read_text", lambda *_: "")
        assert taken.most() is None, "a kernel that doesn't tell"

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(memory.Path, "write_text", refuse)
    assert taken.most() is None, "a container where it can't be made to forget"
