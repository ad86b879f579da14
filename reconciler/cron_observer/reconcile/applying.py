"""The transaction of a pass: plan against what is in force, write all of it, or judge it and write only that.

Whatever is decided is written in one transaction, which fails as a whole when another reconciler has been faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cron_observer import conditions
from cron_observer.conditions import Refusal, Seen
from cron_observer.manifest import VALIDATOR_VERSION
from cron_observer.manifest.layers import LAYERS, limit
from cron_observer.plan import CALENDAR, OUTSIDE, Actual, Plan, at_risk, plan
from cron_observer.reconcile.gather import Basis, Gathered
from cron_observer.reconcile.layering import holds
from cron_observer.reconcile.remarks import Remarks, erroneous, first_error, remarks, supplied, told_briefly
from cron_observer.reconcile.steps import Steps
from cron_observer.reconcile.subjects import Others, Subject
from cron_observer.source import Target
from cron_observer.source.reader import Reader
from cron_observer.source.threads import in_thread
from cron_observer.store import (
    approvals,
    bindings,
    calendars,
    counting,
    groups,
    layers,
    sources,
    statuses,
    sync,
    task_writes,
)
from cron_observer.store.sources import Judged, Lease
from cron_observer.store.sync import FileRow

#: Held removals that are listed; `counts` has the true number.
MOST_LISTED: Final = 1_000


class Unread(Exception):  # noqa: N818  it says what is missing
    """The plan touches what files say that were not read: they are to be, and the plan made anew."""

    def __init__(self, paths: Collection[str]) -> None:
        super().__init__(len(paths))
        self.paths = paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a transaction wrote, if it commits."""

    outcome: str  #: applied, unchanged, observed or refused
    applied_seq: int
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """Everything that a target is planned and applied from; `write` may be tried several times."""

    subject: Subject
    held: Lease
    reader: Reader
    steps: Steps
    run: sync.Run
    target: Target
    found: Gathered
    base: Basis
    judgement: str
    next_look: timedelta
    asked: Collection[str] = ()  #: files that were to be read again for a plan before
    consent: str | None = None  #: the approval of another history that is made use of

    async def write(self, conn: Any, now: datetime) -> Written:
        """Plan, and write what follows from it; the caller commits. Raises `Unread`, `Stale` and `Overtaken`."""
        with self.steps.step("plan"):
            made = await self._plan(conn)
        applies = self.subject.enforces and not made.refused
        was = await self._counted(conn)
        telling = asyncio.create_task(in_thread(self._tell, made))  # while tasks are written
        try:
            if applies:
                await self._put_in_force(conn, made, now)
            with self.steps.step("files"):
                told, rows = await telling
                if applies:
                    await sync.save_files(conn, self.held, rows, self.found.gone)
        finally:
            telling.cancel()
        with self.steps.step("findings"):
            # what another commit was told of files that are as they were in force is over
            over: Remarks = {path: [] for path in self.asked if path not in told}
            waited = await sync.replace_findings(conn, self.held, self.run.run_id, over | told)
            if waited - erroneous(told):  # somebody may hold for us what we want no more
                await sources.ask_others(conn, self.held)
            counts = await counting.after(conn, self.held, OUTSIDE, was, self._touched)
        outcome = "refused" if made.refused else "observed" if not applies else "unchanged"
        if applies and self._changes(made):
            outcome = "applied"
        with self.steps.step("run"):
            await self._end_run(conn, now, made, told, counts, outcome)
        with self.steps.step("source"):
            seq = await self._end_pass(conn, now, made, counts, applies=applies)
        return Written(outcome=outcome, applied_seq=seq, plan=made)

    def _tell(self, made: Plan) -> tuple[Remarks, list[FileRow]]:
        """Say what there is to say about each file, and what is to be known of it."""
        told = remarks(self.found, made, self.reader)
        return told, self.found.rows(erroneous(told), supplied(made))

    @property
    def _touched(self) -> set[str]:
        """Every file of which something may be written."""
        return {*self.found.paths, *(row.path for row in self.found.tracked)}

    async def _counted(self, conn: Any) -> counting.Before | None:
        """Count what is there of the files that are touched; of a pass that compares everything, nothing."""
        if self.found.strategy == "full" or self.base.rewritten:
            return None
        return await counting.before(conn, self.held, self._touched)

    async def _plan(self, conn: Any) -> Plan:
        held, found = self.held, self.found
        actual = await self._inventory(conn)
        layered = [one for one in actual if one.kind in LAYERS]
        if not await in_thread(holds, held, found.desired, found.gone, layered, found.layers):
            raise Unread(())
        others = await self._others(conn, actual)
        made = await in_thread(
            plan,
            found.desired,
            found.gone,
            actual,
            source_id=held.source_id,
            project_id=held.project_id,
            files=found.files,
            terms=self.subject.terms(held, self.target, others),
        )
        unread = made.findings.keys() - {*found.paths, *found.ratcheted, *self.asked}
        if unread:
            raise Unread(unread)
        return made

    async def _others(self, conn: Any, actual: Sequence[Actual]) -> Others:
        """Ask what the plan has to know beside rows; nothing of it is asked that cannot matter."""
        held, found = self.held, self.found
        empty = False
        if found.gone and not any(one.file.documents for one in found.desired):
            empty = await sync.declares_nothing(conn, held, found.gone)
        approved = await approvals.approved(conn, held) if held.plan_hash is not None else set()
        key = {"source_id": held.source_id, "project_id": held.project_id}
        lost = await in_thread(at_risk, found.desired, found.gone, actual, **key)
        return Others(
            empty=empty,
            approved=approved,
            holders=await bindings.holders(conn, held.tenant_id, held.project_id, lost),
            awaited=await bindings.awaited(conn, held.tenant_id, **key) if lost else (),
            limit=limit(found.layers),
            bearing={(one.kind, one.name) for one in found.layers},
        )

    async def _inventory(self, conn: Any) -> list[Actual]:
        """Return what is in force, as far as the plan has to know it."""
        held, found = self.held, self.found
        elsewhere = found.strategy == "full"  # another project is a change of settings, after which everything is read
        tasks = await task_writes.inventory(
            conn, held, found.paths, found.names, loose=found.loose, elsewhere=elsewhere
        )
        known = await calendars.inventory(conn, held)
        if CALENDAR in found.kinds or any(row.path in found.paths for row in known):
            known = await calendars.with_contents(conn, held.tenant_id, known)
        return [*tasks, *known, *await groups.inventory(conn, held), *await layers.inventory(conn, held)]

    async def _put_in_force(self, conn: Any, made: Plan, now: datetime) -> None:
        held, steps = self.held, self.steps
        with steps.step("layers"):
            await layers.apply(conn, held, made, now)
        with steps.step("calendars"):
            await calendars.apply(conn, held, made, now)
        with steps.step("groups"):
            await groups.apply(conn, held, made, now)
        with steps.step("tasks"):
            await task_writes.apply(conn, held, made, now)
            if made.vanished or held.requested_seq > held.handled_seq:
                dangling = await bindings.dangling(conn, held.tenant_id, held.source_id, held.project_id)
                unread = set(dangling) - {*self.found.paths, *self.asked}
                if unread:
                    raise Unread(unread)
            if made.concerns_others:
                await sources.ask_others(conn, held)
        for plan_hash in (made.approved, self.consent):
            if plan_hash is not None:
                await approvals.use(conn, held, plan_hash, self.run.run_id, now)

    def _changes(self, made: Plan) -> bool:
        """Tell whether anything but the commit is another one now."""
        found = self.found
        return bool(found.changed or found.gone or made.counts().keys() - {"unchanged", "kept", "held"})

    async def _end_run(
        self, conn: Any, now: datetime, made: Plan, told: Remarks, counts: Mapping[str, int], outcome: str
    ) -> None:
        did = made.counts() | {"files": len(self.found.paths) + len(self.found.tracked)}
        error = None
        if made.refused:
            errors = sum(one.severity == "error" for of_file in told.values() for one, _ in of_file)
            several = f"{errors:,} error{'' if errors == 1 else 's'}"
            error = f"{several}: nothing of the commit is applied (failure_policy = atomic)"
        await sync.end_run(
            conn,
            self.held,
            self.run.run_id,
            now,
            outcome=outcome,
            commit=self.found.head,
            counts=did | {name: counts[name] for name in ("errors", "warnings")},
            error=error,
            strategy=self.found.strategy,
            timings=self.steps.timings,
            waiting=waiting(made),
            plan_hash=made.plan_hash,
        )
        commit = self.subject.commit(self.target)
        if self.subject.reports and commit is not None:
            state, says = _status(made, told, counts, did, outcome)
            await statuses.put(
                conn, self.held, commit=commit, state=state, description=says, run_id=self.run.run_id, now=now
            )

    async def _end_pass(self, conn: Any, now: datetime, made: Plan, counts: Mapping[str, int], *, applies: bool) -> int:
        held, target = self.held, self.target
        waits = waiting(made)
        refusal = None
        if made.refused:
            message = "errors in manifests: nothing of the commit is applied, what was applied before stays in force"
            refusal = Refusal(condition="Applied", reason="ValidationFailed", message=message)
        seen = Seen(
            name=held.name,
            where=self.subject.where(target),
            counts=counts,
            verified=self.subject.verifies,
            observing=not self.subject.enforces,
            refusal=refusal,
            held=waits,
            plan_hash=made.plan_hash,
            rewritten=(str(held.applied_commit), str(target.id)) if self.base.rewritten else None,
        )
        return await sources.end_pass(
            conn,
            held,
            now,
            fetched=self.subject.fetched,
            next_poll_at=now + self.next_look,
            conditions=conditions.looked(held.conditions, seen, now),
            applied=applies,
            ref=target.ref,
            commit=self.subject.commit(target),
            validator=VALIDATOR_VERSION,
            counts=counts,
            observed_seq=self.run.observed_seq,
            judged=Judged(
                refused=self.judgement if waits or not applies else None,
                plan_hash=made.plan_hash,
                waiting=waits,
                checked=self.found.strategy == "full",
            ),
        )


def waiting(made: Plan) -> list[dict[str, Any]]:
    """Return the removals that a plan holds, as rows and the wire carry them; at most `MOST_LISTED`."""
    return [
        {
            "kind": one.kind,
            "name": one.name,
            "path": None if one.actual is None else one.actual.path,
            "line": None if one.actual is None else one.actual.line,
            "reason": one.held or "unparseable",
        }
        for one in made.held[:MOST_LISTED]
    ]


def _status(
    made: Plan, told: Remarks, counts: Mapping[str, int], did: Mapping[str, int], outcome: str
) -> tuple[str, str]:
    """Return the state and the words that the forge shows beside the commit."""
    place = first_error(told)
    if outcome == "refused":
        return "failure", f"nothing applied, {counts['errors']:,} invalid" + (f": {place}" if place else "")
    says = told_briefly(counts, did, place)
    if outcome == "observed":
        says = says.replace("applied", "planned, not applied (observed)", 1)
    if counts["errors"]:
        return "failure", says
    if made.plan_hash is not None:
        return "pending", f"{says}, {len(made.held):,} removals wait for an approval"
    return "success", says
