"""`explain --batch`: the whole schedule block, and every vector, through the command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from cron_observer.cli import batch
from cron_observer.cli import explain as command
from support.vectors import FILES, rows, wanted

AFTER = "2026-03-27T00:00:00Z"
HOLIDAYS = {"parts": [{"dates": [["2026-04-03", "2026-04-03"]], "weekdays": [0, 6]}]}


def ask(schedule: Any, count: int = 4, **more: Any) -> dict[str, Any]:
    """Return the answer of one request."""
    request = {"id": 1, "schedule": schedule, "after": AFTER, "count": count, **more}
    return batch.answer(json.dumps(request).encode())


def fires(schedule: Any, count: int = 4, **more: Any) -> list[str]:
    """Return the fires of one request, without year and seconds."""
    answered = ask(schedule, count, **more)
    assert "fires" in answered, answered
    return [fire[5:16] for fire in answered["fires"]]


@pytest.mark.parametrize("name", FILES)
def test_every_vector_is_right(name: str) -> None:
    """All rows are put to the command in one go; every answer is what the row wants, in order."""
    asked = rows(name)
    lines = [
        json.dumps(
            {
                "id": number,
                "schedule": {
                    "cron": row["cron"],
                    "timezone": row["timezone"],
                    "dst": {"gap": row["gap"], "overlap": row["overlap"]},
                },
                "after": row.get("after", AFTER),
                "count": len(row.get("expect", [1])),
            }
        )
        for number, row in enumerate(asked)
    ]
    done = CliRunner().invoke(command.explain, ["--batch"], input="\n".join(lines))
    answers = [json.loads(line) for line in done.output.splitlines()]
    assert [answered["id"] for answered in answers] == list(range(len(asked)))
    wrong = [
        (row, answered)
        for row, answered in zip(asked, answers, strict=True)
        if ("error" not in answered if "expect" not in row else answered.get("fires") != wanted(row))
    ]
    assert wrong == []


def test_the_whole_block_is_understood() -> None:
    """Clock rules, windows, calendars, bounds and jitter of a manifest are read, and fires come before jitter."""
    block = {
        "cron": ["30 2 * * *", "30 12 * * *"],
        "timezone": "Europe/Berlin",
        "dst": {"gap": "shift", "overlap": "second"},
        "windows": [{"days": ["fri-mon"], "from": "02:00", "to": "03:00"}],
        "calendars": {"exclude": ["free"]},
        "onExcluded": "previous_allowed",
        "jitter": "5m",
        "startAt": "2026-03-01T00:00:00",
        "endAt": None,
        "seed": "default/a",
    }
    contents = {"free": {"parts": [{"dates": [["2026-03-28", "2026-03-28"]]}]}}
    # Saturday is moved onto Friday, which has its own; on Sunday 02:30 does not exist.
    assert fires(block, 3, calendars=contents) == ["03-27T01:30", "03-29T01:30", "03-30T00:30"]
    assert fires({**block, "dst": {"gap": "first_valid"}}, 2, calendars=contents) == ["03-27T01:30", "03-29T01:00"]
    assert fires({**block, "endAt": "2026-03-29T00:00:00"}, 9, calendars=contents) == ["03-27T01:30"]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, ["03-27T05:00", "03-30T04:00", "03-31T04:00", "04-01T04:00", "04-02T04:00", "04-06T04:00"]),
        ({"onExcluded": "next_allowed"}, ["03-27T05:00", "03-30T04:00", "03-31T04:00", "04-01T04:00"]),
    ],
)
def test_calendars_may_come_with_the_request(more: dict[str, Any], wanted: list[str]) -> None:
    """`calendars` holds contents by name; a request without the one that it names is answered by an error."""
    block = {"cron": "0 6 * * *", "timezone": "Europe/Berlin", "calendars": {"exclude": ["free"]}, **more}
    assert fires(block, len(wanted), calendars={"free": HOLIDAYS}) == wanted
    assert "/schedule/calendars/exclude/0: The calendar 'free' is not known." in ask(block)["error"]
    assert "/calendars/free" in ask(block, calendars={"free": {"parts": [{"weekdays": [7]}]}})["error"]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("dst", "skip", "/schedule/dst: must be an object"),
        ("dst", {"gap": "jump"}, "/schedule/dst/gap: must be one of first_valid, skip, shift"),
        ("dst", {"overlap": ["first"]}, "/schedule/dst/overlap: must be one of"),
        ("dst", {"fold": "first"}, "/schedule/dst/fold: unknown field"),
        ("windows", {}, "/schedule/windows: must be a list"),
        ("windows", [{"from": "10:00"}], "/schedule/windows/0/to: is missing"),
        ("windows", [{"from": "24:00", "to": "10:00"}], "/schedule/windows/0/from: must be a time of day"),
        ("windows", [{"from": "9:00", "to": "10:00"}], "/schedule/windows/0/from: must be a time of day"),
        ("windows", [{"from": "09:00", "to": "10:00", "days": ["monday"]}], "/schedule/windows/0/days"),
        ("windows", [{"from": "09:00", "to": "10:00", "days": []}], "/schedule/windows/0/days"),
        ("calendars", ["free"], "/schedule/calendars: must be an object"),
        ("calendars", {"exclude": "free"}, "/schedule/calendars/exclude: must be a list of texts"),
        ("onExcluded", "run", "/schedule/onExcluded: must be one of skip, next_allowed, previous_allowed"),
        ("jitter", "5 minutes", "/schedule/jitter: '5 minutes' is not a duration"),
        ("jitter", "2d", "/schedule/jitter: jitter is 172800 seconds; it may be up to 24 hours."),
        ("startAt", "tomorrow", "/schedule/startAt: 'tomorrow' is not a time."),
        ("endAt", "1969-01-01T00:00:00", "/schedule/endAt: The schedule ends at"),
        ("onExcluded", None, "/schedule/onExcluded"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, said: str) -> None:
    """Whatever is wrong in the block is said with its place."""
    assert said in ask({"cron": "0 6 * * *", field: value})["error"]


def test_a_schedule_that_windows_leave_nothing_of_is_answered() -> None:
    """A search without end is given up: there are no fires, and no error."""
    assert fires({"cron": "0 5 * * *", "windows": [{"from": "10:00", "to": "11:00"}]}) == []


@pytest.mark.parametrize(("after", "count"), [("0001-01-01T00:00:00Z", 2), ("9999-12-31T23:59:59Z", 0)])
@pytest.mark.parametrize("rule", ["skip", "next_allowed", "previous_allowed"])
def test_no_time_is_too_far_away(after: str, count: int, rule: str) -> None:
    """Behind any time that can be written a schedule fires from 1970 on, or not any more."""
    block = {"cron": "0 6 * * *", "calendars": {"exclude": ["free"]}, "onExcluded": rule, "jitter": "1h", "seed": "a/b"}
    answered = ask(block, 2, after=after, calendars={"free": HOLIDAYS})
    assert len(answered["fires"]) == count
