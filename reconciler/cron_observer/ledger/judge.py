"""What is wrong with the ledger of one task: its rows compared with the slots that its plans owe. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from cron_observer.ledger.facts import Defect, Generation, Range, Row, Verdict
from cron_observer.ledger.nominal import Nominal, nominal_slots, slot_id
from cron_observer.lifecycle import OFFERED_FOR
from cron_observer.model import OnExcluded, ScheduleSpec

#: Whoever settles and expires may be away for a moment.
PATIENCE: Final = timedelta(minutes=10)

#: How far a clock change alone may move a slot.
GAP: Final = timedelta(days=1)

#: How far calendars may.
SHIFT: Final = timedelta(days=15)

#: Defects of a task that are told one by one; the rest is counted.
MOST: Final = 1_000

_TICK: Final = timedelta(microseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER: Final = 900


@dataclass(frozen=True, slots=True)
class _Owed:
    """A slot that a generation owns."""

    slot: Nominal
    id: UUID
    spec: ScheduleSpec
    demanded: bool  #: its row, or its place in a range, must be there


@dataclass(frozen=True, slots=True)
class _Read:
    """A generation whose schedule could be read, and until when it owns."""

    after: datetime
    until: datetime | None
    spec: ScheduleSpec
    calendars: Mapping[str, Any]

    @property
    def slack(self) -> timedelta:
        """How far a slot's fire time may lie from its nominal instant."""
        shifts = self.spec.on_excluded is not OnExcluded.SKIP and (self.spec.include or self.spec.exclude)
        return GAP + (SHIFT if shifts else timedelta()) + (self.spec.jitter or timedelta())


