"""The vectors of public cron suites, put to the engine as a black box."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cron_observer import schedule
from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec

FOLDER = Path(__file__).parent / "vectors"
FILES = sorted(path.name for path in FOLDER.glob("*.jsonl"))


def rows(name: str) -> list[dict[str, Any]]:
    with (FOLDER / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def answer(row: dict[str, Any]) -> object:
    spec = ScheduleSpec(cron=(row["cron"],), timezone=row["timezone"])
    if "expect" not in row:
        with pytest.raises(ScheduleError) as refused:
            schedule.compile(spec)
        return {"CO3009": "never"}.get(refused.value.rule, "error")
    after = datetime.fromisoformat(row["after"])
    fires = schedule.compile(spec).next_fires(after, len(row["expect"]))
    return [fire.astimezone(UTC).isoformat().replace("+00:00", "Z") for fire in fires]


def wanted(row: dict[str, Any]) -> object:
    return row.get("expect", "never" if row.get("expect_never") else "error")


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_answered_as_its_suite_states(name: str) -> None:
    """Every fire, every refusal and every schedule without a date is right."""
    wrong = [row for row in rows(name) if answer(row) != wanted(row)]
    assert wrong == []


def test_the_folder_holds_all_rows() -> None:
    """No file of vectors has been lost or cut short."""
    assert sum(len(rows(name)) for name in FILES) == 1521


@pytest.mark.parametrize("name", FILES)
def test_the_class_of_each_row_is_recognised(name: str) -> None:
    """Fixed-time and interval-like schedules are told apart as the rows are tagged."""
    kinds = {"fixed": "fixed-time", "interval": "interval-like"}
    for row in rows(name):
        for tag in kinds.keys() & set(row["tags"]):
            spec = ScheduleSpec(cron=(row["cron"],), timezone=row["timezone"])
            if "expect" in row:
                told = schedule.explain(spec, datetime(2026, 1, 1, tzinfo=UTC), 1)
                assert told.kind == kinds[tag], row["cron"]
