"""What breaks beside the app is mended by itself: it works again without a restart."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from types import SimpleNamespace

import gradio as gr
import httpx
import psutil
import pytest

import app.web.temporary
from app.documents.reading import read_document
from app.page import build
from app.serving.computing import Computing
from app.serving.requests import Request
from app.serving.start import start
from app.serving.waiting_line import WaitingLine
from app.settings import Settings
from app.ui import downloads
from app.ui.downloads import saves
from app.web.temporary import AGE, TemporaryFolder
from lampe.errors import InputError
from lampe.models.embedded import LoadError, prepare_default
from tests.app.test_service import QUESTION, TEXT, last

# What the app has started


def kill_child(named: str, stop: threading.Event) -> None:
    """As the kernel does where memory runs out: the first process of this one's that has this in its command line."""
    while not stop.is_set():
        for child in psutil.Process().children(recursive=True):
            if named in " ".join(child.cmdline()):
                child.kill()
                return
        time.sleep(0.005)


@pytest.fixture
def killing():
    stop = threading.Event()
    yield lambda named: threading.Thread(target=kill_child, args=(named, stop), daemon=True).start()
    stop.set()


def test_a_parser_that_is_killed(tmp_path, killing):
    file = tmp_path / "a.txt"
    file.write_text("The boat is called Heron. " * 1000)
    killing("app.documents")
    with pytest.raises(InputError, match="Reading this file failed"):
        read_document(file)
    assert read_document(file).parts[0].text.startswith("The boat")


def test_a_download_that_is_killed(tmp_path, monkeypatch, killing):
    monkeypatch.setenv("LAMPE_CACHE", str(tmp_path / "cache"))
    killing("pip download")
    with pytest.raises(LoadError, match=r"pip can't fetch .* and try again"):
        prepare_default()
    assert list((tmp_path / "cache").iterdir()) == []

    class Begun(Exception):
        pass

    def begun(report):
        raise Begun

    with pytest.raises(Begun):
        prepare_default(begun)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_models_thread_that_ends(small):
    service = start(Settings(small["llama"], 16, 20_000))
    first = last(service.ask(Request(TEXT, QUESTION, "lampe", 8))).answer
    thread = service.runner.computing.thread
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_long(thread.ident), ctypes.py_object(SystemExit))
    service.runner.computing.start(lambda: None)  # wakes it to its end
    thread.join(10)
    assert not thread.is_alive()
    assert last(service.ask(Request(TEXT, QUESTION, "lampe", 8))).answer == first


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, MemoryError])
def test_work_that_wants_to_end_its_thread(error):
    def end():
        raise error

    computing = Computing("test")
    with pytest.raises(error):
        computing(end)
    assert computing(lambda: 1) == 1


# The disk and the clock


def test_a_full_disk_that_is_freed(small, monkeypatch):
    lab = build(Settings(small["llama"], 16, 6_000))
    url = lab.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")

    def upload():
        return httpx.post(f"{url}gradio_api/upload", files={"files": ("a.txt", b"Some text.")})

    with monkeypatch.context() as patched:
        patched.setattr(app.web.temporary.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
        refused = upload()
        assert refused.status_code == 507
        assert "try again in a few minutes" in refused.json()["detail"]
    assert upload().status_code == 200
    lab.demo.close()


def test_a_full_disk_when_a_file_is_saved(monkeypatch, tmp_path):
    with gr.Blocks() as demo:
        file, message = gr.DownloadButton(elem_id="file"), gr.HTML()
        saves(gr.Button(), [], lambda: ("a.csv", "1,2"), file, message, WaitingLine())
    save = next(one.fn for one in demo.fns.values() if one.fn)
    visitor = gr.Request(session_hash="ann")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(downloads.tempfile, "mkdtemp", full)
        path, said = save(visitor)
        assert path is None
        assert "no room for the file" in said
    monkeypatch.setattr(downloads.tempfile, "mkdtemp", lambda: str(tmp_path))
    assert save(visitor)[0] == str(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == b"\xef\xbb\xbf1,2"


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_clock_that_jumps(tmp_path, monkeypatch, jump):
    """What was there goes, what comes stays as long as ever."""
    folder = TemporaryFolder(tmp_path / "lab")
    before, after = folder.path / "before", folder.path / "after"
    before.write_text("x")
    now = time.time() + jump
    monkeypatch.setattr(app.web.temporary.time, "time", lambda: now)
    after.write_text("x")
    os.utime(after, (now, now))
    folder.sweep()
    assert [file.name for file in folder.path.iterdir()] == ["after"]
    monkeypatch.setattr(app.web.temporary.time, "time", lambda: now + AGE + 1)
    folder.sweep()
    assert list(folder.path.iterdir()) == []
