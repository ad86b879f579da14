"""The conditions of a source: what they say, and since when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cron_observer import conditions

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def test_a_source_that_is_well_is_ready() -> None:
    """Everything is true, with the numbers in words."""
    made = conditions.looked({}, "main is at 1234567", {"files": 1, "tasks": 2}, NOON)
    assert {name: one["status"] for name, one in made.items()} == {
        "Ready": "True",
        "Fetched": "True",
        "Applied": "True",
        "Validated": "True",
    }
    assert made["Applied"]["message"] == "2 tasks in force"
    assert made["Validated"]["message"] == "1 file valid"


def test_calendars_and_groups_are_counted() -> None:
    """What is in force beside tasks is named where there is any."""
    made = conditions.looked({}, "x", {"files": 1, "tasks": 0, "calendars": 1, "groups": 2}, NOON)
    assert made["Applied"]["message"] == "0 tasks, 1 calendar, 2 task groups in force"


def test_nothing_to_read_is_said() -> None:
    """A source without manifests is ready, and says that there are none: `paths` may be wrong."""
    made = conditions.looked({}, "x", {"files": 0}, NOON)
    assert (made["Ready"]["status"], made["Validated"]["reason"]) == ("True", "NoManifests")


def test_errors_make_it_not_ready() -> None:
    """With errors in manifests not all of the source is in force, so it is not ready."""
    made = conditions.looked({}, "x", {"files": 1, "errors": 1, "held": 2}, NOON)
    assert (made["Ready"]["status"], made["Ready"]["reason"]) == ("False", "InvalidManifests")
    assert made["PrunePending"]["status"] == "True"
    assert "PrunePending" not in conditions.looked(made, "x", {"files": 1}, LATER)


def test_a_failure_leaves_alone_what_it_does_not_concern() -> None:
    """A source that cannot be read keeps what is said of its manifests."""
    well = conditions.looked({}, "x", {"files": 1}, NOON)
    made = conditions.failed(well, "Timeout", "no answer", LATER)
    assert (made["Fetched"]["reason"], made["Ready"]["reason"]) == ("Timeout", "Timeout")
    assert (made["Applied"], made["Validated"]) == (well["Applied"], well["Validated"])


def test_since_is_the_last_change_of_status() -> None:
    """A new reason does not reset the time, a new status does."""
    first = conditions.failed({}, "Timeout", "no answer", NOON)
    second = conditions.failed(first, "Unreachable", "no route", LATER)
    assert second["Ready"]["since"] == NOON.isoformat()
    third = conditions.looked(second, "x", {"files": 1}, LATER)
    assert third["Ready"]["since"] == LATER.isoformat()
