"""Pauses and backfills."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cron_observer_api.wire.base import GivenInstant, Id, In, Instant, Out, Prose

OnResume = Literal["skip", "last", "all"]


class Pause(Out):
    """A pause that is in force. `until` null: until somebody resumes the task."""

    since: Instant
    until: Instant | None
    reason: str | None
    author: str
    on_resume: OnResume


class PauseBody(In):
    """Why, until when, and which of the slots that are left out run at the end; the task's `onResume` by default."""

    reason: Prose = ""
    until: GivenInstant | None = None
    on_resume: OnResume | None = None


class ResumeBody(In):
    """Why, and which of the slots that were left out run now, in place of what the pause says."""

    reason: Prose = ""
    on_resume: OnResume | None = None


class BackfillBody(In):
    """Which slots run again: `from` <= nominal instant < `to`."""

    from_: GivenInstant = msgspec.field(name="from")
    to: GivenInstant
    select: Literal["missing", "failed", "all"] = "missing"
    dry_run: bool = False
    order: Literal["oldest_first", "newest_first"] = "oldest_first"
    max_parallel: Annotated[int, Meta(ge=1, le=1000)] = 1


class BackfillSlot(Out):
    """A slot and its run; `repeats` is the id of the slot, `execution_id` null in a dry run."""

    scheduled_for: Instant
    nominal_local: str
    nominal_fold: int
    repeats: Id
    execution_id: Id | None


class Backfill(Out):
    """What a backfill runs, in its order; `slots` lists the first 1,000 of `count`."""

    backfill_id: Id | None
    dry_run: bool
    count: int
    slots: list[BackfillSlot]
