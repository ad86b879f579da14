"""Completions, heartbeats and small log appends by 64 connections, beside a POST that does nothing.

Goal: each at 70 % of what the same server answers to a POST of the same size that does nothing but its checks.
"""

from __future__ import annotations

import sys
from uuid import UUID

from common import arguments, percentile
from load import Load, Server, run, serving

from support.rows import make_task

GOAL = 0.70


def told(what: str, load: Load, used: float) -> float:
    """Print a line and return the rate."""
    wrong = {status: count for status, count in load.statuses.items() if status >= 300}
    p50, p99 = (percentile(load.latencies, share) * 1000 for share in (0.5, 0.99))
    print(f"{what:<28} N {len(load.latencies):>6}  {load.rate:8.0f}/s  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  "
          f"API {used / len(load.latencies) * 1e6:5.0f} us each" + (f"  refused {wrong}" if wrong else ""))  # fmt: skip
    return load.rate


def measured(server: Server, what: str, requests: list[bytes], connections: int) -> float:
    """Send requests and tell what came of it."""
    before = server.seconds()
    load = run(server, requests, connections)
    return told(what, load, server.seconds() - before)


def path(execution: UUID, what: str) -> str:
    """Return where a report goes."""
    return f"/sdk/executions/{execution}/{what}"


def main() -> None:
    """Measure them one after another in one run, the POST that does nothing before and after."""
    asked = arguments(__doc__ or "", connections=64, reports=15_000)
    complete = b'{"fence":1,"outcome":"finished","exit_code":0}'
    beat = b'{"fence":1,"progress":0.5}'
    line = b'{"fence":1,"first_seq":%d,"entries":[{"level":"INFO","message":"a line of a log that says something"}]}'
    with serving() as server:
        task = make_task(server.tenant, "busy", overlap="allow_all")
        ids = server.running(task, asked.reports)
        few = ids[: asked.reports // 10]
        server.database.do("VACUUM ANALYZE")
        nothing = [server.request("/sdk/nothing", complete)] * asked.reports
        hot = [server.request("/sdk/nothing-hot", complete)] * asked.reports
        measured(server, "(warm)", nothing[: asked.reports // 5], asked.connections)
        limit = measured(server, "POST nothing", nothing, asked.connections)
        door = measured(server, "POST nothing, at the door", hot, asked.connections)
        said = {
            "heartbeats": [server.request(path(one, "heartbeat"), beat) for one in ids],
            "log appends of one line": [
                server.request(path(one, "logs"), line % seq) for seq in range(5) for one in few
            ],
            "completions": [server.request(path(one, "complete"), complete) for one in ids],
        }  # fmt: skip
        rates = {what: measured(server, what, requests, asked.connections) for what, requests in said.items()}
        limit = max(limit, measured(server, "POST nothing, again", nothing, asked.connections))
        door = max(door, measured(server, "the same, at the door", hot, asked.connections))
    missed = False
    for what, rate in rates.items():
        share = rate / limit
        missed |= share < GOAL
        print(
            f"{what}: {share:.0%} of a POST that does nothing (goal {GOAL:.0%}), "
            f"{rate / door:.0%} of one at the workers' door{', MISSED' if share < GOAL else ''}"
        )
    sys.exit(missed)


if __name__ == "__main__":
    main()
