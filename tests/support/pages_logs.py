"""The logs of the sample company, hostile lines among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from support.databases import FreshDatabase
from support.pages_company import Company


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
                    " received_at, codec, data, debugs, infos, warns, errors)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'lines', %s, %s, %s, %s, %s)",
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
                        *chunk.counts,
                    ),
                )
            cursor.execute(
                "UPDATE attempts SET log_lines = %s, log_bytes = %s"
                " WHERE tenant_id = %s AND execution_id = %s AND fence = %s",
                (count, count * 71, company.tenant.tenant_id, execution, fence),
            )
