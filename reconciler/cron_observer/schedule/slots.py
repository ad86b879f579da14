"""A compiled schedule, asked for its slots.

Slots pass through stages, each a generator over nominal instants in milliseconds: the union of the members with the
rule for gaps applied; windows, start and end, which say what exists; calendars, which skip and move; what falls
together; and jitter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heappop, heappush, merge
from itertools import islice
from typing import Final

from cron_observer.schedule.coalesce import Meeting
from cron_observer.schedule.evaluate import END, EPOCH, FIRST, Member, Slot
from cron_observer.schedule.jitter import Jitter
from cron_observer.schedule.shift import REACH, Gate, label_of
from cron_observer.schedule.windows import Windows
from cron_observer.schedule.zones import DAY, Zone

_SECOND: Final = timedelta(seconds=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FOREVER: Final = EPOCH + timedelta(seconds=END)

#: Where a search for the next slot that windows and calendars leave gives up: so long after the last one (every kind
#: of year comes within 40 years), or after so much work in vain. A slot that is skipped is one of it, a day that is
#: leapt over 50 (ten years of days), a slot that calendars would move 5.
GIVE_UP: Final = timedelta(days=41 * 366)
GIVE_UP_WORK: Final = 200_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What says which slots of the members exist at all. Instants are milliseconds since 1970."""

    windows: Windows
    first: int = FIRST * 1000  #: the first nominal instant that may be a slot
    end: int = END * 1000  #: the first that may not any more

    def holds(self, label: int, instant: int) -> bool:
        """Whether there may be a slot with this label and nominal instant, in seconds."""
        return self.first <= instant * 1000 < self.end and self.windows.shows(label)


