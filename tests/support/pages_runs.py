"""The executions of the sample company: sixty days of outcomes, what runs now, and what is planned."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule import slot_id
from support.pages_company import HOUR, SECOND, Company
from support.pages_manifests import Sample

#: Nothing of the company falls due so shortly before or after the moment that it is made for: what ran last has a
#: beginning and an end, whatever the clock says, and the ledger stays as it is while a test looks at it.
QUIET = timedelta(minutes=2)

TRACEBACK = """Traceback (most recent call last):
  File "/srv/jobs/export.py", line 88, in main
    rows = warehouse.read(query, timeout=30)
  File "/srv/jobs/warehouse.py", line 41, in read
    raise ConnectionError("the warehouse closed the connection") from error
ConnectionError: the warehouse closed the connection"""


class Runs:
    """The executions of one task."""

    def __init__(self, company: Company, sample: Sample, chance: random.Random, days: int) -> None:
        self.company, self.sample, self.chance = company, sample, chance
        self.uid = company.uids[sample.name]
        self.days = days
        self.spec = ScheduleSpec.read(sample.schedule, f"default/{sample.name}")

    def add(self) -> None:
        """Add history, what runs now, and the forecasts with the plan behind them."""
        now, sample = self.company.now, self.sample
        schedule = compile_schedule(self.spec)
        over = sample.removed or sample.suspend
        slots = list(schedule.slots(now - timedelta(days=self.days), now - (timedelta(days=3) if over else QUIET)))
        for number, slot in enumerate(slots):
            self._past(slot, last=number == len(slots) - 1 and not over, left=len(slots) - number)
        ahead = [] if over else list(schedule.slots(now + QUIET, now + timedelta(hours=48), limit=30))
        near = [slot for slot in ahead if slot.fire_at <= now + HOUR] or ahead[:1]
        for slot in near:
            self._add(slot, status="PENDING", available_at=slot.fire_at, generation=None)
        self.company.add(
            "task_plan",
            task_uid=self.uid,
            project_id=self.company.tenant.project_id,
            owner=sample.owner,
            generation=1,
            active=not over,
            schedule=sample.schedule,
            queue=sample.queue,
            priority=sample.priority,
            effective_from=now - timedelta(days=2),
            planned_until=now + HOUR,
            next_fire_at=near[0].fire_at if near else None,
        )

    def _add(self, slot: Any, **row: Any) -> UUID:
        execution = slot_id(self.uid, slot)
        self.company.add(
            "executions",
            id=execution,
            project_id=self.company.tenant.project_id,
            task_uid=self.uid,
            trigger="schedule",
            nominal_at=slot.nominal_at,
            nominal_local=slot.nominal_local,
            nominal_fold=slot.fold,
            timezone=self.spec.timezone,
            fire_at=slot.fire_at,
            queue=self.sample.queue,
            priority=self.sample.priority,
            plan_generation=1,
            created_at=slot.fire_at - HOUR,
            **row,
        )
        return execution

    def _past(self, slot: Any, *, last: bool, left: int) -> None:
        sample, chance, now = self.sample, self.chance, self.company.now
        roll = chance.random()
        length = sample.seconds * chance.lognormvariate(0, 0.16)
        delay = chance.lognormvariate(-1.6, 0.7)
        claimed = slot.fire_at + min(delay, 20) * SECOND
        if last and sample.running:
            claimed = min(claimed, now - 2 * SECOND)
            self._running(slot, claimed)
        elif left in sample.fails or roll < sample.fail_rate:
            self._failed(
                slot, claimed, min(length, (now - claimed).total_seconds() * 0.25), forced=left in sample.fails
            )
        elif claimed + length * SECOND >= now:
            self._ended(slot, claimed, max(0.4, (now - claimed).total_seconds() * 0.6), "FINISHED")
        elif roll < sample.fail_rate + sample.skip_rate:
            self._never(slot, "SKIPPED", chance.choice(["overlap", "too_late"]))
        elif roll < sample.fail_rate + sample.skip_rate + 0.0006:
            self._never(slot, "MISSED", "no_worker")
        elif roll > 0.9997:
            self._ended(slot, claimed, length / 2, "CANCELLED", reason="cancelled")
        else:
            late = sample.name == "digest-eu" and chance.random() < 0.08
            self._ended(slot, claimed, length * (4 if late else 1), "FINISHED", late=late)

    def _never(self, slot: Any, status: str, reason: str) -> None:
        at = slot.fire_at + 61 * SECOND
        execution = self._add(
            slot, status=status, reason=reason, available_at=slot.fire_at, finished_at=at, event_seq=1
        )
        self._event(execution, 0, at, status.lower(), 0, status, reason)
        self.company.known[status.lower()] = execution

    def _running(self, slot: Any, claimed: datetime) -> None:
        now = self.company.now
        execution = self._add(
            slot,
            status="RUNNING",
            available_at=slot.fire_at,
            attempt=1,
            fence=1,
            worker=self._worker(),
            protocol="lease",
            generation=2,
            claimed_at=claimed,
            started_at=claimed,
            lease_until=now + 25 * SECOND,
            lease_seconds=30.0,
            check_at=now + 25 * SECOND,
            run_deadline=claimed + HOUR,
            progress=0.62,
            message="62 of 100 tables",
            event_seq=2,
        )
        self.company.add("active_runs", scope=f"task:{self.uid}", n=0, execution_id=execution, since=claimed)
        self._attempt(execution, 1, claimed, None, None)
        self._event(execution, 0, claimed, "claimed", 1, "RUNNING")
        self._event(execution, 1, claimed, "started", 1, "RUNNING")
        self.company.known["running"] = execution
        self.company.logged.append((execution, 1, "running"))

    def _ended(
        self,
        slot: Any,
        claimed: datetime,
        seconds: float,
        status: str,
        *,
        reason: str | None = None,
        late: bool = False,
    ) -> UUID:
        end = claimed + seconds * SECOND
        execution = self._add(
            slot,
            status=status,
            reason=reason,
            available_at=slot.fire_at,
            attempt=1,
            fence=1,
            worker=self._worker(),
            protocol="lease",
            generation=2,
            claimed_at=claimed,
            started_at=claimed,
            finished_at=end,
            exit_code=0 if status == "FINISHED" else None,
            result={"rows": self.chance.randrange(900, 42_000), "checked": True} if status == "FINISHED" else None,
            late=late,
            event_seq=3,
        )
        self._attempt(execution, 1, claimed, end, status.lower(), reason)
        self._event(execution, 0, claimed, "claimed", 1, "RUNNING")
        self._event(execution, 1, claimed, "started", 1, "RUNNING")
        self._event(execution, 2, end, status.lower(), 1, status, reason)
        kind = "late" if late else status.lower()
        self.company.known[kind] = execution
        self.company.known[f"{kind} {self.sample.name}"] = execution
        if end > self.company.now - 3 * HOUR:
            self.company.logged.append((execution, 1, kind))
        return execution

    def _failed(self, slot: Any, claimed: datetime, seconds: float, *, forced: bool) -> None:
        tries = self.sample.retries + 1
        recovered = tries > 1 and not forced and self.chance.random() < 0.6
        used = self.chance.randint(2, tries) if recovered else tries
        error = {
            "type": "ConnectionError",
            "message": "the warehouse closed the connection \x1b[31mafter 30 s\x1b[0m",
            "traceback": TRACEBACK,
        }
        at, execution = claimed, slot_id(self.uid, slot)
        for attempt in range(1, used + 1):
            good = recovered and attempt == used
            end = at + seconds * (1.0 if good else 0.6) * SECOND
            outcome = "finished" if good else "failed"
            self._attempt(execution, attempt, at, end, outcome, None if good else "exit_code", error)
            self._event(execution, attempt * 3 - 3, at, "claimed", attempt, "RUNNING")
            self._event(execution, attempt * 3 - 2, at, "started", attempt, "RUNNING")
            kind = outcome if attempt == used else "retry_scheduled"
            status = {"finished": "FINISHED", "failed": "FAILED"}[outcome] if attempt == used else "PENDING"
            self._event(execution, attempt * 3 - 1, end, kind, attempt, status, None if good else "exit_code")
            first, at = at, end + 10 * SECOND
        self._add(
            slot,
            status="FINISHED" if recovered else "FAILED",
            reason=None if recovered else "exit_code",
            available_at=slot.fire_at,
            attempt=used,
            fence=used,
            worker=self._worker(),
            protocol="lease",
            generation=2,
            claimed_at=first,
            started_at=first,
            finished_at=end,
            exit_code=0 if recovered else 70,
            error=None if recovered else error,
            result={"rows": 9001} if recovered else None,
            event_seq=used * 3,
        )
        kind = "recovered" if recovered else "failed"
        self.company.known[kind] = execution
        if end > self.company.now - 24 * HOUR:
            self.company.logged += [(execution, fence, kind) for fence in range(1, used + 1)]

    def _worker(self) -> str:
        return self.chance.choice(["loader-1", "loader-2", "batch-7.eu"])

    def _attempt(
        self,
        execution: UUID,
        attempt: int,
        start: datetime,
        end: datetime | None,
        outcome: str | None,
        reason: str | None = None,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        self.company.add(
            "attempts",
            execution_id=execution,
            fence=attempt,
            attempt=attempt,
            worker=self._worker(),
            claimed_at=start,
            started_at=start,
            ended_at=end,
            outcome=outcome,
            reason=reason,
            exit_code=None if outcome is None else 70 if outcome == "failed" else 0,
            error=error if outcome == "failed" else None,
        )

    def _event(
        self,
        execution: UUID,
        seq: int,
        at: datetime,
        kind: str,
        attempt: int,
        status: str,
        reason: str | None = None,
    ) -> None:
        self.company.add(
            "execution_events",
            execution_id=execution,
            seq=seq,
            at=at,
            type=kind,
            attempt=attempt,
            fence=attempt,
            status=status,
            reason=reason,
            actor="worker" if attempt else "scheduler",
        )
