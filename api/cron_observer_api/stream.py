"""Server-sent events: ``GET /api/v1/stream?topics=executions,logs:{id}``, resumable, a hint to ask again.

An id is ``{microseconds}`` or, on a stream with one log, ``{microseconds}.{attempt}.{next line}``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

from litestar import Request, get
from litestar.response import Stream

from cron_observer.errors import BadRequest, DatabaseError
from cron_observer.store.engine import Database
from cron_observer_api import wire
from cron_observer_api.auth import principal_of, still_valid
from cron_observer_api.feed import Feed, Listener, Message, stamp, unstamp
from cron_observer_api.operation import declare, query

#: Seconds between comments: shorter than what proxies wait for a silent connection.
COMMENT_EVERY: Final = 15.0

#: Milliseconds after which a client that lost its stream comes back.
RETRY: Final = 2000

#: Topics of one stream, and streams of one process.
MAX_TOPICS: Final = 20
MAX_STREAMS: Final = 1000

_KINDS: Final = ("executions", "tasks", "sources")
_TOPIC: Final = re.compile(r"(execution|logs):([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_ID: Final = re.compile(r"([0-9]{1,17})(?:\.([0-9]{1,9})\.([0-9]{1,10}))?", re.ASCII)


class Hub:
    """The feeds of this process, one for each tenant somebody listens to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[UUID, tuple[Feed, asyncio.Task[None]]] = {}

    @property
    def listening(self) -> int:
        """How many streams are open."""
        return sum(len(feed.listeners) for feed, _ in self._feeds.values())

    def join(self, tenant_id: UUID, listener: Listener) -> None:
        """Begin to tell `listener` what changes. Raises `DatabaseError` when there are too many."""
        if self.listening >= MAX_STREAMS:
            raise DatabaseError("the server has too many open streams", hint="close some, or try again later")
        feed, task = self._feeds.get(tenant_id, (None, None))
        if feed is None or task is None or task.done():
            feed = Feed(self._database, tenant_id)
            feed.listeners.add(listener)
            self._feeds[tenant_id] = feed, asyncio.ensure_future(feed.run())
        feed.listeners.add(listener)

    def leave(self, tenant_id: UUID, listener: Listener) -> None:
        """Stop telling `listener`; a feed without listeners ends by itself."""
        self._feeds[tenant_id][0].listeners.discard(listener)

    async def close(self) -> None:
        """End every feed."""
        tasks = [task for _, task in self._feeds.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listen_to(topics: str, last_event_id: str | None) -> Listener:
    """Return the listener for a list of topics. Raises `BadRequest` for one that is not known."""
    named = [topic.strip() for topic in topics.split(",")]
    kinds = frozenset(topic for topic in named if topic in _KINDS)
    single = [_TOPIC.fullmatch(topic) for topic in named if topic not in _KINDS]
    if not all(single) or len(named) > MAX_TOPICS:
        raise BadRequest(
            f"a topic is not known, or there are more than {MAX_TOPICS}",
            hint="topics are executions, tasks, sources, execution:{id} and logs:{id}, with commas between them",
            pointer="/topics",
        )
    found = [(match[1], UUID(match[2])) for match in single if match]
    listener = Listener(
        topics=kinds,
        executions=frozenset(identity for kind, identity in found if kind == "execution"),
        logs={identity: None for kind, identity in found if kind == "logs"},
    )
    if last_event_id:
        _resume(listener, last_event_id)
    return listener


def _resume(listener: Listener, last_event_id: str) -> None:
    """Place a listener where its last id says; an id that is not ours is as good as one that is too old."""
    match = _ID.fullmatch(last_event_id.strip())
    listener.resume_from = unstamp(int(match[1]) if match else 0)
    if match and match[2] and len(listener.logs) == 1:
        listener.logs = dict.fromkeys(listener.logs, (int(match[2]), min(int(match[3]), 2**31 - 1)))
        if not (listener.topics or listener.executions):
            # the place in the log says it all, however old it is
            listener.resume_from = None


def render(listener: Listener, message: Message) -> bytes:
    """Return a message as the bytes of an event."""
    place = message.log
    if place is None and len(listener.logs) == 1:
        place = next(iter(listener.logs.values()))
    number = str(stamp(message.at)) + (f".{place[0]}.{place[1]}" if place and len(listener.logs) == 1 else "")
    return f"id: {number}\nevent: {message.kind}\ndata: ".encode() + message.data + b"\n\n"


@get(
    "/stream",
    operation_id="openStream",
    opt=declare(
        summary="Listen to what changes, as server-sent events",
        tag="stream",
        scopes=("read",),
        query=wire.StreamQuery,
        answers={200: "text/event-stream"},
        description=(
            "Topics: `executions tasks sources execution:{id} logs:{id}`, with commas. Events `execution task "
            "source log` carry the item of the list; `reset` means: ask again. `more` says which lines of a log have "
            "not been sent because it grows too quickly: read them, or go on with the latest. Resume with "
            "Last-Event-ID: nothing in between is lost or told twice."
        ),
    ),
)
async def open_stream(request: Request[Any, Any, Any]) -> Stream:
    """Open a stream; it ends when the client goes, is too slow, loses its key, or the server stops."""
    asked = query(request, wire.StreamQuery)
    listener = listen_to(asked.topics, request.headers.get("last-event-id") or asked.last_event_id)
    hub: Hub = request.app.state.hub
    hub.join(principal_of(request).tenant_id, listener)
    return Stream(
        _events(request, hub, listener),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(request: Request[Any, Any, Any], hub: Hub, listener: Listener) -> AsyncIterator[bytes]:
    draining: asyncio.Event = request.app.state.draining
    over = asyncio.ensure_future(draining.wait())
    try:
        yield b"retry: %d\n\n" % RETRY
        while not (over.done() or listener.dropped):
            waiting = asyncio.ensure_future(listener.queue.get())
            try:
                await asyncio.wait({waiting, over}, timeout=COMMENT_EVERY, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    yield render(listener, waiting.result())
                    continue
            finally:
                waiting.cancel()
            if not over.done():
                if not await still_valid(request):
                    return
                yield b": still here\n\n"
    finally:
        over.cancel()
        hub.leave(principal_of(request).tenant_id, listener)


handlers = [open_stream]
