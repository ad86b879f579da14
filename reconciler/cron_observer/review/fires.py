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

    `until` is earlier than asked for where there are too many fires to compare. `next_before` and `next_after` are
    looked for `until` the end of that time at most.
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
    old, old_until = _listed(before, now, until)
    new, new_until = _listed(after, now, until)
    until = min(old_until, new_until)
    old = [at for at in old if at <= until]
    new = [at for at in new if at <= until]
    removed, added, moved = _paired(old, new)
    shown = after or before
    return FireDiff(
        timezone=shown.spec.timezone if shown is not None else "UTC",
        since=now,
        until=until,
        before=len(old),
        after=len(new),
        removed=removed,
        added=added,
        moved=moved,
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

    A fire that goes and one that comes are one that moves when they are neighbours: nothing that stays lies between
    them, and each is matched once.
    """
    stays = set(old) & set(new)
    marked = sorted([(at, 0) for at in old] + [(at, 1) for at in new if at not in stays])
    removed: list[datetime] = []
    added: list[datetime] = []
    moved: list[Moved] = []
    waiting: tuple[datetime, int] | None = None
    sides = (removed, added)
    for at, side in marked:
        if at in stays or waiting is None or waiting[1] == side:
            if waiting is not None:
                sides[waiting[1]].append(waiting[0])
            waiting = None if at in stays else (at, side)
        else:
            moved.append(Moved(before=at, after=waiting[0]) if side == 0 else Moved(before=waiting[0], after=at))
            waiting = None
    if waiting is not None:
        sides[waiting[1]].append(waiting[0])
    return removed, added, moved


def without_jitter(one: Clockwork) -> Clockwork:
    """Return the same without jitter, to look at what the clock alone does to it."""
    return replace(one, spec=replace(one.spec, jitter=None))
