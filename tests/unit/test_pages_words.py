"""The words of the pages."""

from __future__ import annotations

from typing import Any

import pytest

from cron_observer.lifecycle import Event, Reason, Status, Trigger
from cron_observer_api.pages import words


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.004, "4 ms"),
        (0.21, "0.21 s"),
        (3.24, "3.2 s"),
        (41.4, "41 s"),
        (59.7, "1 m 00 s"),
        (724, "12 m 04 s"),
        (3599.6, "1 h 00 m"),
        (6120, "1 h 42 m"),
        (90_000, "1 d 01 h"),
        (-5, "0 ms"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, said: str) -> None:
    """A duration is as exact as its size allows, and rounding never makes 60 of anything."""
    assert words.duration(seconds) == said


def test_every_status_has_a_word_and_a_shape() -> None:
    """Each status reads differently, and no two share both tone and word."""
    badges = [words.status(status) for status in Status]
    assert [badge.word for badge in badges] == [
        "Waiting",
        "Running",
        "Finished",
        "Failed",
        "Cancelled",
        "Skipped",
        "Missed",
    ]
    assert len({(badge.tone, badge.word) for badge in badges}) == len(Status)


def test_a_waiting_one_is_upcoming_until_due() -> None:
    """A slot that is not due yet is a forecast and says so."""
    assert words.status("PENDING", upcoming=True).word == "Upcoming"


def test_every_code_of_the_life_cycle_is_said_in_words() -> None:
    """No reason, trigger or event reaches a reader as a code."""
    assert set(words.REASONS) == {str(reason) for reason in Reason}
    assert set(words.TRIGGERS) == {str(trigger) for trigger in Trigger}
    assert set(words.EVENTS) == {str(event) for event in Event}


def row(**changes: Any) -> dict[str, Any]:
    """A task whose last run finished."""
    return {"status": "ACTIVE", "bars": [["id", "FINISHED", False, 3.0, 0, None]], **changes}


@pytest.mark.parametrize(
    ("changes", "word", "tone"),
    [
        ({}, "Healthy", "ok"),
        ({"bars": []}, "No runs yet", "wait"),
        ({"bars": None}, "No runs yet", "wait"),
        ({"bars": [["id", "FAILED", False, 3.0, 0, "error"]]}, "Failing", "fail"),
        ({"bars": [["id", "FINISHED", True, 3.0, 0, None]]}, "Late", "late"),
        ({"bars": [["id", "MISSED", False, None, 0, "no_worker"]]}, "Missed", "late"),
        ({"status": "DISABLED"}, "Suspended", "skip"),
        ({"status": "REMOVED"}, "Removed", "skip"),
        ({"status": "QUARANTINED"}, "Quarantined", "fail"),
    ],
)
def test_health_is_what_keeps_a_task_from_running_or_its_last_run(
    changes: dict[str, Any], word: str, tone: str
) -> None:
    """Health says what keeps the task from running, else how its last run went."""
    badge = words.health(row(**changes))
    assert (badge.word, badge.tone) == (word, tone)


def test_sync_is_another_axis() -> None:
    """A healthy task can be out of step with its manifest, and an API-owned one has none."""
    assert words.sync("KEPT_LAST_GOOD", "manifest").word == "Kept last good"
    assert words.sync("SYNCED", "manifest").word == "Synced"
    assert words.sync("HELD", "manifest").word == "Held"
    assert words.sync(None, "api").word == "API-owned"


def test_the_usual_duration_is_that_of_finished_runs() -> None:
    """A failure's length says nothing about how long the work takes."""
    bars = [
        ["a", "FINISHED", False, 10.0, 0, None],
        ["b", "FAILED", False, 1.0, 0, None],
        ["c", "FINISHED", False, 14.0, 0, None],
    ]
    assert words.usual(bars) == 12.0
    assert words.usual([]) is None


@pytest.mark.parametrize(("size", "said"), [(0, "0 B"), (999, "999 B"), (18_400_000_000, "18.4 GB")])
def test_sizes(size: int, said: str) -> None:
    """Sizes count in thousands."""
    assert words.size(size) == said
