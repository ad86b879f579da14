"""What planning has to know beside the plans: what calendars mean, which pauses hold, and what policies say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import ScheduleError
from cron_observer.model import Pause, Policy
from cron_observer.schedule.calendars import Calendar, read_calendar
from cron_observer.store import arrays
from cron_observer.store.engine import fetch
from cron_observer.store.plan_work import Plan, named

#: Calendars that a process remembers. What a digest means never changes.
REMEMBERED: Final = 10_000

#: A plan that ends this long ago has been left alone: what it missed may be too late.
ABSENT: Final = timedelta(seconds=60)

_calendars: dict[str, Calendar] = {}

_PAUSES: Final = """
SELECT p.task_uid, p.since, least(p.ended_at, p.until)
FROM pauses p
WHERE p.tenant_id = %(tenant)s AND p.task_uid = ANY (%(uids)s::uuid[])
  AND (p.ended_at IS NULL OR p.ended_at > %(since)s)
"""

_SPECS: Final = """
SELECT t.task_uid, t.spec FROM tasks t WHERE t.tenant_id = %(tenant)s AND t.task_uid = ANY (%(uids)s::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of some plans. `calendars` by digest; `policies` only of plans that were left alone."""

    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    pauses: Mapping[UUID, Sequence[Pause]] = field(default_factory=dict)
    policies: Mapping[UUID, Policy] = field(default_factory=dict)


async def gather(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan], now: datetime) -> Facts:
    """Read what planning these needs."""
    active = [plan for plan in plans if plan.active]
    absent = [plan.task_uid for plan in active if plan.planned_until < now - ABSENT]
    return Facts(
        calendars=await calendars(conn, tenant_id, [plan.schedule for plan in active]),
        pauses=await _pauses(conn, tenant_id, active),
        policies=await _policies(conn, tenant_id, absent),
    )


async def calendars(conn: AsyncConnection, tenant_id: UUID, blocks: Iterable[Any]) -> dict[str, Calendar]:
    """Return the calendars that plans name, by digest. What is missing or damaged is left out."""
    wanted = {digest for block in blocks for _, digest in named(block)}
    unknown = [digest for digest in wanted if digest not in _calendars]
    if unknown:
        from cron_observer.store.calendars import contents

        if len(_calendars) + len(unknown) > REMEMBERED:
            _calendars.clear()
        for digest, content in (await contents(conn, tenant_id, sorted(wanted))).items():
            try:
                _calendars[digest] = read_calendar(content)
            except ScheduleError:
                continue
    return {digest: _calendars[digest] for digest in wanted if digest in _calendars}


async def _pauses(conn: AsyncConnection, tenant_id: UUID, plans: Sequence[Plan]) -> dict[UUID, list[Pause]]:
    """Return every pause that may hold a slot which is planned now, also one that has ended since."""
    found: dict[UUID, list[Pause]] = {}
    if plans:
        since = min(plan.planned_until for plan in plans)
        parameters = {"tenant": tenant_id, "uids": arrays.uuids(plan.task_uid for plan in plans), "since": since}
        for uid, begun, until in await fetch(conn, _PAUSES, parameters):
            found.setdefault(uid, []).append(Pause(begun, until))
    return found


async def _policies(conn: AsyncConnection, tenant_id: UUID, uids: Sequence[UUID]) -> dict[UUID, Policy]:
    found: dict[UUID, Policy] = {}
    if uids:
        for uid, spec in await fetch(conn, _SPECS, {"tenant": tenant_id, "uids": arrays.uuids(uids)}):
            try:
                found[uid] = Policy.read(spec)
            except (KeyError, TypeError, ValueError):
                continue  # its slots are settled one by one, where the damage is told
    return found
