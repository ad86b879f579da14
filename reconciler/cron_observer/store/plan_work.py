"""The work of planning: which slots each plan needs next, and what is known of them. Pure.

Tasks that share a schedule share its evaluation.
"""

from __future__ import annotations

import json
import marshal
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from cron_observer.errors import ScheduleError
from cron_observer.forecast import Foreseen, Skips, foresee, overdue, parted, paused
from cron_observer.horizon import Aim, Stretch, aim, remainder, stretch
from cron_observer.model import GroupSpec, ScheduleSpec
from cron_observer.schedule import Schedule, Slot
from cron_observer.schedule import compile as compile_schedule
from cron_observer.schedule.codes import refuse
from cron_observer.schedule.windows import Windows
from cron_observer.schedule.zones import zone
from cron_observer.store.plan_blocks import canonical

if TYPE_CHECKING:
    from cron_observer.schedule.calendars import Calendar
    from cron_observer.store.plan_facts import Facts

#: ``H`` as a word of a cron expression, not the one in THU.
_HASHED: Final = re.compile(r"(?i)(?<![a-z])h")

_NOTHING_LEFT: Final = "look at what they include and exclude; a changed calendar is tried at once."

#: No skips in a row.
_NONE: Final = Skips(None, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """A row of `task_plan`, as it was read or is to be written."""

    task_uid: UUID
    project_id: UUID
    owner: str
    generation: int
    active: bool
    schedule: Any  #: the normalised block; a damaged row may hold any JSON
    queue: str
    priority: int
    start_deadline_seconds: float | None
    effective_from: datetime
    planned_until: datetime
    skip_reason: str | None = None  #: with which skips in a row it ends
    skip_count: int | None = None

    @property
    def inputs(self) -> tuple[bool, Any, float | None]:
        """What a new generation is needed for when it changes."""
        try:
            block = canonical(self.schedule)
        except Exception:  # noqa: BLE001  a damaged row equals nothing that is wanted
            block = self.schedule
        return self.active, block, self.start_deadline_seconds

    @property
    def begun(self) -> bool:
        """Whether this generation has been planned at all, and the forecasts of older ones are gone."""
        return self.planned_until > self.effective_from

    @property
    def run(self) -> Skips:
        """The equal skips in a row that it ends with."""
        return Skips(self.skip_reason, self.skip_count or 0)

    def follow(self, effective_from: datetime) -> Plan:
        """Return the next generation of the same inputs."""
        return replace(
            self,
            generation=self.generation + 1,
            effective_from=effective_from,
            planned_until=effective_from,
            skip_reason=None,
            skip_count=None,
        )


class Planned(NamedTuple):
    """A plan, what to add to it, and how it stands afterwards. `pieces` are told as ranges; see `forecast.Parted`."""

    plan: Plan
    slots: Sequence[Foreseen]
    until: datetime
    due_at: datetime | None
    next_fire_at: datetime | None
    pieces: Sequence[Sequence[Foreseen]] = ()
    joined: bool = False
    run: Skips = _NONE


@dataclass(slots=True)
class Batch:
    """What was computed for some plans."""

    planned: list[Planned] = field(default_factory=list)
    poisoned: list[tuple[Plan, str]] = field(default_factory=list)
    left: int = 0  #: plans that did not fit into the batch any more

    @property
    def slots(self) -> int:
        """How many slots are to be added as rows."""
        return sum(len(one.slots) for one in self.planned)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A block, ready to be asked."""

    schedule: Schedule
    windows: Windows | None  #: of the task's group


def named(block: Any) -> Iterator[tuple[str, str]]:
    """Yield the calendars that a block names, each with the digest of what it meant; of a damaged block, none."""
    calendars = block.get("calendars") if isinstance(block, Mapping) else None
    for side in ("include", "exclude"):
        for text in (calendars.get(side) if isinstance(calendars, Mapping) else None) or ():
            if isinstance(text, str):
                yield text, text.rpartition("@")[2]


def seeded(block: Mapping[str, Any]) -> bool:
    """Say whether something is drawn with the seed of a block."""
    return bool(block.get("jitter")) or any(_HASHED.search(text) for text in block.get("cron") or ())


def compiled(block: Mapping[str, Any], calendars: Mapping[str, Calendar] | None = None) -> Schedule:
    """Return the compiled schedule of a normalised block; blocks that differ in an unused seed share one.

    `calendars` by digest. Raises `ScheduleError`, or whatever a damaged block leads to.
    """
    spec = ScheduleSpec.read(block, block["seed"] if seeded(block) else None)
    if not spec.include and not spec.exclude:
        return compile_schedule(spec)
    known = calendars or {}
    return compile_schedule(spec, {text: known[digest] for text, digest in named(block) if digest in known})


def prepared(block: Any, calendars: Mapping[str, Calendar]) -> Prepared:
    """Make a block ready; what is equal but for an unused seed is the same object."""
    return _prepared(compiled(block, calendars), json.dumps(block.get("group")))


@lru_cache(maxsize=16_384)
def _prepared(schedule: Schedule, group: str) -> Prepared:
    block = json.loads(group)
    windows = Windows(GroupSpec.read(block).windows, zone(block.get("timezone") or "UTC")) if block else None
    return Prepared(schedule, windows)


class _Shared(NamedTuple):
    """The slots of a stretch, as far as tasks share what is known of them."""

    slots: list[Foreseen]
    first_fire: datetime | None
    plain: bool  #: all of them wait

    @classmethod
    def of(cls, slots: Sequence[Slot], windows: Windows | None) -> _Shared:
        seen = foresee(slots, windows)
        first = min((slot.fire_at for slot in slots), default=None)
        return cls(seen, first, all(one.waits for one in seen))


class _Part(NamedTuple):
    """What comes next of a schedule that is planned up to some instant; see `Planned`."""

    shared: _Shared
    until: datetime
    due_at: datetime | None
    next_fire_at: datetime | None


class Round:
    """What several batches share that are planned one after the other, as if at one instant."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        #: Slots that were made, and not only shared.
        self.made = 0
        self._prepared: dict[tuple[bytes, str | None], Prepared] = {}
        self._seeded: dict[bytes, bool] = {}
        self._goals: dict[Schedule, Aim] = {}
        self._stretches: dict[tuple[Schedule, datetime], Stretch] = {}
        self._parts: dict[tuple[Prepared, datetime], _Part] = {}
        self._owed: dict[tuple[Prepared, datetime, datetime], _Shared] = {}

    def ready(self, block: Any, calendars: Mapping[str, Calendar]) -> Prepared:
        """Return a block made ready, from memory where it only differs in a seed that nothing is drawn with."""
        # The second format is the one without references: what is equal looks equal.
        shape = marshal.dumps({**block, "seed": None}, 2)
        drawn = self._seeded.get(shape)
        if drawn is None:
            drawn = self._seeded[shape] = seeded(block)
        key = shape, block["seed"] if drawn else None
        found = self._prepared.get(key)
        if found is None:
            found = self._prepared[key] = prepared(block, calendars)
        return found

    def goal(self, schedule: Schedule) -> Aim:
        """Return how far a schedule is to be planned."""
        if schedule not in self._goals:
            self._goals[schedule] = aim(schedule, self.now)
        return self._goals[schedule]

    def stretch(self, schedule: Schedule, planned_until: datetime) -> Stretch:
        """Return what a schedule needs next that is planned up to an instant."""
        key = schedule, planned_until
        if key not in self._stretches:
            self._stretches[key] = stretch(schedule, planned_until, self.goal(schedule), self.now)
            self.made += len(self._stretches[key].slots)
        return self._stretches[key]

    def part(self, ready: Prepared, planned_until: datetime) -> _Part:
        """Return the slots of that stretch, and how a plan stands after them."""
        key = ready, planned_until
        found = self._parts.get(key)
        if found is None:
            ahead = self.stretch(ready.schedule, planned_until)
            shared = _Shared.of(ahead.slots, ready.windows)
            found = _Part(shared, ahead.until, ahead.due_at, self.goal(ready.schedule).next_fire_at)
            self._parts[key] = found
        return found

    def owed(self, ready: Prepared, planned_until: datetime, until: datetime) -> _Shared:
        """Return what a plan still owes that ends at `until`."""
        key = ready, planned_until, until
        if key not in self._owed:
            self._owed[key] = _Shared.of(remainder(ready.schedule, planned_until, until), ready.windows)
        return self._owed[key]


class Worker:
    """Computes plans, and what is alike only once in a round."""

    def __init__(self, shared: Round, facts: Facts) -> None:
        self._round = shared
        self._facts = facts

    def plan(self, plan: Plan) -> Planned:
        """Compute what a plan needs next. Raises whatever is wrong with its block."""
        if not plan.active:
            return Planned(plan, (), plan.planned_until, None, None)
        shared, until, due_at, next_fire_at = self._round.part(self._ready(plan), plan.planned_until)
        if next_fire_at is None and _endless(plan.schedule):
            raise refuse("CO3022", "The schedule never fires: its calendars leave nothing of it.", _NOTHING_LEFT)
        return self._told(shared, plan, until, due_at, next_fire_at)

    def ending(self, plan: Plan, until: datetime) -> Planned:
        """Compute what a plan that ends at `until` still owes. A plan that cannot be evaluated owes nothing."""
        try:
            shared = self._round.owed(self._ready(plan), plan.planned_until, until)
        except Exception:  # noqa: BLE001  it has been quarantined for that
            return Planned(plan, (), until, None, None)
        return self._told(shared, plan, until, None, None)

    def endings(self, plans: Sequence[Plan], until: datetime) -> list[Planned]:
        """Compute what these plans owe, where that is anything."""
        found = (self.ending(plan, until) for plan in plans)
        return [one for one in found if one.slots or one.pieces]

    def _ready(self, plan: Plan) -> Prepared:
        return self._round.ready(plan.schedule, self._facts.calendars)

    def _told(
        self, shared: _Shared, plan: Plan, until: datetime, due_at: datetime | None, next_fire_at: datetime | None
    ) -> Planned:
        """Add what is known of the task, leave out what is before its time, and part rows from ranges."""
        slots: Sequence[Foreseen] = shared.slots
        if shared.first_fire is not None and shared.first_fire <= plan.effective_from:
            # What would have fired before the plan took effect is left out: an edit is never retroactive.
            slots = [seen for seen in slots if seen.slot.fire_at > plan.effective_from]
        pauses, policy = self._facts.pauses.get(plan.task_uid, ()), self._facts.policies.get(plan.task_uid)
        if shared.plain and not pauses and policy is None:
            run = _NONE if slots else plan.run
            return Planned(plan, slots, until, due_at, next_fire_at, (), False, run)
        slots = paused(slots, pauses)
        if policy is not None:
            slots = overdue(slots, policy, self._round.now)
        told = parted(slots, plan.run)
        return Planned(plan, told.rows, until, due_at, next_fire_at, told.pieces, told.joined, told.run)


def evaluate(plans: Sequence[Plan], shared: Round, facts: Facts, most: int) -> Batch:
    """Compute the slots that each plan needs next, about `most` in all; a plan is never parted."""
    batch, worker, room = Batch(), Worker(shared, facts), most
    for number, plan in enumerate(plans):
        if room <= 0:
            batch.left = len(plans) - number
            break
        before = shared.made
        try:
            one = worker.plan(plan)
        except Exception as error:  # noqa: BLE001  whatever is wrong with it, only this task may suffer
            batch.poisoned.append((plan, _reason(error)))
            continue
        room -= max(len(one.slots), shared.made - before)
        batch.planned.append(one)
    return batch


def _endless(block: Mapping[str, Any]) -> bool:
    """Say whether only calendars can keep a schedule from firing again; validation has judged all else."""
    return bool(block.get("calendars") and (block.get("cron") or block.get("every")) and not block.get("endAt"))


def _reason(error: Exception) -> str:
    if isinstance(error, ScheduleError):
        return f"{error.message} {error.hint or ''}".strip()
    return f"the schedule cannot be evaluated: {type(error).__name__}: {error}"[:500]
