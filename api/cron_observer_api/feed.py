"""What changes in one tenant, found once and told to everybody who listens.

A feed polls while anybody listens. It remembers what it has told, and looks back a little at every poll: a row
may become visible after a younger one. What it says is a hint: whoever needs certainty asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
import structlog

from cron_observer.errors import DatabaseError
from cron_observer.store import changes, logs, reads, source_reads, task_reads
from cron_observer.store.engine import Database, clock

_log = structlog.get_logger("cron_observer.api")

#: Seconds between two looks.
POLL: Final = 0.5

#: Tasks and sources change seldom and cost more to look at.
SLOW_POLL: Final = timedelta(seconds=2)

#: How far each look reaches back: longer than a transaction waits for a lock.
OVERLAP: Final = timedelta(seconds=6)

#: How far a resumed stream reaches back behind its last id.
RESUME_OVERLAP: Final = timedelta(seconds=60)

#: An id older than this is answered with ``reset``.
RESUMABLE: Final = timedelta(minutes=10)

#: Changes of one look; beyond it listeners are told to ask again instead.
MOST: Final = 5000

#: Lines of a log that one look passes on, a thousand a second; a log that has grown by more is told as `more`, and
#: goes on with its latest lines, as many as a new listener gets to begin with.
LOG_BATCH: Final = 500
LOG_TAIL: Final = 100

#: Messages that wait for a slow listener before it is dropped. Lines of a log wait in the database instead.
QUEUE: Final = 2000


class Message(NamedTuple):
    """One event of a stream: its kind, its data as JSON, the instant up to which it is true, a log's position."""

    kind: str
    data: bytes
    at: datetime
    log: tuple[int, int] | None = None


@dataclass(slots=True, eq=False)
class Listener:
    """One stream: what it wants, and what waits for it."""

    topics: frozenset[str]  #: executions, tasks, sources
    executions: frozenset[UUID]
    #: execution -> (attempt, next line); None: not yet placed
    logs: dict[UUID, tuple[int, int] | None]
    resume_from: datetime | None = None
    resumed: bool = False
    queue: asyncio.Queue[Message] = field(default_factory=lambda: asyncio.Queue(QUEUE))
    dropped: bool = False

    def put(self, message: Message) -> None:
        """Pass a message on; drop the listener when it cannot keep up."""
        if self.dropped:
            return
        try:
            self.queue.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped = True

    def hears(self, execution_id: UUID) -> bool:
        """Say whether it wants to know about an execution."""
        return "executions" in self.topics or execution_id in self.executions


