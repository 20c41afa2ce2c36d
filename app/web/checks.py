"""What a request's headers and body are held against, before anything else looks at them."""

from __future__ import annotations

import itertools
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

MAX_VALUES = 20_000
"""Strings, numbers and lists in one call."""

_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")


class Refused(Exception):
    """A request isn't let in.

    Parameters
    ----------
    status : int
        Of HTTP.
    sentence : str
        For whoever made it.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


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
    name = _split(f"//{headers.get('host', '')}").hostname or ""
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
    if origin in allowed or _split(origin).netloc == headers.get("host", ""):
        return
    raise Refused(
        403, f"Pages of {origin[:100]!r} may not use this app: whoever runs it can add them to ALLOWED_ORIGINS."
    )


def check_values(body: bytes) -> None:
    """Refuse a call of more values than the page ever sends, before it is decoded: a list of empty lists takes thirty
    times its own size then.

    Raises
    ------
    Refused
    """
    count = end = 0
    for text in itertools.chain(_TEXTS.finditer(body), [None]):
        start = text.start() if text else len(body)
        count += sum(body.count(sign, end, start) for sign in (b",", b"[", b"{"))
        if count > MAX_VALUES:
            raise Refused(413, f"This call has more than {MAX_VALUES:,} values, the limit here.")
        end = text.end() if text else start


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        raise Refused(400, f"{address[:100]!r} is no address.") from None
