"""How long the next fire of a schedule takes, beside other engines in the same run.

Twelve expressions, from every minute to every leap day, in America/New_York: each engine is asked for one next fire
after the other. What is measured is processor time, so that a busy machine does not count. The engine is asked cold
first (its tables of days are empty), then again. Others are those that are installed: cronsim and croniter.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from common import arguments, verdict

from cron_observer import schedule
from cron_observer.model import ScheduleSpec

ZONE = "America/New_York"
GOAL = 3.0  # microseconds on average
EXPRESSIONS = [
    "* * * * *",
    "*/5 * * * *",
    "0 * * * *",
    "30 2 * * *",
    "0 9 * * 1-5",
    "*/15 9-17 * * 1-5",
    "0 0,12 * * *",
    "5 4 * * 0",
    "0 0 1,15 * *",
    "15 10 L * *",
    "0 0 1 1 *",
    "0 0 29 2 *",
]
START = datetime(2026, 1, 1, tzinfo=UTC)
TURN = datetime(2050, 1, 1, tzinfo=UTC)  # from there it begins again
Next = Callable[[datetime], datetime]


def ours(text: str) -> Next:
    """Ask this engine; a fire on from a fire."""
    made = schedule.compile(ScheduleSpec(cron=(text,), timezone=ZONE))

    def following(at: datetime) -> datetime:
        fire = made.next_fire(at)
        return fire if fire is not None and fire < TURN else START

    return following


def cronsim(text: str) -> Next:
    """Ask cronsim, which goes on by itself."""
    from cronsim import CronSim

    start = START.astimezone(ZoneInfo(ZONE))
    state = CronSim(text, start)

    def following(at: datetime) -> datetime:  # noqa: ARG001  it knows where it is
        nonlocal state
        fire: datetime = next(state)
        if fire.year >= TURN.year:
            state = CronSim(text, start)
        return fire

    return following


def croniter(text: str) -> Next:
    """Ask croniter, which goes on by itself."""
    from croniter import croniter as engine

    start = START.astimezone(ZoneInfo(ZONE))
    state = engine(text, start)

    def following(at: datetime) -> datetime:  # noqa: ARG001  it knows where it is
        nonlocal state
        fire: datetime = state.get_next(datetime)
        if fire.year >= TURN.year:
            state = engine(text, start)
        return fire

    return following


def measure(name: str, make: Callable[[str], Next], fires: int) -> float:
    """Print the microseconds that one fire of each expression takes, and return their mean."""
    means = []
    for text in EXPRESSIONS:
        following, at = make(text), START
        began = time.process_time()
        for _ in range(fires):
            at = following(at)
        means.append((time.process_time() - began) / fires * 1e6)
    mean = statistics.fmean(means)
    print(f"{name:<14} mean {mean:8.2f} µs  median {statistics.median(means):8.2f}  worst {max(means):8.2f}")
    return mean


def main() -> None:
    """Measure, print the ratios, and judge."""
    options = arguments(__doc__, fires=2000)
    cold = measure("ours, cold", ours, options.fires)
    warm = measure("ours", ours, options.fires)
    for name, make in (("cronsim", cronsim), ("croniter", croniter)):
        if importlib.util.find_spec(name) is None:
            print(f"{name} is not installed")
            continue
        other = measure(name, make, max(options.fires // 10, 1))
        print(f"{'':<14} {other / warm:.1f} times ours")
    verdict("next fire, mean, cold", cold, GOAL, warm, "warm, in the same run", "µs")


if __name__ == "__main__":
    main()
