"""What gradio keeps for sessions, and how long: this app knows better who is still here.

Gradio's own ways, of the version that requirements.txt names: a run whose reader never came goes on to its end and its
results stay; a session's components stay until so many others have come, whether or not its page is open.
"""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from app.serving.presence import Presence
from app.serving.visitors import place_of
from app.web.log import print_place

UNREAD = 30.0
"""Seconds after which a run that nobody listens to has been left."""
KEPT = 1800.0
"""Seconds that what a page holds stays after it was left: a laptop's lid is closed, a train goes through a tunnel."""
KEPT_MOST = 60
"""Sessions that were left and still stay; each takes about half a megabyte."""

BYTES = "bytes of the call"  # where a request's scope says so

_LOOK = 5.0  # seconds between two looks


class Sessions:
    """The sessions of a page that runs."""

    def __init__(self, demo: gr.Blocks, presence: Presence) -> None:
        self._demo, self._presence = demo, presence
        self._queue: Any = demo._queue

    def under_way(self) -> list[tuple[str, str, int]]:
        """Address and session of each event that waits or runs, and the bytes of its call."""
        events = list(self._queue.event_ids_to_events.values())
        return [(address_of(one.request), one.session_hash, one.request.scope.get(BYTES, 0)) for one in events]

    def of_event(self, event_id: str) -> str:
        """The session of an event; gradio gives one that named none the event's own id."""
        event = self._queue.event_ids_to_events.get(event_id)
        if event is not None:
            return event.session_hash
        ended = self._queue.pending_event_ids_session.items()
        return next((session for session, ids in ended if event_id in ids), event_id)

    async def clear_away(self) -> None:
        """End what nobody listens to, and forget sessions that were left long ago, or are too many."""
        presence, queue = self._presence, self._queue
        for session in [*queue.pending_messages_per_session, *queue.pending_event_ids_session]:
            if presence.away(session) > UNREAD:
                presence.left(session)
                await queue.clean_events(session_hash=session)
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)
        states = self._demo.app.state_holder
        left = sorted((seconds, one) for one in list(states.session_data) if (seconds := presence.away(one)))
        for number, (seconds, session) in enumerate(left, 1):
            if seconds > KEPT or number > KEPT_MOST:
                with states.lock:
                    states.session_data.pop(session, None)
                    states.time_last_used.pop(session, None)
        presence.forget(2 * KEPT)

    async def keep_clear(self) -> None:
        """The same every few seconds."""
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self.clear_away()
            except Exception:  # the next look may do better
                print_place()


def address_of(request: Any) -> str:
    """Where a request comes from."""
    return place_of(request.client.host) if request and request.client else ""
