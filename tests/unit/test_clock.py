"""The guard against a database clock that jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cron_observer.clock import STEADY, ClockGuard, Reading

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Clocks:
    """A true clock, a database clock that strays from it, and the guard that watches."""

    def __init__(self) -> None:
        self.guard = ClockGuard()
        self.elapsed = 0.0
        self.astray = timedelta(0)

    def after(self, seconds: float) -> Reading:
        """Let time pass, then look."""
        self.elapsed += seconds
        return self.guard.observe(self.true + self.astray, 5_000 + self.elapsed)

    @property
    def true(self) -> datetime:
        return START + timedelta(seconds=self.elapsed)


def test_a_true_clock_is_believed() -> None:
    """Readings that keep pace with the machine's own time are taken as they are."""
    clocks = Clocks()
    for _ in range(100):
        reading = clocks.after(1.0)
        assert (reading.now, reading.frozen, reading.jumped) == (clocks.true, False, False)


@pytest.mark.parametrize("hours", [1, -1, 24])
def test_a_step_freezes_and_its_end_thaws(hours: int) -> None:
    """A step of the clock freezes at the first reading, and thaws with the first good one."""
    clocks = Clocks()
    clocks.after(1)
    clocks.astray = timedelta(hours=hours)
    first, second = clocks.after(1), clocks.after(1)
    assert (first.frozen, first.jumped, second.frozen, second.jumped) == (True, True, True, False)
    clocks.astray = timedelta(0)
    back = clocks.after(1)
    assert (back.frozen, back.thawed, back.now) == (False, True, clocks.true)
    assert not clocks.after(1).thawed


def test_a_frozen_clock_never_runs_ahead() -> None:
    """While the clock stands an hour ahead, decisions use a time at most two seconds ahead of the truth."""
    clocks = Clocks()
    clocks.after(1)
    clocks.astray = timedelta(hours=1)
    for _ in range(30):
        assert clocks.after(1).now <= clocks.true + timedelta(seconds=2)


def test_a_clock_set_for_good_is_believed_after_a_minute() -> None:
    """A clock that was set and runs on steadily is taken over, so that nothing stays frozen for ever."""
    clocks = Clocks()
    clocks.after(1)
    clocks.astray = timedelta(seconds=90)
    frozen = [clocks.after(1) for _ in range(int(STEADY))]
    assert all(reading.frozen for reading in frozen)
    reading = clocks.after(1)
    assert (reading.frozen, reading.thawed, reading.now) == (False, True, clocks.true + clocks.astray)
    assert not clocks.after(1).frozen


def test_a_clock_that_keeps_running_off_stays_frozen() -> None:
    """A clock that gains a second and a half every second is not followed, however long it does."""
    clocks = Clocks()
    clocks.after(1)
    readings = []
    for _ in range(120):
        clocks.astray += timedelta(seconds=1.5)
        readings.append(clocks.after(1))
    assert all(reading.frozen for reading in readings[2:])
    assert readings[-1].now <= clocks.true + timedelta(seconds=2.1)


def test_a_slow_drift_is_followed() -> None:
    """Half a millisecond a second, the most that NTP slews, adds up to minutes over days without a freeze."""
    clocks = Clocks()
    for _ in range(20_000):
        clocks.astray += timedelta(milliseconds=5)
        assert not clocks.after(10).frozen
    assert clocks.astray > timedelta(seconds=90)


def test_a_sleeping_machine_is_no_jump() -> None:
    """Hours in which machine and database slept or ran on alike are time that passed."""
    clocks = Clocks()
    clocks.after(1)
    assert not clocks.after(8 * 3600).frozen
