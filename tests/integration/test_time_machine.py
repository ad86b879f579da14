"""Any history of edits, pauses, absences and claims leaves the slots, and the outcomes, that a small model says.

A Hypothesis machine makes the histories and takes the model through them; the store then lives through all of them
together, batch by batch. ``CRON_OBSERVER_SEQUENCES=10000 pytest tests/integration/test_time_machine.py`` plays as
many as the acceptance of a release asks for; a plain run plays some hundreds.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cron_observer.store import plans
from cron_observer.store.engine import Database
from support.databases import FreshDatabase
from support.rows import spec
from support.scenes import DAY, lend_clock
from support.time_batch import JUMP, SCHEDULES, STEPS, Batch, Story, hours
from support.time_model import Model

SEQUENCES = int(os.environ.get("CRON_OBSERVER_SEQUENCES", "200"))
#: Histories that live together, about, and how many different sequences of hours there are.
TOGETHER = 250
TIMES = max(2, SEQUENCES // TOGETHER)

SCHEDULE = st.integers(0, len(SCHEDULES) - 1)


#: No planner has been there since the last edit.
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
#: What is promised to be planned while no scheduler is there.
PROMISED = timedelta(hours=1)


def here(machine: Machine) -> bool:
    """Whether the manifest declares the task."""
    return not machine.story.model.gone and machine.step < STEPS


def foreseen(machine: Machine) -> bool:
    """Whether all that is due is planned, by the promise: what a worker is offered beyond it, nobody can say."""
    return machine.step < STEPS - 1 and machine.now <= machine.planned_at + PROMISED


class Machine(RuleBasedStateMachine):
    """Makes one history. `stories` collects them all."""

    stories: list[Story]

    def __init__(self) -> None:
        super().__init__()
        number = len(self.stories)
        self.story = Story(number, Model(f"default/t{number}"))
        self.stories.append(self.story)
        self.times: list[datetime] = []
        self.step = 0
        self.names = 0
        self.path, self.name, self.before = f"{number}/a.yaml", f"t{number}", None
        self.versions: list[dict[str, Any]] = [{"schedule": 0, "suspend": False, "timeout": "1h"}]

    @property
    def now(self) -> datetime:
        """When this step happens."""
        return self.times[self.step]

    def pass_on(self, what: str, *, claiming: bool = False) -> None:
        """End a step: a scheduler looks if one is there, then workers if they come."""
        self.story.words.append(f"{self.now:%d %H:%M:%S} {what}{'' if self.there[self.step] else ', nobody plans'}")
        if self.there[self.step]:
            self.planned_at = self.now
            self.story.model.look(self.now, claiming=False)
        if claiming or self.step == STEPS - 1:
            self.story.model.look(self.now, claiming=True)
        self.step += 1

    def push(self, what: str, **changes: Any) -> None:
        """Push a version of the manifest that differs in `changes`."""
        said = {**self.versions[-1], **changes}
        self.versions.append(said)
        block = SCHEDULES[said["schedule"]]
        made = spec(overlap="allow_all", timeout=said["timeout"], suspend=said["suspend"]) | {"schedule": block}
        self.story.files[self.step] = (self.path, self.name, self.before, made)
        self.story.model.gone = False
        if self.lazy:
            self.planned_at = NEVER
        self.story.model.want(None if said["suspend"] else block, self.now)
        self.pass_on(what)

    @initialize(number=SCHEDULE, times=st.integers(0, TIMES - 1))
    def create(self, number: int, times: int) -> None:
        self.story.times = times
        self.times, self.there = hours(times)
        self.planned_at = self.now
        self.lazy = times % 2 == 1
        self.push(f"create {SCHEDULES[number]}", schedule=number)

    @precondition(here)
    @rule(number=SCHEDULE)
    def edit(self, number: int) -> None:
        self.push(f"edit {SCHEDULES[number]}", schedule=number)

    @precondition(here)
    @rule(timeout=st.sampled_from(["1h", "2h"]))
    def edit_something_else(self, timeout: str) -> None:
        self.push(f"timeout {timeout}", timeout=timeout)

    @precondition(here)
    @rule()
    def push_the_same(self) -> None:
        self.push("the same again")

    @precondition(here)
    @rule(suspend=st.booleans())
    def suspend(self, suspend: bool) -> None:
        self.push("suspend" if suspend else "unsuspend", suspend=suspend)

    @precondition(here)
    @rule()
    def rename(self) -> None:
        self.names += 1
        self.before, self.name = self.name, f"t{self.story.number}-{self.names}"
        self.push(f"rename to {self.name}")

    @precondition(here)
    @rule(folder=st.sampled_from("abc"))
    def move(self, folder: str) -> None:
        self.path = f"{self.story.number}/{folder}.yaml"
        self.push(f"move to {folder}")

    @precondition(here)
    @rule(back=st.integers(1, 4))
    def revert(self, back: int) -> None:
        self.push(f"revert by {back}", **self.versions[-min(back + 1, len(self.versions))])

    @precondition(here)
    @rule()
    def delete(self) -> None:
        self.story.files[self.step] = None
        self.story.model.gone = True
        self.story.model.want(None, self.now)
        self.pass_on("delete")

    @precondition(lambda self: not here(self) and self.step < STEPS)
    @rule()
    def add_again(self) -> None:
        self.push("add again")

    @precondition(here)
    @rule(last=st.booleans(), minutes=st.sampled_from([None, None, 10, 100, 600]))
    def pause(self, last: bool, minutes: int | None) -> None:
        until = None if minutes is None else self.now + timedelta(minutes=minutes)
        self.story.deeds[self.step] = ("pause", last, until)
        self.story.model.pause(self.now, last=last, until=until)
        self.pass_on(f"pause{'' if until is None else f' until {until:%d %H:%M}'}{', last' if last else ''}")

    @precondition(lambda self: here(self) and foreseen(self) and self.story.model.paused(self.now) is not None)
    @rule()
    def resume(self) -> None:
        self.story.deeds[self.step] = ("resume",)
        self.story.model.resume(self.now)
        self.pass_on("resume")

    @precondition(foreseen)
    @rule()
    def claim(self) -> None:
        self.story.deeds[self.step] = ("claim",)
        self.pass_on("claim", claiming=True)

    @precondition(foreseen)
    @rule()
    def come_again(self) -> None:
        """Let workers come as often as anything else happens."""
        self.claim()

    @precondition(lambda self: self.step < STEPS - 1)
    @rule()
    def wait(self) -> None:
        self.pass_on("wait")

    @precondition(lambda self: self.step >= STEPS - 1)
    @rule()
    def rest(self) -> None:
        """Do nothing any more."""

    def teardown(self) -> None:
        """Wait until the others are done as well; at the end a scheduler and workers are there."""
        while self.times and self.step < STEPS:
            self.pass_on("wait")


def make(count: int) -> list[Story]:
    """Make so many histories, the same every time."""
    stories: list[Story] = []
    steps = settings(
        max_examples=count, stateful_step_count=STEPS, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate],
    )  # fmt: skip
    run_state_machine_as_test(type("Bound", (Machine,), {"stories": stories}), settings=steps)
    return [story for story in stories if story.words]


async def play(database: FreshDatabase, stories: list[Story], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the store live through histories; return where it differs from their models."""
    roles = ("api", "reconciler", "scheduler")
    pools = {role: Database(database.url, f"cron_observer_{role}", pool_size=1) for role in roles}
    found: list[str] = []
    try:
        for number in range(TIMES):
            together = [story for story in stories if story.times == number]
            batch = Batch(database, pools, together)
            with monkeypatch.context() as patch:
                lend_clock(patch, lambda batch=batch: batch.now)
                if number % 2 == 1:
                    # As if thousands had changed: every edit is left to the scheduler.
                    patch.setattr(plans, "INLINE_MAX", 0)
                await batch.live(number)
            found += batch.divergences()
            # Emptied, not deleted: dead rows of many batches would slow down the next ones.
            database.do("TRUNCATE tenants, executions, execution_events, attempts CASCADE")
    finally:
        for pool in pools.values():
            await pool.close()
    return found


@pytest.mark.timeout(120 if SEQUENCES <= 200 else 14_400)
def test_no_history_leaves_the_model(database: FreshDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """No slot is lost, doubled, retroactive or run against a pause, whatever is pushed, paused or away, and when."""
    database.partitions(JUMP - 30 * DAY, JUMP + 30 * DAY)
    stories = make(SEQUENCES)
    assert len(stories) >= SEQUENCES
    differences = asyncio.run(play(database, stories, monkeypatch))
    fates = Counter(fate.removesuffix("?") for story in stories for fate in story.model.fates.values())
    print(f"\n{len(stories)} histories, {sum(len(story.words) for story in stories)} steps, {dict(fates)}")
    assert not differences, f"{len(differences)} of {len(stories)} diverge; one is:\n{differences[0]}"
    assert fates.keys() >= {"FINISHED", "SKIPPED too_late", "SKIPPED paused", "SKIPPED task_deleted"}
