"""Sixty days of a small company's scheduled work, for pages to show: the same rows for the same seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule import new_id, slot_id
from support.databases import FreshDatabase, Tenant
from support.pages_manifests import BROKEN, COMMIT, MANIFESTS, PREVIOUS, TASKS, Sample

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
REPOSITORY = "https://github.com/acme-example/schedules.git"


@dataclass
class Company:
    """The rows to insert, by table, and the ids that tests ask for by name."""

    tenant: Tenant
    now: datetime
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    uids: dict[str, UUID] = field(default_factory=dict)
    #: one execution of each kind that a page must be able to show
    known: dict[str, UUID] = field(default_factory=dict)
    #: fences of executions that have logs
    logged: list[tuple[UUID, int, str]] = field(default_factory=list)

    def add(self, table: str, **row: Any) -> None:
        """Remember one row of the tenant."""
        self.rows.setdefault(table, []).append({"tenant_id": self.tenant.tenant_id, **row})


def effective(sample: Sample) -> dict[str, Any]:
    """Fill every default of a task's spec in, as the reconciler would."""
    return {
        "description": sample.description,
        "suspend": sample.suspend,
        "queue": sample.queue,
        "priority": sample.priority,
        "payload": sample.payload,
        "schedule": {"timezone": "UTC", **sample.schedule},
        "catchup": {"policy": "last", "window": "1h"},
        "overlap": "skip",
        "startDeadline": None,
        "timeout": sample.timeout,
        "retries": {"max": sample.retries, "backoff": "exponential", "initial": "10s", "cap": "10m"},
        "late": "accept",
        "run": {"external": {}},
    }


def make(tenant: Tenant, now: datetime, *, days: int = 60, seed: int = 7) -> Company:
    """Compute every row of the company's last `days` days before `now`."""
    company = Company(tenant, now.replace(microsecond=0))
    _add_source(company)
    for number, sample in enumerate(TASKS):
        _add_task(company, sample)
        if not sample.broken_zone:
            chance = random.Random(seed * 1000 + number)  # noqa: S311  not for secrets
            _Runs(company, sample, chance, days).add()
    return company


def insert(database: FreshDatabase, company: Company) -> None:
    """Write the rows, many at a time, into partitions that reach far enough back."""
    from psycopg import sql
    from psycopg.types.json import Jsonb

    from cron_observer.store.tables import metadata

    first = min(row["fire_at"] for row in company.rows["executions"]) - timedelta(days=8)
    database.partitions(first, company.now + timedelta(days=15))
    with database.admin.transaction(), database.admin.cursor() as cursor:
        for table, rows in company.rows.items():
            columns = [column for column in metadata.tables[table].columns if column.computed is None]
            given = [column for column in columns if any(column.name in row for row in rows)]
            names = sql.SQL(", ").join(sql.Identifier(column.name) for column in given)
            statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
            defaults = {column.name: _default(column) for column in given}
            with cursor.copy(statement) as copy:
                for row in rows:
                    values = [row.get(column.name, defaults[column.name]) for column in given]
                    copy.write_row(
                        [
                            Jsonb(value) if value is not None and str(column.type) == "JSONB" else value
                            for column, value in zip(given, values, strict=True)
                        ]
                    )
    database.admin.execute("ANALYZE")


def _default(column: Any) -> Any:
    """What a row that leaves a column out gets, since COPY knows no defaults for named columns."""
    if column.nullable:
        return None
    return {"BOOLEAN": False, "JSONB": {}}.get(str(column.type), 0)


