"""What the ledger check reads of a task, and what it says of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of a task's plan, as history keeps it."""

    number: int
    active: bool
    schedule: Any
    effective_from: datetime
    tzdata_version: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A slot's row of `executions`."""

    id: UUID
    nominal_at: datetime
    nominal_local: datetime
    nominal_fold: int
    timezone: str
    tzdata_version: str | None
    holidays_version: str | None
    moved_by: str | None
    fire_at: datetime
    available_at: datetime
    start_deadline: datetime | None
    closes_at: datetime | None
    check_at: datetime | None
    status: str
    reason: str | None
    fence: int
    event_seq: int
    plan_generation: int | None


@dataclass(frozen=True, slots=True)
class Range:
    """Many equal skips as one row of `slot_ranges`."""

    first_at: datetime
    last_at: datetime
    slots: int
    quarters: Sequence[int]
    status: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Defect:
    """One thing that is wrong: of which task and slot, what, and how it is mended."""

    task: str  #: project/name
    label: str  #: nominal local time and zone
    kind: str  #: missing, doubled, moved, misjudged, range, open, unreasoned, unplanned or statistics
    what: str
    mend: str
    id: UUID | None = None  #: of the execution, or of the slot that should be one


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what is wrong. `more` defects were found beyond those that are told."""

    generations: int = 0
    slots: int = 0
    ranges: int = 0
    unreadable: int = 0  #: generations whose schedule cannot be evaluated: they own nothing
    defects: list[Defect] = field(default_factory=list)
    more: int = 0
