"""What a manifest may say of tasks that somebody else runs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cron_observer import manifest
from cron_observer.durations import CheckIn
from cron_observer.model import Catchup, Overlap, Policy


def found(run: str, more: str = "") -> list[tuple[str, str | None]]:
    """Return code and pointer of each finding about a task with this `run`."""
    head = 'apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\nspec:\n  schedule: {cron: "5 5 * * *"}\n'
    text = f"{head}{more}  run: {run}\n"
    return [(one.code, one.pointer) for one in manifest.parse("a.yaml", text.encode()).findings]


def test_the_smallest_check_in_means_this() -> None:
    """Each clock has its default, and the two that are not looked at are null."""
    run = manifest.effective({"schedule": {"every": "1h"}, "run": {"checkin": {}}})["run"]

    assert found("{checkin: {}}") == []
    assert run == {
        "checkin": {"grace": "10m", "earlyMargin": "1m", "minRuntime": None, "maxRuntime": "1h", "heartbeat": None}
    }
    assert CheckIn.read(run["checkin"]) == CheckIn()


def test_what_we_would_do_does_not_bear_upon_what_others_run() -> None:
    """Every slot is watched, runs may overlap, and nothing is tried again; the clocks are those of the check-in."""
    spec = manifest.effective(
        {"schedule": {"every": "1h"}, "run": {"checkin": {"grace": "2m", "maxRuntime": "3m", "earlyMargin": "0s"}}}
    )
    policy = Policy.read(spec)

    assert (policy.overlap, policy.catchup, policy.catchup_window) == (Overlap.ALLOW_ALL, Catchup.ALL, None)
    assert (policy.start_deadline, policy.timeout) == (timedelta(minutes=2), timedelta(minutes=3))
    assert policy.retries_max == 0
    assert policy.checkin is not None
    assert policy.checkin.early_margin == timedelta(0)


@pytest.mark.parametrize(
    ("run", "more", "expected"),
    [
        ("{checkin: {gracious: 1m}}", "", ("CO1301", "/spec/run/checkin/gracious")),
        ("{checkin: {}, external: {}}", "", ("CO1324", "/spec/run")),
        ("{checkin: {grace: 7d}}", "", ("CO1309", "/spec/run/checkin/grace")),
        ("{checkin: {grace: 0s}}", "", ("CO1309", "/spec/run/checkin/grace")),
        ("{checkin: {grace: soon}}", "", ("CO1308", "/spec/run/checkin/grace")),
        ("{checkin: {earlyMargin: 25h}}", "", ("CO1309", "/spec/run/checkin/earlyMargin")),
        ("{checkin: {minRuntime: 1h}}", "", ("CO1316", "/spec/run/checkin/minRuntime")),
        ("{checkin: {heartbeat: 2h}}", "", ("CO1315", "/spec/run/checkin/heartbeat")),
        ("{checkin: {}}", "  queue: slow\n", ("CO1315", "/spec/queue")),
        ("{checkin: {}}", "  timeout: 2h\n", ("CO1315", "/spec/timeout")),
        ("{checkin: {}}", "  retries: {max: 2}\n", ("CO1315", "/spec/retries/max")),
        ("{checkin: {}}", "  payload: {a: 1}\n", ("CO1315", "/spec/payload")),
        ("{checkin: {}}", "  onResume: last\n", ("CO1315", "/spec/onResume")),
    ],
)
def test_what_is_wrong_is_found(run: str, more: str, expected: tuple[str, str]) -> None:
    """Each defect has one finding, at its place."""
    assert found(run, more) == [expected]


def test_defaults_are_allowed() -> None:
    """Settings that have their default say nothing, and a margin of none is one."""
    assert found("{checkin: {earlyMargin: 0s}}", "  timeout: 1h\n  retries: {max: 0}\n  late: record\n") == []
