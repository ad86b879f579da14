"""Many histories of tasks at once: they share the hours at which something happens, and one database.

At each hour every history takes one step of its own: its manifest changes, it is paused, a worker comes. All changes
of manifests are one apply, as if they were pushed together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from cron_observer.lifecycle import Completion, Run
from cron_observer.model import Commit, OnResume, ParsedFile, TaskDefinition
from cron_observer.plan import DesiredFile, plan
from cron_observer.schedule import Slot, slot_id
from cron_observer.schedule.calendars import digest
from cron_observer.source.spec import SourceSpec
from cron_observer.store import calendars, pausing, plans, sources, task_writes
from cron_observer.store.engine import Database
from cron_observer.store.executions import Complete, Seat, claim_round, process, settle_waiting
from support.databases import FreshDatabase, make_tenant
from support.pages_time import declare
from support.time_model import CLOSED, Model

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)

#: Berlin's clock jumps forward at this instant.
JUMP = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)

#: How many steps a history takes at most.
STEPS = 30

SCHEDULES: list[dict[str, Any]] = [
    {"every": "37m"},
    {"every": "90m", "anchor": "2026-01-01T00:10:00"},
    {"cron": "*/20 * * * *", "timezone": "Europe/Berlin"},
    {"cron": ["30 2 * * *", "50 2 * * *", "40 3 * * *", "5 14 * * *"], "timezone": "Europe/Berlin"},
    {"cron": "10 1-4 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "shift"}},
    {"cron": "20,45 2,13 * * *", "timezone": "Europe/Berlin", "dst": {"gap": "skip"}},
    {"cron": "H H(0-3) * * *", "every": "5h", "timezone": "Europe/Berlin"},
    {"cron": "0 * * * *", "jitter": "40m"},
    {"cron": "15 * * * *", "windows": [{"days": ["sat", "sun"], "from": "22:00", "to": "05:00"}]},
    {"cron": "*/40 * * * *", "timezone": "Europe/Berlin", "calendars": {"exclude": ["closed"]}},
    {
        "cron": "30 9,21 * * 0,1", "timezone": "Europe/Berlin",
        "calendars": {"exclude": ["closed"]}, "onExcluded": "next_allowed",
    },
    {
        "cron": ["30 9,18 * * *", "30 2 * * 0"], "timezone": "Europe/Berlin",
        "calendars": {"exclude": ["closed"]}, "onExcluded": "previous_allowed",
    },
    {"at": ["2026-03-29T02:15:00", "2026-03-29T03:15:00", "2026-03-30T12:00:00"], "timezone": "Europe/Berlin"},
]  # fmt: skip


def hours(number: int) -> tuple[list[datetime], list[bool]]:
    """Return when the steps of a batch happen, and at which of them a scheduler is there."""
    dice = random.Random(number)  # noqa: S311  the same dice every time
    # Never on a whole second, so that nothing happens at the very instant of a slot.
    now, times = JUMP - dice.randrange(30) * HOUR + timedelta(milliseconds=300), []
    spans = [
        SECOND,
        3 * SECOND,
        20 * SECOND,
        MINUTE,
        9 * MINUTE,
        20 * MINUTE,
        20 * MINUTE,
        40 * MINUTE,
        2 * HOUR,
        5 * HOUR,
    ]
    for _ in range(STEPS):
        now += dice.choice(spans)
        times.append(now)
    there = dice.choice([0.2, 0.5, 0.9])
    return times, [dice.random() < there for _ in times[:-1]] + [True]


@dataclass
class Story:
    """One history: what its manifest says at each step, what else happens, and the model that took the same steps."""

    number: int
    model: Model
    times: int = 0  #: at which hours it lives; see `hours`
    files: dict[int, tuple[str, str, str | None, dict[str, Any]] | None] = field(default_factory=dict)
    deeds: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    uid: UUID | None = None
    path: str | None = None


class Batch:
    """Histories on a real database."""

    def __init__(self, database: FreshDatabase, pools: dict[str, Database], stories: Sequence[Story]) -> None:
        self.database, self.pools, self.stories = database, pools, stories
        self.tenant = make_tenant(database, f"tenant-{uuid4().hex[:12]}")
        tenant, named = self.tenant.tenant_id, digest(CLOSED)
        row = {"tenant_id": tenant, "digest": named, "content": CLOSED, "created_at": JUMP}
        database.insert("calendar_contents", [row])
        self.now = JUMP

    async def inside(self, role: str, work: Callable[[Any], Any]) -> Any:
        """Do `work` in a transaction of a role."""
        async with self.pools[role].transaction([self.tenant.tenant_id]) as conn:
            return await work(conn)

    async def live(self, number: int) -> None:
        """Let every history take its steps."""
        times, there = hours(number)
        self.now = times[0]
        await self.inside("reconciler", self.lease)
        declare(self.tenant, "calendars", "closed", 3, digest=digest(CLOSED), source_id=self.held.source_id)
        for step, now in enumerate(times):
            self.now = now
            await self.inside("reconciler", lambda conn, step=step: self.apply(conn, step))
            for story in self.stories:
                if story.deeds.get(step, ("wait",))[0] in {"pause", "resume"}:
                    await self.inside("api", lambda conn, story=story, step=step: self.hold(conn, story, step))
            if there[step]:
                await self.schedule()
            claiming = [one for one in self.stories if one.deeds.get(step) == ("claim",) or step == STEPS - 1]
            await self.claim([one.uid for one in claiming if one.uid])

    async def lease(self, conn: Any) -> None:
        """Take hold of a source."""
        source = SourceSpec(name="main", url="/nowhere", project=self.tenant.project)
        identity = await sources.ensure(conn, self.tenant.tenant_id, source, "folder", self.now)
        held = await sources.lease(
            conn, self.tenant.tenant_id, identity, owner="test", now=self.now, ttl=timedelta(days=9)
        )
        assert held is not None
        self.held = held

    async def apply(self, conn: Any, step: int) -> None:
        """Apply whatever the manifests of this step say."""
        commit = Commit(id=f"{step:040x}")
        desired, gone = [], []
        for story in self.stories:
            if step not in story.files:
                continue
            wanted, old = story.files[step], story.path
            story.path = None if wanted is None else wanted[0]
            if old is not None and old != story.path:
                gone.append(old)
            if wanted is not None:
                path, name, before, made = wanted
                task = TaskDefinition(name=name, spec=made, renamed_from=before, path=path, line=4)
                desired.append(DesiredFile(file=ParsedFile(path=path, tasks=[task], documents=1), commit=commit))
        if not desired and not gone:
            return
        names = {task.name for one in desired for task in one.file.tasks}
        names |= {task.renamed_from for one in desired for task in one.file.tasks if task.renamed_from}
        paths = [*(one.file.path for one in desired), *gone]
        held = self.held
        actual = await task_writes.inventory(conn, held, paths, sorted(names), loose=False, elsewhere=False)
        actual += await calendars.inventory(conn, held)
        made_plan = plan(desired, gone, actual, source_id=held.source_id, project_id=held.project_id)
        assert not made_plan.findings
        await task_writes.apply(conn, held, made_plan, self.now)
        await self.find(conn)

    async def find(self, conn: Any) -> None:
        """Learn the uid that each history's task was given."""
        if all(story.uid for story in self.stories):
            return
        known = {row.seed: row.task_uid for row in await conn.exec_driver_sql("SELECT seed, task_uid FROM tasks")}
        for story in self.stories:
            story.uid = known.get(story.model.seed)

    async def hold(self, conn: Any, story: Story, step: int) -> None:
        """Pause or resume a task."""
        assert story.uid is not None
        tenant, (what, *how) = self.tenant.tenant_id, story.deeds[step]
        if what == "resume":
            await pausing.end(conn, tenant, story.uid, by="me")
            return
        policy, until = (OnResume.LAST if how[0] else OnResume.SKIP), how[1]
        await pausing.begin(
            conn, tenant, story.uid, until=until, reason="x", on_resume=policy, author="me", now=self.now
        )

    async def schedule(self) -> None:
        """Let a scheduler plan, follow pauses and settle."""
        tenant, more, after = self.tenant.tenant_id, True, None
        while more:
            more = (await self.inside("scheduler", lambda conn: plans.plan_batch(conn, tenant, 200, self.now))).more
        while await self.inside("scheduler", lambda conn: pausing.follow(conn, tenant, self.now)) == 100:
            pass
        while True:
            _, after = await self.inside(
                "scheduler", lambda conn, after=after: settle_waiting(conn, tenant, self.now, after)
            )
            if after is None:
                return

    async def claim(self, uids: Sequence[UUID]) -> None:
        """Let workers take whatever is due of these tasks, and finish it at once."""
        for first in range(0, len(uids), 50):
            part = frozenset(uids[first : first + 50])
            while True:
                seat = Seat(worker="w", queues=(), tasks=part, wanted=200, lease=HOUR, any_queue=True)
                runs = await self.inside(
                    "api", lambda conn, seat=seat: claim_round(conn, self.tenant.tenant_id, [seat], self.now)
                )
                done = [Complete(tenant_id=one.tenant_id, id=one.id, done=finished(one)) for one in runs]
                if done:
                    await self.inside(
                        "api", lambda conn, done=done: process(conn, done, trusted=lambda _read: self.now)
                    )
                if not runs and not seat.more:
                    break

    def rows(self) -> dict[UUID, list[dict[str, Any]]]:
        """Return what stands in the database of each task: what is due, or fires within the hour, and is in force."""
        found: dict[UUID, list[dict[str, Any]]] = {one.uid: [] for one in self.stories if one.uid}
        query = (
            "SELECT e.* FROM executions e JOIN task_plan p USING (tenant_id, task_uid) "
            "WHERE e.tenant_id = %s AND e.fire_at <= %s AND (e.status <> 'PENDING' OR e.plan_generation IS NULL "
            "OR e.fence > 0 OR e.plan_generation = p.generation OR e.nominal_at <= p.effective_from)"
        )
        for row in self.database.rows(query, self.tenant.tenant_id, self.now + HOUR):
            found.setdefault(row["task_uid"], []).append(row)
        return found

    def divergences(self) -> Iterable[str]:
        """Say where histories and their models differ."""
        stored = self.rows()
        for story in self.stories:
            if story.uid is None:
                continue
            why = differs(story, stored[story.uid], self.now)
            if why:
                yield f"history {story.number}: {why}\n  " + "\n  ".join(story.words)


