"""What the pages tell of time beside runs: groups and calendars with their places, ranges, pauses, and why a slot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec
from cron_observer.schedule.zones import zone
from cron_observer.store import reruns
from cron_observer.store.links import line_link
from cron_observer.store.views import Row, fetch

#: Ranges that the page of a task shows.
RANGES: Final = 20

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  labels have no zone

#: Calendars and groups of a project, by name, with the line that defines each.
_DECLARED: Final = """
    SELECT jsonb_agg(jsonb_build_object('kind', d.kind, 'name', d.name, 'path', d.path, 'line', d.line,
            'commit', d.commit, 'author', d.author, 'spec', d.spec, 'removed', d.removed_at IS NOT NULL,
            'source', s.name, 'url', s.url) ORDER BY d.kind DESC, d.name)
    FROM (
        SELECT 'group' AS kind, g.tenant_id, g.source_id, g.name, g.path, g.line, g.commit, g.author, g.spec,
            g.removed_at
        FROM task_groups AS g
        WHERE g.tenant_id = :tenant_id AND g.project_id = :project_id AND g.name = :group
        UNION ALL
        SELECT 'calendar', c.tenant_id, c.source_id, c.name, c.path, c.line, c.commit, c.author, c.spec, c.removed_at
        FROM calendars AS c
        WHERE c.tenant_id = :tenant_id AND c.project_id = :project_id
          AND c.name = ANY (CAST(:calendars AS text[]))
    ) AS d
    LEFT JOIN sources AS s ON s.tenant_id = d.tenant_id AND s.source_id = d.source_id"""

_TASK: Final = text(f"""
    SELECT ({_DECLARED}) AS declared,
        (SELECT p.schedule FROM task_plan AS p WHERE p.tenant_id = :tenant_id AND p.task_uid = :task_uid) AS block,
        (SELECT jsonb_agg(to_jsonb(r) ORDER BY r.at DESC) FROM (
            SELECT extract(epoch FROM r.first_at) AS at, extract(epoch FROM r.last_at) AS until, r.slots, r.status,
                r.reason
            FROM slot_ranges AS r
            WHERE r.tenant_id = :tenant_id AND r.task_uid = :task_uid AND r.first_at <= :now
            ORDER BY r.first_at DESC LIMIT {RANGES}) AS r) AS ranges""")

_EXECUTION: Final = text(f"""
    SELECT ({_DECLARED}) AS declared,
        (SELECT h.schedule FROM plan_history AS h
         WHERE h.tenant_id = :tenant_id AND h.task_uid = :task_uid AND h.generation = :generation) AS block,
        (SELECT to_jsonb(x) FROM (
            SELECT q.reason, q.author, extract(epoch FROM q.since) AS since,
                extract(epoch FROM coalesce(q.ended_at, q.until)) AS until
            FROM pauses AS q
            WHERE q.tenant_id = :tenant_id AND q.task_uid = :task_uid AND :paused
              AND q.since <= greatest(CAST(:fire_at AS timestamptz), CAST(:finished_at AS timestamptz))
            ORDER BY q.since DESC LIMIT 1) AS x) AS pause,
        (SELECT jsonb_build_array(e.id, e.status) FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.id = CAST(:repeats AS uuid)) AS slot,
        (SELECT jsonb_agg(jsonb_build_array(e.id, e.status, e.trigger) ORDER BY e.fire_at) FROM executions AS e
         WHERE e.tenant_id = :tenant_id AND e.task_uid = :task_uid AND e.repeats = :id
           AND e.nominal_at = :nominal_at) AS repeated,
        (SELECT to_jsonb(b) FROM (
            SELECT extract(epoch FROM b.from_at) AS since, extract(epoch FROM b.to_at) AS until, b.runs, b.author,
                b.selected
            FROM backfills AS b
            WHERE b.tenant_id = :tenant_id AND b.backfill_id = CAST(:backfill_id AS uuid)) AS b) AS backfill""")


async def of_task(conn: AsyncConnection, tenant_id: UUID, row: Row, project_id: UUID, now: datetime) -> dict[str, Any]:
    """Return ``declared`` (group and calendars of a task, each with its place), ``block`` and ``ranges``."""
    values = _names(row["spec"]) | {"project_id": project_id, "task_uid": row["task_uid"], "now": now}
    (found,) = await fetch(conn, _TASK, tenant_id, **values)
    return {
        "declared": _placed(found["declared"], row["spec"]),
        "block": found["block"],
        "ranges": [_instants(one, "at", "until") for one in found["ranges"] or ()],
    }


async def of_execution(conn: AsyncConnection, tenant_id: UUID, row: Row, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the time of an execution hangs on.

    ``declared`` as of its task, ``pause`` that kept it from running, ``slot`` that it repeats, the runs by which it
    is ``repeated``, its ``backfill``, and ``excluded``: the calendars that exclude its day, each with what it says.
    """
    values = _names(spec) | {
        "project_id": row["project_id"],
        "task_uid": row["task_uid"],
        "id": row["id"],
        "generation": row["plan_generation"],
        "paused": row["reason"] == "paused",
        "fire_at": row["fire_at"],
        "finished_at": row["finished_at"],
        "nominal_at": row["nominal_at"],
        "repeats": row["repeats"],
        "backfill_id": row["backfill_id"],
    }
    (found,) = await fetch(conn, _EXECUTION, tenant_id, **values)
    excluded: list[tuple[str, str]] = []
    by_calendar = row["reason"] == "calendar" or "calendar" in (row["moved_by"] or "")
    if by_calendar and found["block"] is not None and row["nominal_local"] is not None:
        try:
            spec_, calendars = await reruns.calendars_of(conn, tenant_id, found["block"])
            excluded = await asyncio.to_thread(_excluded, spec_, calendars, row)
        except ScheduleError:
            excluded = []
    return {
        "declared": _placed(found["declared"], spec),
        "pause": found["pause"] and _instants(found["pause"], "since", "until"),
        "slot": found["slot"],
        "repeated": found["repeated"] or [],
        "backfill": found["backfill"] and _instants(found["backfill"], "since", "until"),
        "excluded": excluded,
    }


