"""What calendars do to slots: let them stand, skip them, or move them to a day that they allow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

from cron_observer.model import GapRule, OnExcluded
from cron_observer.schedule.evaluate import EPOCH, LOCAL_EPOCH, Slot
from cron_observer.schedule.zones import DAY, Zone

#: Days that an excluded slot may be moved.
REACH: Final = 14

_SECOND: Final = timedelta(seconds=1)


class CalendarLike(Protocol):
    """What the engine asks of a calendar. `label` is local, `instant` UTC, both in seconds since 1970."""

    uses_holidays: bool

    def holds(self, label: int, instant: int, zone: Zone) -> bool:
        """Whether the moment belongs to the calendar."""

    def name_of(self, label: int, instant: int, zone: Zone) -> str | None:
        """What of the calendar holds the moment."""

    def steady_until(self, label: int, instant: int, zone: Zone) -> int:
        """An instant behind `instant` before which the answer does not change."""


class Gate:
    """The calendars of a schedule: which slots they allow, and what becomes of the others."""

    def __init__(
        self,
        zone: Zone,
        include: Sequence[CalendarLike],
        exclude: Sequence[CalendarLike],
        on_excluded: OnExcluded,
        gap: GapRule,
        exists: Callable[[int, int], bool],
    ) -> None:
        self._zone = zone
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self._gap = gap
        self._exists = exists  #: whether windows, start and end leave room for a label at an instant
        self._way = {OnExcluded.SKIP: 0, OnExcluded.NEXT_ALLOWED: DAY, OnExcluded.PREVIOUS_ALLOWED: -DAY}[on_excluded]
        self.forward = self._way > 0  #: slots may fire days after their nominal instant
        self.backward = self._way < 0  #: slots may fire days before it
        self.moves = self._way != 0

    def allows(self, label: int, instant: int) -> bool:
        """Whether the calendars allow a moment."""
        zone = self._zone
        if self._include and not any(calendar.holds(label, instant, zone) for calendar in self._include):
            return False
        return not any(calendar.holds(label, instant, zone) for calendar in self._exclude)

    def steady_until(self, label: int, instant: int) -> int:
        """An instant behind `instant` before which `allows` does not change its answer."""
        calendars = (*self._include, *self._exclude)
        return min(calendar.steady_until(label, instant, self._zone) for calendar in calendars)

    def is_whole(self, day: int) -> bool:
        """Whether `day`, and each day that its slots may be moved to, is allowed or excluded as a whole."""
        for near in range(day, day + (REACH + 1) * self._way // DAY, self._way // DAY):
            place = self._zone.day(near)
            if not isinstance(place, int):
                return False
            midnight = near * DAY
            if self.steady_until(midnight, midnight - place) < midnight - place + DAY:
                return False
        return True

    def judge(self, slot: Slot) -> Slot:
        """Say what becomes of a slot to which the rule for gaps has been applied."""
        if slot.skip is not None:
            return slot
        label, instant = label_of(slot), (slot.nominal_at - EPOCH) // _SECOND
        if self.allows(label, instant):
            return slot
        if self._way:
            for _ in range(REACH):
                label += self._way
                instant, gap = self._zone.locate(label)
                if not self._exists(label, instant) or not self.allows(label, instant):
                    continue
                if gap is None or self._gap is GapRule.SHIFT:
                    fire, moved = instant, "calendar" if gap is None else "dst+calendar"
                elif self._gap is GapRule.SKIP:
                    return slot._replace(skip="dst_gap")
                else:
                    fire, moved = gap.at, "dst+calendar"
                return slot._replace(fire_at=EPOCH + timedelta(seconds=fire), moved_by=moved)
        return slot._replace(skip="calendar")

    def reason(self, slot: Slot) -> str | None:
        """Say what holds the day of a slot that is not allowed; None if it only lacks an included day."""
        label, instant = label_of(slot), (slot.nominal_at - EPOCH) // _SECOND
        names = (calendar.name_of(label, instant, self._zone) for calendar in self._exclude)
        return next((name for name in names if name is not None), None)


def label_of(slot: Slot) -> int:
    """The nominal label of a slot in seconds, a fraction cut off."""
    return (slot.nominal_local - LOCAL_EPOCH) // _SECOND
