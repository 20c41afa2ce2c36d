"""What is let in: every request passes here first, before any of it is read by gradio.

Nobody's request is larger than what the page itself could send, nor are there more of one caller than a class of
visitors makes. Pages of other sites can't use the app in a visitor's name.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from app.documents.kinds import MAX_BYTES
from app.limits import MAX_CHARACTERS
from app.serving.presence import Presence
from app.settings import Settings
from app.web.refused import Refused
from app.web.sessions import Sessions
from app.web.temporary import TemporaryFolder

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_JSON = 4 * MAX_CHARACTERS + 2_000_000
"""Bytes of a call: a text of the greatest length in any script, and what goes with it."""
MAX_UPLOAD = MAX_BYTES + 1_000_000
MAX_VALUES = 20_000
"""Strings, numbers and lists in one call."""
MOST_EVENTS_OF_ONE = 24
"""Events of one session that wait or run: a page makes a dozen when it loads."""
MOST_EVENTS_OF_AN_ADDRESS = 240
MOST_CONNECTIONS_OF_AN_ADDRESS = 400

_SMALL = 2 * MAX_VALUES  # bytes that hold no more values than may be
_ENDS = 4096  # bytes at either end of a call, where its session stands
_STREAMS = re.compile(r"/gradio_api/(?:heartbeat/([^/]+)/?$|queue/data$|call/(?:v2/)?[^/]+/([^/]+)$)")
_ASKING = re.compile(r"/gradio_api/(?:queue/join|call/)")
# What gradio serves besides and this page doesn't use: figures on all calls, copies of a page's values on the
# server's disk, requests in the server's name, and its workshop for models that write code.
_CLOSED = re.compile(r"/monitoring|/gradio_api/(?:monitoring|deep_link|proxy=|process_recording|vibe-|undo-vibe|dev/)")
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Gate:
    """ASGI middleware around the page.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    presence : Presence
        Told of the streams that sessions listen on.
    sessions : Sessions
    folder : TemporaryFolder
        That uploads go into.
    """

    def __init__(
        self, app: Any, settings: Settings, presence: Presence, sessions: Sessions, folder: TemporaryFolder
    ) -> None:
        self._app, self._settings, self._presence = app, settings, presence
        self._sessions, self._folder = sessions, folder
        self._connections: Counter[str] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._connections[address] += 1
        try:
            receive = await self._let_in(scope, receive, address)
            with ExitStack() as listening:
                if session := self._session_listened_for(scope):
                    listening.enter_context(self._presence.here(session))
                await self._app(scope, receive, sending)
        except Refused as refused:
            if begun:
                raise
            await _answer(send, refused.status, str(refused))
        finally:
            self._connections[address] -= 1
            if not self._connections[address]:
                del self._connections[address]

    async def _let_in(self, scope: Message, receive: Receive, address: str) -> Receive:
        """What gives the request's body, once it may come in."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        check_host(headers, scope.get("server"), self._settings.allowed_hosts)
        if _CLOSED.match(scope["path"]):
            raise Refused(404, "This page has no such address.")
        if self._connections[address] > MOST_CONNECTIONS_OF_AN_ADDRESS:
            raise Refused(429, "There are too many connections from your address: close some, and try again.")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        check_origin(headers, self._settings.allowed_origins)
        upload = scope["path"] == "/gradio_api/upload"
        most, length = MAX_UPLOAD if upload else MAX_JSON, headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise _too_large(most)
        if upload:
            self._folder.check_room(MAX_UPLOAD)
            return _counted(receive, most)
        body = await _read(_counted(receive, most))
        if len(body) > _SMALL:
            await asyncio.to_thread(check_values, body)
        if _ASKING.match(scope["path"]):
            self._check_share(address, body)
        return _replayed(body, receive)

    def _check_share(self, address: str, body: bytes) -> None:
        session = re.search(rb'"session_hash"\s*:\s*"([^"]{1,100})"', body[-_ENDS:] + body[:_ENDS])
        under_way = self._sessions.under_way()
        if session:
            self._presence.asks(session[1].decode())
        of_address = sum(one == address for one, _ in under_way)
        of_session = sum(one == session[1].decode() for _, one in under_way) if session else 0
        if of_session >= MOST_EVENTS_OF_ONE or of_address >= MOST_EVENTS_OF_AN_ADDRESS:
            raise Refused(429, "Too much of yours is under way here: wait until some of it has ended.")

    def _session_listened_for(self, scope: Message) -> str:
        """The session of a stream of events, if this asks for one."""
        found = _STREAMS.match(scope["path"]) if scope["method"] == "GET" else None
        if not found:
            return ""
        if found[1]:
            return found[1]
        if found[2]:
            return self._sessions.of_event(found[2])
        return next(iter(parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", ())), "")


def check_host(headers: MutableMapping[str, str], server: Any, allowed: tuple[str, ...]) -> None:
    """Refuse a name that isn't this server's: a page elsewhere may have had its own name lead here.

    Parameters
    ----------
    headers : mapping
        With names in lower case.
    server : (str, int) or None
        The address that the connection came in at. At a loopback address only this machine's names are right, unless
        others are allowed.
    allowed : tuple of str
        Names; "*" is any.

    Raises
    ------
    Refused
    """
    name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    local = bool(server) and (server[0].startswith("127.") or server[0] == "::1")
    if "*" in allowed or name in allowed or ((name in _LOCAL or not allowed) and (not local or name in _LOCAL)):
        return
    raise Refused(
        421, f"This app doesn't answer to the name {name[:100]!r}: whoever runs it can add it to ALLOWED_HOSTS."
    )


def check_origin(headers: MutableMapping[str, str], allowed: tuple[str, ...]) -> None:
    """Refuse what another site's page sends; programs name no origin.

    Raises
    ------
    Refused
    """
    origin = headers.get("origin")
    if origin is None:
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise Refused(403, "Another site's page may not use this app.")
        return
    if origin in allowed or urlsplit(origin).netloc == headers.get("host", ""):
        return
    raise Refused(
        403, f"Pages of {origin[:100]!r} may not use this app: whoever runs it can add them to ALLOWED_ORIGINS."
    )


def check_values(body: bytes) -> None:
    """Refuse a call of more values than the page ever sends, or that isn't JSON.

    Raises
    ------
    Refused
    """
    try:
        level, count = [msgspec.json.decode(body)], 0
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refused(400, "This call isn't valid JSON.") from None
    while level:
        count += len(level)
        if count > MAX_VALUES:
            raise Refused(413, f"This call has more than {MAX_VALUES:,} values, the limit here.")
        lists = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [value for some in lists for value in some]


def _too_large(most: int) -> Refused:
    return Refused(413, f"This is larger than {most:,} bytes, the limit here. Nothing was read: send less of it.")


def _counted(receive: Receive, most: int) -> Receive:
    """The same body, refused where it grows too large whatever length was declared."""
    total = 0

    async def counting() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > most:
            raise _too_large(most)
        return message

    return counting


async def _read(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more; then whatever else comes, as that the caller has left."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replaying() -> Message:
        return left.pop() if left else await receive()

    return replaying


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence, "error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (413, 429):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
