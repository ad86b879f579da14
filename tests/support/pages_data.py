"""Sixty days of a small company's scheduled work, for pages to show: the same rows for the same seed."""

from __future__ import annotations

import hashlib
import random
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from cron_observer.schedule import new_id
from support.databases import FreshDatabase, Tenant
from support.pages_company import HOUR, SECOND, Company
from support.pages_manifests import BROKEN, COMMIT, FINDINGS, MANIFESTS, PREVIOUS, TASKS, Sample
from support.pages_runs import Runs

REPOSITORY = "https://github.com/acme-example/schedules.git"


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
            Runs(company, sample, chance, days).add()
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
    _add_revisions(company, sample, uid, spec)


def _add_revisions(company: Company, sample: Sample, uid: UUID, spec: dict[str, Any]) -> None:
    now, owned = company.now, sample.owner == "manifest"
    for generation, author, subject in (
        (1, "Grace Hopper", "First schedules"),
        (2, "Ada Lovelace", "Export invoices every second hour"),
    ):
        company.add(
            "task_revisions",
            task_uid=uid,
            generation=generation,
            owner=sample.owner,
            action="create" if generation == 1 else "update",
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