def _names(spec: Mapping[str, Any]) -> dict[str, Any]:
    calendars = (spec.get("schedule") or {}).get("calendars") or {}
    names = {name for side in ("include", "exclude") for name in _several(calendars.get(side))}
    return {"group": spec.get("group"), "calendars": sorted(names)}


def _several(value: Any) -> Sequence[str]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _placed(found: Sequence[Mapping[str, Any]] | None, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add to each document how the task uses it, and a link to its line; name those that are not there any more."""
    calendars = (spec.get("schedule") or {}).get("calendars") or {}
    uses = {("calendar", name): side for side in ("exclude", "include") for name in _several(calendars.get(side))}
    if spec.get("group"):
        uses[("group", spec["group"])] = "group"
    known = {(one["kind"], one["name"]): one for one in found or ()}
    placed = []
    for key, use in uses.items():
        one = known.get(key)
        link = None if one is None else line_link(one["url"], one["commit"], one["path"], one["line"])
        placed.append(
            {"kind": key[0], "name": key[1], "use": use, "known": one is not None, "link": link, **(one or {})}
        )
    return placed


def _instants(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    made = dict(row)
    for name in names:
        made[name] = None if row[name] is None else datetime.fromtimestamp(float(row[name]), UTC)
    return made


def _excluded(spec: ScheduleSpec, calendars: Mapping[str, Any], row: Row) -> list[tuple[str, str]]:
    """Name the calendars that exclude the nominal day of a slot, each with what it says of the day."""
    place = zone(spec.timezone)
    label = int((row["nominal_local"] - _LOCAL_EPOCH).total_seconds())
    at = int((row["nominal_at"] - _EPOCH).total_seconds())
    found = [
        (text_.rpartition("@")[0], calendars[text_].name_of(label, at, place) or "")
        for text_ in spec.exclude
        if text_ in calendars and calendars[text_].holds(label, at, place)
    ]
    included = [text_ for text_ in spec.include if text_ in calendars]
    if not found and included and not any(calendars[text_].holds(label, at, place) for text_ in included):
        found = [(text_.rpartition("@")[0], "it does not hold the day") for text_ in included]
    return found