def finished(run: Run) -> Completion:
    """Return the last word of a run that went well."""
    return Completion(outcome="finished", fence=run.fence, digest=b"finished")


def differs(story: Story, rows: Sequence[dict[str, Any]], now: datetime) -> str | None:
    """Say how the stored slots of a task differ from those of its model, if they do."""
    assert story.uid is not None
    told = story.model.told(now)
    wanted = {slot_id(story.uid, slot): (slot, fate) for slot, fate in told.items()}
    found = {row["id"]: row for row in rows if row["trigger"] in {"schedule", "catchup"} and row["repeats"] is None}
    if found.keys() != wanted.keys():
        lost = [f"{wanted[one][0].fire_at}" for one in wanted.keys() - found.keys()]
        more = [f"{found[one]['fire_at']} {found[one]['status']}" for one in found.keys() - wanted.keys()]
        return f"lost {sorted(lost)}, too many {sorted(more)}"
    for identity, (slot, fate) in wanted.items():
        row = found[identity]
        seen = " ".join(word for word in (row["status"], row["reason"]) if word)
        fates = {fate.removesuffix("?"), "SKIPPED too_late"} if fate.endswith("?") else {fate}
        if seen not in fates or row["fire_at"] != slot.fire_at or row["nominal_at"] != slot.nominal_at:
            return f"{slot.fire_at} is {seen} at {row['fire_at']}, not {fate}"
    return repeated(story, rows, {slot_id(story.uid, slot): slot for slot in told})


def repeated(story: Story, rows: Sequence[dict[str, Any]], slots: dict[UUID, Slot]) -> str | None:
    """Say what runs make up for a pause that should not: one at most for each that says so, of a paused slot."""
    paused = {row["id"]: row for row in rows if row["reason"] == "paused" and row["repeats"] is None}
    runs = [row for row in rows if row["repeats"] is not None]
    asking = [one for one in story.model.pauses if one.last and one.end is not None]
    if len(runs) > len(asking):
        return f"{len(runs)} runs make up for {len(asking)} pauses"
    if any(row["repeats"] not in paused or row["repeats"] not in slots for row in runs):
        return "a run makes up for what was not paused"
    return None
