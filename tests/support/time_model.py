"""A model of one task's slots: what has been wanted from when on, and what must have become of each slot.

Only the engine is used, to name the slots of a schedule. A fate with a question mark may also be too_late: whoever
plans late says at once what is too old, others find out when they look.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cron_observer.model import ScheduleSpec
from cron_observer.schedule import Slot
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule.calendars import read_calendar

#: An edit, and the end of a pause, take effect this long after they are made.
MARGIN = timedelta(seconds=5)
#: What `catchup: last` still runs.
WINDOW = timedelta(hours=1)
#: Calendars and jitter move no slot of these schedules further, nor does a gap.
FAR = timedelta(days=2)
#: What the calendars of these schedules hold: one day, on which Berlin's clock jumps.
_DAY = {"timezone": None, "dates": [["2026-03-29", "2026-03-29"]], "yearly": [], "weekdays": []}
CLOSED: dict[str, Any] = {"parts": [{**_DAY, "holidays": [], "spans": []}]}


@dataclass
class Hold:
    """A pause: from when until when, and whether the newest slot of it is made up for."""

    since: datetime
    last: bool
    end: datetime | None
    open: bool = True  #: nobody has ended it

    def over(self, at: datetime) -> bool:
        """Whether it holds an instant."""
        return self.since <= at and (self.end is None or at < self.end)


@dataclass
class Model:
    """One task. Schedules are blocks of the manifest; None stands for no slots at all."""

    seed: str
    wanted: dict[str, Any] | None = None
    gone: bool = False
    since: list[tuple[datetime, dict[str, Any] | None]] = field(default_factory=list)
    pauses: list[Hold] = field(default_factory=list)
    fates: dict[Slot, str] = field(default_factory=dict)

    def want(self, block: dict[str, Any] | None, now: datetime) -> None:
        """Note what the author wants from now on; the same again changes nothing."""
        if block != self.wanted:
            self.wanted = block
            self.since.append((now + MARGIN, block))

    def pause(self, now: datetime, *, last: bool, until: datetime | None) -> None:
        """Begin a pause, or say anew of the one there is when and how it ends."""
        held = self.paused(now)
        if held is None:
            self.pauses.append(Hold(now, last, until))
        else:
            held.last, held.end = last, until

    def paused(self, now: datetime) -> Hold | None:
        """Return the pause that nobody has ended, and whose time has not come."""
        return next((one for one in self.pauses if one.open and one.over(now)), None)

    def resume(self, now: datetime) -> None:
        """End the pause: a last look at what waits, while it still holds."""
        held = self.paused(now)
        if held is not None:
            self.look(now, claiming=False)
            held.open, held.end = False, min(now + MARGIN, held.end or now + MARGIN)

    def slots(self, until: datetime) -> Iterator[Slot]:
        """Yield every slot that fires up to then: each stretch of time has the schedule that was wanted in it.

        One that a calendar has moved ahead, and that has fired, is not made again by a schedule that names it too.
        """
        seen = set()
        ends = [at for at, _ in self.since[1:]] + [None]
        for (start, block), end in zip(self.since, ends, strict=True):
            if block is None:
                continue
            schedule = compile_schedule(ScheduleSpec.read(block, self.seed), {"closed": read_calendar(CLOSED)})
            for slot in schedule.slots(start, (end or until) + (FAR if "onExcluded" in block else WINDOW)):
                begun = slot.fire_at > start
                ended = end is not None and slot.nominal_at > end and slot.fire_at > end
                if begun and not ended and slot.fire_at <= until and slot[:3] not in seen:
                    seen.add(slot[:3])
                    yield slot

    def known(self, slot: Slot) -> str | None:
        """Say what is known of a slot beforehand."""
        if slot.skip is not None:
            return f"SKIPPED {slot.skip}"
        return "SKIPPED paused" if any(one.over(slot.fire_at) for one in self.pauses) else None

    def look(self, now: datetime, *, claiming: bool) -> None:
        """Let somebody look at what is due: a scheduler gives outcomes, a worker also runs what may run."""
        due = [slot for slot in self.slots(now) if slot not in self.fates and self.known(slot) is None]
        held = any(one.over(now) for one in self.pauses)
        if self.gone or held:
            self.fates |= dict.fromkeys(due, "SKIPPED task_deleted?" if self.gone else "SKIPPED paused?")
            return
        fresh = [slot for slot in due if now - slot.fire_at <= WINDOW]
        newest = max(fresh, key=lambda slot: slot.fire_at, default=None)
        self.fates |= {slot: "SKIPPED too_late" for slot in due if slot is not newest}
        if claiming and newest is not None:
            self.fates[newest] = "FINISHED"

    def told(self, now: datetime) -> dict[Slot, str]:
        """Return the fate of every slot that is due, or fires within the next hour."""
        return {slot: self.fates.get(slot) or self.known(slot) or "PENDING" for slot in self.slots(now + WINDOW)}
