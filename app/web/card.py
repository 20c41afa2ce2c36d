"""The page as it comes, which gradio writes its own: what others show of a link to it, and what is there first."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from html import escape
from importlib.resources import files
from typing import Any

TITLE = "LaMPE Lab"
DESCRIPTION = (
    "A model that learned distances up to 8,192 tokens reads 12,000: see what breaks, what LaMPE maps, and what was "
    "measured of it."
)
PICTURE = "/card.jpg"
SIZE = 1200, 630
_FILE = files("app") / "assets" / "card.jpg"
_OTHERS = re.compile(rb"""<meta\s+(?:property="og:|name="twitter:)[^>]*>""")
_HEAD, _BODY = re.compile(rb"<head[^>]*>"), re.compile(rb"<body[^>]*>")


class Card:
    """ASGI middleware: the page's title, description and picture for those who link to it.

    Parameters
    ----------
    app : ASGI application
    head : str
        HTML that begins the page's head: what is to run before gradio's own scripts, which add its `head` later.
    body : str
        HTML that begins its body, likewise.
    """

    def __init__(self, app: Any, head: str = "", body: str = "") -> None:
        self._app, self._head, self._body = app, head, body

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or path not in ("/", PICTURE):
            await self._app(scope, receive, send)
        elif path == PICTURE:
            picture = _FILE.read_bytes()
            headers = [(b"content-type", b"image/jpeg"), (b"content-length", str(len(picture)).encode())]
            headers.append((b"cache-control", b"public, max-age=3600"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": picture if scope["method"] == "GET" else b""})
        else:
            await self._app(scope, receive, _sending(scope, send, self._head, self._body))


def _sending(scope: MutableMapping[str, Any], send: Any, head: str, body: str) -> Any:
    """Sends a page with other words about it; whatever else comes stays as it is."""
    started: MutableMapping[str, Any] = {}

    async def sending(message: MutableMapping[str, Any]) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            if headers.get(b"content-type", b"").startswith(b"text/html") and b"content-encoding" not in headers:
                started = message
                return
        elif started and message["type"] == "http.response.body":
            # Gradio sends its page in one piece.
            if not message.get("more_body"):
                message = {**message, "body": described(message.get("body", b""), _address(scope), head, body)}
                kept = [(name, value) for name, value in started["headers"] if name != b"content-length"]
                length = (b"content-length", str(len(message["body"])).encode())
                started = {**started, "headers": [*kept, length]}
            first, started = started, {}
            await send(first)
        await send(message)

    return sending


def described(page: bytes, address: str, head: str = "", body: str = "") -> bytes:
    """A page of HTML with this project's title, description and picture in place of what it says of itself.

    Parameters
    ----------
    page : bytes
    address : str
        Under which it was asked for; it comes from outside.
    head, body : str
        HTML of ours.
    """
    width, height = SIZE
    about = {
        "og:type": "website", "og:title": TITLE, "og:description": DESCRIPTION, "og:url": address,
        "og:image": f"{address}{PICTURE}", "og:image:width": str(width), "og:image:height": str(height),
    }  # fmt: skip
    tags = "".join(f'<meta property="{name}" content="{escape(value)}">' for name, value in about.items())
    tags += f'<meta name="description" content="{escape(DESCRIPTION)}">'
    tags += '<meta name="twitter:card" content="summary_large_image">'
    page = _BODY.sub(lambda found: found[0] + body.encode(), page, count=1)
    return _HEAD.sub(lambda found: found[0] + (head + tags).encode(), _OTHERS.sub(b"", page), count=1)


def _address(scope: MutableMapping[str, Any]) -> str:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get(b"host", "")
    scheme = headers.get(b"x-forwarded-proto", scope.get("scheme", "http")).split(",")[0].strip()
    return f"{scheme}://{host}{scope.get('root_path', '')}"
