"""Rows as the wire words them: times, executions, definitions, findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cron_observer import statistics
from cron_observer.errors import BadRequest
from cron_observer.model import RESERVED_QUEUES
from cron_observer.store.links import line_link

#: What only the full form of an execution carries: lists never load it.
FULL_ONLY: Final = ("payload", "result", "checkpoint", "fence")

#: A worker renews a lease this often within its length.
HEARTBEATS_PER_LEASE: Final = 3


def instant(value: datetime | None) -> str | None:
    """Write an aware time as RFC 3339 in UTC with milliseconds and ``Z``."""
    if value is None:
        return None
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Return the seconds from `start` to `end`, never negative; None where either is not known."""
    if start is None or end is None:
        return None
    return max(0.0, round((end - start).total_seconds(), 3))


def zone(name: str) -> ZoneInfo:
    """Return the IANA time zone `name`. Raises `BadRequest` for a name that is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, UnicodeError) as error:
        raise BadRequest(
            "there is no such time zone", hint="use an IANA name such as Europe/Berlin", pointer="/timezone"
        ) from error


def day_start(day: date, timezone: ZoneInfo) -> datetime:
    """Return the instant at which the local date `day` begins, in UTC: `statistics.day_start`.

    Raises `BadRequest` at the ends of the calendar.
    """
    try:
        return statistics.day_start(day, timezone)
    except OverflowError as error:
        raise BadRequest("the date is out of range") from error


def day_bounds(day: date, timezone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the half-open range of instants of the local date `day`."""
    try:
        following = day + timedelta(days=1)
    except OverflowError as error:
        raise BadRequest("the date is out of range") from error
    return day_start(day, timezone), day_start(following, timezone)


def definition(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return where an execution's task was defined; of a claimed one, as it was when it was claimed."""
    return {
        "source": row["def_source"],
        "commit": row["def_commit"],
        "path": row["def_path"],
        "line": row["def_line"],
        "generation": row["def_generation"],
    }


def execution_item(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an execution as an item of a list: without payload, result, checkpoint, fence and traceback."""
    running = row["status"] == "RUNNING"
    label: datetime | None = row["nominal_local"]
    return {
        "id": str(row["id"]),
        "task": {"uid": str(row["task_uid"]), "project": row["project_name"], "name": row["task_name"]},
        "status": row["status"],
        "reason": row["reason"],
        "late": row["late"],
        "trigger": row["trigger"],
        "scheduled_for": instant(row["nominal_at"]),
        "nominal_local": None if label is None else label.isoformat(timespec="milliseconds"),
        "nominal_fold": row["nominal_fold"],
        "timezone": row["timezone"],
        "fire_at": instant(row["fire_at"]),
        "available_at": instant(row["available_at"]),
        "queue": row["queue"],
        "priority": row["priority"],
        "attempt": row["attempt"],
        "worker": row["worker"],
        "lease_until": instant(row["lease_until"]),
        "started_at": instant(row["started_at"]),
        "finished_at": instant(row["finished_at"]),
        "duration_seconds": seconds_between(_began(row), row["finished_at"]),
        "run_deadline": instant(row["run_deadline"]),
        "heartbeat_every_seconds": (
            round(row["lease_seconds"] / HEARTBEATS_PER_LEASE, 3) if running and row["lease_seconds"] else None
        ),
        "cancel_requested": row["cancel_requested_at"] is not None,
        "progress": row["progress"],
        "exit_code": row["exit_code"],
        "error": row["error"],
        "run_token": None,
        "repeats": None if row["repeats"] is None else str(row["repeats"]),
        "backfill_id": None if row["backfill_id"] is None else str(row["backfill_id"]),
        "definition": definition(row),
    }


def _began(row: Mapping[Any, Any]) -> datetime | None:
    """Return when the last attempt began; None of a check-in that told its end alone."""
    began: datetime | None = row["started_at"]
    return row["claimed_at"] if began is None and row["queue"] != RESERVED_QUEUES["checkin"] else began


def execution_full(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return an execution with everything that is known of it."""
    return execution_item(row) | {name: row[name] for name in FULL_ONLY}


def execution_event(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return one event of an execution."""
    return {
        "seq": row["seq"],
        "at": instant(row["at"]),
        "type": row["type"],
        "attempt": row["attempt"],
        "status": row["status"],
        "reason": row["reason"],
        "actor": row["actor"],
        "data": row["data"],
    }


def owner(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return who owns a task, and where: the line of the manifest that defines it."""
    commit, path, line = row["commit"], row["path"], row["line"]
    return {
        "kind": row["owner"],
        "source": row["source_name"],
        "path": path,
        "line": line,
        "commit": commit,
        "author": row["author"],
        "url": line_link(row["source_url"], commit, path, line),
    }


def pause(row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """Return the pause that is in force, None without one."""
    if row["pause_since"] is None:
        return None
    return {
        "since": instant(row["pause_since"]),
        "until": instant(row["pause_until"]),
        "reason": row["pause_reason"],
        "author": row["pause_author"],
        "on_resume": row["pause_on_resume"],
    }


def finding(row: Mapping[Any, Any], url: str | None = None) -> dict[str, Any]:
    """Return a finding; `url` leads to its line, where the forge is known."""
    return {
        "severity": row["severity"],
        "code": row["code"],
        "path": row["path"],
        "line": row["line"],
        "column": row["column"],
        "end_line": row["end_line"],
        "end_column": row["end_column"],
        "pointer": row["pointer"],
        "kind": row["kind"],
        "name": row["name"],
        "message": row["message"],
        "hint": row["hint"],
        "url": url,
    }