def _add_source(company: Company) -> None:
    now = company.now
    source = uuid5(company.tenant.tenant_id, "source main")
    company.uids["source"] = source
    company.add(
        "sources",
        source_id=source,
        project_id=company.tenant.project_id,
        name="main",
        kind="git",
        url=REPOSITORY,
        ref="refs/heads/main",
        paths=[],
        ignore=[],
        mode="enforce",
        poll_seconds=5.0,
        observed_commit=COMMIT,
        observed_at=now - 12 * SECOND,
        applied_commit=COMMIT,
        applied_seq=25,
        applied_at=now - 12 * SECOND,
        next_poll_at=now + 5 * SECOND,
        first_pass_at=now - timedelta(days=60),
        conditions={
            "Ready": _condition("False", "InvalidManifests", "3 files are not applied", now - 2 * HOUR),
            "Fetched": _condition("True", "Fetched", "main is at 3f9c2ab", now - 3 * HOUR),
            "Applied": _condition("True", "Applied", "14 tasks are as their manifests say", now - 12 * SECOND),
        },
        counts={"files": len(MANIFESTS), "tasks": len(TASKS) - 1, "errors": 3, "warnings": 1},
        created_at=now - timedelta(days=60),
    )
    for path, text in MANIFESTS.items():
        broken = path in BROKEN
        good = None if path in ("tasks/ml/drift-report.yaml", "tasks/mail/newsletter.yaml") else text
        company.add(
            "manifest_files",
            source_id=source,
            path=path,
            blob=hashlib.sha256(text.encode()).hexdigest()[:40],
            state=BROKEN[path] if broken else "ok",
            documents=text.count("kind: Task"),
            commit=COMMIT,
            good_blob=hashlib.sha256(text.encode()).hexdigest()[:40] if good else None,
            good_text=good,
            good_commit=PREVIOUS if broken and good else COMMIT if good else None,
        )
    _add_findings(company, source)
    for number in range(25):
        _add_run(company, source, number)


def _condition(status: str, reason: str, message: str, since: datetime) -> dict[str, Any]:
    return {"status": status, "reason": reason, "message": message, "since": since.isoformat()}


def _add_findings(company: Company, source: UUID) -> None:
    from support.pages_manifests import FINDINGS

    numbers: dict[str, int] = {}
    for finding in FINDINGS:
        number = numbers[finding["path"]] = numbers.get(finding["path"], -1) + 1
        company.add("sync_findings", source_id=source, n=number, run_id=None, **finding)


def _add_run(company: Company, source: UUID, number: int) -> None:
    started = company.now - 12 * SECOND - number * number * 7 * timedelta(minutes=1)
    outcome = "failed" if number == 6 else "unchanged" if number in (3, 9, 10) else "applied"
    commit = COMMIT if number == 0 else hashlib.sha256(f"run {number}".encode()).hexdigest()[:40]
    author, subject = [
        ("Ada Lovelace", "Export invoices every second hour"),
        ("Grace Hopper", "Move the feature refresh to Berlin time"),
        ("Sam \u202eevil", 'Mend <script>alert("x")</script> in the digest'),
        ("Katherine Johnson", "Raise the backup's timeout to four hours"),
    ][number % 4]
    company.add(
        "sync_runs",
        run_id=new_id(started, "run", number),
        source_id=source,
        trigger=["poll", "push", "poll", "manual"][number % 4],
        epoch=1,
        from_commit=hashlib.sha256(f"run {number + 1}".encode()).hexdigest()[:40],
        to_commit=commit if outcome != "failed" else None,
        author=author,
        subject=subject,
        committed_at=started - 20 * SECOND,
        outcome=outcome,
        counts={"created": int(number == 4), "updated": 1 + number % 3, "removed": int(number == 8)}
        if outcome == "applied"
        else {},
        error="the repository did not answer within 20 s" if outcome == "failed" else None,
        started_at=started,
        finished_at=started + timedelta(milliseconds=180 + 41 * number),
    )


def _add_task(company: Company, sample: Sample) -> None:
    now, spec = company.now, effective(sample)
    uid = company.uids[sample.name] = uuid5(company.tenant.tenant_id, sample.name)
    place = {
        "source_id": company.uids["source"],
        "path": sample.path,
        "document": 0,
        "line": 4,
        "commit": PREVIOUS if sample.sync == "KEPT_LAST_GOOD" else COMMIT,
        "author": "Ada Lovelace",
        "subject": "Export invoices every second hour",
        "committed_at": now - timedelta(days=2),
    }
    owned = place if sample.owner == "manifest" else {}
    company.add(
        "tasks",
        task_uid=uid,
        project_id=company.tenant.project_id,
        name=sample.name,
        seed=f"default/{sample.name}",
        owner=sample.owner,
        spec=spec,
        spec_hash=hashlib.sha256(repr(spec).encode()).digest(),
        generation=2,
        labels=sample.labels,
        annotations={},
        sync=sample.sync,
        quarantine="the zone Europe/Berln is not known" if sample.broken_zone else None,
        removed_at=now - timedelta(days=3) if sample.removed else None,
        created_at=now - timedelta(days=60),
        updated_at=now - timedelta(days=2),
        **owned,
    )
    for generation, author, subject in (
        (1, "Grace Hopper", "First schedules"),
        (2, "Ada Lovelace", "Export invoices every second hour"),
    ):
        company.add(
            "task_revisions",
            task_uid=uid,
            generation=generation,
            owner=sample.owner,
            action="created" if generation == 1 else "updated",
            spec=spec,
            source="main" if owned else None,
            commit=(PREVIOUS if generation == 1 else COMMIT) if owned else None,
            author=author if owned else None,
            subject=subject if owned else None,
            committed_at=now - timedelta(days=60 if generation == 1 else 2) if owned else None,
            path=sample.path if owned else None,
            line=4 if owned else None,
            created_at=now - timedelta(days=60 if generation == 1 else 2),
        )


