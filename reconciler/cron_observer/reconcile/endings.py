"""The ways in which a pass ends without applying anything: nothing new, a refused commit, trouble, another's turn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from cron_observer import conditions
from cron_observer.conditions import Refusal, Seen
from cron_observer.errors import SourceError
from cron_observer.model import Commit
from cron_observer.reconcile.gather import Basis
from cron_observer.reconcile.steps import Steps
from cron_observer.reconcile.subjects import Subject
from cron_observer.source import Target
from cron_observer.source.reader import Reader
from cron_observer.store import sources, statuses, sync
from cron_observer.store.engine import Database, clock
from cron_observer.store.sources import Judged, Lease, Overtaken

log = structlog.get_logger()

#: The longest wait after failures, for a repository on this machine and for one on a server.
BACKOFF_LOCAL: Final = 10.0
BACKOFF_REMOTE: Final = 300.0


#: Who is told of a look that found nothing new: people, who wait for it.
_WAITED_FOR: Final = ("resume", "manual", "approval")


class Refused(Exception):  # noqa: N818  it says what became of a commit
    """A commit that is not even read: its signatures are not good, or nobody has approved its history."""

    def __init__(self, target: Target, base: Basis, refusal: Refusal, plan_hash: str | None = None) -> None:
        super().__init__(refusal.message)
        self.target, self.base, self.refusal, self.plan_hash = target, base, refusal, plan_hash


@dataclass(slots=True)
class Ending:
    """What a pass knows, and how it ends."""

    database: Database
    subject: Subject
    held: Lease
    reader: Reader
    applying: asyncio.Lock  #: held while this process applies: one connection applies, the others look
    at: datetime | None = None  #: the time to go by, for tests; None reads the database's clock
    begun: datetime | None = None  #: when the lease was taken; None: nothing is compared only because it is time to
    run_row: sync.Run | None = field(default=None, init=False)
    judgement: str = field(default="", init=False)
    steps: Steps = field(default_factory=Steps, init=False)

    def __post_init__(self) -> None:
        self.subject.counted = self.subject.source.fetched

    @property
    def trigger(self) -> str:
        """Return why the source is looked at."""
        return self.held.taken_for or "poll"

    async def unchanged(self, target: Target) -> str:
        """Write down that the source was looked at, and stands as it was judged before."""
        held = self.held
        async with self.database.transaction([held.tenant_id]) as conn:
            now, commit = await self.now(conn), self.subject.commit(target)
            if held.observed_commit != commit:  # somebody saw something else, and may have died of it
                await sync.abandon_runs(conn, held, now)
            if self.trigger in _WAITED_FOR:
                self.run_row = await sync.begin_run(
                    conn, held, now, trigger=self.trigger, ref=target.ref, commit=commit
                )
                await sync.end_run(
                    conn,
                    held,
                    self.run_row.run_id,
                    now,
                    outcome="unchanged",
                    commit=Commit(id=commit),
                    timings=self.steps.timings,
                )
            await sources.end_pass(
                conn,
                held,
                now,
                fetched=self.subject.fetched,
                next_poll_at=now + self.next_look,
                conditions=conditions.again(held.conditions, self.subject.where(target), now),
                ref=target.ref,
                commit=self.subject.commit(target),
                observed_seq=None if self.run_row is None else self.run_row.observed_seq,
            )
        return "unchanged"

    async def refuse(self, why: Refused) -> str:
        """Write down why a commit is not even read; what was applied stays, and it is not judged again."""
        held, refusal, target = self.held, why.refusal, why.target
        assert self.run_row is not None  # noqa: S101  the run has begun
        waits = (
            []
            if why.plan_hash is None
            else [{"kind": "Source", "name": held.name, "path": None, "line": None, "reason": "rewritten"}]
        )
        seen = self._refused(why, waits)
        # checked as far as it ever is, so that it is not looked at again only because it is time to
        full = why.base.strategy == "full"
        judged = Judged(refused=self.judgement, plan_hash=why.plan_hash, waiting=waits, checked=full)
        log.warning("source_refused", source=held.name, commit=target.id, reason=refusal.reason)
        async with self.database.transaction([held.tenant_id]) as conn:
            now = await self.now(conn)
            await sync.end_run(
                conn,
                held,
                self.run_row.run_id,
                now,
                outcome="refused",
                commit=Commit(id=target.id),
                error=refusal.message,
                strategy=why.base.strategy,
                timings=self.steps.timings,
                waiting=waits,
                plan_hash=why.plan_hash,
            )
            if self.subject.reports and target.id is not None:
                state = "failure" if why.plan_hash is None else "pending"
                await statuses.put(
                    conn,
                    held,
                    commit=target.id,
                    state=state,
                    description=refusal.message,
                    run_id=self.run_row.run_id,
                    now=now,
                )
            await sources.end_pass(
                conn,
                held,
                now,
                fetched=self.subject.fetched,
                next_poll_at=now + self.next_look,
                conditions=conditions.looked(held.conditions, seen, now),
                ref=target.ref,
                commit=self.subject.commit(target),
                observed_seq=self.run_row.observed_seq,
                judged=judged,
            )
        return "refused"

    def _refused(self, why: Refused, waits: Sequence[Mapping[str, Any]]) -> Seen:
        held, target = self.held, why.target
        return Seen(
            name=held.name,
            where=self.subject.where(target),
            counts=held.counts,
            verified=self.subject.verifies,
            refusal=why.refusal,
            held=waits,
            plan_hash=why.plan_hash,
            rewritten=(str(held.applied_commit), str(target.id)) if why.base.rewritten else None,
        )

    async def fail(self, error: SourceError) -> str:
        """Write down why the source could not be read; nothing that is applied is touched."""
        if error.reason == "Stopped":
            await self.leave("the reconciler was stopped")
            return "stopped"
        held = self.held
        failures = held.failures + 1
        message = error.message if error.hint is None else f"{error.message}; {error.hint}"
        first = held.conditions.get("Fetched", {}).get("reason") != error.reason
        if first:
            log.warning("source_failed", source=held.name, reason=error.reason, message=error.message)
        try:
            async with self.database.transaction([held.tenant_id]) as conn:
                now = await self.now(conn)
                if self.run_row is not None:
                    await sync.end_run(conn, held, self.run_row.run_id, now, outcome="failed", error=message)
                elif first or self.trigger in _WAITED_FOR:
                    await sync.fail_run(conn, held, now, trigger=self.trigger, error=message)
                await sources.end_pass(
                    conn,
                    held,
                    now,
                    fetched=self.subject.fetched,
                    next_poll_at=now + backoff(self.subject.spec.poll_seconds, failures, local=self.subject.local),
                    conditions=conditions.failed(held.conditions, error.reason, message, now),
                    failures=failures,
                    looked=False,
                    observed_seq=None if self.run_row is None else self.run_row.observed_seq,
                )
        except Overtaken as overtaken:
            await self.leave(overtaken.message)
        return "failed"

    async def fail_unexpectedly(self) -> None:
        """Write down that the pass ended by an error that nobody foresaw; the log has it."""
        hint = "the log of the reconciler says more"
        await self.fail(SourceError("an unexpected error", reason="InternalError", permanent=False, hint=hint))

    async def leave(self, why: str) -> None:
        """End our run, and let others go on at once if we still hold the lease."""
        async with self.database.transaction([self.held.tenant_id]) as conn:
            if self.run_row is not None:
                now = await self.now(conn)
                await sync.end_run(conn, self.held, self.run_row.run_id, now, outcome="abandoned", error=why)
            await sources.give_back(conn, self.held)

    @property
    def next_look(self) -> timedelta:
        """Return how long until the source is looked at again when all is well."""
        return _spread(self.subject.spec.poll_seconds, 0.9, 1.1)

    async def now(self, conn: Any) -> datetime:
        """Return the time to go by."""
        return self.at or await clock(conn)


def _spread(seconds: float, low: float, high: float) -> timedelta:
    return timedelta(seconds=seconds * random.uniform(low, high))  # noqa: S311  spreads load, guards nothing


def backoff(poll_seconds: float, failures: int, *, local: bool) -> timedelta:
    """Return how long to wait after so many failures in a row: doubled each time, bounded, and spread."""
    most = max(poll_seconds, BACKOFF_LOCAL if local else BACKOFF_REMOTE)
    return _spread(min(most, max(poll_seconds, 0.5) * 2.0 ** min(failures - 1, 16)), 0.5, 1.0)
