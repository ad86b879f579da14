"""The block that is planned from: two ways of writing the same schedule are one, different meanings are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.model import ScheduleSpec
from cron_observer.store.plan_blocks import canonical, normalised

DIGESTS = {"de": "d1", "bank": "d2"}
GROUP = {"name": "night", "uid": "u-1", "timezone": "Europe/Berlin", "windows": [{"from": "22:00", "to": "04:00"}]}
BASE: dict[str, Any] = {"cron": ["0 2 * * *"], "timezone": "UTC"}

MORNING: dict[str, Any] = {"from": "08:00", "to": "09:00"}

#: Each pair means the same.
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"cron": "0  2 * * *"}, {"cron": ["0 2 * * *", "0 2 * * *"]}),
    ({"dst": {"gap": "first_valid", "overlap": "first"}}, {"dst": None}),
    ({"dst": {"gap": "skip", "overlap": "first"}}, {"dst": {"gap": "skip"}}),
    ({"windows": [MORNING | {"days": ["sun-sat"]}]}, {"windows": [MORNING]}),
    (
        {"windows": [MORNING | {"days": ["mon-wed"]}]},
        {"windows": [MORNING | {"days": ["mon", "tue"]}, MORNING | {"days": ["wed"]}]},
    ),
    ({"windows": [{"from": "22:00", "to": "00:00"}]}, {"windows": [{"from": "22:00", "to": "24:00"}]}),
    ({"windows": [{"from": "00:00", "to": "24:00"}]}, {"windows": []}),
    ({"calendars": {"exclude": ["de", "bank"]}}, {"calendars": {"include": [], "exclude": ["bank", "de", "de"]}}),
    ({"onExcluded": "skip"}, {"onExcluded": None}),
    ({"jitter": "5m"}, {"jitter": "300s"}),
    ({"jitter": "0s"}, {}),
    ({"startAt": "2026-01-01T00:00"}, {"startAt": "2026-01-01T00:00:00"}),
    ({"endAt": "2026-01-01T01:00:00+01:00"}, {"endAt": "2026-01-01T00:00:00Z"}),
    ({"every": "1h", "anchor": "1970-01-01T00:00:00"}, {"every": "60m"}),
    ({"at": "2026-12-24T18:00:00+01:00"}, {"at": ["2026-12-24T17:00:00Z"]}),
]

#: No two of these mean the same.
DIFFERENT: list[dict[str, Any]] = [
    {},
    {"cron": "1 2 * * *"},
    {"timezone": "Europe/Berlin"},
    {"dst": {"gap": "skip"}},
    {"dst": {"gap": "shift"}},
    {"dst": {"overlap": "both"}},
    {"windows": [{"from": "08:00", "to": "09:00"}]},
    {"windows": [{"from": "08:00", "to": "09:01"}]},
    {"windows": [{"days": ["mon"], "from": "08:00", "to": "09:00"}]},
    {"calendars": {"exclude": ["de"]}},
    {"calendars": {"include": ["de"]}},
    {"calendars": {"exclude": ["bank"]}},
    {"calendars": {"exclude": ["de"]}, "onExcluded": "next_allowed"},
    {"calendars": {"exclude": ["de"]}, "onExcluded": "previous_allowed"},
    {"jitter": "5m"},
    {"jitter": "6m"},
    {"startAt": "2026-01-01T00:00:00"},
    {"startAt": "2026-01-01T00:00:00Z"},
    {"endAt": "2026-01-01T00:00:00"},
    {"every": "1h"},
    {"every": "1h", "anchor": "1970-01-01T00:00:00Z"},
    {"at": "2026-12-24T18:00:00"},
]


def block(changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return normalised(BASE | changes, "default/export", DIGESTS, **more)


@given(st.lists(st.sampled_from(SAME), min_size=1, max_size=6, unique_by=lambda pair: tuple(pair[0])))
def test_two_ways_of_writing_the_same_are_one_block(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Whichever fields are written in another way, the block stays, and says what the manifest says."""
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for one, other in pairs:
        if not {*one, *other} & {*left, *right}:
            left |= one
            right |= other
    assert block(left) == block(right)
    assert canonical(block(left)) == block(left)
    read = ScheduleSpec.read(block(left))
    assert read.exclude == (("bank@d2", "de@d1") if "calendars" in left else ())


def test_a_rule_for_excluded_days_means_nothing_without_calendars() -> None:
    """Where nothing is excluded, it does not matter what would happen to it."""
    assert block({"onExcluded": "next_allowed"}) == block({})


def test_different_meanings_are_different_blocks() -> None:
    """Every field of the schedule block, and every group, makes a block of its own."""
    blocks = [block(changes) for changes in DIFFERENT]
    blocks += [block({}, group=GROUP | changed) for changed in ({}, {"timezone": "UTC"}, {"uid": "v"})]
    assert [one for number, one in enumerate(blocks) if one in blocks[:number]] == []


def test_what_a_calendar_means_is_part_of_the_block() -> None:
    """A calendar that holds other days makes another block; a name that nobody knows stays bare."""
    schedule = BASE | {"calendars": {"exclude": ["de", "gone"]}}
    assert normalised(schedule, "s", {"de": "d1"})["calendars"] == {"exclude": ["de@d1", "gone"]}
    assert normalised(schedule, "s", {"de": "d1"}) != normalised(schedule, "s", {"de": "d9"})


@pytest.mark.parametrize("windows", [None, [], [{"from": "00:00", "to": "24:00"}]])
def test_a_group_that_is_always_open_is_none(windows: list[dict[str, Any]] | None) -> None:
    """Only a group that closes its tasks out is part of the block."""
    assert block({}, group=GROUP | {"windows": windows}) == block({}, group=None) == block({})


def test_blocks_of_earlier_versions_stay_equal() -> None:
    """A manifest that says nothing of what is new makes the block that was stored before there was any."""
    old = {"cron": ["0 2 * * *"], "every": "900000ms", "at": ["2026-12-24T18:00:00"], "timezone": "UTC", "seed": "a/b"}
    assert normalised({"cron": "0 2 * * *", "every": "15m", "at": "2026-12-24T18:00:00"}, "a/b") == old
