"""The vectors of public cron suites, put to the engine as a black box."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from support.vectors import FILES, Vector, rows, spec_of, wanted


def answer(row: Vector) -> object:
    spec = spec_of(row)
    if "expect" not in row:
        with pytest.raises(ScheduleError) as refused:
            schedule.compile(spec)
        return {"CO3009": "never"}.get(refused.value.rule, "error")
    after = datetime.fromisoformat(row["after"])
    fires = schedule.compile(spec).next_fires(after, len(row["expect"]))
    return [fire.astimezone(UTC).isoformat().replace("+00:00", "Z") for fire in fires]


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_answered_as_its_suite_states(name: str) -> None:
    """Every fire, every refusal and every schedule without a date is right, whatever rule for clock changes it asks."""
    wrong = [row for row in rows(name) if answer(row) != wanted(row)]
    assert wrong == []


def test_the_folder_holds_all_rows() -> None:
    """No file of vectors has been lost or cut short, and each of the nine pairs of rules has its rows."""
    every = [row for name in FILES for row in rows(name)]
    assert len(every) == 1751
    pairs = Counter((row["gap"], row["overlap"]) for row in every if "expect" in row)
    assert len(pairs) == 9
    assert min(pairs.values()) >= 20


@pytest.mark.parametrize("name", FILES)
def test_the_class_of_each_row_is_recognised(name: str) -> None:
    """Fixed-time and interval-like schedules are told apart as the rows are tagged."""
    kinds = {"fixed": "fixed-time", "interval": "interval-like"}
    for row in rows(name):
        for tag in kinds.keys() & set(row["tags"]):
            if "expect" in row:
                told = schedule.explain(spec_of(row), datetime(2026, 1, 1, tzinfo=UTC), 0)
                assert told.kind == kinds[tag], row["cron"]


@pytest.mark.parametrize("name", FILES)
def test_one_fire_at_a_time_is_the_same(name: str) -> None:
    """Asked for one fire after the other, the engine's short cut names the same fires."""
    for row in rows(name):
        if "expect" in row:
            made, at = schedule.compile(spec_of(row)), datetime.fromisoformat(row["after"])
            for text in row["expect"]:
                fire = made.next_fire(at)
                assert fire == datetime.fromisoformat(text), row
                at = fire
