"""How far ahead a schedule is planned, and when to plan again. Pure.

The promise: at every moment, what fires within the next hour is planned, or 720 slots if that is less; and so is
the next slot, if it comes within 48 hours. To keep it between two looks, planning goes a quarter further than
promised and comes back when a part of that is used up. `docs/explanation/slots.md` shows the sums.

Planning goes by nominal instants, the promise by the instants at which slots fire. Calendars move a slot by 14 days
at most, either way, and jitter by one more; `Schedule.settled` says how far nominal instants have to be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
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

#: How long before and after its nominal instant a slot may fire: 14 days by calendars, one by jitter.
EARLIEST: Final = timedelta(days=14)
LATEST: Final = timedelta(days=15)

#: After a longer absence of every planner, slots older than this are not invented any more. It is more than
#: `LATEST`, so that what a calendar has moved to a later day is never taken for too old.
CATCH_UP: Final = timedelta(days=31)

#: Slots of one schedule in one planning. An absence is caught up in steps of this.
STEP: Final = 20_000

_INSTANT: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Aim:
    """Up to which nominal instant a schedule is to be planned, and when to look again (None: it has ended).

    `next_fire_at` is None, too, when nothing fires for as long as the schedule looks.
    """

    until: datetime
    due_at: datetime | None
    next_fire_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slots to plan, and what is known afterwards: all that is nominal up to `until` is planned."""

    slots: tuple[Slot, ...]
    until: datetime
    due_at: datetime | None


def aim(schedule: Schedule, now: datetime) -> Aim:
    """Say how far `schedule` is to be planned at `now`."""
    next_fire = next(schedule.next_fire_slots(now), None)
    next_fire_at = next_fire.fire_at if next_fire else None
    firing = (slot for slot in schedule.slots(now, now + AHEAD) if slot.skip is None)
    near = list(islice(firing, AHEAD_SLOTS))
    if len(near) >= AHEAD_SLOTS:
        # So dense is only what no calendar moves: it fires in the order of its nominal instants.
        due_at = sorted(slot.fire_at for slot in near)[-LEFT_SLOTS - 1]
        return Aim(schedule.settled(near[-1].nominal_at), max(due_at, now + _INSTANT), next_fire_at)
    return Aim(*_beyond(schedule, now), next_fire_at)


def _beyond(schedule: Schedule, now: datetime) -> tuple[datetime, datetime | None]:
    """Say how far to plan, and when to look again, where few slots fire within `AHEAD`."""
    top = schedule.settled(now + AHEAD)
    within = max(top, schedule.settled(now + NEXT_WITHIN))
    coming = list(schedule.slots(top, within, AHEAD_SLOTS))
    fires = [slot.fire_at for slot in coming if slot.skip is None and slot.fire_at <= now + NEXT_WITHIN]
    if fires:
        return schedule.settled(min(fires)), min(fires) - LEFT
    if len(coming) >= AHEAD_SLOTS:
        # So dense is only what no calendar moves: what fires next does so behind all of these.
        following = next(schedule.next_fire_slots(top), None)
        if following is not None and following.fire_at <= now + NEXT_WITHIN:
            return schedule.settled(following.nominal_at), following.fire_at - LEFT
        known = coming[-1].nominal_at
        again = known - LEFT if following is None else min(known - LEFT, following.fire_at - NEXT_WITHIN)
        return schedule.settled(known), again
    following = schedule.next_slot(within)
    if following is None:
        return within, None
    # Whatever is nominal behind that fires later than `following`; what lies before may fire earlier than it.
    settled = max(following.nominal_at, schedule.settled(following.fire_at))
    ahead = [slot.fire_at for slot in schedule.slots(within, settled) if slot.skip is None]
    # What is skipped counts by its nominal instant: it may have been moved onto one that is long over.
    return within, min([*ahead, following.nominal_at]) - NEXT_WITHIN


def stretch(schedule: Schedule, planned_until: datetime, goal: Aim, now: datetime) -> Stretch:
    """Return what to plan behind `planned_until` to reach `goal`, in steps of at most `STEP` slots."""
    start = max(planned_until, now - CATCH_UP)
    slots = tuple(schedule.slots(start, goal.until, STEP))
    if len(slots) < STEP:
        return Stretch(slots, max(start, goal.until), goal.due_at)
    until = slots[-1].nominal_at
    return Stretch(slots, until, goal.due_at if until >= goal.until else now)


def remainder(schedule: Schedule, planned_until: datetime, until: datetime) -> tuple[Slot, ...]:
    """Return what is nominal, or fires, up to `until` and is not planned: what a plan that ends there still owes."""
    start = max(planned_until, until - CATCH_UP)
    slots = schedule.slots(start, schedule.settled(until))
    return tuple(slot for slot in slots if slot.nominal_at <= until or slot.fire_at <= until)
