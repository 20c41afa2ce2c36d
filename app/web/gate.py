"""What is let in: every request passes here first, before any of it is read by gradio.

Nobody's request is larger than what the page itself could send, nor are there more of one caller than a class of
visitors makes. Pages of other sites can't use the app in a visitor's name.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import nullcontext
from urllib.parse import parse_qs

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.documents.kinds import MAX_BYTES
from app.limits import MAX_CHARACTERS
from app.serving.presence import Presence
from app.serving.visitors import place_of
from app.settings import Settings
from app.web.checks import MAX_VALUES, Refused, check_host, check_origin, check_values
from app.web.sessions import BYTES, Sessions
from app.web.temporary import TemporaryFolder

MAX_JSON = 4 * MAX_CHARACTERS + 2_000_000
"""Bytes of a call: a text of the greatest length in any script, and what goes with it."""
MAX_UPLOAD = MAX_BYTES + 1_000_000
MOST_EVENTS_OF_ONE = 24
"""Events of one session that wait or run: a page makes a dozen when it loads."""
MOST_EVENTS_OF_AN_ADDRESS = 240
MOST_BYTES_OF_AN_ADDRESS = 4 * MAX_JSON
"""Of the calls that wait or run: four of the longest texts, or as many of others as there may be."""
MOST_BYTES = 16 * MAX_JSON
MOST_CONNECTIONS_OF_AN_ADDRESS = 400
MOST_AT_ONCE_OF_AN_ADDRESS = 40
"""Uploads, and calls that are answered without waiting."""
MOST_READ = 8 * MAX_JSON
"""Bytes of bodies that are being read, of all callers together."""
SLOWEST = 60.0
"""Seconds for a call to come in."""
LONGEST_SESSION = 100

_SMALL = 2 * MAX_VALUES  # bytes that hold no more values than may be
_ENDS = 4096  # bytes at either end of a call, where its session stands
_STREAMS = re.compile(r"/gradio_api/(?:heartbeat/([^/]+)/?$|queue/data$|call/(?:v2/)?[^/]+/([^/]+)$)")
_ASKING = re.compile(r"/gradio_api/(?:queue/join|call/)")
_AT_ONCE = re.compile(r"/gradio_api/(?:run|api|upload)")
# What gradio serves besides and this page doesn't use: figures on all calls, copies of a page's values on the
# server's disk, requests in the server's name, and its workshop for models that write code.
_CLOSED = re.compile(
    r"/monitoring|/gradio_api/(?:monitoring|deep_link|proxy=|file[=/]+https?:|process_recording|vibe-|undo-vibe|dev/)",
    re.IGNORECASE,
)


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
        self, app: ASGIApp, settings: Settings, presence: Presence, sessions: Sessions, folder: TemporaryFolder
    ) -> None:
        self._app, self._settings, self._presence = app, settings, presence
        self._sessions, self._folder = sessions, folder
        self._connections: Counter[str | None] = Counter()
        self._at_once: Counter[str | None] = Counter()
        self._being_read = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = place_of(scope["client"][0]) if scope.get("client") else ""
        at_once = address if scope["method"] == "POST" and _AT_ONCE.match(scope["path"]) else None
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._connections[address] += 1
        self._at_once[at_once] += 1
        try:
            if self._at_once[at_once] > MOST_AT_ONCE_OF_AN_ADDRESS and at_once is not None:
                raise Refused(429, "Too much is being sent from your address at once: try again in a moment.")
            receive = await self._let_in(scope, receive, address)
            listened = self._session_listened_for(scope)
            with self._presence.here(*listened) if listened else nullcontext():
                await self._app(scope, receive, sending)
        except Refused as refused:
            if begun:
                raise
            sentence = str(refused)
            closing = {"connection": "close"} if refused.status in (408, 413, 429, 503) else None
            await JSONResponse({"detail": sentence, "error": sentence}, refused.status, closing)(scope, receive, send)
        finally:
            for counter, key in ((self._connections, address), (self._at_once, at_once)):
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]

    async def _let_in(self, scope: Scope, receive: Receive, address: str) -> Receive:
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
            await asyncio.to_thread(self._folder.check_room, MAX_UPLOAD)
            return _counted(receive, most)
        body = await self._read(_counted(receive, most))
        if len(body) > _SMALL:
            await asyncio.to_thread(check_values, body)
        if _ASKING.match(scope["path"]):
            self._check_share(address, body)
            scope[BYTES] = len(body)
        return _replayed(body, receive)

    async def _read(self, receive: Receive) -> bytes:
        """A whole body, of all that are being read no more than may be."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(SLOWEST):
                while True:
                    message = await receive()
                    part = message.get("body", b"")
                    parts.append(part)
                    size, self._being_read = size + len(part), self._being_read + len(part)
                    if self._being_read > MOST_READ:
                        raise Refused(503, "Too much is being sent to this server at once: try again in a moment.")
                    if message["type"] != "http.request" or not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(408, f"This call took longer than {SLOWEST:.0f} seconds to come in.") from None
        finally:
            self._being_read -= size

    def _check_share(self, address: str, body: bytes) -> None:
        session = re.search(rb'"session_hash"\s*:\s*"([^"]{1,100})"', body[-_ENDS:] + body[:_ENDS])
        under_way = self._sessions.under_way()
        name = session[1].decode("utf-8", "replace") if session else ""
        if name:
            self._presence.asks(name)
        of_address = [size for one, _, size in under_way if one == address]
        of_session = sum(one == name for _, one, _ in under_way) if name else 0
        if (
            of_session >= MOST_EVENTS_OF_ONE
            or len(of_address) >= MOST_EVENTS_OF_AN_ADDRESS
            or sum(of_address) + len(body) > MOST_BYTES_OF_AN_ADDRESS
        ):
            raise Refused(429, "Too much of yours is under way here: wait until some of it has ended.")
        if sum(size for _, _, size in under_way) + len(body) > MOST_BYTES:
            raise Refused(503, "Too much is under way on this server: try again in a moment.")

    def _session_listened_for(self, scope: Scope) -> tuple[str, bool] | None:
        """The session of a stream, if this asks for one, and whether it is a heartbeat."""
        found = _STREAMS.match(scope["path"]) if scope["method"] == "GET" else None
        if not found:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("session_hash", [""])[0]
        session = found[1] or (self._sessions.of_event(found[2]) if found[2] else given)
        if len(session) > LONGEST_SESSION:
            raise Refused(400, f"A session's name has at most {LONGEST_SESSION} characters.")
        return (session, bool(found[1])) if session else None


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


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more; then whatever else comes, as that the caller has left."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replaying() -> Message:
        return left.pop() if left else await receive()

    return replaying
