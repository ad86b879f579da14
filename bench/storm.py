"""A storm: 100,000 tasks have a slot in the same second, planned ahead by the scheduler, in real processes.

Goals: no row is written because the slots fell due; a worker that waits has its first execution within 50 ms of that
instant; the memory of the API and of the loops stays flat while 100,000 due slots wait. One worker waits and takes
one execution; whatever else is written in the ten seconds around the instant is told. The limit of the same run is a
read of one execution by one client.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from common import Http, Product, Repository, arguments, show, until, verdict

from cron_observer.store import bootstrap, plans
from cron_observer.store.tenants import project_id, tenant_id
from support import databases
from support.away import apart
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, spec

GOAL_MS = 50.0
#: What a process may grow by while the slots wait, in MiB: caches of one claim and one tick.
GROWTH_MIB = 24.0

_WRITTEN = """
SELECT relname, n_tup_ins + n_tup_upd + n_tup_del AS rows FROM pg_stat_user_tables
WHERE n_tup_ins + n_tup_upd + n_tup_del > 0
"""


def fill(tenant: Tenant, tasks: int, at: datetime) -> None:
    """Write tasks that fire once, all of them `at`, with plans that the scheduler has yet to carry out."""
    now = database_now(tenant.database)
    schedule = {"at": f"{at:%Y-%m-%dT%H:%M:%S}Z"}
    definition = json.dumps(spec(schedule=schedule))
    uids = [uuid4() for _ in range(tasks)]
    with databases.connect(tenant.database.url) as conn, conn.transaction(), conn.cursor() as cursor:
        names = (
            "tenant_id, task_uid, project_id, name, seed, owner, spec, spec_hash, generation, created_at, updated_at"
        )
        with cursor.copy(f"COPY tasks ({names}) FROM STDIN") as copy:
            for number, uid in enumerate(uids):
                what = f"t{number}", f"{tenant.project}/t{number}", "api", definition, b"-", 1, now, now
                copy.write_row((tenant.tenant_id, uid, tenant.project_id, *what))
        names = (
            "tenant_id, task_uid, project_id, owner, generation, active, schedule, queue, priority, effective_from, "
            "planned_until, plan_due_at"
        )
        block = json.dumps(plans.normalised(schedule, f"{tenant.project}/t"))
        with cursor.copy(f"COPY task_plan ({names}) FROM STDIN") as copy:
            for uid in uids:
                copy.write_row(
                    (tenant.tenant_id, uid, tenant.project_id, "api", 1, True, block, "default", 0, now, now, now)
                )
    tenant.database.do("ANALYZE")


def written(database: FreshDatabase) -> dict[str, int]:
    """Return how many rows each table has seen inserted, updated or deleted, weeks of a table together."""
    found: dict[str, int] = {}
    for row in database.rows(_WRITTEN):
        name = row["relname"].rstrip("0123456789").rstrip("_")
        found[name] = found.get(name, 0) + row["rows"]
    return found


def memory(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def answers(api: Product) -> bool:
    """Say whether the API answers already."""
    try:
        return api.ask("GET", "/readyz").status == 200
    except OSError:
        return False


async def first_claim(api: Product, at: datetime) -> tuple[float, str]:
    """Wait for work from a few seconds before the storm on; return how late the answer came, and what it gave."""
    http = Http(api)
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds() - 4))
    ask = {"worker": "bench", "wait_seconds": 20, "lease_seconds": 300}
    status, given = await http.ask("POST", "/api/v1/sdk/claims", ask)
    late = (datetime.now(UTC) - at).total_seconds()
    assert status == 200, given
    assert len(given["executions"]) == 1, given
    http.close()
    return late, given["executions"][0]["id"]


async def reads(api: Product, execution: str) -> list[float]:
    """Return the seconds of plain reads."""
    http = Http(api)
    seconds = [(await http.timed("GET", f"/api/v1/sdk/executions/{execution}"))[0] for _ in range(200)]
    http.close()
    return seconds


def main() -> None:
    """Plan, wait for the instant, look at what it cost."""
    asked = arguments(__doc__ or "", tasks=100_000, ahead=150)
    with (
        tempfile.TemporaryDirectory(prefix="co-storm-") as name,
        databases.server() as server,
        databases.template(server) as template,
        databases.fresh(server, template) as database,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        url = database.url
        token, _ = bootstrap.settle_in(url, url, tenant="default", projects=["default"], token=None)
        home = tenant_id("default")
        tenant = Tenant(database, home, project_id(home, "default"))
        repository = Repository(folder)
        repository.push("Begin", {"README.md": "bench\n"})
        with apart(folder, url, token, repository) as parts:
            until(lambda: answers(parts.api), "the API")
            at = (datetime.now(UTC) + timedelta(seconds=asked.ahead)).replace(microsecond=0)
            fill(tenant, asked.tasks, at)
            count = "SELECT count(*) FROM executions"
            until(lambda: database.value(count) == asked.tasks, "planning", asked.ahead - 10)
            print(f"{asked.tasks} slots planned {(at - datetime.now(UTC)).total_seconds():.0f} s ahead")
            pids = {"API": parts.api.process.pid, "loops": parts.loops.pid}
            time.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds() - 7))
            sizes = {part: memory(pid) for part, pid in pids.items()}
            before, lsn = written(database), database.value("SELECT pg_current_wal_insert_lsn()")
            late, execution = asyncio.run(first_claim(parts.api, at))
            time.sleep(max(0.0, 10 - (datetime.now(UTC) - at).total_seconds()))
            after = written(database)
            wal = database.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", lsn)
            rows = {table: count - before.get(table, 0) for table, count in after.items()}
            told = ", ".join(f"{table} {count}" for table, count in sorted(rows.items()) if count)
            grown = {part: memory(pid) - sizes[part] for part, pid in pids.items()}
            figures = show("one read, one client", asyncio.run(reads(parts.api, execution)))
    print(f"rows written around the instant, by the one claim: {told}; {int(wal) / 1024:.0f} KiB of log")
    print("memory: " + ", ".join(f"{part} {sizes[part]:.0f} MiB {grown[part]:+.1f}" for part in pids))
    if rows["executions"] != 1 or max(grown.values()) > GROWTH_MIB:
        print("MISSED")
        sys.exit(1)
    verdict("due to first claim answered", late * 1000, GOAL_MS, figures["p50"], "one read, p50")


if __name__ == "__main__":
    main()
