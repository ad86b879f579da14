"""One execution: what happened, by whose definition, with its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from litestar import Request, Response, get
from litestar.params import FromPath
from markupsafe import Markup

from cron_observer.errors import NotFound
from cron_observer.store import reads, views_executions, views_time
from cron_observer.store.links import line_link
from cron_observer.store.views import Row
from cron_observer_api.pages import log, words
from cron_observer_api.pages.moments import When
from cron_observer_api.pages.render import page
from cron_observer_api.pages.shell import opened

#: Events shown; the API has the rest.
EVENTS: Final = 200


@get("/executions/{execution_id:str}", include_in_schema=False)
async def execution(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Show one execution."""
    identity = log.identity(execution_id)
    async with opened(request) as shown:
        conn, tenant, when = shown.conn, shown.tenant_id, shown.when
        row = await views_executions.execution(conn, tenant, identity, when.now)
        if row is None:
            raise NotFound("there is no such execution", hint="it may be older than the retention time")
        around = await views_executions.around(conn, tenant, row, when.now)
        time = await views_time.of_execution(conn, tenant, row, row["spec"])
        attempts = await views_executions.attempts(conn, tenant, identity)
        events = await reads.events(conn, tenant, identity, limit=EVENTS)
        lines = await log.section(shown, identity, attempts)
        frame = shown.frame(
            f"{row['task_name']}, {_short(row, when)}",
            "tasks",
            (f"execution:{identity}",) if row["finished_at"] else (f"execution:{identity}", f"logs:{identity}"),
        )
    return page(
        request,
        "execution.html",
        **frame,
        **_view(row, around, when),
        time=_time(row, time),
        attempts=_attempts(attempts, when),
        events=[_event(event) for event in events],
        log=lines,
    )


def _short(row: Row, when: When) -> str:
    return f"{row['fire_at'].astimezone(when.zone):%d %b %H:%M}"


def _view(row: Row, around: Row, when: When) -> dict[str, Any]:
    upcoming = row["status"] == "PENDING" and not row["due"]
    seconds = None
    if row["claimed_at"] is not None and row["status"] != "PENDING":
        seconds = ((row["finished_at"] or when.now) - (row["started_at"] or row["claimed_at"])).total_seconds()
    error = row["error"] or {}
    return {
        "execution": row,
        "badge": words.status(row["status"], late=row["late"], why=row["reason"], upcoming=upcoming),
        "obsolete": row["obsolete"],
        "sync": words.sync(row["sync"], row["owner"]),
        "task_href": f"/tasks/{row['project_name']}/{row['task_name']}",
        "name": row["task_name"],
        "why": words.reason(row["reason"]),
        "retry": row["status"] == "PENDING" and row["fence"] > 0,
        "live": row["finished_at"] is None,
        "facts": _facts(row, around, when, seconds),
        "error": error or None,
        "definition": _defined(row),
        "previous": f"/executions/{around['previous']}" if around["previous"] else None,
        "next": f"/executions/{around['next']}" if around["next"] else None,
    }


def _facts(row: Row, around: Row, when: When, seconds: float | None) -> list[tuple[str, Markup | str, str]]:
    usual = around["usual"]
    compared = ""
    if seconds is not None and usual:
        compared = f"p50 is {words.duration(usual)}"
    wall = ""
    if row["nominal_local"] is not None:
        fold = ", the second of its kind" if row["nominal_fold"] else ""
        wall = f"{row['nominal_local']:%H:%M} in {row['timezone']}{fold}"
    delay = words.delay(row)
    facts: list[tuple[str, Markup | str, str]] = [
        (
            "Scheduled",
            when.full(row["nominal_at"]) if row["nominal_at"] else "–",
            wall or words.TRIGGERS[row["trigger"]],
        ),
        ("Fired", when.full(row["fire_at"]), _fired(row)),
        ("Claimed", when.exact(row["claimed_at"]), f"by {row['worker']}" if row["worker"] else ""),
        ("Started", when.exact(row["started_at"]), ""),
        ("Start delay", words.duration(delay), "from fire time to claim" if delay is not None else ""),
        ("Duration", words.duration(seconds), compared),
        ("Ended", when.full(row["finished_at"]), ""),
        ("Exit code", "–" if row["exit_code"] is None else str(row["exit_code"]), ""),
        ("Attempt", str(row["attempt"] or "–"), f"of at most {int(row['retries_max'] or 0) + 1}"),
        ("Queue", row["queue"], f"priority {row['priority']}" if row["priority"] else ""),
    ]
    if row["status"] == "RUNNING":
        facts.append(("Deadline", when.ago(row["run_deadline"]), "then it has timed out"))
    return facts


