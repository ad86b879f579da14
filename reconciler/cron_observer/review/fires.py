"""Which fires of a task come, go and move when its schedule is replaced by another. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from cron_observer.model import GroupSpec, ScheduleSpec

if TYPE_CHECKING:
    from cron_observer.schedule import Schedule
    from cron_observer.schedule.shift import CalendarLike

#: Fires of one task that are compared. A task that fires more often is compared for a shorter time, which is said.
MOST_FIRES: Final = 10_000

#: How far beyond the end fires are looked at, so that one which moves across the end is seen to move.
_BEYOND: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clockwork:
    """All that decides when a task fires. `suspended`: it does not, whatever the rest says.

    `calendars` holds those that the schedule names, `group` the task group's spec if its windows narrow the fires.
    """

    spec: ScheduleSpec
    calendars: tuple[tuple[str, CalendarLike], ...] = ()
    group: GroupSpec | None = None
    suspended: bool = False

    @classmethod
    def of(
        cls,
        spec: Mapping[str, Any],
        seed: str,
        calendars: Mapping[str, CalendarLike],
        groups: Mapping[str, Mapping[str, Any]],
    ) -> Clockwork:
        """Take the effective spec of a task apart; raise `KeyError` for a calendar that is not there."""
        schedule = ScheduleSpec.read(spec["schedule"], seed)
        named = dict.fromkeys((*schedule.include, *schedule.exclude))
        found = groups.get(spec.get("group") or "")
        group = None if found is None else GroupSpec.read(found)
        suspended = bool(spec.get("suspend")) or (group is not None and group.suspend)
        narrows = group if group is not None and group.windows else None
        # Of a group only what decides about fires is kept, so that equal clockworks are equal.
        kept = None if narrows is None else GroupSpec(windows=narrows.windows, timezone=narrows.timezone)
        return cls(
            spec=schedule,
            calendars=tuple((name, calendars[name]) for name in named),
            group=kept,
            suspended=suspended,
        )

    def schedule(self) -> Schedule:
        """Compile the schedule; raise `ScheduleError` for one that cannot be."""
        from cron_observer import schedule

        return schedule.compile(self.spec, dict(self.calendars))

    def fires(self, after: datetime) -> Iterator[datetime]:
        """The instants behind `after` at which the task fires, jitter and the group's windows applied."""
        from cron_observer.schedule import Windows, zone

        if self.suspended:
            return
        windows = None if self.group is None else Windows(self.group.windows, zone(self.group.timezone))
        for slot in self.schedule().next_fire_slots(after):
            if windows is None or windows.open_at(slot.fire_at):
                yield slot.fire_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A fire that takes place at another time."""

    before: datetime
    after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FireDiff:
    """How the fires of a task differ between `since` and `until`. Instants are aware UTC, in their order.

    `until` is earlier than asked for where there are too many fires to compare. `next_before` and `next_after` may be
    later than that.
    """

    timezone: str  #: of the schedule as it will be, else as it was
    since: datetime
    until: datetime
    before: int  #: how many fires there would have been
    after: int
    removed: Sequence[datetime] = ()
    added: Sequence[datetime] = ()
    moved: Sequence[Moved] = ()
    next_before: datetime | None = None
    next_after: datetime | None = None

    @property
    def same(self) -> bool:
        """Whether nothing fires at another time."""
        return not (self.removed or self.added or self.moved)

    @property
    def first(self) -> tuple[datetime | None, datetime | None] | None:
        """The first difference: when it fired and when it will, None for not at all; None without any."""
        found: list[tuple[datetime, datetime | None, datetime | None]] = []
        found += [(at, at, None) for at in self.removed[:1]]
        found += [(at, None, at) for at in self.added[:1]]
        found += [(min(one.before, one.after), one.before, one.after) for one in self.moved[:1]]
        return min(found, key=lambda one: one[0])[1:] if found else None


def compare(before: Clockwork | None, after: Clockwork | None, now: datetime, span: timedelta) -> FireDiff:
    """Compare the fires of a task for `span` from `now` on; None where there is no task, before or after.

    Raises `ScheduleError` for a schedule that cannot be compiled.
    """
    until = now + span
    old, old_known = _listed(before, now, until + _BEYOND)
    new, new_known = _listed(after, now, until + _BEYOND)
    known = min(old_known, new_known)
    until = min(until, known)
    removed, added, moved = _paired([at for at in old if at <= known], [at for at in new if at <= known])
    shown = after or before
    return FireDiff(
        timezone=shown.spec.timezone if shown is not None else "UTC",
        since=now,
        until=until,
        before=sum(at <= until for at in old),
        after=sum(at <= until for at in new),
        removed=[at for at in removed if at <= until],
        added=[at for at in added if at <= until],
        moved=[one for one in moved if min(one.before, one.after) <= until],
        next_before=_next(before, old, now),
        next_after=_next(after, new, now),
    )


def _listed(one: Clockwork | None, now: datetime, until: datetime) -> tuple[list[datetime], datetime]:
    """Return the fires up to `until`, and up to when they are all."""
    if one is None:
        return [], until
    fires: list[datetime] = []
    for at in one.fires(now):
        if at > until:
            break
        if len(fires) == MOST_FIRES:
            return fires, fires[-1]
        fires.append(at)
    return fires, until


def _next(one: Clockwork | None, fires: Sequence[datetime], now: datetime) -> datetime | None:
    if fires or one is None:
        return fires[0] if fires else None
    return next(islice(one.fires(now), 1), None)


def _paired(old: Sequence[datetime], new: Sequence[datetime]) -> tuple[list[datetime], list[datetime], list[Moved]]:
    """Part fires into those that go, that come, and that move.

    One that goes and one that comes are one that moves when they are neighbours: nothing that stays lies between
    them, and neither has a nearer neighbour to come. Each is matched once.
    """
    stays = set(old) & set(new)
    # In the order of time: the instant, and whether it is a fire that goes (0), comes (1), or stays (2).
    marked = [(at, 2 if at in stays else 0) for at in old] + [(at, 1) for at in new if at not in stays]
    marked.sort()
    parted: tuple[list[datetime], list[datetime]] = ([], [])
    moved: list[Moved] = []
    number = 0
    while number < len(marked):
        at, side = marked[number]
        number += 1
        if side == 2:
            continue
        following = marked[number] if number < len(marked) else None
        if following is None or following[1] != 1 - side or _nearer(marked, number, following[0] - at):
            parted[side].append(at)
            continue
        moved.append(Moved(before=following[0], after=at) if side else Moved(before=at, after=following[0]))
        number += 1
    return *parted, moved


def _nearer(marked: Sequence[tuple[datetime, int]], number: int, distance: timedelta) -> bool:
    """Tell whether a fire has a neighbour of the other side behind it that is nearer than `distance`."""
    if number + 1 >= len(marked):
        return False
    (at, side), (next_at, next_side) = marked[number], marked[number + 1]
    return next_side == 1 - side and next_at - at < distance


def without_jitter(one: Clockwork) -> Clockwork:
    """Return the same without jitter, to look at what the clock alone does to it."""
    return replace(one, spec=replace(one.spec, jitter=None))
