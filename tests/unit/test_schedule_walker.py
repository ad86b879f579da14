"""The engine around every clock change of many zones, against a wall clock that is looked at every minute.

``CRON_OBSERVER_WALK=all`` looks at every change from 1970 to 2037 (minutes); by default a sample, the same each time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise, product
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from cron_observer import schedule
from cron_observer.model import FoldRule, GapRule, ScheduleSpec
from support.walker import Clock, Walker, Wanted, changes

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL = os.environ.get("CRON_OBSERVER_WALK") == "all"
RULES = [{"gap": str(gap), "overlap": str(fold)} for gap, fold in product(GapRule, FoldRule)]

ZONES = (
    "Africa/Cairo", "Africa/Casablanca", "Africa/El_Aaiun", "Africa/Johannesburg", "Africa/Juba", "Africa/Monrovia",
    "Africa/Windhoek", "America/Adak", "America/Argentina/Buenos_Aires", "America/Argentina/San_Luis",
    "America/Asuncion", "America/Bogota", "America/Caracas", "America/Chicago", "America/Godthab", "America/Havana",
    "America/Lima", "America/Mexico_City", "America/Montevideo", "America/New_York", "America/Port-au-Prince",
    "America/Santiago", "America/Sao_Paulo", "America/Scoresbysund", "America/St_Johns",
    "America/Indiana/Indianapolis", "Antarctica/Casey", "Antarctica/Macquarie", "Antarctica/Troll",
    "Antarctica/Vostok", "Asia/Amman", "Asia/Baku", "Asia/Beirut", "Asia/Colombo", "Asia/Damascus", "Asia/Dhaka",
    "Asia/Gaza", "Asia/Hebron", "Asia/Hong_Kong", "Asia/Irkutsk", "Asia/Jerusalem", "Asia/Karachi", "Asia/Kathmandu",
    "Asia/Kolkata", "Asia/Manila", "Asia/Pyongyang", "Asia/Seoul", "Asia/Singapore", "Asia/Taipei", "Asia/Tbilisi",
    "Asia/Tehran", "Asia/Tokyo", "Asia/Ulaanbaatar", "Asia/Yangon", "Atlantic/Azores", "Atlantic/Stanley",
    "Australia/Adelaide", "Australia/Eucla", "Australia/Lord_Howe", "Australia/Sydney", "Europe/Athens",
    "Europe/Berlin", "Europe/Dublin", "Europe/Istanbul", "Europe/Lisbon", "Europe/London", "Europe/Moscow",
    "Europe/Riga", "Europe/Simferopol", "Europe/Volgograd", "Indian/Mauritius", "Pacific/Apia", "Pacific/Auckland",
    "Pacific/Bougainville", "Pacific/Chatham", "Pacific/Easter", "Pacific/Enderbury", "Pacific/Fakaofo",
    "Pacific/Fiji", "Pacific/Kiritimati", "Pacific/Kwajalein", "Pacific/Norfolk", "Pacific/Pitcairn",
    "Pacific/Tongatapu", "UTC",
)  # fmt: skip

Block = dict[str, Any]

#: Minutes and hours, and days, of random expressions: m, h, d, w are those of a label near a change.
TIMES = (
    "{m} {h}", "{m} {h}", "{m},{other} {h}-{later}", "0 {h}", "*/{n} {h}", "*/{n} *", "{m} */{few}",
    "{low}/20 {h},{later}", "5-59/{n} 0-23/{few}", "0 0",
)  # fmt: skip
DAYS = (
    "* * *", "* * *", "* * *", "*/2 * {w}", "{d} * *", "{d},L {month} *", "* * {w}", "1-7 * 0", "* * 1-5", "L * L{w}",
    "15 * {w}#1",
)  # fmt: skip


def rolled(zone: str, at: datetime) -> random.Random:
    """Return dice that fall the same way every time."""
    return random.Random(f"{zone} {at}")  # noqa: S311


def looked_at(zone: str, sample: int) -> list[datetime]:
    """Return so many changes of a zone: one of each kind (so much, at that time of day) and some more."""
    every = changes(zone)
    if len(every) <= sample:
        return every
    info, kinds = ZoneInfo(zone), {}
    for at in every:
        before, after = ((at + off).astimezone(info) for off in (-timedelta(seconds=1), timedelta(0)))
        kinds[str(before.utcoffset()), str(after.utcoffset()), after.time()] = at
    dice = rolled(zone, every[0])
    some = dice.sample(sorted(kinds.values()), min(sample, len(kinds)))
    return sorted({*some, *dice.sample(every, sample - len(some))})


def near(dice: random.Random, clock: Clock, at: datetime) -> datetime:
    """Return a label near a change, mostly one that the clock swallows or shows twice."""
    special = [*clock.swallowed, *(label for label, shown in clock.shown.items() if len(shown) > 1)]
    if special and dice.random() < 0.7:
        return dice.choice(special).replace(second=0)
    return clock.look(at).replace(second=0) + timedelta(minutes=dice.randrange(-400, 400))


def cron(dice: random.Random, label: datetime) -> str:
    """Return an expression that has to do with a label."""
    # Names of what the text below may hold.
    at, weekday = {"m": label.minute, "h": label.hour, "d": label.day, "month": label.month}, label.isoweekday() % 7
    at |= {"later": min(label.hour + dice.randrange(1, 4), 23), "other": (label.minute + 17) % 60, "w": weekday}
    at |= {"low": label.minute % 20, "n": dice.choice([1, 2, 3, 4, 7, 15, 20]), "few": dice.choice([1, 2, 3])}
    return f"{dice.choice(TIMES)} {dice.choice(DAYS)}".format(**at)


def compiled(block: Mapping[str, Any], calendars: Mapping[str, Any] | None = None) -> schedule.Schedule:
    """Compile a block, its calendars read by the engine."""
    spec = ScheduleSpec.read(block, "default/walk")
    if not calendars:
        return schedule.compile(spec)
    from cron_observer.schedule.calendars import read_calendar

    return schedule.compile(spec, {name: read_calendar(content) for name, content in calendars.items()})


def agree(
    block: Block, clock: Clock, start: datetime, end: datetime, calendars: Mapping[str, Any] | None = None
) -> int:
    """Compare engine and walker between two instants; return how many slots there were."""
    wanted = Walker(block, clock, calendars).slots()
    made = compiled(block, calendars)
    found = [
        Wanted(one.nominal_at, one.nominal_local, one.fold, one.fire_at, one.skip) for one in made.slots(start, end)
    ]
    for expected, seen in zip(slots := [one for one in wanted if start < one.nominal_at <= end], found, strict=False):
        skipped = expected.skip is not None
        assert seen == (expected._replace(fire_at=seen.fire_at) if skipped else expected), (block, calendars)
    assert len(found) == len(slots), (block, calendars)
    fires = sorted(one.fire_at for one in wanted if one.skip is None and start < one.fire_at <= end)
    assert made.next_fires(start, len(fires)) == fires, (block, calendars)
    assert all(first < second for first, second in pairwise(fires))
    return len(slots)


def blocks(zone: str, dice: random.Random, clock: Clock, at: datetime) -> Iterator[Block]:
    """Make up schedules for a change: random ones, and a daily one for each pair of rules."""
    daily = near(dice, clock, at)
    for rules in RULES:
        yield {"cron": f"{daily.minute} {daily.hour} * * *", "timezone": zone, "dst": rules}
        many = [cron(dice, near(dice, clock, at)) for _ in range(dice.choice([1, 1, 2, 3]))]
        once = [near(dice, clock, at).isoformat() for _ in range(dice.choice([0, 0, 2]))]
        yield {"cron": many, "at": once, "timezone": zone, "dst": rules}


@pytest.mark.parametrize("zone", ZONES)
def test_around_changes_the_engine_does_as_the_clock_shows(zone: str) -> None:
    """Whatever is asked for around a clock change, slots, reasons and fires are those that the wall clock gives."""
    # Half minutes until 1972: there cron has minutes that are none in UTC.
    for at in changes(zone) if ALL else looked_at(zone, 4):
        dice, clock = rolled(zone, at), Clock(zone, at - 66 * HOUR, at + 66 * HOUR)
        for block in blocks(zone, dice, clock, at):
            agree(block, clock, at - 40 * HOUR, at + 40 * HOUR)


def narrowed(dice: random.Random, clock: Clock, at: datetime) -> tuple[Block, dict[str, Any]]:
    """Make up a schedule with windows, calendars, a start and an end."""
    label = near(dice, clock, at)
    block: Block = {"cron": [cron(dice, label)], "timezone": clock.info.key, "dst": dice.choice(RULES)}
    if dice.random() < 0.5:
        day = label.isoweekday() % 7
        span = dice.choice(
            [["sun-sat"], ["fri-mon"], ["mon-fri"], [("sun", "mon", "tue", "wed", "thu", "fri", "sat")[day]]]
        )
        opens = dice.choice([f"{label:%H:%M}", f"{label:%H}:00", "22:00", "00:00"])
        block["windows"] = [{"days": span, "from": opens, "to": dice.choice(["24:00", "03:30", "02:10", "12:00"])}]
    for field, spans in (("startAt", [0, -1, -90, -3000]), ("endAt", [1, 2, 90, 3000])):
        if dice.random() < 0.3:
            block[field] = (label + timedelta(minutes=dice.choice(spans))).isoformat()
    start, end = (
        clock.nominal(datetime.fromisoformat(block.get(field, "2000-01-01"))) for field in ("startAt", "endAt")
    )
    if start and end and end <= start:
        del block["endAt"]  # around a gap a later label may be the earlier instant
    contents = {}
    if dice.random() < 0.8:
        days = [label.date() + dice.randrange(-3, 3) * DAY for _ in range(3)]
        away = dice.choice([None, None, "Asia/Tokyo", "America/Los_Angeles"])
        part = {"timezone": away, "dates": [[str(day), str(day + dice.choice([0, 0, 2, 20]) * DAY)] for day in days]}
        part |= {
            "yearly": [f"{label:%m-%d}"] if dice.random() < 0.3 else [],
            "weekdays": dice.sample(range(7), dice.choice([0, 0, 2])),
        }
        contents["days"] = {"parts": [{"holidays": [], "spans": [], **part}]}
        block["calendars"] = {dice.choice(["exclude", "exclude", "include"]): ["days"]}
        fixed = not any(word.startswith("*") for word in block["cron"][0].split()[:2])
        block["onExcluded"] = dice.choice(["skip", "next_allowed", "previous_allowed"]) if fixed else "skip"
    return block, contents


@pytest.mark.parametrize("zone", ZONES)
def test_what_narrows_a_schedule_does_so_by_the_clock(zone: str) -> None:
    """Windows, calendars, start and end judge labels and days as a wall clock shows them, around changes too."""
    for at in looked_at(zone, 12 if ALL else 1):
        dice, clock = rolled(zone, at), Clock(zone, at - 66 * HOUR, at + 66 * HOUR)
        # A slot moves fourteen days at most, and what it falls onto may have moved as far.
        wide = cache(lambda at=at: Clock(zone, at - 34 * DAY, at + 34 * DAY))
        for _ in range(10 if ALL else 5):
            block, contents = narrowed(dice, clock, at)
            moves = block.get("onExcluded", "skip") != "skip"
            agree(block, wide() if moves else clock, at - 40 * HOUR, at + 40 * HOUR, contents)


@pytest.mark.parametrize("zone", ZONES)
def test_through_seventy_years_a_day_has_its_slot(zone: str) -> None:
    """From 1970 to 2037 a daily time has one slot for each date and fires once on it, and fires rise strictly."""
    first, last = datetime(1970, 1, 3, tzinfo=UTC), datetime(2037, 12, 30, tzinfo=UTC)
    for time in ["30 2", "0 0", "45 1", "15 3"] if ALL else ["30 2"]:
        slots = list(compiled({"cron": f"{time} * * *", "timezone": zone}).slots(first, last))
        dates = [slot.nominal_local.date() for slot in slots]
        assert dates == [dates[0] + number * DAY for number in range(len(dates))]
        assert (dates[-1] - dates[0]).days > 24_800
        fires = [slot.fire_at for slot in slots if slot.skip is None]
        assert all(before < after for before, after in pairwise(fires))
        # Where a day is missing, its midnight falls onto the next one.
        assert len(slots) - len(fires) <= (1 if time == "0 0" else 0)


@pytest.mark.parametrize("zone", ZONES)
def test_elapsed_time_loses_no_instant(zone: str) -> None:
    """Every ten minutes is every ten minutes, over every change: as often as the clock shows such a minute."""
    for at in changes(zone) if ALL else looked_at(zone, 12):
        made = compiled({"cron": "*/10 * * * *", "timezone": zone})
        start, info = at - 3 * HOUR, ZoneInfo(zone)
        seconds = (start + timedelta(seconds=30 * number) for number in range(1, 720))
        shown = [now for now in seconds if not (label := now.astimezone(info)).minute % 10 and not label.second]
        assert [slot.fire_at for slot in made.slots(start, at + 3 * HOUR - timedelta(seconds=1))] == shown, (zone, at)


def test_many_zones_are_walked() -> None:
    """The zones are many, and with them every kind of change there is."""
    assert len(set(ZONES)) >= 80
    assert sum(len(changes(zone)) for zone in ZONES) > 4000
