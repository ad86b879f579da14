"""How far ahead a schedule is planned, and when to plan again. Pure.

The promise: at every moment, what fires within the next hour is planned, or 720 slots if that is less; and so is
the next slot, if it comes within 48 hours. To keep it between two looks, planning goes a quarter further than
promised and comes back when a part of that is used up. `docs/explanation/slots.md` shows the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cron_observer.schedule import Schedule, Slot

#: What is promised to be planned at every moment: tasks fire that long while no scheduler runs.
PROMISED: Final = timedelta(hours=1)
#: The promise for schedules that are denser than one slot in five seconds.
PROMISED_SLOTS: Final = 720

#: How far a planning goes, and what may be left of it when the next one is due. The five minutes between that and
#: the promise are for a scheduler that is busy.
AHEAD: Final = timedelta(minutes=75)
AHEAD_SLOTS: Final = 900
LEFT: Final = timedelta(minutes=65)
LEFT_SLOTS: Final = 780

#: The next slot is planned however far it is, up to here. Partitions exist for longer than that.
NEXT_WITHIN: Final = timedelta(hours=48)

#: After a longer absence of every planner, slots older than this are not invented any more.
CATCH_UP: Final = timedelta(days=8)

#: Slots of one task in one planning. An absence is caught up in steps of this.
STEP: Final = 900


@dataclass(frozen=True, slots=True)
class Aim:
    """Up to which nominal instant a schedule is to be planned, and when to look again (None: it never fires again)."""

    until: datetime
    due_at: datetime | None
    next_fire_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slots to plan, and what is known afterwards: all that is nominal, or fires, up to `until` is planned."""

    slots: tuple[Slot, ...]
    until: datetime
    due_at: datetime | None


def aim(schedule: Schedule, now: datetime) -> Aim:
    """Say how far `schedule` is to be planned at `now`."""
    top = schedule.settled(now + AHEAD)
    ahead = list(schedule.slots(now, top, AHEAD_SLOTS))
    following = next(schedule.next_fire_slots(top), None)
    fires = (slot.fire_at for slot in ahead if slot.fire_at > now and slot.skip is None)
    next_fire_at = next(fires, following.fire_at if following else None)
    if len(ahead) >= AHEAD_SLOTS:
        return Aim(schedule.settled(ahead[-1].nominal_at), ahead[-LEFT_SLOTS - 1].fire_at, next_fire_at)
    if following is None:
        return Aim(top, None, next_fire_at)
    if following.fire_at <= now + NEXT_WITHIN:
        until = schedule.settled(following.fire_at)
        return Aim(until, until - LEFT, next_fire_at)
    # Nothing lies between: no slot fires after its nominal instant.
    return Aim(following.fire_at - timedelta(milliseconds=1), following.fire_at - NEXT_WITHIN, next_fire_at)


def stretch(schedule: Schedule, planned_until: datetime, goal: Aim, now: datetime) -> Stretch:
    """Return what to plan behind `planned_until` to reach `goal`, in steps of at most `STEP` slots."""
    start = max(planned_until, now - CATCH_UP)
    slots = tuple(schedule.slots(start, goal.until, STEP))
    if len(slots) < STEP:
        return Stretch(slots, max(start, goal.until), goal.due_at)
    # What fires early, at the end of a gap, comes along with what is nominal there.
    until = schedule.settled(slots[-1].nominal_at)
    slots += tuple(schedule.slots(slots[-1].nominal_at, until))
    return Stretch(slots, until, goal.due_at if until >= goal.until else now)


def remainder(schedule: Schedule, planned_until: datetime, until: datetime) -> tuple[Slot, ...]:
    """Return what fires up to `until` and is not planned: what a plan that ends there still owes."""
    start = max(planned_until, until - CATCH_UP)
    slots = schedule.slots(start, schedule.settled(until))
    return tuple(slot for slot in slots if slot.nominal_at <= until or slot.fire_at <= until)
