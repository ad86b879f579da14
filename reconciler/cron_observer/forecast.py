"""What is known of a slot when it is planned: that it will not run, why, and until when it may start. Pure.

The engine says what a schedule and its calendars decide. Here follow the windows of a task group, the pauses of a
task, and, after an absence of every planner, the rules by which a slot is too old to run. What is known is written
down as it is planned; nobody has to look at the slot again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from cron_observer.lifecycle import OFFERED_FOR, ON_TIME
from cron_observer.model import Catchup, Pause, Policy
from cron_observer.schedule import Slot

#: Equal skips in a row that are rows of their own; what follows them is told as ranges.
ROWS_MAX: Final = 1_000


class GroupWindows(Protocol):
    """When the tasks of a group may start."""

    def open_at(self, at: datetime) -> bool:
        """Whether they may at an instant."""

    def closes_at(self, at: datetime) -> datetime | None:
        """When the window ends that holds an instant; None if it never does."""


class Foreseen(NamedTuple):
    """A slot, and what is known of it. `status` PENDING has no reason; SKIPPED and MISSED have one."""

    slot: Slot
    status: str
    reason: str | None
    closes_at: datetime | None

    @property
    def waits(self) -> bool:
        """Whether it is going to run, as far as is known."""
        return self.reason is None


class Skips(NamedTuple):
    """How many equal skips in a row a plan ends with. `reason` None: none."""

    reason: str | None
    length: int


def foresee(slots: Iterable[Slot], windows: GroupWindows | None = None) -> list[Foreseen]:
    """Say what the schedule itself, and the windows of its group, make of slots."""
    found = []
    for slot in slots:
        reason, closes = slot.skip, slot.closes_at
        if windows is not None:
            if windows.open_at(slot.fire_at):
                closes = windows.closes_at(slot.fire_at)
            elif reason is None:
                reason = "window"
        found.append(Foreseen(slot, "PENDING" if reason is None else "SKIPPED", reason, closes))
    return found


def paused(slots: Sequence[Foreseen], pauses: Sequence[Pause]) -> Sequence[Foreseen]:
    """Skip what fires in one of these pauses."""
    if not pauses:
        return slots
    return [
        one._replace(status="SKIPPED", reason="paused")
        if one.waits and any(pause.holds(one.slot.fire_at) for pause in pauses)
        else one
        for one in slots
    ]


def overdue(slots: Sequence[Foreseen], policy: Policy, now: datetime) -> Sequence[Foreseen]:
    """End what is due at `now` and can run by no rule any more: missed, or skipped as too late.

    It is what `lifecycle.settle` would say of the same slots, told at once. What is left may still run, or not, as
    settling decides.
    """
    due = [one for one in slots if one.waits and one.slot.fire_at <= now]
    if not due:
        return slots
    ended: dict[Slot, tuple[str, str]] = {}
    patience = min(OFFERED_FOR, policy.start_deadline or OFFERED_FOR)
    rest = []
    for one in due:
        age = now - one.slot.fire_at
        if age >= patience:
            ended[one.slot] = "MISSED", "no_worker"
        elif one.closes_at is not None and one.closes_at <= now:
            ended[one.slot] = "SKIPPED", "window"
        elif policy.max_lateness is not None and age > policy.max_lateness:
            ended[one.slot] = "SKIPPED", "too_late"
        else:
            rest.append(one.slot)
    kept = _kept(rest, policy, now)
    ended |= {slot: ("SKIPPED", "too_late") for slot in rest if slot not in kept}
    return [
        one._replace(status=ended[one.slot][0], reason=ended[one.slot][1]) if one.slot in ended else one
        for one in slots
    ]


def _kept(due: Sequence[Slot], policy: Policy, now: datetime) -> set[Slot]:
    """Return which of the due slots `catchup` may still run, however many newer ones there are."""
    window = ON_TIME if policy.catchup is Catchup.NONE else policy.catchup_window
    fresh = [slot for slot in due if window is None or now - slot.fire_at <= window]
    if policy.catchup is Catchup.NONE:
        return set(fresh)
    most = 1 if policy.catchup is Catchup.LAST else policy.max_runs
    return set(sorted(fresh, key=lambda slot: (slot.fire_at, slot.nominal_at))[-most:])


class Parted(NamedTuple):
    """What a plan writes: `rows`, and `pieces` of equal skips in a row, each to be told as ranges.

    `joined`: the first piece goes on where the plan ended before. `run`: how the plan ends now.
    """

    rows: list[Foreseen]
    pieces: list[list[Foreseen]]
    joined: bool
    run: Skips


def parted(slots: Sequence[Foreseen], run: Skips) -> Parted:
    """Part what becomes rows from what is told in ranges, after a plan that ended with `run`.

    The first `ROWS_MAX` equal skips in a row are rows. What fires before its nominal instant is always one, and ends
    the row of skips, so that a range is cut by nominal instants alone.
    """
    rows: list[Foreseen] = []
    pieces: list[list[Foreseen]] = []
    reason, count = run
    joined, telling = bool(slots) and count > ROWS_MAX and slots[0].reason == reason, count > ROWS_MAX
    for one in slots:
        if one.reason is None or one.slot.fire_at < one.slot.nominal_at:
            reason, count = None, 0
        elif one.reason == reason:
            count += 1
        else:
            reason, count = one.reason, 1
        if count <= ROWS_MAX:
            rows.append(one)
        elif telling and pieces:
            pieces[-1].append(one)
        else:
            pieces.append([one])
        telling = count > ROWS_MAX
    return Parted(rows, pieces, joined and bool(pieces), Skips(reason, count))
