"""The vectors of public cron suites: rows of `tests/unit/vectors`, whose README tells what they mean."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from cron_observer.model import FoldRule, GapRule, ScheduleSpec

FOLDER = Path(__file__).parents[1] / "unit" / "vectors"
FILES = sorted(path.name for path in FOLDER.glob("*.jsonl"))

Vector = dict[str, Any]


@cache
def rows(name: str) -> list[Vector]:
    """Return the rows of a file."""
    with (FOLDER / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def spec_of(row: Vector) -> ScheduleSpec:
    """Return the schedule that a row asks for."""
    return ScheduleSpec(
        cron=(row["cron"],),
        timezone=row["timezone"],
        gap=GapRule(row["gap"]),
        overlap=FoldRule(row["overlap"]),
    )


def wanted(row: Vector) -> object:
    """Return what is right: the fires, ``never`` or ``error``."""
    return row.get("expect", "never" if row.get("expect_never") else "error")
