"""The edge: what is let in, what is turned away in a sentence, and what is cleared away after those who left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

import app.web.gate
import app.web.sessions
from app.page import build
from app.serving.presence import Presence
from app.settings import Settings
from app.ui.runs import visitor_of
from app.web.checks import MAX_VALUES, Refused, check_host, check_origin, check_values
from app.web.gate import (
    MAX_JSON,
    MAX_UPLOAD,
    MOST_EVENTS_OF_ONE,
    Gate,
)
from app.web.sessions import Sessions
from app.web.temporary import AGE, TemporaryFolder

SECRET = "The boat is called Heron, and nobody else may know."


@pytest.fixture(scope="module")
def lab(small):
    return build(Settings(small["llama"], 16, 6_000))


@pytest.fixture(scope="module")
def url(lab):
    yield lab.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1").rstrip("/")
    lab.demo.close()


def said(response):
    return response.json()["detail"]


def call(url, name, data, **more):
    return httpx.post(f"{url}/gradio_api/call/{name}", json={"data": data, **more}, timeout=60)


def ended(url, name, event):
    """What a call has come to, as a program reads it."""
    with httpx.stream("GET", f"{url}/gradio_api/call/{name}/{event}", timeout=60) as stream:
        return "".join(stream.iter_text())


def test_a_call_passes(url):
    response = call(url, "position_map", [4000, 1024, 64, 32, 512, None])
    assert response.status_code == 200
    assert "event: complete" in ended(url, "position_map", response.json()["event_id"])


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring",
        "/monitoring/summary",
        "/gradio_api/deep_link?session_hash=x",
        "/gradio_api/proxy=https://a.b/c",
        "/gradio_api/file=https://a.b/c",
        "/gradio_api/file/HTTP:/a.b/c",
    ],
)
def test_what_the_page_doesnt_use_is_closed(url, path):
    assert httpx.get(url + path).status_code == 404


def test_no_call_goes_round_the_line(url):
    assert httpx.post(f"{url}/gradio_api/run/ask", json={"data": ["a", "b"]}).status_code == 404


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large_is_refused(url, declared):
    body = b'{"data": ["' + b"x" * MAX_JSON + b'"]}'
    content = body if declared else (body[n : n + 2**20] for n in range(0, len(body), 2**20))
    response = httpx.post(f"{url}/gradio_api/call/ask", content=content, timeout=60)
    assert response.status_code == 413
    assert f"larger than {MAX_JSON:,} bytes" in said(response)


def test_an_upload_that_is_too_large_is_refused(url):
    response = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.txt", b"x" * (MAX_UPLOAD + 1))}, timeout=60)
    assert response.status_code == 413


@pytest.mark.parametrize(
    "values", [[""] * (MAX_VALUES + 1), [[]] * (MAX_VALUES + 1), {str(n): 0 for n in range(30_000)}]
)
def test_a_call_of_too_many_values_is_refused(url, values):
    response = call(url, "cut", [values, "What?"])
    assert response.status_code == 413
    assert "more than 20,000 values" in said(response)


@pytest.mark.parametrize("text", ["x" * 5_000_000, '\\"[,{' * 900_000, "\n,[" * 900_000, "\\" * 2_000_000])
def test_a_long_text_is_one_value_whatever_is_in_it(text):
    check_values(json.dumps({"data": [text, text]}).encode())
    with pytest.raises(Refused):
        check_values(json.dumps({"data": [text, *[0] * 20_000]}).encode())


def test_a_body_that_comes_in_drops_isnt_waited_for(monkeypatch):
    monkeypatch.setattr(app.web.gate, "SLOWEST", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message):
        sent.append(message)

    async def inner(*_):
        raise AssertionError("it was let in")

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/call/ask", "headers": [(b"host", b"localhost")]}
    gate = Gate(inner, Settings(None, 4, 64), Presence(), None, None)
    asyncio.run(gate(scope, receive, send))
    assert sent[0]["status"] == 408
    assert gate._being_read == 0
    monkeypatch.setattr(app.web.gate, "MOST_READ", 1)
    asyncio.run(gate(scope, receive, send))
    assert sent[2]["status"] == 503
    assert not gate._connections


@pytest.mark.parametrize("headers", [{"host": "["}, {"origin": "http://["}, {"host": "é"}])
def test_headers_that_are_no_addresses_are_refused(url, headers):
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    assert httpx.post(f"{url}/gradio_api/call/ask", json={"data": []}, headers=encoded).status_code in (400, 421)


def test_a_sessions_name_is_short(url):
    assert httpx.get(f"{url}/gradio_api/heartbeat/{'x' * 200}").status_code == 400


def test_nobody_is_one_of_their_address():
    request = SimpleNamespace(session_hash=None, client=SimpleNamespace(host="2001:db8:1:2:3:4:5:6"))
    one, other = visitor_of(request), visitor_of(request)
    assert one.session != other.session
    assert one.address == other.address == "2001:db8:1:2::/64"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": "https://evil.example", "host": "localhost:7860"}, ()),
        ({"origin": "null", "host": "localhost:7860"}, ()),
        ({"sec-fetch-site": "cross-site", "host": "localhost:7860"}, ()),
        ({"origin": "https://evil.example", "host": "localhost:7860"}, ("https://good.example",)),
    ],
)
def test_other_sites_pages_are_refused(headers, allowed):
    with pytest.raises(Refused) as refused:
        check_origin(headers, allowed)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "localhost:7860"}, ()),
        ({"origin": "http://localhost:7860", "host": "localhost:7860", "sec-fetch-site": "same-origin"}, ()),
        ({"origin": "https://good.example", "host": "lab.example"}, ("https://good.example",)),
    ],
)
def test_the_pages_own_and_programs_pass(headers, allowed):
    check_origin(headers, allowed)


LOCAL, FAR = ("127.0.0.1", 7860), ("10.0.0.5", 7860)


@pytest.mark.parametrize(
    ("host", "server", "allowed", "passes"),
    [
        ("localhost:7860", LOCAL, (), True),
        ("127.0.0.1:7860", LOCAL, (), True),
        ("[::1]:7860", ("::1", 7860), (), True),
        ("rebound.example", LOCAL, (), False),
        ("rebound.example", LOCAL, ("lab.example",), False),
        ("lab.example", LOCAL, ("lab.example",), True),
        ("anything.example", LOCAL, ("*",), True),
        ("lab.hf.space", FAR, (), True),
        ("other.example", FAR, ("lab.example",), False),
        ("localhost", LOCAL, ("lab.example",), True),
    ],
)
def test_names_that_the_app_answers_to(host, server, allowed, passes):
    if passes:
        check_host({"host": host}, server, allowed)
        return
    with pytest.raises(Refused, match="ALLOWED_HOSTS"):
        check_host({"host": host}, server, allowed)


def test_another_sites_upload_is_refused(url):
    headers = {"origin": "https://evil.example"}
    response = httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.txt", b"x")}, headers=headers)
    assert response.status_code == 403
    assert "ALLOWED_ORIGINS" in said(response)


def test_one_session_has_a_share_of_the_queue(url, monkeypatch):
    def busy(session):
        return [("127.0.0.1", session, 100)] * MOST_EVENTS_OF_ONE

    monkeypatch.setattr(Sessions, "under_way", lambda _: busy("mine"))
    response = call(url, "cut", ["x"], session_hash="mine")
    assert response.status_code == 429
    assert "wait until some of it has ended" in said(response)
    monkeypatch.setattr(Sessions, "under_way", lambda _: busy("yours"))
    assert call(url, "position_map", [4000], session_hash="mine").status_code == 200


@pytest.mark.parametrize(
    ("address", "size", "status"), [("127.0.0.1", 4, 429), ("10.0.0.1", 16, 503), ("10.0.0.1", 4, 200)]
)
def test_the_texts_that_wait_have_a_bound_together(url, monkeypatch, address, size, status):
    monkeypatch.setattr(Sessions, "under_way", lambda _: [(address, "one", size * MAX_JSON)])
    assert call(url, "position_map", [4000], session_hash="mine").status_code == status


def test_a_call_that_waits_counts_with_its_bytes(url, lab):
    event = call(url, "cut", ["A text. " * 100_000, "Why?"]).json()["event_id"]
    sizes = [size for *_, size in Sessions(lab.demo, None).under_way()]
    assert any(size > 800_000 for size in sizes)
    ended(url, "cut", event)


def test_nothing_that_was_sent_is_in_the_log(url, capfd):
    for name, data in (("ask", [SECRET]), ("cut", [{"a": SECRET}, SECRET, SECRET]), ("ask", [SECRET] * 40)):
        response = call(url, name, data)
        if response.status_code == 200:
            ended(url, name, response.json()["event_id"])
    out, err = capfd.readouterr()
    assert "Heron" not in out + err


def test_results_that_nobody_fetches_go_and_so_does_the_run(url, lab, monkeypatch):
    monkeypatch.setattr(app.web.sessions, "UNREAD", 0.5)
    text = "The tide turns. " * 700
    session = call(url, "needle_grid", [[3000], [0.1, 0.5, 0.9], 20, 0, "single", ["rope"], text]).json()["event_id"]
    queue, running, left = lab.demo._queue, [], Presence.left

    def leaves(presence, who):
        running.append(who == session and session in queue.event_ids_to_events)
        left(presence, who)

    monkeypatch.setattr(Presence, "left", leaves)
    ends = time.monotonic() + 60
    while session in queue.event_ids_to_events or session in queue.pending_messages_per_session:
        assert time.monotonic() < ends
        time.sleep(0.2)
    assert session not in queue.pending_event_ids_session
    assert any(running), "it was ended, and didn't come to its end"


def test_what_a_session_holds_stays_for_a_while_after_it_was_left(lab, url, monkeypatch):
    presence = Presence()
    sessions = Sessions(lab.demo, presence)
    states = lab.demo.app.state_holder
    with presence.here("open"):
        for name in ("open", "left", "never"):
            assert states[name]
        with presence.here("left"):
            pass
        asyncio.run(sessions.clear_away())
        assert {"open", "left", "never"} <= set(states.session_data)
        monkeypatch.setattr(app.web.sessions, "KEPT", 0.0)
        asyncio.run(sessions.clear_away())
        assert {"open", "left", "never"} & set(states.session_data) == {"open"}
    for number in range(20):
        assert states[f"many {number}"]
    monkeypatch.setattr(app.web.sessions, "KEPT", 1000.0)
    monkeypatch.setattr(app.web.sessions, "KEPT_MOST", 3)
    asyncio.run(sessions.clear_away())
    assert len(states.session_data) <= 4


def test_leaving_is_told_once_for_all_that_a_session_listens_to():
    presence, left = Presence(), []
    presence.on_leave(left.append)
    with presence.here("ann"):
        with presence.here("ann"):
            assert presence.away("ann") == 0
        assert left == []
    assert left == ["ann"]
    assert presence.gone("ann")
    presence.asks("ann")
    assert not presence.gone("ann"), "they have come back"
    left.clear()
    with presence.here("cat", heartbeat=False), presence.here("cat", heartbeat=True):
        with presence.here("cat", heartbeat=True):
            pass
        assert left == []
    with presence.here("dan"):
        with presence.here("dan", heartbeat=True):
            assert left == ["cat", "cat"]
        assert left[-1] == "dan", "a connection that lingers is nobody who listens"
        assert presence.gone("dan")
        with presence.here("dan"):
            assert not presence.gone("dan")
    with presence.here("bob"):
        pass
    presence.away("eve")
    presence.forget(60)
    assert presence.gone("bob")
    presence.forget(-1)
    assert not presence._last
    assert not presence._first


# Files


@pytest.fixture
def folder(tmp_path):
    return TemporaryFolder(tmp_path / "lab")


def written(folder, name, age=0.0, size=10):
    file = folder.path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (time.time() - age,) * 2)
    return file


def test_files_go_by_age_and_folders_with_them(folder):
    new, old, inside = written(folder, "new"), written(folder, "old", AGE + 1), written(folder, "a/b", AGE + 1)
    os.utime(inside.parent, (time.time() - AGE - 1,) * 2)
    future = written(folder, "future", -3600)
    folder.sweep()
    assert new.exists()
    assert not any(file.exists() for file in (old, inside, future)), "a clock that was set back leaves files, too"
    os.utime(inside.parent, (time.time() - AGE - 1,) * 2)
    folder.sweep()
    assert not inside.parent.exists()


def test_what_is_written_while_the_sweep_looks_stays(folder, monkeypatch):
    look = folder._files

    def files():
        new = written(folder, "new", age=-0.01)  # a clock's tick later
        yield from look()
        time.sleep(0.02)
        assert new.exists()

    monkeypatch.setattr(folder, "_files", files)
    folder.sweep()
    assert (folder.path / "new").exists()


def test_the_oldest_go_where_there_is_too_much(tmp_path):
    folder = TemporaryFolder(tmp_path / "lab", most_bytes=100)
    files = [written(folder, str(number), age=10 - number, size=40) for number in range(4)]
    folder.sweep()
    assert [file.exists() for file in files] == [False, False, True, True]
    folder.check_room(50)
    assert [file.exists() for file in files] == [False, False, False, True]
    with pytest.raises(Refused, match="no room for uploads"):
        folder.check_room(10**18)
    shutil.rmtree(folder.path)
    folder.check_room(20)


def test_what_was_there_before_a_crash_goes_at_the_start(tmp_path):
    first = TemporaryFolder(tmp_path / "lab")
    left = written(first, "left", AGE + 1)
    TemporaryFolder(tmp_path / "lab")
    assert not left.exists()


def test_somebody_elses_folder_isnt_used(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    with pytest.raises(OSError, match="isn't this user's folder"):
        TemporaryFolder(tmp_path / "lab")


def test_a_link_isnt_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "lab").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="isn't this user's folder"):
        TemporaryFolder(tmp_path / "lab")


def test_an_upload_is_gone_once_it_was_read(url, lab):
    uploaded = httpx.post(f"{url}/gradio_api/upload", files={"files": ("boat.txt", SECRET.encode())}).json()[0]
    assert SECRET in Path(uploaded).read_text(encoding="utf-8")
    data = [{"path": uploaded, "meta": {"_type": "gradio.FileData"}}]
    event = call(url, "document", data).json()["event_id"]
    assert "Heron" in ended(url, "document", event)
    assert not Path(uploaded).exists()


def test_an_upload_that_breaks_off_leaves_nothing_for_long(url):
    root = TemporaryFolder().path
    before, begun = set(root.rglob("*")), []

    def broken():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
        for _ in range(100):
            yield SECRET.encode() * 1000
            time.sleep(0.05)
            begun[:] = [file for file in root.rglob("*") if file.is_file() and file not in before]
            if begun:
                break
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        httpx.post(
            f"{url}/gradio_api/upload", content=broken(), headers={"content-type": "multipart/form-data; boundary=x"}
        )
    assert begun, "it was being written"
    time.sleep(1)
    for file in filter(Path.exists, begun):
        os.utime(file, (time.time() - AGE - 1,) * 2)
    TemporaryFolder()  # as the app does each minute
    assert not any(file.exists() for file in begun)


def test_requests_that_are_no_http_pass_as_they_are():
    seen = []

    async def inner(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(Gate(inner, Settings(None, 4, 64), Presence(), None, None)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]