class Judge:
    """Walks the history of one task, stretch by stretch of whole UTC days, and says what is wrong."""

    def __init__(
        self,
        task_uid: UUID,
        task: str,
        generations: Sequence[Generation],
        contents: Mapping[str, Any],
        *,
        planned_until: datetime,
        until: datetime,
        now: datetime,
        weeks: Iterable[datetime] | None = None,
        versions: tuple[str, str] = ("", ""),
        max_lateness: timedelta | None = None,
        quarantined: bool = False,
    ) -> None:
        """`generations` rise; `contents` are those of calendars by digest; nothing nominal after `until` is demanded.

        `weeks` are the Mondays of the partitions that still exist (None: all); `versions` those of the zone data
        and of the public holidays that are used here.
        """
        self._uid, self._task = task_uid, task
        self._until, self._now = until, now
        self._weeks = None if weeks is None else frozenset(weeks)
        self._versions = versions
        self._max_lateness = max_lateness
        self._quarantined = quarantined
        self._generations = generations
        self._planned_until = planned_until
        self.verdict = Verdict(generations=len(generations))
        self._unread: list[tuple[datetime, datetime | None]] = []
        self._read: list[_Read] = []
        following: datetime | None = None
        for one in reversed(generations):
            if one.active:
                self._take(one, following, contents)
            # An edit whose transaction was slow may take effect after the one behind it.
            following = one.effective_from if following is None else min(following, one.effective_from)
        self._missing: dict[UUID, _Owed] = {}
        self._unplanned: list[datetime] = []
        self._strays: list[Row] = []

    def _take(self, one: Generation, until: datetime | None, contents: Mapping[str, Any]) -> None:
        """Read a generation's schedule, so that it is known what it owns."""
        try:
            spec = ScheduleSpec.read(one.schedule, one.schedule.get("seed"))
            named = {name: _calendar(name, contents) for name in (*spec.include, *spec.exclude)}
            nominal_slots(spec, named, one.effective_from, one.effective_from)
        except Exception:  # noqa: BLE001  whatever is wrong with it, the planner could not read it either
            self.verdict.unreadable += 1
            self._unread.append((one.effective_from, until))
        else:
            self._read.append(_Read(one.effective_from, until, spec, named))

    @property
    def begins(self) -> datetime:
        """When the history of the task begins."""
        return self._generations[0].effective_from

    @property
    def slack(self) -> timedelta:
        """How far from a stretch the rows of its slots may fire."""
        return max((one.slack for one in self._read), default=GAP)

    def stretch(self, start: datetime, end: datetime, rows: Iterable[Row], ranges: Iterable[Range]) -> None:
        """Compare what is nominal from `start` to before `end` (midnights, UTC) with the rows around it."""
        owed = self._owed(start, end)
        mine = {row.id: row for row in rows if self._belongs(row, start, end)}
        self.verdict.slots += sum(one.slot.at <= self._until for one in owed.values())
        for identity, one in owed.items():
            if identity in mine:
                self._compare(mine[identity], one)
        left = {identity: one for identity, one in owed.items() if identity not in mine}
        labels = {(one.slot.label, one.slot.fold): identity for identity, one in owed.items()}
        for row in mine.values():
            if row.id not in owed:
                self._stray(row, owed, labels, left, mine)
        for found in ranges:
            self._range(found, left)
        self._missing |= {identity: one for identity, one in left.items() if one.demanded}
        late = self._until - PATIENCE
        self._unplanned += [one.slot.at for one in left.values() if self._planned_until < one.slot.at <= late]

    def ahead(self, rows: Iterable[Row]) -> None:
        """Look at forecasts: each must carry the id of its slot."""
        for row in rows:
            self._own_id(row)

    def suspects(self) -> list[UUID]:
        """Return the ids of slots without a row so far, to be looked for by id."""
        self._settle_strays()
        return list(self._missing)[:MOST]

    def finish(self, found: Iterable[Row] = (), repeated: Iterable[UUID] = ()) -> Verdict:
        """Return what is wrong. `found` are rows with ids that were suspected; a slot that a run repeats is mended."""
        for identity in repeated:
            self._missing.pop(identity, None)
        for row in found:
            one = self._missing.pop(row.id, None)
            if one is not None:
                self._compare(row, one)
        for identity, one in self._missing.items():
            self._tell_missing(identity, one)
        if self._unplanned and not self._quarantined:
            first, last = min(self._unplanned), max(self._unplanned)
            what = f"{len(self._unplanned)} slots that are due have not been planned yet"
            self._told(f"{_iso(first)} to {_iso(last)}", "unplanned", what, _MEND_OPEN)
        return self.verdict

    def _belongs(self, row: Row, start: datetime, end: datetime) -> bool:
        """Say whether a row is judged in this stretch: by its id, or by its fire time when that is far from the id."""
        at = _EPOCH + timedelta(milliseconds=row.id.int >> 80)
        return start <= at < end or (abs(row.fire_at - at) > self.slack and start <= row.fire_at < end)

    def _owed(self, start: datetime, end: datetime) -> dict[UUID, _Owed]:
        owed: dict[UUID, _Owed] = {}
        for one in self._read:
            last = end - _TICK if one.until is None else min(end - _TICK, one.until + one.slack)
            after = max(start - _TICK, one.after)
            if after >= last:
                continue
            for slot in nominal_slots(one.spec, one.calendars, after, last):
                surely = _owns(one, slot)
                if surely is None:
                    continue
                identity = slot_id(self._uid, slot.at, slot.label, slot.fold)
                demanded = surely and self._demands(one, slot)
                known = owed.get(identity)
                owed[identity] = _Owed(slot, identity, one.spec, demanded or (known is not None and known.demanded))
        return owed

    def _demands(self, one: _Read, slot: Nominal) -> bool:
        """Say whether a slot must have been planned, and kept, by now."""
        if slot.at > self._until or (one.until is None and slot.at > self._planned_until):
            return False
        day = slot.at.replace(hour=0, minute=0, second=0, microsecond=0)
        return self._weeks is None or day - timedelta(days=day.weekday()) in self._weeks

    def _compare(self, row: Row, one: _Owed) -> None:
        """Judge a row that has the id of a slot."""
        slot = one.slot
        if (row.nominal_at, row.nominal_local, row.nominal_fold) != (slot.at, slot.label, slot.fold):
            said = _label(row.nominal_local, row.nominal_fold, row.timezone)
            self._tell_moved(one, row, f"its row says {said}, and that this is {_iso(row.nominal_at)}")
        else:
            self._fire_time(row, one)
        self._outcome(row)

    def _fire_time(self, row: Row, one: _Owed) -> None:
        slot, moved_by = one.slot, (row.moved_by or "").split("+")
        by_calendar = bool(one.spec.include or one.spec.exclude)
        if by_calendar and row.holidays_version not in (None, self._versions[1]):
            return  # other days may have been public holidays then
        if row.status == "SKIPPED" and row.reason == "calendar" and slot.allowed:
            self._tell(row, "misjudged", "it was skipped for its calendars, which allow it", _MEND_ROW)
        known = row.tzdata_version in (None, self._versions[0])
        if row.status == "SKIPPED" and row.reason == "dst_gap" and slot.allowed and slot.fires and known:
            self._tell(row, "misjudged", "it was skipped for a clock change, which leaves it alone", _MEND_ROW)
        if row.status == "SKIPPED" and row.fire_at in slot.stands:
            return
        if not slot.fires:
            what = "its label is swallowed by a clock change" if slot.allowed else "its calendars exclude it"
            if row.status not in ("SKIPPED", "MISSED"):
                self._tell(row, "misjudged", f"it is {row.status}, though {what}", _MEND_ROW)
            return
        jitter = (one.spec.jitter or timedelta()) if "jitter" in moved_by else timedelta()
        if not any(fire <= row.fire_at <= fire + jitter for fire in slot.fires):
            due = " or ".join(_iso(fire) for fire in slot.fires)
            self._tell_moved(one, row, f"it fires at {_iso(row.fire_at)} instead of {due}")

    def _outcome(self, row: Row) -> None:
        """Judge what became of a slot that is due."""
        if row.status in ("SKIPPED", "MISSED"):
            if row.reason is None:
                self._tell(row, "unreasoned", f"it is {row.status} without a reason", _MEND_ROW)
            return
        if row.fire_at > self._now:
            return
        if row.status == "RUNNING" and row.check_at is not None and row.check_at + PATIENCE < self._now:
            self._tell(row, "open", f"its lease or deadline ran out at {_iso(row.check_at)}", _MEND_OPEN)
        if row.status == "PENDING" and self._overdue(row) + PATIENCE < self._now:
            self._tell(
                row, "open", f"it waits since {_iso(row.available_at)}, longer than its policy allows", _MEND_OPEN
            )

    def _overdue(self, row: Row) -> datetime:
        """Return from when on a waiting slot must have been settled."""
        limits = [row.available_at + OFFERED_FOR]
        if row.start_deadline is not None:
            limits.append(row.start_deadline)
        if row.fence == 0:
            limits += [row.closes_at] if row.closes_at is not None else []
            limits += [row.fire_at + self._max_lateness] if self._max_lateness is not None else []
        return max(min(limits), row.available_at)

    def _stray(
        self,
        row: Row,
        owed: Mapping[UUID, _Owed],
        labels: Mapping[tuple[datetime, int], UUID],
        left: dict[UUID, _Owed],
        mine: Mapping[UUID, Row],
    ) -> None:
        """Judge a row whose id is that of no slot: by its label, now or when everything is seen."""
        identity = labels.get((row.nominal_local, row.nominal_fold))
        if identity is None:
            if self._judged(row) and len(self._strays) < MOST:
                self._strays.append(row)
        elif identity in mine:
            self._tell_doubled(row, f"execution {identity} is the same slot")
        else:
            left.pop(identity, None)
            self._renamed(row, owed[identity])

    def _renamed(self, row: Row, one: _Owed) -> None:
        """Judge a row that has the label of a slot and not its id: fair only if zones were otherwise then."""
        mine = slot_id(self._uid, row.nominal_at, row.nominal_local, row.nominal_fold)
        if row.id == mine and row.tzdata_version not in (None, self._versions[0]):
            self._outcome(row)
        else:
            self._tell_moved(one, row, f"its id is {row.id}, not that of its slot, {one.id}")

    def _judged(self, row: Row) -> bool:
        """Say whether a row that no generation owns is wrong for that."""
        if row.nominal_at > self._until and row.fire_at > self._until:
            self._own_id(row)
            return False
        if row.nominal_at <= self.begins and self._generations[0].number > 1:
            return False  # older than what history knows
        if any(after < row.nominal_at and (until is None or row.nominal_at <= until) for after, until in self._unread):
            return False
        if row.status == "CANCELLED" or row.reason == "task_deleted":
            return False  # a forecast that somebody ended; an edit leaves such ones alone
        last = self._generations[-1]
        begun = self._planned_until > last.effective_from
        return begun or not (row.status == "PENDING" and row.plan_generation != last.number)

    def _settle_strays(self) -> None:
        """Judge the rows that had no slot in their stretch, now that all slots are known."""
        labels = {(one.slot.label, one.slot.fold): identity for identity, one in self._missing.items()}
        for row in self._strays:
            identity = labels.get((row.nominal_local, row.nominal_fold))
            if identity is not None and identity in self._missing:
                self._renamed(row, self._missing.pop(identity))
                continue
            day = row.nominal_at.replace(hour=0, minute=0, second=0, microsecond=0)
            near = self._owed(day - GAP, day + 2 * GAP).values()
            same = [one.id for one in near if (one.slot.label, one.slot.fold) == (row.nominal_local, row.nominal_fold)]
            self._tell_doubled(row, f"execution {same[0]} is the same slot" if same else "no plan has such a slot")
        self._strays.clear()

    def _own_id(self, row: Row) -> None:
        mine = slot_id(self._uid, row.nominal_at, row.nominal_local, row.nominal_fold)
        if row.id != mine:
            self._tell(row, "moved", f"its id is {row.id}, but its nominal time makes {mine}", _MEND_ROW)

    def _range(self, found: Range, left: dict[UUID, _Owed]) -> None:
        """Take the slots of a range out of what is left, and compare their numbers."""
        self.verdict.ranges += 1
        inside = [one for one in left.values() if found.first_at <= one.slot.at <= found.last_at]
        counted = Counter(
            (one.slot.at.hour * 3600 + one.slot.at.minute * 60 + one.slot.at.second) // _QUARTER for one in inside
        )
        quarters = {number: count for number, count in enumerate(found.quarters) if count}
        where = f"{_iso(found.first_at)} to {_iso(found.last_at)}"
        if found.last_at > self.begins or self._generations[0].number == 1:
            if len(inside) != found.slots:
                self._told(where, "range", f"it counts {found.slots} slots, and {len(inside)} are in it", _MEND_RANGE)
            elif quarters != counted:
                self._told(where, "range", "its quarter hours do not add up to its slots", _MEND_RANGE)
        if found.reason is None:
            self._told(where, "unreasoned", f"it is {found.status} without a reason", _MEND_RANGE)
        for one in inside:
            del left[one.id]

    def _tell_missing(self, identity: UUID, one: _Owed) -> None:
        at = one.slot.at
        mend = (
            f"run it after all: cron-observer tasks backfill {self._task} --from {_iso(at)} "
            f"--to {_iso(at + timedelta(seconds=1))} --select missing"
        )
        label = _label(one.slot.label, one.slot.fold, one.spec.timezone)
        self._told(label, "missing", "no execution and no range has this slot", mend, identity)

    def _tell_doubled(self, row: Row, why: str) -> None:
        mend = f"if it waits, cron-observer executions cancel {row.id}; else leave it and know of it"
        self._tell(row, "doubled", f"execution {row.id} is one too many: {why}", mend)

    def _tell_moved(self, one: _Owed, row: Row, what: str) -> None:
        label = _label(one.slot.label, one.slot.fold, one.spec.timezone)
        self._told(label, "moved", what, _MEND_ROW, row.id)

    def _tell(self, row: Row, kind: str, what: str, mend: str) -> None:
        self._told(_label(row.nominal_local, row.nominal_fold, row.timezone), kind, what, mend, row.id)

    def _told(self, label: str, kind: str, what: str, mend: str, identity: UUID | None = None) -> None:
        if len(self.verdict.defects) < MOST:
            self.verdict.defects.append(Defect(self._task, label, kind, what, mend, identity))
        else:
            self.verdict.more += 1


_MEND_ROW: Final = "somebody wrote to the database by hand: compare the row with a backup, and put it right"
_MEND_RANGE: Final = "somebody wrote to the database by hand: compare the range with a backup, and put it right"
_MEND_OPEN: Final = "see that a scheduler or an API runs: cron-observer doctor"


def _owns(one: _Read, slot: Nominal) -> bool | None:
    """Say whether a generation owns a slot behind its beginning: True, None for no, False when jitter decides.

    What an older plan has fired, or had to fire, by the edit stays its own; what is nominal or fires later is the
    new plan's.
    """
    fires = slot.fires or slot.stands
    first, last = min(fires), max(fires) + (one.spec.jitter or timedelta())
    if last <= one.after:
        return None
    surely = first > one.after
    if one.until is not None and slot.at > one.until:
        if first > one.until:
            return None
        surely = surely and last <= one.until
    return surely


def _calendar(name: str, contents: Mapping[str, Any]) -> Any:
    from cron_observer.schedule.calendars import read_calendar

    return read_calendar(contents[name.rpartition("@")[2]])


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").replace(".000Z", "Z")


def _label(label: datetime, fold: int, timezone: str) -> str:
    return f"{label.isoformat()} {timezone}" + (" (second pass)" if fold else "")