class _Runs:
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
        end = now - timedelta(days=3) if sample.removed or sample.suspend else now
        slots = list(schedule.slots(now - timedelta(days=self.days), end))
        for number, slot in enumerate(slots):
            self._past(slot, last=number == len(slots) - 1 and end == now, left=len(slots) - number)
        ahead = [] if end != now else list(schedule.slots(now, now + timedelta(hours=48), limit=30))
        near = [slot for slot in ahead if slot.fire_at <= now + HOUR] or ahead[:1]
        for slot in near:
            self._add(slot, status="PENDING", available_at=slot.fire_at, generation=None)
        self.company.add(
            "task_plan",
            task_uid=self.uid,
            project_id=self.company.tenant.project_id,
            owner=sample.owner,
            generation=1,
            active=end == now,
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


TRACEBACK = """Traceback (most recent call last):
  File "/srv/jobs/export.py", line 88, in main
    rows = warehouse.read(query, timeout=30)
  File "/srv/jobs/warehouse.py", line 41, in read
    raise ConnectionError("the warehouse closed the connection") from error
ConnectionError: the warehouse closed the connection"""


def lines(kind: str, count: int) -> Iterator[Mapping[str, Any]]:
    """Make log lines as a worker sends them, hostile ones among them."""
    words: Sequence[str] = (
        "connected to warehouse-2 in 41 ms",
        "read batch {n}: 5000 rows",
        "wrote part-{n}.parquet (3.1 MB)",
        "checkpoint {n} saved",
    )
    for n in range(count):
        if n == 5:
            yield {"level": "WARN", "message": "slow query: 2.4 s on <script>alert(1)</script> \x1b[31mred\x1b[0m"}
        elif n == 7:
            yield {"level": "INFO", "message": "user \u202egnp.exe\u202c uploaded a\u0000file\twith a tab"}
        elif n == 9:
            yield {"level": "DEBUG", "message": "a long line " + "lorem ipsum dolor sit amet " * 14}
        elif kind == "failed" and n >= count - 3:
            yield {"level": "ERROR", "message": "ConnectionError: the warehouse closed the connection"}
        else:
            yield {
                "level": "INFO",
                "message": words[n % 4].format(n=n),
                "fields": {"batch": n} if n % 40 == 1 else None,
            }


def add_logs(database: FreshDatabase, company: Company) -> None:
    """Store the log lines of the executions that have any, packed as the API packs them."""
    from cron_observer.store import logs

    with database.admin.transaction(), database.admin.cursor() as cursor:
        for execution, fence, kind in company.logged:
            count = 1200 if kind == "running" else 340 if kind == "failed" else 40
            written = list(lines(kind, count))
            for first in range(0, count, 400):
                chunk = logs.pack(first, written[first : first + 400])
                cursor.execute(
                    "INSERT INTO log_chunks (tenant_id, execution_id, fence, first_seq, lines, raw_bytes, levels,"
                    " received_at, codec, data) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'zlib', %s)",
                    (
                        company.tenant.tenant_id,
                        execution,
                        fence,
                        first,
                        chunk.lines,
                        chunk.raw_bytes,
                        chunk.levels,
                        company.now,
                        chunk.data,
                    ),
                )
            cursor.execute(
                "UPDATE attempts SET log_lines = %s, log_bytes = %s"
                " WHERE tenant_id = %s AND execution_id = %s AND fence = %s",
                (count, count * 71, company.tenant.tenant_id, execution, fence),
            )
