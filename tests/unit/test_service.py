"""Loops: they outlive failures, wait longer after them, notice when they are stuck, and stop when told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cron_observer import service
from cron_observer.errors import DatabaseError, SettingsError
from cron_observer.service import (
    BACKOFF_MAX,
    STUCK_AFTER,
    Heartbeats,
    Loop,
    StuckError,
    run_loop,
    run_roles,
    wait_after,
)
from cron_observer.settings import Settings


class Ticks:
    """Ticks by a script: what each one does; after the last the loop is told to stop."""

    def __init__(self, *script: Callable[[], Any] | None) -> None:
        self.script = list(script)
        self.stop = asyncio.Event()
        self.count = 0
        self.closed = 0

    async def tick(self) -> None:
        """Do what the script says."""
        step = self.script[self.count]
        self.count += 1
        if self.count == len(self.script):
            self.stop.set()
        if step is not None:
            result = step()
            if asyncio.iscoroutine(result):
                await result

    async def close(self) -> None:
        """Count."""
        self.closed += 1

    async def run(self, **values: Any) -> Heartbeats:
        """Run the loop with short intervals."""
        heartbeats = Heartbeats()
        values = {"every": 0.001} | values
        loop = Loop(role="scheduler", tick=self.tick, close=self.close, **values)
        await run_loop(loop, self.stop, heartbeats)
        return heartbeats


def fail(error: Exception) -> Callable[[], None]:
    def raising() -> None:
        raise error

    return raising


async def test_a_loop_ticks_until_it_is_told_to_stop() -> None:
    """The tick during which the stop comes is finished, none follows, and the loop is closed once."""
    ticks = Ticks(None, None, None)
    heartbeats = await ticks.run()
    assert (ticks.count, ticks.closed) == (3, 1)
    assert heartbeats.failing() == []


@pytest.mark.parametrize("error", [DatabaseError("away"), ValueError("a defect"), KeyError("another")])
async def test_a_loop_outlives_failures(error: Exception) -> None:
    """Whatever happens in a tick, the next one comes."""
    ticks = Ticks(fail(error), fail(error), None)
    heartbeats = await ticks.run()
    assert ticks.count == 3
    assert heartbeats.failing() == []


async def test_wrong_settings_end_a_loop_at_its_start() -> None:
    """What only the operator can mend ends the process at once, before any work."""
    ticks = Ticks(fail(SettingsError("no git")), None)
    with pytest.raises(SettingsError, match="no git"):
        await ticks.run()
    assert (ticks.count, ticks.closed) == (1, 1)


async def test_a_loop_that_has_worked_outlives_settings() -> None:
    """Once a tick went well, nothing ends the loop but a stop."""
    ticks = Ticks(None, fail(SettingsError("gone")), None)
    await ticks.run()
    assert ticks.count == 3


async def test_a_tick_without_end_is_cut_off() -> None:
    """A tick that hangs is cancelled at its limit, and the loop goes on."""
    ticks = Ticks(asyncio.Event().wait, None)
    await ticks.run(limit=0.01)
    assert ticks.count == 2


async def test_a_stuck_loop_gives_itself_up() -> None:
    """Three ticks in a row without an end are an error that ends the process, so that it is started anew."""
    ticks = Ticks(*[asyncio.Event().wait] * (STUCK_AFTER + 1))
    with pytest.raises(StuckError):
        await ticks.run(limit=0.01)
    assert (ticks.count, ticks.closed) == (STUCK_AFTER, 1)


async def test_wake_ends_the_wait() -> None:
    """A loop that waits for an hour ticks at once when it is woken, also when that came during its tick."""
    wake = asyncio.Event()
    ticks = Ticks(wake.set, None)
    await asyncio.wait_for(ticks.run(every=3600.0, wake=wake), 60)
    assert ticks.count == 2


async def test_stop_ends_the_wait() -> None:
    """A loop that waits for an hour ends at once when it is told to."""
    ticks = Ticks(None, None)
    running = asyncio.create_task(ticks.run(every=3600.0))
    while ticks.count == 0:  # noqa: ASYNC110  the loop offers no event of its own
        await asyncio.sleep(0)
    ticks.stop.set()
    await asyncio.wait_for(running, 60)
    assert ticks.count == 1


async def test_a_stop_shortens_the_tick_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick that goes on after the stop is cancelled soon, however long it might have taken otherwise."""
    monkeypatch.setattr(service, "STOP_LIMIT", 0.01)
    ticks = Ticks(asyncio.Event().wait)
    await asyncio.wait_for(ticks.run(limit=3600.0), 60)
    assert (ticks.count, ticks.closed) == (1, 1)


def test_waits_grow_and_are_bounded() -> None:
    """After failures the wait doubles up to its bound, and is spread so that processes do not march in step."""
    assert wait_after(1.0, 0) == 1.0
    assert 1.6 <= wait_after(1.0, 1) <= 2.0
    assert 6.4 <= wait_after(1.0, 3) <= 8.0
    waits = {wait_after(1.0, 100) for _ in range(50)}
    assert max(waits) <= BACKOFF_MAX
    assert min(waits) >= 0.8 * BACKOFF_MAX
    assert len(waits) > 1


def test_heartbeats_know_who_is_late() -> None:
    """A role is failing until its first tick, and when it has missed three of them."""
    now = 100.0
    heartbeats = Heartbeats(lambda: now)
    heartbeats.expect("scheduler", 10.0)
    heartbeats.expect("reconciler", 1.0)
    assert heartbeats.roles() == ["reconciler", "scheduler"]
    assert heartbeats.failing() == ["reconciler", "scheduler"]
    heartbeats.beat("scheduler")
    heartbeats.beat("reconciler")
    assert heartbeats.failing() == []
    now = 104.0
    assert heartbeats.failing() == ["reconciler"]
    now = 131.0
    heartbeats.beat("reconciler")
    assert heartbeats.failing() == ["scheduler"]


async def test_unknown_roles_are_refused() -> None:
    """A role that there is not is named, with those that there are."""
    with pytest.raises(SettingsError, match="unknown role notifier") as caught:
        await run_roles(Settings(), {"notifier"}, signals=False)
    assert caught.value.hint == "known are api, reconciler, scheduler, dispatcher"


async def test_a_role_without_a_database_is_refused() -> None:
    """A loop without a database says so, and what to do."""
    with pytest.raises(SettingsError, match="no database for the scheduler"):
        await run_roles(Settings(), {"scheduler"}, signals=False)
