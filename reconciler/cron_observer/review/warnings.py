"""What is worth a second look about new fire times: a task that fires far more often, a crowd, a clock change. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cron_observer.manifest.rules import Rule
from cron_observer.model import Severity
from cron_observer.review.fires import Clockwork, FireDiff, without_jitter
from cron_observer.review.words import length

if TYPE_CHECKING:
    from cron_observer.schedule import Slot

MORE_OFTEN: Final = Rule("CO1601", "task fires far more often", Severity.WARNING)
CROWD: Final = Rule("CO1602", "many tasks newly fire in one minute", Severity.WARNING)
CLOCK_CHANGE: Final = Rule("CO1603", "clock change touches the schedule", Severity.WARNING)

#: A task that fires so many times as often as before is worth a look, if it fires at least hourly then.
TIMES_MORE: Final = 10
_AT_LEAST_EVERY: Final = timedelta(hours=1)

#: So many tasks that newly fire in one minute are worth a look.
CROWDED: Final = 20

#: How far ahead clock changes are looked for, and how far around one for what it touches.
_YEAR: Final = timedelta(days=366)
_AROUND: Final = timedelta(hours=36)
_MOST_SLOTS: Final = 5_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


def more_often(diff: FireDiff) -> str | None:
    """Say that a task fires far more often; one that would not fire again is none of these."""
    span = diff.until - diff.since
    if diff.next_before is None or diff.after * _AT_LEAST_EVERY < span:
        return None
    if not diff.before:  # once in a longer time than was looked at
        times = diff.after * ((diff.next_before - diff.since) / span)
        instead = f"instead of once until {diff.next_before:%Y-%m-%d %H:%M} UTC"
        return f"it fires {diff.after:,} times in {length(span)} {instead}" if times >= TIMES_MORE else None
    times = diff.after / diff.before
    if times < TIMES_MORE:
        return None
    return f"it fires {diff.after:,} times in {length(span)} instead of {diff.before:,}: {times:,.0f} times as often"


def crowds(diffs: Mapping[str, FireDiff]) -> Iterator[tuple[str, str]]:
    """Yield the tasks that newly fire in the fullest minute, each with what is to be said, if there are too many."""
    minutes: dict[datetime, set[str]] = defaultdict(set)
    for name, diff in diffs.items():
        for at in (*diff.added, *(one.after for one in diff.moved)):
            minutes[at.replace(second=0, microsecond=0)].add(name)
    if not minutes:
        return
    fullest, names = max(minutes.items(), key=lambda one: (len(one[1]), -one[0].timestamp()))
    if len(names) < CROWDED:
        return
    first, others = min(names), len(names) - 1
    text = f"{len(names):,} tasks of this change newly fire at {fullest:%Y-%m-%d %H:%M} UTC: this one"
    yield first, f"{text} and {others:,} others"


def clock_changes(before: Clockwork | None, after: Clockwork, now: datetime) -> str | None:
    """Say what the clock changes of the next year do to a schedule, unless they did the same to it before."""
    said = touched(after, now)
    return said if said and (before is None or touched(before, now) != said) else None


def touched(one: Clockwork, now: datetime) -> str | None:
    """Say what the clock changes of the next year do to a schedule: the first that skips, the first that repeats."""
    from cron_observer.schedule import zone

    if one.suspended or not (one.spec.cron or one.spec.at):
        return None  # elapsed time is what it is
    place = zone(one.spec.timezone)
    schedule = without_jitter(one).schedule()
    at: int | None = (now - _EPOCH) // _SECOND
    last = (now + _YEAR - _EPOCH) // _SECOND
    skips = repeats = None
    while at is not None and not (skips and repeats) and (at := place.next_change(at, last)) is not None:
        change = _EPOCH + timedelta(seconds=at)
        slots = list(schedule.slots(change - _AROUND, change + _AROUND, _MOST_SLOTS))
        skips = skips or next(filter(None, (_skipped(slot, place.info) for slot in slots)), None)
        repeats = repeats or next(_repeated(slots, place.info), None)
    zoned = one.spec.timezone
    return "; ".join(said.format(zone=zoned) for said in (skips, repeats) if said) or None


def _skipped(slot: Slot, info: ZoneInfo) -> str | None:
    """Say what a jump forward does to a slot."""
    if slot.skip != "dst_gap" and (slot.moved_by is None or "dst" not in slot.moved_by):
        return None
    if slot.skip == "dst_gap":
        what = "it does not fire that day"
    elif slot.skip == "coalesced":
        what = "another slot fires in its stead"
    else:
        what = f"it fires at {slot.fire_at.astimezone(info):%H:%M}"
    return f"{slot.nominal_local:%H:%M} does not exist on {slot.nominal_local:%Y-%m-%d} in {{zone}}: {what}"


def _repeated(slots: Sequence[Slot], info: ZoneInfo) -> Iterator[str]:
    """Yield what a jump back does to slots whose time comes twice, where they do not simply fire both times."""
    passes: dict[datetime, set[int]] = defaultdict(set)
    for slot in slots:
        first = slot.nominal_local.replace(tzinfo=info)
        if slot.skip is None and slot.moved_by is None and first.utcoffset() != first.replace(fold=1).utcoffset():
            passes[slot.nominal_local].add(slot.fold)
    for label, folds in passes.items():
        if len(folds) == 1:
            which = "second" if 1 in folds else "first"
            yield f"{label:%H:%M} comes twice on {label:%Y-%m-%d} in {{zone}}: it fires the {which} time only"
