"""The reporter: tells forges how their commits fared. Any number may run at once; a forge's trouble is its own.

Passes put states down in the transaction that ends their run; here they are claimed, sent outside of any
transaction, and marked. Nothing waits for that: a forge that is away costs a row and some tries.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import httpx2
import structlog

from cron_observer import forge
from cron_observer.errors import SettingsError
from cron_observer.forge.statuses import Verdict, message, verdict
from cron_observer.secret import read_secret
from cron_observer.settings import Settings, SourceSettings
from cron_observer.source.threads import in_thread
from cron_observer.store import statuses, tenants
from cron_observer.store.engine import Database, clock
from cron_observer.store.statuses import Status

log = structlog.get_logger()

#: Seconds that one request may take in all.
PATIENCE: Final = 10.0

#: States that one tick sends, all at once.
BATCH: Final = 10

#: How long a claimed state is nobody else's; a reporter that was killed holds it up no longer.
CLAIM: Final = timedelta(seconds=60)

#: Seconds before the second try; doubled each time, to the longest.
FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 900.0

#: After this a state is no news any more.
GIVE_UP_AFTER: Final = timedelta(hours=24)

#: How long states are remembered, so that the same one is not sent twice.
KEEP: Final = timedelta(days=90)

#: How often old states are looked for.
_FORGET_EVERY: Final = timedelta(hours=1)

#: Bytes of an answer that are read; the rest says nothing more.
_READ: Final = 4096


@dataclass(frozen=True, slots=True)
class _Target:
    """A source whose commits are reported. `place` is None when its addresses do not name owner and repository."""

    settings: SourceSettings
    place: forge.Place | None
    link: str | None


class Reporter:
    """One reporter loop over the sources with `provider` and `status_ref`."""

    def __init__(self, database: Database, settings: Settings, *, patience: float = PATIENCE) -> None:
        """`database` acts as the reconciler's role; `patience` is the seconds that a request may take."""
        self._database = database
        self._tenant = tenants.tenant_id(settings.tenant)
        self._targets = {
            tenants.source_id(self._tenant, one.name): _target(one, settings)
            for one in settings.sources
            if one.provider and one.status_ref
        }
        self._patience = patience
        self._clients: dict[UUID, httpx2.AsyncClient] = {}
        self._forget_at: datetime | None = None

    async def tick(self) -> int:
        """Send what is due, at most ten states; return how many the forges took. Raises `DatabaseError`."""
        async with self._database.transaction([self._tenant]) as conn:
            now = await clock(conn)
            if self._forget_at is None or now >= self._forget_at:
                await statuses.forget(conn, self._tenant, now - KEEP)
                self._forget_at = now + _FORGET_EVERY
            due = await statuses.claim(conn, self._tenant, list(self._targets), now=now, until=now + CLAIM, limit=BATCH)
        told = await asyncio.gather(*(self._tell(status) for status in due))
        for status, answer in zip(due, told, strict=True):
            await self._note(status, answer)
        return sum(answer.error is None for answer in told)

    async def _tell(self, status: Status) -> Verdict:
        """Send one state; whatever goes wrong is part of the answer."""
        target = self._targets[status.source_id]
        if target.place is None:
            return Verdict("the address of the source names no owner and repository on a forge: set url to that")
        try:
            token = await in_thread(read_secret, str(target.settings.status_ref))
            client = await self._client(status.source_id, target)
        except SettingsError as error:
            return Verdict(error.message, again=True)
        said = message(
            target.place,
            token,
            commit=status.commit,
            state=status.state,
            context=status.context,
            description=status.description,
            target=target.link,
        )
        try:
            async with asyncio.timeout(self._patience):
                request = client.stream("POST", said.url, headers=said.headers, json=said.body)
                async with request as answer:
                    raw = b""
                    async for part in answer.aiter_bytes():
                        raw += part
                        if len(raw) >= _READ:
                            break
                    return verdict(answer.status_code, answer.headers, raw[:_READ].decode("utf-8", "replace"), token)
        except TimeoutError:
            return Verdict(f"no answer within {self._patience:g} s", again=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            # the class alone: its words may hold what was sent
            return Verdict(f"the forge cannot be reached ({type(error).__name__})", again=True)

    async def _client(self, source_id: UUID, target: _Target) -> httpx2.AsyncClient:
        known = self._clients.get(source_id)
        if known is None:
            context = await in_thread(_trust, target.settings)
            known = httpx2.AsyncClient(verify=context, follow_redirects=False, timeout=self._patience)
            self._clients[source_id] = known
        return known

    async def _note(self, status: Status, answer: Verdict) -> None:
        async with self._database.transaction([self._tenant]) as conn:
            now = await clock(conn)
            if answer.error is None:
                await statuses.sent(conn, status, now)
                return
            again_at = now + _pause(status.attempts, answer.wait) if answer.again else None
            if again_at is not None and again_at - status.created_at > GIVE_UP_AFTER:
                again_at = None
            await statuses.failed(conn, status, now, error=answer.error, again_at=again_at)
        source = self._targets[status.source_id].settings.name
        if again_at is None:
            log.warning("status_given_up", source=source, commit=status.commit, reason=answer.error)
        elif status.attempts == 1:
            log.warning("status_not_sent", source=source, commit=status.commit, reason=answer.error)

    async def close(self) -> None:
        """Close every connection."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose()


def _target(source: SourceSettings, settings: Settings) -> _Target:
    place = forge.place_of(str(source.provider), source.url, source.forge_url)
    return _Target(source, place, f"{settings.base_url}/sync/{source.name}" if settings.base_url else None)


def _trust(source: SourceSettings) -> ssl.SSLContext:
    """Return whose certificates are believed. Raises `SettingsError`."""
    try:
        return ssl.create_default_context(cafile=source.ca_file)
    except OSError as error:
        raise SettingsError(f"{source.ca_file} cannot be read: {error.strerror}", hint="mend `ca_file`") from error


def _pause(attempts: int, asked: float | None) -> timedelta:
    """Return how long to wait after so many tries: doubled each time, bounded, spread, never less than `asked`."""
    seconds = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempts - 1, 16))
    spread = seconds * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing
    return timedelta(seconds=max(spread, asked or 0.0))