def _fired(row: Row) -> str:
    if row["repeats"] is not None or row["nominal_at"] is None:
        return ""
    return words.moved(row["moved_by"]) or ("as scheduled" if row["fire_at"] == row["nominal_at"] else "")


def _time(row: Row, found: dict[str, Any]) -> dict[str, Any]:
    """Return what an execution's time hangs on: what it repeats or is repeated by, and what kept it from running."""
    group = next((one for one in found["declared"] if one["kind"] == "group"), None)
    calendars = [one for one in found["declared"] if one["kind"] == "calendar"]
    says = dict(found["excluded"])
    slot = found["slot"]
    return {
        "slot": slot and {"href": f"/executions/{slot[0]}", "badge": _outcome(slot[1])},
        "repeated": [
            {"href": f"/executions/{one}", "badge": _outcome(status), "trigger": words.TRIGGERS[trigger]}
            for one, status, trigger in found["repeated"]
        ],
        "backfill": found["backfill"],
        "pause": found["pause"],
        "group": group if row["reason"] == "window" else None,
        "calendars": [one | {"says": says.get(one["name"])} for one in calendars if one["name"] in says],
        "held": row["held_at"] if row["status"] == "PENDING" else None,
        "closes": row["closes_at"] if row["finished_at"] is None else None,
    }


def _outcome(status: str) -> words.Badge:
    return words.status(status)


def _defined(row: Row) -> dict[str, Any]:
    """Say which line of which file at which commit made this execution, and who wrote it."""
    task = f"/tasks/{row['project_name']}/{row['task_name']}"
    return {
        "path": row["def_path"],
        "line": row["def_line"],
        "commit": row["def_commit"],
        "author": row["def_author"],
        "subject": row["def_subject"],
        "at": row["def_at"],
        "source": row["def_source"],
        "generation": row["def_generation"],
        "href": f"{task}?tab=definition#M{row['def_line'] or 1}",
        "url": line_link(row["source_url"], row["def_commit"], row["def_path"], row["def_line"]),
    }


def _attempts(rows: Sequence[Row], when: When) -> list[dict[str, Any]]:
    """Return each claim with the badge of how it ended."""
    badges = {
        None: words.Badge("run", "Running"),
        "finished": words.Badge("ok", "Finished"),
        "failed": words.Badge("fail", "Failed"),
        "cancelled": words.Badge("cancel", "Cancelled"),
        "skipped": words.Badge("skip", "Skipped"),
        "released": words.Badge("skip", "Given back"),
    }
    several = len({row["attempt"] for row in rows}) > 1
    return [
        {
            "number": row["attempt"],
            "fence": row["fence"],
            "badge": badges.get(
                row["outcome"], words.Badge("late", (row["outcome"] or "").replace("_", " ").capitalize())
            ),
            "why": words.reason(row["reason"]),
            "worker": row["worker"],
            "claimed_at": row["claimed_at"],
            "ended_at": row["ended_at"],
            "seconds": ((row["ended_at"] or when.now) - (row["started_at"] or row["claimed_at"])).total_seconds(),
            "exit_code": row["exit_code"],
            "error": row["error_message"],
            "late": row["late_outcome"],
            "lines": row["log_lines"],
            "selectable": several,
        }
        for row in rows
    ]


def _exchange(http: Mapping[str, Any]) -> dict[str, str]:
    """Say in a line how a webhook was answered, with the beginning of what came."""
    said = f"HTTP {http['status']}" if "status" in http else str(http.get("detail", "no answer"))
    broken = f", {http['detail']}" if "status" in http and "detail" in http else ""
    where = f" from {http['address']}" if "address" in http and "status" in http else ""
    cut = " …" if http.get("body_cut") else ""
    return {
        "line": f"{http.get('method', '')} {said}{where}{broken} after {words.duration(http.get('duration_seconds'))}",
        "body": f"{http.get('body', '')}{cut}",
    }


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    tones = {"finished": "ok", "late_finished": "late", "failed": "fail", "gave_up": "fail", "late_failed": "fail"}
    tones |= {
        "retry_scheduled": "late",
        "lease_expired": "late",
        "missed": "late",
        "claimed": "run",
        "started": "run",
        "accepted": "run",
    }
    tones |= {"cancelled": "cancel", "cancel_requested": "cancel"}
    http = (event["data"] or {}).get("http") if isinstance(event["data"], dict) else None
    return {
        "at": datetime.fromisoformat(event["at"]),
        "http": _exchange(http) if isinstance(http, dict) else None,
        "tone": tones.get(event["type"], "skip"),
        "word": words.EVENTS.get(event["type"], event["type"]),
        "why": words.reason(event["reason"]),
        "attempt": event["attempt"],
        "actor": event["actor"],
        "data": event["data"],
    }
