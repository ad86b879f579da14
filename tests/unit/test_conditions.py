"""The conditions of a source: what they say, and since when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cron_observer import conditions
from cron_observer.conditions import Refusal, Seen, Suspension

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def looked(old: Any, counts: dict[str, int], now: datetime, **more: Any) -> dict[str, Any]:
    """Return the conditions after a look at the source ``main``."""
    return conditions.looked(old, Seen(name="main", where="main is at 1234567", counts=counts, **more), now)


def said(told: dict[str, Any]) -> dict[str, str]:
    """Return status and reason by condition."""
    return {name: f"{one['status']} {one['reason']}" for name, one in told.items()}


def waits(*reasons: str) -> list[dict[str, Any]]:
    """Return removals that wait for these reasons."""
    return [
        {"kind": "Task", "name": f"t{n}", "path": "a.yaml", "line": 1, "reason": one} for n, one in enumerate(reasons)
    ]


def test_a_source_that_is_well_is_ready() -> None:
    """Everything is true, with the numbers in words."""
    made = looked({}, {"files": 1, "tasks": 2}, NOON)
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
    made = looked({}, {"files": 1, "tasks": 0, "calendars": 1, "groups": 2}, NOON)
    assert made["Applied"]["message"] == "0 tasks, 1 calendar, 2 task groups in force"


def test_nothing_to_read_is_said() -> None:
    """A source without manifests is ready, and says that there are none: `paths` may be wrong."""
    assert said(looked({}, {"files": 0}, NOON))["Validated"] == "True NoManifests"


def test_errors_make_it_not_ready() -> None:
    """With errors in manifests not all of the source is in force, so it is not ready."""
    made = looked({}, {"files": 1, "errors": 1}, NOON, held=waits("unparseable", "unparseable"))
    assert said(made)["Ready"] == "False InvalidManifests"
    assert made["PrunePending"]["message"] == "2 removals waiting until every file can be read"
    assert "PrunePending" not in looked(made, {"files": 1}, LATER)


def test_what_waits_for_people_makes_it_not_ready() -> None:
    """Removals that somebody has to approve are told with the command, before others that wait for something else."""
    made = looked({}, {"files": 1}, NOON, held=waits("in_use", "too_many", "too_many"), plan_hash="ab" * 32)
    assert said(made)["Ready"] == "False AwaitingApproval"
    command = f"cron-observer sources approve main {'ab' * 32}"
    assert made["Ready"]["message"] == f"2 removals waiting for an approval: {command}"


@pytest.mark.parametrize("reason", ["in_use", "handed_over", "prune_off", "disabled"])
def test_what_waits_by_itself_leaves_it_ready(reason: str) -> None:
    """Removals that nobody has to decide about are told, and what is declared is in force all the same."""
    made = looked({}, {"files": 1}, NOON, held=waits(reason))
    assert made["PrunePending"]["status"] == "True"
    assert made["Ready"]["status"] == "True"


def test_a_refused_commit_is_not_applied() -> None:
    """Under the atomic policy one error keeps the commit out, and that is what the summary says."""
    refusal = Refusal(condition="Applied", reason="ValidationFailed", message="errors")
    made = looked({}, {"files": 2, "errors": 1}, NOON, refusal=refusal)
    assert said(made) == {
        "Fetched": "True Fetched",
        "Applied": "False ValidationFailed",
        "Validated": "False InvalidManifests",
        "Ready": "False ValidationFailed",
    }


def test_bad_signatures_leave_alone_what_is_applied() -> None:
    """A commit that is not trusted is not read: nothing new is said of manifests; the trust comes back by itself."""
    well = looked({}, {"files": 1}, NOON, verified=True)
    assert said(well)["SourceVerified"] == "True Verified"
    refusal = Refusal(condition="SourceVerified", reason="SignatureRefused", message="1234567 is not signed")
    made = looked(well, {"files": 1}, LATER, refusal=refusal)
    assert said(made)["Ready"] == "False SignatureRefused"
    assert made["Validated"] == well["Validated"]
    assert said(looked(made, {"files": 1}, LATER, verified=True))["Ready"] == "True Ready"
    assert "SourceVerified" not in looked(made, {"files": 1}, LATER)


def test_what_is_only_observed_is_neither_ready_nor_not() -> None:
    """Mode observe is what an operator wants: nothing to alert on, and nothing that is in force either."""
    assert said(looked({}, {"files": 1}, NOON, observing=True))["Ready"] == "Unknown Observing"
    assert said(looked({}, {"files": 1, "errors": 1}, NOON, observing=True))["Ready"] == "False InvalidManifests"


def test_a_push_by_force_is_told_until_the_next_commit() -> None:
    """The event names both commits; the next one that follows ends it."""
    made = looked({}, {"files": 1}, NOON, rewritten=("a" * 40, "b" * 40))
    assert made["HistoryRewritten"]["message"].startswith("bbbbbbb does not follow from aaaaaaa")
    assert made["Ready"]["status"] == "True"
    assert "HistoryRewritten" not in looked(made, {"files": 1}, LATER)


def test_a_failure_leaves_alone_what_it_does_not_concern() -> None:
    """A source that cannot be read keeps what is said of its manifests."""
    well = looked({}, {"files": 1}, NOON)
    made = conditions.failed(well, "Timeout", "no answer", LATER)
    assert (made["Fetched"]["reason"], made["Ready"]["reason"]) == ("Timeout", "Timeout")
    assert (made["Applied"], made["Validated"]) == (well["Applied"], well["Validated"])


def test_what_was_refused_stays_refused_after_a_failure() -> None:
    """A look that fails in between does not make a refused commit a good one."""
    refusal = Refusal(condition="Applied", reason="ValidationFailed", message="errors")
    refused = looked({}, {"files": 2, "errors": 1}, NOON, refusal=refusal)
    lost = conditions.failed(refused, "Timeout", "no answer", LATER)
    assert said(conditions.again(lost, "main is at 1234567", LATER))["Ready"] == "False ValidationFailed"


def test_since_is_the_last_change_of_status() -> None:
    """A new reason does not reset the time, a new status does."""
    first = conditions.failed({}, "Timeout", "no answer", NOON)
    second = conditions.failed(first, "Unreachable", "no route", LATER)
    assert second["Ready"]["since"] == NOON.isoformat()
    assert looked(second, {"files": 1}, LATER)["Ready"]["since"] == LATER.isoformat()


def shown(
    stored: Any, observed_at: datetime | None, now: datetime, suspension: Suspension | None = None
) -> dict[str, str]:
    """Return what somebody sees who looks at `now`."""
    several = conditions.shown(stored, observed_at=observed_at, poll_seconds=60.0, suspension=suspension, now=now)
    return said(several)


def test_a_source_that_nobody_looks_at_becomes_stale() -> None:
    """After three intervals without a look nothing is known to be current."""
    stored = looked({}, {"files": 1}, NOON)
    assert "Stale" not in shown(stored, NOON, NOON + timedelta(seconds=180))
    assert shown(stored, NOON, NOON + timedelta(seconds=181))["Stale"] == "True Behind"
    assert "Stale" not in shown({}, None, LATER), "nothing was ever seen"


def test_fresh_looks_at_what_is_not_applied_do_not_make_it_fresh() -> None:
    """It counts when what is applied was last what the source holds, not when that was last looked at."""
    stored = looked({}, {"files": 1, "errors": 1}, NOON, refusal=Refusal(condition="Applied", reason="x", message="x"))
    assert conditions.behind_since(stored, LATER) == NOON
    assert shown(stored, LATER, LATER)["Stale"] == "True Behind"


def test_a_suspension_beats_ready_until_it_ends() -> None:
    """Suspended is never green; one with an end is over by itself."""
    stored = looked({}, {"files": 1}, NOON)
    one = Suspension(by="ada", reason="freeze", since=NOON, until=LATER)
    during = shown(stored, NOON, NOON + timedelta(minutes=1), one)
    assert (during["Suspended"], during["Ready"]) == ("True Suspended", "False Suspended")
    assert "Suspended" not in shown(stored, LATER, LATER, one)
    for_ever = Suspension(by="ada", reason=None, since=NOON, until=None)
    assert shown(stored, LATER, LATER, for_ever)["Ready"] == "False Suspended"
