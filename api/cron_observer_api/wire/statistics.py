"""What `stats` answers: how the executions of a task went."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import msgspec
from msgspec import Meta

from cron_observer_api.wire.base import In, Instant, Out, Seconds, Zone


class StatsQuery(In):
    """Which local dates, both included; the last 31 by default, 400 at most."""

    from_: date | None = msgspec.field(default=None, name="from")
    to: date | None = None
    timezone: Zone = "UTC"


class Times(Out):
    """How long something took, in seconds. Percentiles lie within `relative_error`, all else is exact."""

    count: int
    p50: Seconds | None
    p95: Seconds | None
    p99: Seconds | None
    min: Seconds | None
    max: Seconds | None
    mean: Seconds | None


class Outcomes(Out):
    """What became of executions. `late` of the finished ones came after their deadline."""

    total: int
    finished: int
    failed: int
    missed: int
    skipped: int
    cancelled: int
    running: int
    pending: int
    late: int
    success_rate: float | None
    duration_seconds: Times
    start_delay_seconds: Times


class StatsDay(Outcomes):
    """Those of one local date."""

    date: Annotated[str, Meta(extra_json_schema={"format": "date"})]


class ReasonCount(Out):
    """How many executions ended with one status for one reason."""

    status: str
    reason: str
    count: int


class Stats(Outcomes):
    """Those of a task in a window, as a whole and by local date; empty dates are left out."""

    task: str
    from_: Instant = msgspec.field(name="from")
    to: Instant
    timezone: str
    relative_error: float
    reasons: list[ReasonCount]
    days: list[StatsDay]
