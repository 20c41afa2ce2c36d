"""What one visitor may do to take the page down, each once: `benchmarks.load` does two a round beside its visitors.

Each is given the page's address and headers of the visitor's own, and what it gets back doesn't count.
"""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pypdf

Attack = Callable[[httpx.Client], object]

SECONDS = 60.0  # after which the attacker gives up on an answer


def upload(client: httpx.Client, name: str, data: bytes) -> str:
    """Where the page has put a file."""
    answer = client.post("/gradio_api/upload", files={"files": (name, data)})
    return answer.json()[0]


def join(client: httpx.Client, endpoint: str, *arguments: Any) -> str:
    """Queue a call as a program does; its event's id."""
    answer = client.post(f"/gradio_api/call/{endpoint}", json={"data": list(arguments)})
    return answer.json().get("event_id", "")


def document(client: httpx.Client, path: str) -> None:
    join(client, "document", {"path": path, "meta": {"_type": "gradio.FileData"}})


def together(work: Callable[[int], object], times: int) -> None:
    """Many at once."""

    def one(number: int) -> None:
        with suppress(httpx.HTTPError, ValueError, LookupError):
            work(number)

    with ThreadPoolExecutor(min(times, 50)) as pool:
        list(pool.map(one, range(times)))


def spaces(client: httpx.Client) -> None:
    """A heading of 60,000 spaces, by 45 calls that go past the queue."""
    path = upload(client, "a.md", b"# " + b" " * 60_000 + b"x")
    body = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
    together(lambda _: client.post("/gradio_api/run/document", json=body), 45)


def full_queue(client: httpx.Client) -> None:
    """44 uploads, each with a call of its own."""
    together(lambda number: document(client, upload(client, "a.txt", b"x " * 100_000)), 44)


def shared_pages(client: httpx.Client) -> None:
    """A PDF of a few kilobytes that shows one page 2,000 times."""
    written = pypdf.PdfWriter()
    page = written.add_blank_page(100, 100)
    reference = page.indirect_reference
    for _ in range(1999):
        written.root_object["/Pages"]["/Kids"].append(reference)  # type: ignore[index]
    written.root_object["/Pages"][pypdf.generic.NameObject("/Count")] = pypdf.generic.NumberObject(2000)  # type: ignore[index]
    made = io.BytesIO()
    written.write(made)
    document(client, upload(client, "a.pdf", made.getvalue()))


def grid(client: httpx.Client) -> None:
    """400 needle tests, which nobody waits for."""
    join(client, "needle_grid", [2048, 4096], [0, 0.25, 0.5, 0.75, 1], 20, 0, "single", ["rope", "lampe"], None)


def endless_grid(client: httpx.Client) -> None:
    """4,000 lengths by 4,000 depths, by minus one trial."""
    lengths, depths = list(range(1000, 5000)), [number / 4000 for number in range(4000)]
    join(client, "needle_grid", lengths, depths, -1, 0, "single", ["rope"], None)


def haystack(client: httpx.Client) -> None:
    """A haystack of 5 MB in sentences of a dot."""
    join(client, "needle", 1000, 0.5, 0, "single", "rope", ". " * 2_500_000)
    join(client, "cut", [". " * 2_400_000], "Why?")


def leaving(client: httpx.Client) -> None:
    """100 visitors who leave at once."""
    with ExitStack() as streams:
        for _ in range(100):
            with suppress(httpx.HTTPError):
                streams.enter_context(client.stream("GET", f"/gradio_api/heartbeat/{uuid.uuid4().hex}"))


def loads(client: httpx.Client) -> None:
    """100 page loads."""
    together(lambda _: client.get("/"), 100)


def broken_off(client: httpx.Client) -> None:
    """Uploads that end in their middle."""

    def half() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n' + b"x" * 1_000_000
        raise httpx.ReadError("gone")

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    together(lambda _: client.post("/gradio_api/upload", content=half(), headers=headers), 20)


def large_bodies(client: httpx.Client) -> None:
    """A field of 200 MB, and a list of 20 million empty texts."""
    whole = b"x" * 200_000_000
    together(lambda _: client.post("/gradio_api/call/cut", content=b'{"data": ["' + whole + b'"]}'), 1)
    many = b'{"data": [[' + b'"",' * 20_000_000 + b'""]]}'
    together(lambda _: client.post("/gradio_api/call/cut", content=many), 1)


def unread(client: httpx.Client) -> None:
    """Results that nobody fetches."""
    together(lambda _: join(client, "cut", ["A text. " * 200_000], "Why?"), 20)


def strangers(client: httpx.Client) -> None:
    """Another site's page, another host's name, and routes that gradio has."""
    for headers in ({"Origin": "https://elsewhere.example"}, {"Host": "elsewhere.example"}):
        with suppress(httpx.HTTPError, ValueError, LookupError):
            client.post("/gradio_api/call/methods", json={"data": []}, headers=headers)
    for path in ("/monitoring/summary", "/gradio_api/deep_link", "/gradio_api/file=https://elsewhere.example"):
        with suppress(httpx.HTTPError):
            client.get(path)


ATTACKS: tuple[Attack, ...] = (
    spaces, full_queue, shared_pages, grid, endless_grid, haystack, leaving, loads, broken_off, large_bodies, unread,
    strangers,
)  # fmt: skip


def attack(url: str, headers: dict[str, str], number: int) -> None:
    """One of the attacks, whatever comes of it."""
    with (
        suppress(httpx.HTTPError, json.JSONDecodeError, LookupError, AttributeError),
        httpx.Client(base_url=url, headers=headers, timeout=SECONDS, limits=httpx.Limits(max_connections=200)) as one,
    ):
        ATTACKS[number](one)
