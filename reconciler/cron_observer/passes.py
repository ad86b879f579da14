"""One pass over a source: look, fetch, compare, read, plan, apply. Whatever is wrong ends up in its conditions.

Level-based: a pass compares what the source holds now with what the database says is applied, so it does not
matter which changes there were in between, nor how often it is run. Everything that it decides is written in one
transaction, which fails as a whole when another reconciler has been faster.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from cron_observer import conditions
from cron_observer.errors import SourceError
from cron_observer.gather import Gathered, gather
from cron_observer.manifest import VALIDATOR_VERSION, rules
from cron_observer.model import Commit, Finding, Severity
from cron_observer.plan import CALENDAR, OUTSIDE, Actual, Plan, plan
from cron_observer.source import MirrorBroken, Source, SourceSpec, Target
from cron_observer.source.reader import Reader
from cron_observer.source.threads import in_thread
from cron_observer.store import bindings, calendars, groups, plans, sources, sync, task_writes
from cron_observer.store.engine import Database, clock, is_transient
from cron_observer.store.sources import Lease, Overtaken, Stale

log = structlog.get_logger()

#: How long a lease lasts, and how often it is renewed. A reconciler that was killed holds others up no longer.
LEASE: Final = timedelta(seconds=10)
RENEW_SECONDS: Final = 3.0

#: The longest wait after failures, for a repository on this machine and for one on a server.
BACKOFF_LOCAL: Final = 10.0
BACKOFF_REMOTE: Final = 300.0

#: Times that a plan is made anew because somebody changed a task while it was being applied.
PLANNING_TRIES: Final = 3

#: Findings that may be mended by another source of the project, so that it asks for a look when it has something new.
_REFERENCES: Final = (rules.UNKNOWN_CALENDAR.code, rules.UNKNOWN_GROUP.code)

#: Lines of text around a finding that are kept with it, each cut to so many characters.
_AROUND: Final = 1
_WIDEST: Final = 200


class _Unread(Exception):  # noqa: N818  it says what is missing
    """The plan takes away what unchanged files refer to: they are to be read again, and the plan made anew."""

    def __init__(self, paths: Collection[str]) -> None:
        super().__init__(len(paths))
        self.paths = paths


@dataclass(slots=True)
class Subject:
    """A source that this process looks after."""

    spec: SourceSpec
    tenant_id: UUID
    source_id: UUID
    kind: str
    source: Source
    local: bool
    #: `applied_seq` and the digest of the folder that was applied then: saves reading the table of files
    digest: tuple[int, str | None] | None = None


@dataclass(slots=True)
class Pass:
    """A pass that holds the lease of its source. `run` does it; it is of no use afterwards."""

    database: Database
    subject: Subject
    held: Lease
    reader: Reader
    trigger: str  #: poll, push (a change was heard of) or manual
    applying: asyncio.Lock  #: held while this process applies: one connection applies, the others look
    at: datetime | None = None  #: the time to go by, for tests; None reads the database's clock
    run_id: UUID | None = field(default=None, init=False)

    async def run(self) -> str:
        """Do the pass; return unchanged, applied, failed, stopped or overtaken. Raises `DatabaseError`."""
        renewal = asyncio.create_task(self._renew())
        try:
            outcome = await self._proceed()
        except Overtaken as error:
            log.info("source_overtaken", source=self.held.name, reason=error.message)
            await self.leave("another reconciler was faster")
            return "overtaken"
        except SourceError as error:
            return await self._fail(error)
        else:
            if self.held.failures:
                log.info("source_recovered", source=self.held.name, failures=self.held.failures)
            return outcome
        finally:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal

    async def _proceed(self) -> str:
        source = self.subject.source
        target = await in_thread(source.resolve)
        if target.id is None and self.held.applied_commit is not None:
            raise SourceError(
                "the repository has no commits any more; what was applied stays in force",
                reason="RefNotFound",
                permanent=True,
                hint="push the branch again",
            )
        if await self._is_applied(target):
            return await self._end_unchanged(target)
        async with self.database.transaction([self.held.tenant_id]) as conn:
            self.run_id = await sync.begin_run(
                conn,
                self.held,
                await self._now(conn),
                trigger=self.trigger,
                ref=target.ref,
                commit=self._commit(target),
            )
        target, found = await self._read(target)
        while True:
            try:
                return await self._apply(target, found)
            except _Unread as more:
                target, found = await self._read(target, {*found.paths, *more.paths})

    async def _read(self, target: Target, also: Collection[str] = ()) -> tuple[Target, Gathered]:
        """Fetch `target`, and read what is new in it and the files of `also`."""
        source = self.subject.source
        for last in (False, True):
            try:
                target = await in_thread(source.fetch, target)
                return target, await gather(self.database, source, self.held, target, self.reader, also)
            except MirrorBroken as error:
                if last:
                    raise SourceError(
                        f"the mirror cannot be read: {error}", reason="MirrorBroken", permanent=False
                    ) from error
                log.warning("mirror_rebuilt", source=self.held.name, reason=str(error))
                await in_thread(source.rebuild)
        raise AssertionError

    # Nothing new

    async def _is_applied(self, target: Target) -> bool:
        """Tell whether `target` is in force already, and nothing outside of the source could change that."""
        held, subject = self.held, self.subject
        if held.applied_seq == 0 or held.validator_version != VALIDATOR_VERSION:
            return False
        if subject.source.has_commits:
            if target.id != held.applied_commit:
                return False
        elif subject.digest != (held.applied_seq, target.id):
            return False
        conflicts, asked = held.counts.get("conflicts", 0) > 0, held.requested_seq > held.handled_seq
        if not conflicts and not asked:
            return True
        async with self.database.transaction([held.tenant_id]) as conn:
            if conflicts and await sync.freed(conn, held, OUTSIDE):
                return False
            return not asked or not (await sync.waits(conn, held, _REFERENCES) or await self._dangling(conn))

    async def _dangling(self, conn: Any) -> list[str]:
        held = self.held
        return await bindings.dangling(conn, held.tenant_id, held.source_id, held.project_id)

    async def _end_unchanged(self, target: Target) -> str:
        held = self.held
        async with self.database.transaction([held.tenant_id]) as conn:
            now = await self._now(conn)
            if self.trigger == "manual":
                commit = self._commit(target)
                run_id = await sync.begin_run(conn, held, now, trigger=self.trigger, ref=target.ref, commit=commit)
                await sync.end_run(conn, held, run_id, now, outcome="unchanged", commit=Commit(id=commit))
            await self._end(conn, now, target, held.counts)
        return "unchanged"

    # Something new

    async def _apply(self, target: Target, found: Gathered) -> str:
        async def write(conn: Any) -> tuple[Plan, int]:
            return await self._write(conn, target, found)

        for tries in range(1, PLANNING_TRIES + 1):
            try:
                async with self.applying:
                    made, applied_seq = await plans.in_transaction_with_margin(
                        self.database, [self.held.tenant_id], write
                    )
                break
            except Exception as error:  # somebody wrote the same rows at the same time
                if tries == PLANNING_TRIES or not (isinstance(error, Stale) or is_transient(error)):
                    raise
        self.subject.digest = (applied_seq, target.id)
        log.info("source_applied", source=self.held.name, commit=self._commit(target), **made.counts())
        try:
            await in_thread(self.subject.source.applied, target)
        except (MirrorBroken, SourceError) as error:
            log.warning("mirror_not_pinned", source=self.held.name, reason=str(error))
        return "applied"

    async def _write(self, conn: Any, target: Target, found: Gathered) -> tuple[Plan, int]:
        """Plan against what is in force now, and write all of it; the caller commits."""
        held, now = self.held, await self._now(conn)
        assert self.run_id is not None  # noqa: S101  the run has begun
        made = await in_thread(
            plan,
            found.desired,
            found.gone,
            await self._inventory(conn, found),
            source_id=held.source_id,
            project_id=held.project_id,
            files=found.files,
        )
        await calendars.apply(conn, held, made, now)
        await groups.apply(conn, held, made, now)
        await task_writes.apply(conn, held, made, now)
        if made.vanished or held.requested_seq > held.handled_seq:
            unread = set(await self._dangling(conn)) - set(found.paths)
            if unread:
                raise _Unread(unread)
        if made.vanished or made.appeared:
            await sources.ask_others(conn, held)
        findings = await in_thread(_findings, found, made, self.reader)
        await sync.save_files(conn, held, found.rows(_erroneous(findings), _supplied(made)), found.gone)
        await sync.replace_findings(conn, held, self.run_id, findings)
        counts = await sync.counts(conn, held, OUTSIDE)
        did = made.counts() | {"files": len(found.paths) + len(found.tracked)}
        changed = bool(found.changed or found.gone or made.counts().keys() - {"unchanged", "kept", "held"})
        await sync.end_run(
            conn,
            held,
            self.run_id,
            now,
            outcome="applied" if changed else "unchanged",
            commit=found.head,
            counts=did | {name: counts[name] for name in ("errors", "warnings")},
        )
        return made, await self._end(conn, now, target, counts, applied=True)

    async def _inventory(self, conn: Any, found: Gathered) -> list[Actual]:
        """Return what is in force, as far as the plan has to know it."""
        held = self.held
        tasks = await task_writes.inventory(conn, held, found.paths, found.names, loose=found.loose)
        known = await calendars.inventory(conn, held)
        if CALENDAR in found.kinds or any(row.path in found.paths for row in known):
            known = await calendars.with_contents(conn, held.tenant_id, known)
        return [*tasks, *known, *await groups.inventory(conn, held)]

    async def _end(self, conn: Any, now: datetime, target: Target, counts: Any, *, applied: bool = False) -> int:
        return await sources.end_pass(
            conn,
            self.held,
            now,
            next_poll_at=now + _spread(self.subject.spec.poll_seconds, 0.9, 1.1),
            conditions=conditions.looked(self.held.conditions, self._where(target), counts, now),
            applied=applied,
            ref=target.ref,
            commit=self._commit(target),
            validator=VALIDATOR_VERSION,
            counts=counts,
        )

    # Trouble

    async def _fail(self, error: SourceError) -> str:
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
        with suppress(Overtaken):
            async with self.database.transaction([held.tenant_id]) as conn:
                now = await self._now(conn)
                if self.run_id is not None:
                    await sync.end_run(conn, held, self.run_id, now, outcome="failed", error=message)
                elif first or self.trigger == "manual":
                    await sync.fail_run(conn, held, now, trigger=self.trigger, error=message)
                await sources.end_pass(
                    conn,
                    held,
                    now,
                    next_poll_at=now + backoff(self.subject.spec.poll_seconds, failures, local=self.subject.local),
                    conditions=conditions.failed(held.conditions, error.reason, message, now),
                    failures=failures,
                    looked=False,
                )
        return "failed"

    async def fail_unexpectedly(self) -> None:
        """Write down that the pass ended by an error that nobody foresaw; the log has it."""
        hint = "the log of the reconciler says more"
        await self._fail(SourceError("an unexpected error", reason="InternalError", permanent=False, hint=hint))

    async def leave(self, why: str) -> None:
        """End our run, and let others go on at once if we still hold the lease."""
        async with self.database.transaction([self.held.tenant_id]) as conn:
            if self.run_id is not None:
                now = await self._now(conn)
                await sync.end_run(conn, self.held, self.run_id, now, outcome="abandoned", error=why)
            await sources.give_back(conn, self.held)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            # A lease that cannot be renewed costs others some work and nothing else: the pass itself is fenced.
            with suppress(Exception):
                async with self.database.transaction([self.held.tenant_id]) as conn:
                    await sources.renew(conn, self.held, await self._now(conn), LEASE)

    # Words

    async def _now(self, conn: Any) -> datetime:
        return self.at or await clock(conn)

    def _commit(self, target: Target) -> str | None:
        return target.id if self.subject.source.has_commits else None

    def _where(self, target: Target) -> str:
        if not self.subject.source.has_commits:
            return "the folder was read"
        if target.id is None:
            return "the repository has no commits"
        short = (target.ref or "HEAD").removeprefix("refs/heads/").removeprefix("refs/tags/")
        return f"{short} is at {target.id[:7]}" if short != target.id else f"commit {target.id[:7]}"


def _spread(seconds: float, low: float, high: float) -> timedelta:
    return timedelta(seconds=seconds * random.uniform(low, high))  # noqa: S311  spreads load, guards nothing


def backoff(poll_seconds: float, failures: int, *, local: bool) -> timedelta:
    """Return how long to wait after so many failures in a row: doubled each time, bounded, and spread."""
    most = max(poll_seconds, BACKOFF_LOCAL if local else BACKOFF_REMOTE)
    return _spread(min(most, max(poll_seconds, 0.5) * 2.0 ** min(failures - 1, 16)), 0.5, 1.0)


def _findings(found: Gathered, made: Plan, reader: Reader) -> dict[str, list[tuple[Finding, str | None]]]:
    """Return the findings of every file that was read, and none for those that are gone."""
    findings: dict[str, list[tuple[Finding, str | None]]] = {path: [] for path in found.gone}
    for one in found.desired:
        path = one.file.path
        lines = re.split(r"\r\n|\r|\n", found.texts.get(path, ""))
        told = [*found.noted.get(path, ()), *made.findings.get(path, ())]
        several = [*one.file.findings, *_placed(told, path, found.texts.get(path, ""), reader)]
        findings[path] = [(finding, excerpt(lines, finding.line)) for finding in several]
    return findings


def _placed(told: Sequence[Finding], path: str, text: str, reader: Reader) -> list[Finding]:
    """Move findings of plans, which know names alone, to the lines that their pointers mean."""
    inner = [one for one in told if one.pointer not in (None, "/metadata/name")]
    if not inner:
        return list(told)
    lines = reader.lines(path, text.encode(), [(one.kind, one.name, str(one.pointer)) for one in inner])
    moved = {id(one): replace(one, line=line) for one, line in zip(inner, lines, strict=True) if line is not None}
    return [moved.get(id(one), one) for one in told]


def excerpt(lines: Sequence[str], line: int | None) -> str | None:
    """Return a line with its neighbours, each with its number: ``11 | timeout: 1h``."""
    if line is None or not 1 <= line <= len(lines):
        return None
    first, last = max(1, line - _AROUND), min(len(lines), line + _AROUND)
    shown = (f"{number} | {lines[number - 1][:_WIDEST]}" for number in range(first, last + 1))
    return "\n".join(shown).replace("\0", " ")


def _erroneous(findings: dict[str, list[tuple[Finding, str | None]]]) -> set[str]:
    return {path for path, several in findings.items() if any(one.severity is Severity.ERROR for one, _ in several)}


def _supplied(made: Plan) -> set[str]:
    """Return the paths that tasks in force come from by this plan."""
    return {action.declared.path for action in made.actions if action.declared is not None}
