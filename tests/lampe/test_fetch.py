"""A model is fetched from a Hub of our own on this machine: progress, a Stop in the middle, and what isn't fetched."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"[]" * 500,
    "model-00001-of-00002.safetensors": b"a" * 3_000_000,
    "model-00002-of-00002.safetensors": b"b" * 2_000_000,
    "consolidated.safetensors": b"twice",
    "original/params.json": b"twice",
    "pytorch_model.bin": b"a third time",
    "README.md": b"# words",
}
FETCH = """
import sys
from lampe.models import load
from lampe.models.load import LoadError, fetch, load_config, load_tokenizer

class Stopped(Exception):
    pass

def told(report):
    print(report.stage, report.done, report.total, report.unit, flush=True)
    if sys.argv[1] == "stop" and report.done > 2_000_000:
        raise Stopped

try:
    if sys.argv[1] == "large":
        load._SMALL = 900
        load_config("somebody/model", anonymous=True)
    if sys.argv[1] == "tokenizer":
        load_tokenizer("somebody/model", anonymous=True)
    fetch("somebody/model", progress=told, anonymous=True, leave=1.0 if sys.argv[1] == "full" else 0.0)
except Stopped:
    print("stopped")
except LoadError as error:
    print(error)
"""


ASKED: list[str] = []


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as its client asks for."""

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/somebody/model"):
            files = [
                {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
                for name, data in FILES.items()
            ]
            body = json.dumps({"id": "somebody/model", "sha": COMMIT, "siblings": files, "tags": [], "downloads": 0})
            self._answer(body.encode(), {"content-type": "application/json"})
            return
        name = path.removeprefix("/somebody/model/resolve/main/").removeprefix(f"/somebody/model/resolve/{COMMIT}/")
        if name not in FILES:
            self.send_error(404)
            return
        if self.command == "GET":
            ASKED.append(name)
        data = FILES[name]
        etag = hashlib.sha1(data).hexdigest()
        self._answer(data, {"etag": f'"{etag}"', "x-repo-commit": COMMIT, "accept-ranges": "bytes"})

    do_HEAD = do_GET

    def _answer(self, body, headers):
        start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        for header, value in {**headers, "content-length": str(len(body) - start)}.items():
            self.send_header(header, value)
        if start:
            self.send_header("content-range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    ASKED.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def fetched(hub, home, how):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH, how], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.long
def test_the_disk_isnt_filled_but_what_is_there_stays_of_use(hub, tmp_path):
    (refused,) = fetched(hub, tmp_path, "full")
    assert refused.startswith("somebody/model takes 0.0 GB of the disk here, of which ")
    assert not [name for name in ASKED if name.endswith(".safetensors")]
    fetched(hub, tmp_path, "whole")
    assert "takes" not in " ".join(fetched(hub, tmp_path, "full")), "it is there, and takes no more"


def test_of_somebody_elses_model_small_files_are_sized_before_they_come_and_the_tokenizer_is_looked_at(hub, tmp_path):
    (refused,) = fetched(hub, tmp_path, "large")
    assert refused == (
        "somebody/model's config and tokenizer are 0 MB, and at most 0 MB are fetched here. Choose another model."
    )
    assert not ASKED
    (refused,) = fetched(hub, tmp_path, "tokenizer")
    assert refused.startswith("somebody/model's tokenizer isn't one of the usual kinds")
    assert ASKED == ["config.json", "tokenizer.json"]


@pytest.mark.long
def test_weights_come_with_progress_once_and_a_stop_keeps_what_has_come(hub, tmp_path):
    total = sum(len(FILES[name]) for name in list(FILES)[:4])
    stopped = fetched(hub, tmp_path, "stop")
    assert stopped[-1] == "stopped"
    assert "model-00002-of-00002.safetensors" not in ASKED
    told = [line.split() for line in fetched(hub, tmp_path, "whole")]
    done = [int(line[2]) for line in told]
    assert done == sorted(done)
    assert done[-1] == total
    assert all(line[:2] == ["Fetching", "somebody/model"] and line[3:] == [str(total), "bytes"] for line in told)
    there = {path.name: path.stat().st_size for path in tmp_path.rglob("snapshots/*/*")}
    assert there == {name: len(FILES[name]) for name in list(FILES)[:4]}, "each once, and no words"
