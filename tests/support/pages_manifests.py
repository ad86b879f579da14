"""The manifests, tasks and findings of the sample company."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COMMIT = "3f9c2ab4d51e6b0a77c2f1f0d9be6a5c8e1d2f30"
PREVIOUS = "b71e04c9aa35d2f8e6c1b09d7f4a3e2c5d8b6f17"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One task of the company, and how its executions tend to go."""

    name: str
    path: str = ""
    description: str = ""
    schedule: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 60
    timeout: str = "1h"
    retries: int = 0
    queue: str = "default"
    priority: int = 0
    payload: Any = None
    owner: str = "manifest"
    sync: str | None = "SYNCED"
    suspend: bool = False
    removed: bool = False
    running: bool = False
    broken_zone: bool = False
    fail_rate: float = 0.0012
    skip_rate: float = 0.001
    #: these of the last slots fail, counted from the newest, which is 1
    fails: tuple[int, ...] = ()


TASKS = (
    Sample(
        name="invoice-export",
        path="tasks/billing/invoice-export.yaml",
        description="Export the invoices of the day to the bookkeeper",
        schedule={"cron": "0 */2 * * *", "timezone": "Europe/Berlin"},
        labels={"team": "payments", "tier": "1"},
        seconds=724,
        retries=2,
        priority=5,
        payload={"format": "csv", "since": "yesterday"},
        fails=(1, 9),
    ),
    Sample(
        name="dbt-hourly",
        path="tasks/warehouse/dbt-hourly.yaml",
        description="Rebuild the hourly marts",
        schedule={"cron": "0 * * * *"},
        labels={"team": "data"},
        seconds=1190,
        queue="warehouse",
        running=True,
    ),
    Sample(
        name="reindex-delta",
        path="tasks/search/reindex-delta.yaml",
        description="Send changed documents to the search index",
        schedule={"cron": "*/10 * * * *"},
        labels={"team": "search"},
        seconds=260,
        running=True,
        skip_rate=0.002,
    ),
    Sample(
        name="queue-drain",
        path="tasks/ops/queue-drain.yaml",
        schedule={"every": "5m"},
        labels={"team": "platform"},
        seconds=3,
        fail_rate=0.0004,
    ),
    Sample(
        name="pg-backup",
        path="tasks/ops/pg-backup.yaml",
        description="Dump the main database and ship it off-site",
        schedule={"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
        labels={"team": "platform", "tier": "1"},
        seconds=6120,
        timeout="4h",
        retries=1,
    ),
    Sample(
        name="cert-renew",
        path="tasks/ops/cert-renew.yaml",
        schedule={"cron": "0 3,9 * * *"},
        labels={"team": "platform"},
        seconds=11,
    ),
    Sample(
        name="digest-eu",
        path="tasks/mail/digest-eu.yaml",
        description='The morning mail <b onclick="x()">of the day</b>',
        schedule={"cron": "0 7 * * 1-6", "timezone": "Europe/Berlin"},
        labels={"team": "growth"},
        seconds=400,
        sync="KEPT_LAST_GOOD",
    ),
    Sample(
        name="feature-refresh",
        path="tasks/ml/feature-refresh.yaml",
        schedule={"cron": "15 4,14 * * *"},
        labels={"team": "ml"},
        seconds=7800,
        timeout="6h",
        queue="gpu",
    ),
    Sample(
        name="logrotate",
        path="tasks/ops/logrotate.yaml",
        schedule={"cron": "25 * * * *"},
        labels={"team": "platform"},
        seconds=1.2,
        skip_rate=0.02,
    ),
    Sample(
        name="ledger-close",
        path="tasks/billing/ledger-close.yaml",
        schedule={"cron": "45 23 * * *", "timezone": "America/New_York"},
        labels={"team": "payments"},
        seconds=330,
    ),
    Sample(
        name="report-weekly",
        path="tasks/billing/report-weekly.yaml",
        schedule={"cron": "0 8 * * 1"},
        labels={"team": "payments"},
        seconds=90,
        suspend=True,
    ),
    Sample(
        name="legacy-import",
        path="tasks/warehouse/legacy-import.yaml",
        schedule={"cron": "10 */6 * * *"},
        labels={"team": "data"},
        seconds=45,
        removed=True,
    ),
    Sample(
        name="churn-score",
        path="tasks/ml/churn-score.yaml",
        schedule={"cron": "0 5 * * *", "timezone": "Europe/Berln"},
        labels={"team": "ml"},
        broken_zone=True,
    ),
    Sample(
        name="adhoc-cleanup",
        description="Made by the API",
        schedule={"every": "30m"},
        labels={"team": "platform"},
        seconds=14,
        owner="api",
        sync=None,
    ),
)


def _manifest(sample: Sample) -> str:
    schedule = "".join(f"    {name}: {value!r}\n" for name, value in sample.schedule.items()).replace("'", '"')
    labels = ", ".join(f"{name}: {value}" for name, value in sample.labels.items())
    described = f"  description: {sample.description}\n" if sample.description else ""
    return (
        f"apiVersion: cron-observer/v1\nkind: Task\nmetadata:\n  name: {sample.name}\n  labels: {{{labels}}}\n"
        f"spec:\n{described}  queue: {sample.queue}\n  schedule:\n{schedule}  timeout: {sample.timeout}\n"
        f"  retries: {{max: {sample.retries}}}\n"
    )


MANIFESTS = {sample.path: _manifest(sample) for sample in TASKS if sample.owner == "manifest" and not sample.removed}
MANIFESTS["tasks/mail/newsletter.yaml"] = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: newsletter\n"

MANIFESTS["tasks/ml/drift-report.yaml"] = MANIFESTS["tasks/ml/churn-score.yaml"].replace("churn-score", "drift-report")

BROKEN = {
    "tasks/ml/drift-report.yaml": "invalid",
    "tasks/mail/digest-eu.yaml": "invalid",
    "tasks/mail/newsletter.yaml": "unparseable",
}

FINDINGS: tuple[dict[str, Any], ...] = (
    {
        "path": "tasks/mail/digest-eu.yaml",
        "severity": "error",
        "code": "CO1021",
        "line": 11,
        "column": 3,
        "end_line": 11,
        "end_column": 10,
        "pointer": "/spec/timout",
        "kind": "Task",
        "name": "digest-eu",
        "message": "unknown field `timout`",
        "hint": "did you mean `timeout`?",
        "excerpt": '    timezone: "Europe/Berlin"\n  timout: 1h\n  retries: {max: 0}',
    },
    {
        "path": "tasks/mail/newsletter.yaml",
        "severity": "error",
        "code": "CO1002",
        "line": 4,
        "column": 1,
        "end_line": 4,
        "end_column": 1,
        "pointer": None,
        "kind": None,
        "name": None,
        "message": "the flow mapping that begins on line 3 is never closed",
        "hint": "close it with `}`",
        "excerpt": "3 | metadata: {name: newsletter\n4 | ",
    },
    {
        "path": "tasks/ml/drift-report.yaml",
        "severity": "error",
        "code": "CO2003",
        "line": 9,
        "column": 15,
        "end_line": 9,
        "end_column": 28,
        "pointer": "/spec/schedule/timezone",
        "kind": "Task",
        "name": "drift-report",
        "message": "“Europe/Berln” is not an IANA zone",
        "hint": "did you mean Europe/Berlin?",
        "excerpt": '  schedule:\n    cron: "0 5 * * *"\n    timezone: "Europe/Berln"',
    },
    {
        "path": "tasks/ops/logrotate.yaml",
        "severity": "warning",
        "code": "CO3001",
        "line": 9,
        "column": 11,
        "end_line": 9,
        "end_column": 23,
        "pointer": "/spec/schedule/cron",
        "kind": "Task",
        "name": "logrotate",
        "message": "this fires twice on the day when the clock goes back",
        "hint": "name a time zone without clock changes, or choose another hour",
        "excerpt": '  schedule:\n    cron: "25 * * * *"\n  timeout: 1h',
    },
)
