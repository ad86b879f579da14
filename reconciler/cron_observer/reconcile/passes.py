"""One pass over a source: look, fetch, verify, compare, read, plan, apply. What is wrong ends up in its conditions.

Level-based: a pass compares what the source holds now with what the database says is applied, so it does not
matter which changes there were in between, nor how often it is run. What it decides is written by `applying` in one
transaction, which fails as a whole when another reconciler has been faster.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog

from cron_observer.conditions import Refusal
from cron_observer.errors import SourceError
from cron_observer.manifest import VALIDATOR_VERSION, rules
from cron_observer.plan import IN_USE, OUTSIDE
from cron_observer.reconcile.applying import Application, Unread, Written
from cron_observer.reconcile.endings import BACKOFF_LOCAL, BACKOFF_REMOTE, Ending, Refused, backoff
from cron_observer.reconcile.gather import Basis, Gathered, basis, gather
from cron_observer.reconcile.steps import KILL_POINTS, spared
from cron_observer.reconcile.subjects import Subject, rewriting
from cron_observer.source import MirrorBroken, Target
from cron_observer.source.threads import in_thread
from cron_observer.store import approvals, bindings, drift, plans, sources, sync, tasks, upkeep
from cron_observer.store.engine import is_transient
from cron_observer.store.sources import Overtaken, Stale

__all__ = ["BACKOFF_LOCAL", "BACKOFF_REMOTE", "KILL_POINTS", "LEASE", "Pass", "Subject", "backoff"]

log = structlog.get_logger()

#: How long a lease lasts, and how often it is renewed. A reconciler that was killed holds others up no longer.
LEASE: Final = timedelta(seconds=10)
RENEW_SECONDS: Final = 3.0

#: Times that a plan is made anew because somebody changed a task while it was being applied.
PLANNING_TRIES: Final = 3

#: Findings that may be mended by another source of the project, so that it asks for a look when it has something new.
_REFERENCES: Final = (rules.UNKNOWN_CALENDAR.code, rules.UNKNOWN_GROUP.code, IN_USE.code)

#: Rows after which the database's statistics are taken anew at once: what it does not know yet, it reads through.
MANY: Final = 5_000

#: Runs are kept for so long, and so many of a source however old they are; deliveries of webhooks for a day. An
#: approval that no pass has used by then is no consent any more; the audit log keeps who gave it.
RUNS_KEPT: Final = timedelta(days=90)
RUNS_LEAST: Final = 200
DELIVERIES_KEPT: Final = timedelta(hours=24)
APPROVALS_KEPT: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class _Read:
    """A target that was fetched and read."""

    target: Target
    base: Basis
    found: Gathered
    consent: str | None  #: the approval of another history that it makes use of


@dataclass(slots=True)
class Pass(Ending):
    """A pass that holds the lease of its source. `run` does it; it is of no use afterwards."""

    async def run(self) -> str:
        """Do the pass; return unchanged, applied, observed, refused, failed, stopped or overtaken.

        Raises `DatabaseError`.
        """
        with self.steps.step("lease"):
            renewal = asyncio.create_task(self._renew())
        try:
            outcome = await self._proceed()
        except Overtaken as error:
            log.info("source_overtaken", source=self.held.name, reason=error.message)
            await self.leave(error.message)
            return "overtaken"
        except SourceError as error:
            return await self.fail(error)
        else:
            if self.held.failures:
                log.info("source_recovered", source=self.held.name, failures=self.held.failures)
            return outcome
        finally:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal

    async def _proceed(self) -> str:
        with self.steps.step("resolve"):
            target, self.judgement = await in_thread(self._resolve)
        if target.id is None and self.held.applied_commit is not None:
            raise SourceError(
                "the repository has no commits any more; what was applied stays in force",
                reason="RefNotFound",
                permanent=True,
                hint="push the branch again",
            )
        if await self._is_settled(target):
            return await self.unchanged(target)
        with self.steps.step("begin"):
            await self._begin(target)
        try:
            with spared(self.held.counts.get("files", MANY) >= MANY):
                return await self._judge(target)
        except Refused as refused:
            return await self.refuse(refused)

    def _resolve(self) -> tuple[Target, str]:
        target = self.subject.source.resolve()
        return target, self.subject.judgement(target)

    async def _begin(self, target: Target) -> None:
        commit = self.subject.commit(target)
        async with self.database.transaction([self.held.tenant_id]) as conn:
            now = await self.now(conn)
            self.run_row = await sync.begin_run(
                conn, self.held, now, trigger=self.trigger, ref=target.ref, commit=commit
            )

    # Nothing new

    @property
    def _checks(self) -> bool:
        """Whether it is time to compare all that is known, instead of what has changed."""
        if self.begun is None or self.held.applied_seq == 0:
            return False
        checked = self.held.checked_at
        return checked is None or self.begun - checked >= timedelta(hours=self.subject.settings.self_check_hours)

    async def _is_settled(self, target: Target) -> bool:
        """Tell whether nothing could come of judging `target`: it was, and nothing that it depends on has changed."""
        held = self.held
        asked, conflicts = held.requested_seq > held.handled_seq, held.counts.get("conflicts", 0) > 0
        if self._checks or not self._was_judged(target, asked=asked):
            return False
        if not conflicts and not asked:
            return True
        async with self.database.transaction([held.tenant_id]) as conn:
            if conflicts and await sync.freed(conn, held, OUTSIDE):
                return False
            if not asked:
                return True
            dangling = await bindings.dangling(conn, held.tenant_id, held.source_id, held.project_id)
            return not (dangling or await sync.waits(conn, held, _REFERENCES))

    def _was_judged(self, target: Target, *, asked: bool) -> bool:
        """Tell whether `target` is in force, or was found unfit to be, by the rules that hold now."""
        held, subject = self.held, self.subject
        if held.refused is not None:
            # what was not applied as a whole is looked at again when somebody asks for it
            return held.refused == self.judgement and not asked
        if held.applied_seq == 0 or held.validator_version != VALIDATOR_VERSION:
            return False
        if subject.source.has_commits:
            return target.id == held.applied_commit
        return subject.digest == (held.applied_seq, target.id)

    # Something new

    async def _judge(self, target: Target) -> str:
        also: set[str] = set()
        if self.held.refused is not None:  # findings may be those of a commit that is not in force
            async with self.database.transaction([self.held.tenant_id]) as conn:
                also |= await sync.unapplied(conn, self.held)
        if self._checks:
            async with self.database.transaction([self.held.tenant_id]) as conn:
                also |= await drift.drifted(conn, self.held)
        read = await self._read(target, also)
        while True:
            try:
                return await self._apply(read, also)
            except Unread as more:
                also |= {*read.found.paths, *more.paths}
                read = await self._read(read.target, also, fetched=True)

    async def _read(self, target: Target, also: Collection[str], *, fetched: bool = False) -> _Read:
        """Fetch `target`, and read what is new in it and the files of `also`."""
        source = self.subject.source
        for last in (False, True):
            try:
                if not fetched:
                    with self.steps.step("fetch"):
                        target = await self._fetch(target)
                with self.steps.step("verify"):
                    base = await in_thread(basis, source, self.held, target, check=self._checks)
                    consent = await self._admit(target, base)
                with self.steps.step("gather"):
                    found = await gather(self.database, source, self.held, target, self.reader, base, also)
                return _Read(target, base, found, consent)
            except MirrorBroken as error:
                if last:
                    raise SourceError(
                        f"the mirror cannot be read: {error}", reason="MirrorBroken", permanent=False
                    ) from error
                log.warning("mirror_rebuilt", source=self.held.name, reason=str(error))
                await in_thread(source.rebuild)
                fetched = False
        raise AssertionError

    async def _fetch(self, target: Target) -> Target:
        """Fetch what `target` names, and write down if that is something newer by now."""
        fetched = await in_thread(self.subject.source.fetch, target)
        if fetched.id != target.id and self.run_row is not None:
            self.judgement = await in_thread(self.subject.judgement, fetched)
            async with self.database.transaction([self.held.tenant_id]) as conn:
                now = await self.now(conn)
                commit = self.subject.commit(fetched)
                seen = await sync.observe(conn, self.held, now, ref=fetched.ref, commit=commit)
            self.run_row = sync.Run(run_id=self.run_row.run_id, observed_seq=seen)
        return fetched

    async def _admit(self, target: Target, base: Basis) -> str | None:
        """Let in what is signed and follows from what is in force; return the approval of what does not.

        Raises `Refused`.
        """
        held, subject = self.held, self.subject
        if subject.verifies:
            since = None if base.rewritten else held.applied_commit
            try:
                await in_thread(subject.source.verify, target, since)
            except SourceError as error:
                if error.reason != "SignatureRefused":
                    raise
                message = error.message if error.hint is None else f"{error.message}; {error.hint}"
                refusal = Refusal(condition="SourceVerified", reason=error.reason, message=message)
                raise Refused(target, base, refusal) from error
        if not base.rewritten or subject.settings.on_rewrite == "allow":
            return None
        plan_hash = rewriting(held, target)
        async with self.database.transaction([held.tenant_id]) as conn:
            if plan_hash in await approvals.approved(conn, held):
                return plan_hash
        message = (
            f"{str(target.id)[:7]} does not follow from {str(held.applied_commit)[:7]}, which is in force and stays so "
            f"until somebody approves the new history: cron-observer sources approve {held.name} {plan_hash}"
        )
        raise Refused(target, base, Refusal(condition="Applied", reason="HistoryRewritten", message=message), plan_hash)

    async def _apply(self, read: _Read, asked: Collection[str]) -> str:
        held, target = self.held, read.target
        assert self.run_row is not None  # noqa: S101  the run has begun
        work = Application(
            subject=self.subject,
            held=held,
            reader=self.reader,
            steps=self.steps,
            run=self.run_row,
            target=target,
            found=read.found,
            base=read.base,
            judgement=self.judgement,
            next_look=self.next_look,
            asked=asked,
            consent=read.consent,
        )

        async def write(conn: Any) -> Written:
            return await work.write(conn, await self.now(conn))

        with self.steps.step("commit"):
            written = await self._committed(write)
        self._tell(written, target)
        if written.outcome in ("applied", "unchanged"):
            self.subject.digest = (written.applied_seq, target.id)
            with self.steps.step("pin"):
                await self._pin(target)
        if len(written.plan.actions) >= MANY:
            async with self.database.transaction([held.tenant_id]) as conn:
                await upkeep.analyze(conn)
        if self._checks:
            with self.steps.step("tidy"):
                await self._tidy()
        return "applied" if written.outcome == "unchanged" else written.outcome

    def _tell(self, written: Written, target: Target) -> None:
        facts = {"source": self.held.name, "commit": self.subject.commit(target), **written.plan.counts()}
        if written.outcome == "observed":
            log.info("source_observed", **facts)
        elif written.outcome == "refused":
            log.warning("source_refused", **facts)
        else:
            log.info("source_applied", **facts)

    async def _committed(self, write: Any) -> Written:
        for tries in range(1, PLANNING_TRIES + 1):
            try:
                async with self.applying:
                    written: Written = await plans.in_transaction_with_margin(
                        self.database, [self.held.tenant_id], write
                    )
            except Exception as error:  # somebody wrote the same rows at the same time
                if tries == PLANNING_TRIES or not (isinstance(error, Stale) or is_transient(error)):
                    raise
            else:
                return written
        raise AssertionError

    async def _pin(self, target: Target) -> None:
        try:
            await in_thread(self.subject.source.applied, target)
        except (MirrorBroken, SourceError) as error:
            log.warning("mirror_not_pinned", source=self.held.name, reason=str(error))

    async def _tidy(self) -> None:
        """Forget old runs, deliveries, approvals and removed tasks."""
        held = self.held
        async with self.database.transaction([held.tenant_id]) as conn:
            now = await self.now(conn)
            await sync.forget_runs(conn, held, before=now - RUNS_KEPT, keep=RUNS_LEAST)
            await sync.forget_deliveries(conn, held, before=now - DELIVERIES_KEPT)
            await approvals.forget(conn, held, before=now - APPROVALS_KEPT)
            removed = now - timedelta(days=self.subject.settings.purge_after_days)
            await tasks.purge(conn, held.tenant_id, held.source_id, removed, now)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            # A lease that cannot be renewed costs others some work and nothing else: the pass itself is fenced.
            with suppress(Exception):
                async with self.database.transaction([self.held.tenant_id]) as conn:
                    await sources.renew(conn, self.held, await self.now(conn), LEASE)
