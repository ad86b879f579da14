"""The conditions of a task are derived from its row, and say why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cron_observer.store.task_reads import TASK_STATUSES
from cron_observer.store.task_status import conditions

SINCE = datetime(2026, 3, 1, tzinfo=UTC)


def shown(**row: Any) -> dict[str, str]:
    """Return status and reason of each condition."""
    whole = {
        "status": "ACTIVE",
        "owner": "manifest",
        "sync": "SYNCED",
        "quarantine": None,
        "pause_reason": None,
        "pause_author": "ada",
        "pause_since": SINCE,
    }
    return {name: f"{one['status']} {one['reason']}" for name, one in conditions(whole | row).items()}


@pytest.mark.parametrize(
    ("status", "ready", "scheduled"),
    [
        ("ACTIVE", "True Ready", "True Planned"),
        ("PAUSED", "False Paused", "True Planned"),
        ("DISABLED", "False Suspended", "False Suspended"),
        ("QUARANTINED", "False Quarantined", "False Quarantined"),
        ("DELETING", "False Deleting", "False Deleting"),
        ("REMOVED", "False Removed", "False Removed"),
    ],
)
def test_every_status_is_explained(status: str, ready: str, scheduled: str) -> None:
    """Whether a task is ready, and whether it has slots, follows from its status; a pause is a condition of its own."""
    found = shown(status=status)
    assert (found["Ready"], found["Scheduled"]) == (ready, scheduled)
    assert ("Paused" in found) == (status == "PAUSED")
    assert status in TASK_STATUSES


@pytest.mark.parametrize(
    ("sync", "told", "ready"),
    [
        ("SYNCED", "True Applied", "True Ready"),
        ("KEPT_LAST_GOOD", "False KeptLastGood", "True KeptLastGood"),
        ("HELD", "False Held", "True Ready"),
    ],
)
def test_a_manifests_task_says_whether_it_is_in_sync(sync: str, told: str, ready: str) -> None:
    """A broken manifest and a held removal are told, and the task goes on."""
    assert shown(sync=sync)["InSync"] == told
    assert shown(sync=sync)["Ready"] == ready


def test_a_task_of_the_api_is_in_sync_with_nothing() -> None:
    """Without a manifest there is no such condition."""
    assert "InSync" not in shown(owner="api", sync=None)


def test_reasons_are_in_the_messages() -> None:
    """A pause says why, by whom and since when; a quarantine what is wrong with the schedule."""
    row = {"owner": "api", "sync": None, "quarantine": "no such zone"}
    paused = conditions(
        row | {"status": "PAUSED", "pause_reason": "rollout", "pause_author": "ada", "pause_since": SINCE}
    )["Paused"]
    assert (paused["message"], paused["since"]) == ("rollout (ada)", "2026-03-01T00:00:00.000Z")
    assert conditions(row | {"status": "QUARANTINED"})["Scheduled"]["message"] == "no such zone"
