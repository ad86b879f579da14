"""Long stretches of equal skips: however a dense task is paused, edited and left alone, no slot is lost or doubled."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from cron_observer.schedule import Slot, slot_id
from support.databases import Tenant
from support.scenes import HOUR, MINUTE, SECOND, Scene
from support.time_model import Model

SCHEDULES: list[dict[str, Any]] = [{"every": "1s"}, {"every": "2s"}, {"every": "3s", "anchor": "2026-01-01T00:00:01"}]
WAITS = [30 * SECOND, 5 * MINUTE, 20 * MINUTE, 45 * MINUTE]


class Dense:
    """A task that fires every few seconds, and its model."""

    def __init__(self, scene: Scene, uid: UUID) -> None:
        self.scene, self.uid = scene, uid
        self.model = Model("default/dense")
        self.schedule, self.suspended = SCHEDULES[0], False
        self.model.want(self.schedule, scene.now)

    async def edit(self, schedule: dict[str, Any], *, suspended: bool) -> None:
        """Want something else."""
        self.schedule, self.suspended = schedule, suspended
        await self.scene.edit(self.uid, schedule=schedule, suspend=suspended, overlap="allow_all")
        self.model.want(None if suspended else schedule, self.scene.now)

    async def step(self, dice: random.Random) -> str:
        """Let something happen, and say what."""
        deed = dice.choice(["plan", "plan", "pause", "pause", "resume", "edit", "suspend", "absence"])
        match deed:
            case "plan":
                await self.scene.tick()
            case "pause":
                until = dice.choice([None, self.scene.now + 90 * MINUTE])
                await self.scene.pause(self.uid, until=until)
                self.model.pause(self.scene.now, last=False, until=until)
            case "resume" if self.model.paused(self.scene.now):
                await self.scene.resume(self.uid)
                self.model.resume(self.scene.now)
            case "edit":
                await self.edit(dice.choice(SCHEDULES), suspended=self.suspended)
            case "suspend":
                await self.edit(self.schedule, suspended=not self.suspended)
            case "absence":
                self.scene.wait(2 * HOUR)
        return f"{self.scene.now:%H:%M:%S} {deed}"


def check_ranges(ranges: list[dict[str, Any]], slots: dict[datetime, Slot]) -> None:
    """See that each range counts what it holds, quarter by quarter, and that none holds what another does."""
    last = None
    for one in ranges:
        held = [at for at in slots if one["first_at"] <= at <= one["last_at"]]
        assert one["slots"] == len(held) == sum(one["quarters"]), one
        quarters = Counter(at.hour * 4 + at.minute // 15 for at in held)
        assert {place: count for place, count in enumerate(one["quarters"]) if count} == dict(quarters)
        assert one["first_at"].date() == one["last_at"].date()
        assert last is None or last < one["first_at"]
        last = one["last_at"]


@pytest.mark.parametrize("seed", [0, 1, 3, 6, 8, 24, 40, 43])
async def test_every_slot_is_a_row_or_in_one_range(tenant: Tenant, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """After any history each due slot is told once, as a row or by a range; what is paused is told as paused."""
    # Between whole seconds, so that nothing happens at the very instant of a slot.
    scene = Scene(tenant, monkeypatch)
    scene.now += SECOND / 3
    dice = random.Random(seed)  # noqa: S311  the same dice every time
    task = Dense(scene, await scene.add("dense", schedule=SCHEDULES[0], overlap="allow_all"))
    told = []
    for _ in range(10):
        scene.wait(dice.choice(WAITS))
        told.append(await task.step(dice))
    scene.wait(MINUTE)
    await scene.tick()
    slots = {slot.nominal_at: slot for slot in task.model.slots(scene.now + HOUR)}
    ranges = scene.database.rows("SELECT * FROM slot_ranges WHERE task_uid = %s ORDER BY first_at", task.uid)
    assert ranges, "this history makes none: choose another seed"
    check_ranges(ranges, slots)
    rows = {row["id"]: row for row in scene.executions(task.uid, upcoming=True)}
    ids = {slot_id(task.uid, slot): slot for slot in slots.values()}
    known = [
        *rows,
        *(one for one, slot in ids.items() if any(r["first_at"] <= slot.nominal_at <= r["last_at"] for r in ranges)),
    ]
    assert max(Counter(known).values(), default=1) == 1, f"told twice: {told}"
    due = {one for one, slot in ids.items() if slot.fire_at <= scene.now}
    assert due <= set(known), f"lost: {told}"
    assert {one for one, row in rows.items() if row["fire_at"] <= scene.now + HOUR} <= ids.keys(), f"too many: {told}"
    for one in due:
        slot = ids[one]
        if task.model.known(slot) == "SKIPPED paused":
            why = rows[one]["reason"] if one in rows else next(
                r["reason"] for r in ranges if r["first_at"] <= slot.nominal_at <= r["last_at"]
            )  # fmt: skip
            assert why == "paused", f"{slot.fire_at} is {why}: {told}"