class Feed:
    """The changes of one tenant."""

    def __init__(self, database: Database, tenant_id: UUID) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self.listeners: set[Listener] = set()
        self._told: dict[tuple[UUID, Any], datetime] = {}
        self._sources: dict[str, Any] | None = None
        self._since: datetime | None = None
        self._slow_at: datetime | None = None
        self._reset_at: datetime | None = None

    async def run(self) -> None:
        """Look and tell for as long as anybody listens."""
        while self.listeners:
            try:
                await self.look()
            except DatabaseError as error:
                _log.warning("stream_postponed", detail=error.message)
            except Exception:  # noqa: BLE001  a look may fail; the feed may not
                _log.exception("stream_failed")
            await asyncio.sleep(POLL)

    async def look(self) -> None:
        """Look once for what has changed, and tell it."""
        listeners = list(self.listeners)
        async with self._database.transaction([self._tenant_id]) as conn:
            now = await clock(conn)
            if self._since is None:
                self._since = self._slow_at = now
            for listener in listeners:
                if not listener.resumed:
                    await self._resume(conn, listener, now)
            await self._tell_executions(conn, listeners, now)
            await self._tell_logs(conn, listeners, now)
            if self._slow_at is None or now - self._slow_at >= SLOW_POLL:
                await self._tell_tasks(conn, listeners, self._slow_at or now, now)
                await self._tell_sources(conn, listeners, now)
                self._slow_at = now
        self._since = now
        self._told = {key: at for key, at in self._told.items() if at > now - 2 * OVERLAP}

    async def _resume(self, conn: Any, listener: Listener, now: datetime) -> None:
        """Tell a listener who comes back what it may have missed, or that it must ask again."""
        listener.resumed = True
        since = listener.resume_from
        if since is None:
            return
        if not now - RESUMABLE <= since <= now + RESUME_OVERLAP:
            listener.put(Message("reset", b"{}", now))
            return
        events = await changes.events_since(conn, self._tenant_id, since - RESUME_OVERLAP, MOST + 1)
        if len(events) > MOST:
            listener.put(Message("reset", b"{}", now))
            return
        missed = [one for one in dict.fromkeys(event[0] for event in events) if listener.hears(one)]
        for _, told in await self._items(conn, missed, now):
            listener.put(told)
        if "tasks" in listener.topics:
            tasks = await changes.tasks_since(conn, self._tenant_id, since - RESUME_OVERLAP, MOST)
            for message in await self._tasks(conn, [uid for uid, _ in tasks], now):
                listener.put(message)

    def _fresh(self, found: Iterable[tuple[UUID, Any, datetime]]) -> list[UUID]:
        """Return whose changes have not been told yet, each once, and remember them."""
        fresh: dict[UUID, None] = {}
        for identity, number, at in found:
            if (identity, number) not in self._told:
                self._told[identity, number] = at
                fresh[identity] = None
        return list(fresh)

    async def _tell_executions(self, conn: Any, listeners: Sequence[Listener], now: datetime) -> None:
        if not any("executions" in one.topics or one.executions for one in listeners):
            return
        since = (self._since or now) - OVERLAP
        events = await changes.events_since(conn, self._tenant_id, since, MOST + 1)
        if len(events) > MOST:
            self._reset(listeners, now)
            return
        fresh = [one for one in self._fresh(events) if any(listener.hears(one) for listener in listeners)]
        for identity, message in await self._items(conn, fresh, now):
            for listener in listeners:
                if listener.hears(identity):
                    listener.put(message)

    def _reset(self, listeners: Sequence[Listener], now: datetime) -> None:
        """Too much happens to tell: say so, now and then."""
        if self._reset_at is None or now - self._reset_at >= OVERLAP:
            self._reset_at = now
            for listener in listeners:
                listener.put(Message("reset", b"{}", now))

    async def _items(self, conn: Any, ids: Sequence[UUID], now: datetime) -> list[tuple[UUID, Message]]:
        found = await reads.items(conn, self._tenant_id, ids)
        return [(one, Message("execution", msgspec.json.encode(found[one]), now)) for one in ids if one in found]

    async def _tell_tasks(self, conn: Any, listeners: Sequence[Listener], since: datetime, now: datetime) -> None:
        wanting = [one for one in listeners if "tasks" in one.topics]
        if not wanting:
            return
        changed = await changes.tasks_since(conn, self._tenant_id, since - OVERLAP, MOST + 1)
        if len(changed) > MOST:
            self._reset(wanting, now)
            return
        fresh = self._fresh((uid, at, at) for uid, at in changed)
        for message in await self._tasks(conn, fresh, now):
            for listener in wanting:
                listener.put(message)

    async def _tasks(self, conn: Any, uids: Sequence[UUID], now: datetime) -> list[Message]:
        if not uids:
            return []
        found = await task_reads.tasks(conn, self._tenant_id, uids, now=now)
        return [Message("task", msgspec.json.encode(found[one]), now) for one in uids if one in found]

    async def _tell_sources(self, conn: Any, listeners: Sequence[Listener], now: datetime) -> None:
        wanting = [one for one in listeners if "sources" in one.topics]
        if not wanting:
            self._sources = None
            return
        items, _ = await source_reads.list_sources(conn, self._tenant_id, now=now, limit=200)
        # its age is no change of a source
        found = {item["name"]: item | {"stale_seconds": None} for item in items}
        before, self._sources = self._sources, found
        for item in items:
            if before is not None and before.get(item["name"]) != found[item["name"]]:
                for listener in wanting:
                    listener.put(Message("source", msgspec.json.encode(item), now))

    async def _tell_logs(self, conn: Any, listeners: Sequence[Listener], now: datetime) -> None:
        wanted = {identity for listener in listeners for identity in listener.logs}
        if not wanted:
            return
        heads = await changes.log_heads(conn, self._tenant_id, sorted(wanted))
        told: dict[tuple[UUID, int, int], list[dict[str, Any]]] = {}
        for listener in listeners:
            for identity, known in listener.logs.items():
                if identity not in heads or listener.queue.qsize() > QUEUE - 2 * LOG_BATCH:
                    continue
                attempt, lines = heads[identity]
                place = known or (attempt, max(0, lines - LOG_TAIL))
                if attempt > place[0] and not await self._has(conn, told, identity, place):
                    place = (attempt, 0)
                elif attempt > place[0]:
                    lines = await self._lines(conn, identity, place[0])
                place = self._leap(listener, identity, place, lines, now)
                listener.logs[identity] = await self._pass_on(conn, told, listener, identity, place, now)

    async def _lines(self, conn: Any, identity: UUID, attempt: int) -> int:
        """Return how many lines an attempt has that is not the newest any more."""
        of = await logs.parts(conn, self._tenant_id, identity, attempt)
        return of[-1].base + of[-1].lines if of else 0

    def _leap(
        self, listener: Listener, identity: UUID, place: tuple[int, int], lines: int, now: datetime
    ) -> tuple[int, int]:
        """Leave out what is more than one look passes on: say how many lines, and go on near the end."""
        attempt, seq = place
        if lines - seq <= LOG_BATCH:
            return place
        place = (attempt, lines - LOG_TAIL)
        left = {"execution": str(identity), "attempt": attempt, "from_seq": seq, "lines": place[1] - seq}
        listener.put(Message("more", msgspec.json.encode(left | {"next_seq": place[1]}), now, place))
        return place

    async def _has(
        self,
        conn: Any,
        told: dict[tuple[UUID, int, int], list[dict[str, Any]]],
        identity: UUID,
        place: tuple[int, int],
    ) -> bool:
        """Say whether there are lines at a place. Listeners at the same place share one look."""
        key = (identity, *place)
        if key not in told:
            told[key], _ = await logs.read(
                conn, self._tenant_id, identity, attempt=place[0], from_seq=place[1], limit=LOG_BATCH
            )
        return bool(told[key])

    async def _pass_on(
        self,
        conn: Any,
        told: dict[tuple[UUID, int, int], list[dict[str, Any]]],
        listener: Listener,
        identity: UUID,
        place: tuple[int, int],
        now: datetime,
    ) -> tuple[int, int]:
        """Tell the lines at a place and return the place behind them."""
        if not await self._has(conn, told, identity, place):
            return place
        for entry in told[identity, *place]:
            place = (entry["attempt"], entry["seq"] + 1)
            data = msgspec.json.encode({"execution": str(identity)} | entry)
            listener.put(Message("log", data, now, place))
        return place


def stamp(at: datetime) -> int:
    """Return an instant as microseconds since 1970, the number inside ids."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def unstamp(number: int) -> datetime:
    """Return the instant of such a number. Raises `OverflowError` far away from our time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=number)
