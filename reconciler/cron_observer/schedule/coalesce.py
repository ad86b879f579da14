"""Which of several slots that come to one instant fires: the one that was not moved, else the newest."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cron_observer.schedule.evaluate import EPOCH, Slot
from cron_observer.schedule.zones import DAY, Run, Zone

#: Days of UTC that are remembered; beyond it the memory is emptied, not grown.
_REMEMBERED: Final = 256

_SECOND: Final = timedelta(seconds=1)


class Moved(NamedTuple):
    """The moved slots of one day of UTC, by nominal instant: where they fire, in order, and the newest at each."""

    fires: list[datetime]
    newest: dict[datetime, Slot]


_NONE: Final = Moved([], {})


class Meeting:
    """The moved slots of a schedule, found by where they fire.

    `judged` gives the slots that may be moved with their nominal instants in (after, until] milliseconds, calendars
    applied; `stands` says whether an unmoved slot fires at an instant (seconds). `days` is how far calendars move.
    """

    def __init__(
        self,
        zone: Zone,
        judged: Callable[[int, int], Iterator[Slot]],
        stands: Callable[[int], bool],
        *,
        forward: bool,
        backward: bool,
    ) -> None:
        self._zone = zone
        self._judged = judged
        self._stands = stands
        self._shifting = forward or backward
        # Days of UTC, beside that of the fire, in which slots that fire there may have their nominal instants:
        # two weeks, and what offsets and gaps (24 hours at most each) add. A gap moves back by 24 hours at most.
        self._before = 16 if forward else 0
        self._behind = 16 if backward else 1
        self._days: dict[int, Moved] = {}

    def marked(self, slot: Slot) -> Slot:
        """Mark a moved slot as coalesced if another one fires in its stead."""
        fire = slot.fire_at
        if self._stands((fire - EPOCH) // _SECOND):
            return slot._replace(skip="coalesced")
        for moved in self._near(fire, fire):
            newest = moved.newest.get(fire)
            if newest is not None:
                return slot if newest[:3] == slot[:3] else slot._replace(skip="coalesced")
        return slot

    def next_fire(self, after: datetime, until: datetime) -> datetime | None:
        """The first instant of (`after`, `until`] to which a slot has been moved."""
        first = None
        for moved in self._near(after, until):
            at = bisect_right(moved.fires, after)
            if at < len(moved.fires) and moved.fires[at] <= until and (first is None or moved.fires[at] < first):
                first = moved.fires[at]
        return first

    def settled(self, at: datetime) -> datetime:
        """The last nominal instant behind `at` of a slot that fires up to `at`; `at` if there is none."""
        for moved in self._near(at, at):
            early = [slot.nominal_at for fire, slot in moved.newest.items() if fire <= at and slot.nominal_at > at]
            if early:
                return max(early)
        return at

    def _near(self, first: datetime, last: datetime) -> Iterator[Moved]:
        """The days whose slots may fire between two instants, the newest first."""
        low, high = ((at - EPOCH) // _SECOND // DAY for at in (first, last))
        for day in range(high + self._behind, low - self._before - 1, -1):
            yield self._of(day)

    def _of(self, day: int) -> Moved:
        known = self._days.get(day)
        if known is not None:
            return known
        if len(self._days) >= _REMEMBERED:
            self._days.clear()
        moved = _NONE
        if self._shifting or any(isinstance(self._zone.day(near), Run) for near in (day - 1, day, day + 1)):
            newest = {
                slot.fire_at: slot
                for slot in self._judged(day * DAY * 1000 - 1, (day + 1) * DAY * 1000 - 1)
                if slot.moved_by is not None and slot.skip is None
            }
            moved = Moved(sorted(newest), newest)
        self._days[day] = moved
        return moved