class Schedule:
    """A compiled schedule: pure, unchangeable, safe to share between threads."""

    def __init__(
        self,
        zone: Zone,
        members: tuple[Member, ...],
        bounds: Bounds,
        gate: Gate | None,
        jitter: Jitter | None,
        *,
        early: bool,
    ) -> None:
        self._zone = zone
        self._members = members
        self._bounds = bounds
        self._gate = gate
        self._jitter = jitter
        self._early = early  #: what a gap swallows fires before its nominal instant
        self._movers = tuple(member for member in members if member.moves)
        self._meeting = Meeting(
            zone,
            lambda after, until: self._judged(after, until, self._movers),
            self._stands,
            forward=gate is not None and gate.forward,
            backward=gate is not None and gate.backward,
        )
        self._narrowed = gate is not None or not bounds.windows.always
        self._members_next = [member.next_plain for member in members]

    @property
    def timezone(self) -> str:
        """The IANA name of the zone in which the schedule is read."""
        return self._zone.key

    def slots(self, after: datetime, until: datetime, limit: int | None = None) -> Iterator[Slot]:
        """The slots whose nominal instant lies in (`after`, `until`], in the order of `Slot`, jitter applied.

        Nominal instants rise strictly, with one exception: a label that a gap swallows shares its nominal
        instant with the label as far behind the gap. Two such are never parted: the one that `limit` would
        cut off is given all the same. Instants before 1970 or after 2200 are never produced.
        """
        slots = self._marked(_floor(after, _MILLISECOND), _floor(until, _MILLISECOND))
        if self._jitter is not None:
            slots = map(self._delayed, slots)
        return slots if limit is None else _cut(slots, limit)

    def next_slot(self, after: datetime) -> Slot | None:
        """The first slot with a nominal instant behind `after`, skipped or not; None if there is none."""
        return next(self.slots(after, _FOREVER), None)

    def next_fire_slots(self, after: datetime) -> Iterator[Slot]:
        """The slots that fire strictly behind `after`, in order of `fire_at`, jitter applied, without skipped ones.

        Like `next_fires` it ends where it gives up.
        """
        if self._jitter is None:
            return self._fire_slots(after)
        delayed = map(self._delayed, self._fire_slots(max(after, EPOCH) - self._jitter.most))
        return (slot for slot in delayed if slot.fire_at > after)

    def next_fires(self, after: datetime, count: int) -> list[datetime]:
        """The first `count` instants at which the schedule fires behind `after`, before jitter: fewer if it ends.

        It gives up `GIVE_UP` or `GIVE_UP_WORK` behind the last fire, so that windows and calendars that leave
        nothing cannot hold it up.
        """
        if count == 1:
            fire = self.next_fire(after)
            return [] if fire is None else [fire]
        return [slot.fire_at for slot in islice(self._fire_slots(after), max(count, 0))]

    def next_fire(self, after: datetime) -> datetime | None:
        """The first instant at which the schedule fires behind `after`, before jitter; None as in `next_fires`."""
        if not self._narrowed and after.tzinfo is not None:
            past = after - EPOCH
            fire = self._plain_fire(past.days * 86_400_000 + past.seconds * 1000 + past.microseconds // 1000)
            if fire is not None:
                return fire
        slot = next(self._fire_slots(after), None)
        return None if slot is None else slot.fire_at

    def settled(self, at: datetime) -> datetime:
        """The nominal instant up to which slots must be known to know all that fires up to `at`.

        It is `at`, but for the length of a gap after the clock jumps forward (what the gap swallowed has fired at
        the jump, while its nominal instants still lie ahead), and for days that calendars exclude, if what falls
        on them fires on a day before.
        """
        if self._early:
            whole = _floor(at, _SECOND)
            settled = self._zone.settled(whole)
            if settled != whole:
                return max(EPOCH + timedelta(seconds=settled), self._settled_days(at))
        return self._settled_days(at)

    def _settled_days(self, at: datetime) -> datetime:
        return self._meeting.settled(at) if self._gate is not None and self._gate.backward else at

    def reason(self, slot: Slot) -> str:
        """Say why the calendars do not allow the nominal day of a slot: the holiday, the date, the weekday."""
        named = None if self._gate is None else self._gate.reason(slot)
        return named or "no day of the calendars that are included"

    # -- stages ------------------------------------------------------------------------------------------------

    def _union(self, after: int, until: int, members: Sequence[Member]) -> Iterator[Slot]:
        if len(members) == 1:
            return members[0].slots(after, until)
        return _distinct(merge(*(member.slots(after, until) for member in members)))

    def _existing(self, after: int, until: int, members: Sequence[Member]) -> Iterator[Slot]:
        """What windows, start and end leave of the union."""
        after, until = max(after, self._bounds.first - 1), min(until, self._bounds.end - 1)
        if self._bounds.windows.always:
            return self._union(after, until, members)
        return self._windowed(after, until, members)

    def _windowed(self, after: int, until: int, members: Sequence[Member]) -> Iterator[Slot]:
        """Leap from window to window; far from any slot, give up."""
        shows = self._bounds.windows.shows
        patience = after + GIVE_UP // _MILLISECOND
        while True:
            for slot in self._union(after, until, members):
                label = label_of(slot)
                nominal = (slot.nominal_at - EPOCH) // _MILLISECOND
                if shows(label):
                    patience = nominal + GIVE_UP // _MILLISECOND
                    yield slot
                elif (opening := self._opening(label)) > nominal:
                    after = opening
                    break
            else:
                return
            if after > patience:
                return

    def _opening(self, label: int) -> int:
        """Milliseconds up to which windows stay closed; 0 near a clock change, where nothing is promised."""
        place = self._zone.day(label // DAY)
        if not isinstance(place, int):
            return 0
        midnight = (label // DAY + 1) * DAY
        opens = self._bounds.windows.opens_behind(label)
        return (min(midnight if opens is None else opens, midnight) - place) * 1000 - 1

    def _judged(self, after: int, until: int, members: Sequence[Member]) -> Iterator[Slot]:
        """Calendars applied."""
        slots = self._existing(after, until, members)
        return slots if self._gate is None else map(self._gate.judge, slots)

    def _marked(self, after: int, until: int) -> Iterator[Slot]:
        """What falls together coalesced."""
        marked = self._meeting.marked
        for slot in self._judged(after, until, self._members):
            yield slot if slot.moved_by is None or slot.skip is not None else marked(slot)

    def _stands(self, instant: int) -> bool:
        """Whether a slot fires at its nominal instant `instant`, in seconds, without having been moved."""
        if not any(member.fires_at(instant) for member in self._members):
            return False
        label = instant + self._zone.offset(instant)
        return self._bounds.holds(label, instant) and (self._gate is None or self._gate.allows(label, instant))

    def _delayed(self, slot: Slot) -> Slot:
        """Jitter applied, up to the schedule's next fire."""
        if self._jitter is None or slot.skip is not None:
            return slot
        fire, until = slot.fire_at, slot.fire_at + self._jitter.most
        following = self._meeting.next_fire(fire, until)
        after = (fire - EPOCH) // _MILLISECOND
        last = ((following or until) - EPOCH) // _MILLISECOND
        for other in self._judged(after, last, self._members):
            if other.skip is None and other.moved_by is None:
                last = (other.nominal_at - EPOCH) // _MILLISECOND
                return self._jitter.delayed(slot, last)
        return self._jitter.delayed(slot, None if following is None else last)

    # -- fires -------------------------------------------------------------------------------------------------

    def _plain_fire(self, after: int) -> datetime | None:
        """The next fire by arithmetic; None where there is a clock change near, or an end."""
        after = max(after, self._bounds.first - 1)
        if after >= self._bounds.end:
            return None
        fire = self._bounds.end
        for member_next in self._members_next:
            found = member_next(after)
            if found is None:
                return None
            fire = min(fire, found)
        if fire >= self._bounds.end:
            return None
        return EPOCH + timedelta(0, fire // 1000, fire % 1000 * 1000)

    def _fire_slots(self, after: datetime) -> Iterator[Slot]:
        """The slots that fire behind `after`, in order, before jitter."""
        start = max(after, EPOCH) - timedelta(days=16) if self._gate is not None and self._gate.forward else after
        waiting: list[tuple[datetime, Slot]] = []
        settled = start
        for slot in self._searched(_floor(start, _MILLISECOND)):
            while waiting and settled < slot.nominal_at:
                yield heappop(waiting)[1]
                if waiting:
                    settled = self.settled(waiting[0][0])
            if slot.fire_at > after:
                heappush(waiting, (slot.fire_at, slot))
                settled = self.settled(waiting[0][0])
        while waiting:
            yield heappop(waiting)[1]

    def _searched(self, after: int) -> Iterator[Slot]:
        """The slots that are not skipped, leaping over what calendars exclude; it gives up."""
        if not self._narrowed:
            yield from (slot for slot in self._marked(after, END * 1000) if slot.skip is None)
            return
        patience, work = after + GIVE_UP // _MILLISECOND, 0
        moves = self._gate is not None and self._gate.moves
        while True:
            for slot in self._marked(after, END * 1000):
                work += 5 if moves else 1
                nominal = (slot.nominal_at - EPOCH) // _MILLISECOND
                if slot.skip is None:
                    patience, work = nominal + GIVE_UP // _MILLISECOND, 0
                    yield slot
                elif nominal > patience or work > GIVE_UP_WORK:
                    return
                elif (opening := self._allowed_from(slot)) > nominal:
                    after = opening
                    work += 50
                    break
            else:
                return

    def _allowed_from(self, slot: Slot) -> int:
        """Milliseconds up to which calendars skip all that comes behind a slot that they skip; 0 if nobody knows."""
        if self._gate is None or slot.skip != "calendar":
            return 0
        label = label_of(slot)
        if not self._gate.moves:
            return self._gate.steady_until(label, (slot.nominal_at - EPOCH) // _SECOND) * 1000 - 1
        place = self._zone.day(label // DAY)
        if not isinstance(place, int) or not self._bounds.windows.always:
            return 0
        midnight = (label // DAY + 1) * DAY - place
        reach = (REACH + 2) * DAY
        inside = self._bounds.first <= (midnight - reach) * 1000 and (midnight + reach) * 1000 <= self._bounds.end
        return midnight * 1000 - 1 if inside and self._gate.is_whole(label // DAY) else 0


def _floor(at: datetime, unit: timedelta) -> int:
    """Whole units since 1970, rounded down. Raise `ValueError` for a time without a zone."""
    if at.tzinfo is None:
        raise ValueError("a schedule is asked with aware times")
    return (at - EPOCH) // unit


def _distinct(slots: Iterator[Slot]) -> Iterator[Slot]:
    last = None
    for slot in slots:
        if slot[:3] != last:
            yield slot
        last = slot[:3]


def _cut(slots: Iterator[Slot], limit: int) -> Iterator[Slot]:
    """The first `limit` slots, and one more if it shares the last one's nominal instant."""
    last = None
    for number, slot in enumerate(slots):
        if number >= limit and slot.nominal_at != last:
            return
        yield slot
        last = slot.nominal_at
