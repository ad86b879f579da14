"""Ranges: many slots of a task that were skipped, or missed, alike."""

from __future__ import annotations

from typing import Literal

import msgspec

from cron_observer_api.wire.base import GivenInstant, Instant, Out, PageQuery


class SlotRange(Out):
    """Slots in a row that have one outcome and one reason, all on one UTC date."""

    first_at: Instant
    last_at: Instant
    slots: int
    status: Literal["SKIPPED", "MISSED"]
    reason: str
    timezone: str


class SlotRanges(Out):
    """A page of ranges, newest first."""

    items: list[SlotRange]
    next_cursor: str | None


class RangeQuery(PageQuery):
    """Which ranges: those with a nominal instant in [from, to); what lies ahead only if `upcoming`."""

    from_: GivenInstant | None = msgspec.field(default=None, name="from")
    to: GivenInstant | None = None
    upcoming: bool = False
