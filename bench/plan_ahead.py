"""Planning many tasks an hour ahead: the scheduler's own ticks, on a database in which nothing is planned yet.

The mix: 500 distinct schedules in five time zones; of 20 tasks, 11 are daily, 5 weekly, 3 hourly and 1 fires every
15 minutes; 200 tasks share each schedule. What is planned is everything that fires within 75 minutes, and the next
slot within 48 hours. Goal: under 5 seconds for 100,000 tasks. The limit of the same run is one plain statement that
inserts the same rows into the same table, with nothing computed. The seconds of processor time are told beside: they
say what the work costs where others use the same cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from common import arguments, verdict

from cron_observer.scheduler import Scheduler, TickResult
from cron_observer.settings import Settings
from cron_observer.store import plans
from support import databases
from support.databases import FreshDatabase, Tenant, make_tenant
from support.rows import database_now, spec

GOAL_SECONDS = 5.0
DISTINCT = 500
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney")


def schedule(number: int) -> dict[str, str]:
    """Return one of the distinct schedules."""
    kind, minute, hour = number % 20, number * 7 % 60, number * 5 % 24
    place = ZONES[number // 20 % len(ZONES)]
    if kind < 11:
        cron = f"{minute} {hour} * * *"
    elif kind < 16:
        cron = f"{minute} {hour} * * {number % 7}"
    elif kind < 19:
        cron = f"{minute} * * * *"
    else:
        cron = f"{minute % 15}-59/15 * * * *"
    return {"cron": cron, "timezone": place}


def fill(tenant: Tenant, tasks: int, now: datetime) -> None:
    """Write tasks and their plans, none of them planned, as an apply leaves them behind that is large."""
    database = tenant.database
    definition = json.dumps(spec())
    uids = [uuid4() for _ in range(tasks)]
    with databases.connect(database.url) as conn, conn.transaction(), conn.cursor() as cursor:
        columns = (
            "tenant_id, task_uid, project_id, name, seed, owner, spec, spec_hash, generation, created_at, updated_at"
        )
        with cursor.copy(f"COPY tasks ({columns}) FROM STDIN") as copy:
            for number, uid in enumerate(uids):
                seed = f"{tenant.project}/t{number}"
                row = (
                    tenant.tenant_id,
                    uid,
                    tenant.project_id,
                    f"t{number}",
                    seed,
                    "api",
                    definition,
                    b"-",
                    1,
                    now,
                    now,
                )
                copy.write_row(row)
        columns = (
            "tenant_id, task_uid, project_id, owner, generation, active, schedule, queue, priority, effective_from, "
            "planned_until, plan_due_at"
        )
        with cursor.copy(f"COPY task_plan ({columns}) FROM STDIN") as copy:
            for number, uid in enumerate(uids):
                block = json.dumps(plans.normalised(schedule(number % DISTINCT), f"{tenant.project}/t{number}"))
                row = (tenant.tenant_id, uid, tenant.project_id, "api", 1, True, block, "default", 0, now, now, now)
                copy.write_row(row)
    database.do("VACUUM ANALYZE")


def server_cpu(database: FreshDatabase) -> float:
    """Return the seconds of processor time that the server's connections to this database have used."""
    found = database.rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    ticks = 0
    for row in found:
        fields = Path(f"/proc/{row['pid']}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def planned(tenant: Tenant, tasks: int) -> float:
    """Let a scheduler that ticks already plan tasks that have just come; return the seconds."""
    database = tenant.database
    scheduler = Scheduler(database.scheduler, Settings())
    await scheduler.tick()
    fill(tenant, tasks, database_now(database))
    ours, server = time.process_time(), server_cpu(database)
    began = time.perf_counter()
    while database.value("SELECT count(*) FROM task_plan WHERE plan_due_at <= now()"):
        await scheduler.plan(TickResult())
    seconds = time.perf_counter() - began
    ours, server = time.process_time() - ours, server_cpu(database) - server
    print(f"processor time: {ours:.2f} s of the scheduler, {server:.2f} s of its connections to the server")
    return seconds


def limit(database: FreshDatabase) -> float:
    """Insert the same rows again by one plain statement, and return the seconds."""
    with databases.connect(database.url) as conn:
        conn.execute("CREATE TABLE same AS SELECT * FROM executions")
        conn.execute("TRUNCATE executions")
        conn.execute("VACUUM ANALYZE same")
        server = server_cpu(database)
        began = time.perf_counter()
        conn.execute("INSERT INTO executions OVERRIDING SYSTEM VALUE SELECT * FROM same")
        seconds = time.perf_counter() - began
        print(f"processor time of the limit: {server_cpu(database) - server:.2f} s")
        return seconds


def main() -> None:
    """Fill a database, plan it, insert the same rows again."""
    asked = arguments(__doc__ or "", tasks=100_000)
    with (
        databases.server() as server,
        databases.template(server) as template,
        databases.fresh(server, template) as database,
    ):
        seconds = asyncio.run(planned(make_tenant(database), asked.tasks))
        slots = database.value("SELECT count(*) FROM executions")
        print(f"{asked.tasks} tasks, {DISTINCT} schedules: {slots} slots in {seconds:.2f} s")
        verdict("planning", seconds, GOAL_SECONDS, limit(database), "one plain INSERT of the same rows", "s")


if __name__ == "__main__":
    main()
