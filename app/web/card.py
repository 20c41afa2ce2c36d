"""The page as it comes, which gradio writes its own: what others show of a link to it, and what is there first."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

    def __init__(self, app: ASGIApp, head: str = "", body: str = "") -> None:
        self._app, self._head, self._body = app, head, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or path not in ("/", PICTURE):
            await self._app(scope, receive, send)
        elif path == PICTURE:
            await FileResponse(str(_FILE), headers={"cache-control": "public, max-age=3600"})(scope, receive, send)
        else:
            sent: list[Message] = []

            async def keep(message: Message) -> None:
                sent.append(message)

            await self._app(scope, receive, keep)
            if not sent:  # whoever asked has left
                return
            headers = MutableHeaders(scope=sent[0])
            if headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
                page = b"".join(message.get("body", b"") for message in sent)
                page = described(page, _address(scope), self._head, self._body)
                headers["content-length"] = str(len(page))
                sent[1:] = [{"type": "http.response.body", "body": page}]
            for message in sent:
                await send(message)


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


def _address(scope: Scope) -> str:
    headers = Headers(scope=scope)
    scheme = headers.get("x-forwarded-proto", scope.get("scheme", "http")).split(",")[0].strip()
    return f"{scheme}://{headers.get('host', '')}{scope.get('root_path', '')}"
