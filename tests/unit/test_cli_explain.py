"""`cron-observer explain`: tables, JSON, manifests, batches, exit codes."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from cron_observer import schedule
from cron_observer.cli import batch, commands
from cron_observer.cli import explain as command
from cron_observer.model import ScheduleSpec

AFTER = "2026-03-28T00:00:00Z"


def run(*arguments: str, text: str | None = None) -> Result:
    return CliRunner(env={"TZ": "UTC"}).invoke(command.explain, list(arguments), input=text)


def ask(**request: Any) -> dict[str, Any]:
    answered: dict[str, Any] = batch.answer(json.dumps(request).encode())
    return answered


def test_an_expression_is_explained_in_a_table() -> None:
    """Words, class, local and UTC times, and the note about the clock change."""
    done = run("30 2 * * *", "--timezone", "Europe/Berlin", "--after", AFTER, "--count", "2")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "At 02:30 (Europe/Berlin)"
    assert lines[1].startswith("fixed-time: ")
    assert lines[-2].split() == ["2026-03-28", "02:30:00+01:00", "2026-03-28T01:30:00Z"]
    assert "2026-03-29T01:00:00Z  2026-03-29 02:30 does not exist" in lines[-1]


def test_json_has_the_same_facts() -> None:
    """`--format json` is for programs."""
    done = run("*/30 * * * *", "--after", AFTER, "--count", "1", "--format", "json")
    assert json.loads(done.output) == {
        "words": "Every 30 minutes",
        "kind": "interval-like",
        "rule": "elapsed time: a clock change neither moves nor drops a fire",
        "timezone": "UTC",
        "fires": [
            {
                "local": "2026-03-28 00:30:00+00:00",
                "utc": "2026-03-28T00:30:00Z",
                "here": "2026-03-28 00:30:00+00:00",
                "note": None,
            }
        ],
        "skipped": [],
        "notes": [],
    }


def test_several_parts_are_a_union() -> None:
    """Expressions, interval and one-off times given together are one schedule."""
    done = run(
        "0 6 * * *", "0 7 * * *", "--every", "12h", "--at", "2026-03-28T05:00:00", "--at", "2026-03-28T06:00:00",
        "--anchor", "2026-01-01T01:00:00", "--after", AFTER, "--count", "5", "--format", "json",
    )  # fmt: skip
    hours = [fire["utc"][11:13] for fire in json.loads(done.output)["fires"]]
    assert hours == ["01", "05", "06", "07", "13"]


def test_after_without_an_offset_is_local() -> None:
    """A naive time is read in the schedule's zone, as in a manifest."""
    done = run(
        "0 * * * *", "--timezone", "Asia/Tokyo", "--after", "2026-01-01T09:30", "--count", "1", "--format", "json"
    )
    assert json.loads(done.output)["fires"][0]["utc"] == "2026-01-01T01:00:00Z"


def test_without_after_fires_are_ahead_of_now() -> None:
    """By default the next fires are shown."""
    before = datetime.now(UTC)
    done = run("* * * * *", "--count", "1", "--format", "json")
    assert datetime.fromisoformat(json.loads(done.output)["fires"][0]["utc"]) > before


def test_a_schedule_that_is_over_says_so() -> None:
    """One-off times in the past leave no fires, which is no error."""
    done = run("--at", "2020-01-01T00:00:00", "--after", AFTER)
    assert done.exit_code == 0
    assert "no fires" in done.output


@pytest.mark.parametrize(("after", "shown"), [("0001-01-01", "  1970-01-01 "), ("9999-12-31T23:59:59", "no fires")])
def test_no_time_is_too_far_away(after: str, shown: str) -> None:
    """Any time that can be written is answered, in any zone."""
    for place in ("UTC", "Asia/Tokyo", "America/New_York"):
        done = run("* * * * *", "--after", after, "--timezone", place)
        assert (done.exit_code, shown in done.output) == (0, True), done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["0 0 30 2 *"], "error[CO3009] /cron: '0 0 30 2 *' never fires"),
        (["0 0 * * *", "--timezone", "Europe/Berln"], "did you mean Europe/Berlin?"),
        (["0 22-4 * * *"], "write 22-23,0-4"),
        (["H 0 * * *"], "--seed"),
        (["--every", "0s"], "/every"),
        (["0 0 * * *", "--timezone", ""], "time zone is empty"),
    ],
)
def test_a_wrong_schedule_exits_1(arguments: list[str], said: str) -> None:
    """What is wrong, where, and how to mend it."""
    done = run(*arguments)
    assert done.exit_code == 1
    assert said in done.output.replace("the seed (`project/name`)", "--seed")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--bogus"],
        ["0 0 * * *", "--count", "many"],
        ["0 0 * * *", "--count", "-1"],
        ["0 0 * * *", "--after", "soon"],
        ["--every", "5x"],
        ["--every", "999999999999d"],
        ["--file", "no-such-file.yaml"],
        ["--batch", "0 0 * * *"],
        ["--batch", "--timezone", "UTC"],
        ["--file", __file__, "0 0 * * *"],
    ],
)
def test_a_wrong_call_exits_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Usage errors have their own exit code, and say how to call the command."""
    assert commands()["explain"](arguments) == 64
    assert "Usage: cron-observer explain" in capsys.readouterr().err


MANIFEST = """\
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: nightly-export
spec:
  schedule:
    cron: "H 2 * * 1-5"
    timezone: Europe/Berlin
---
apiVersion: cron-observer/v1
kind: Task
metadata:
  name: probe
spec:
  suspend: true
  schedule:
    every: 15m
"""


def test_a_manifest_is_explained_task_by_task(tmp_path: Path) -> None:
    """H is resolved by project and name, as it will be when the task is applied."""
    file = tmp_path / "tasks.yaml"
    file.write_text(MANIFEST)
    done = run("--file", str(file), "--after", AFTER, "--count", "1", "--format", "json")
    assert done.exit_code == 0, done.output
    items = json.loads(done.output)["items"]
    assert [(item["task"], item["line"]) for item in items] == [("nightly-export", 4), ("probe", 13)]
    spec = ScheduleSpec(cron=("H 2 * * 1-5",), timezone="Europe/Berlin", seed="default/nightly-export")
    fire = schedule.compile(spec).next_fires(datetime.fromisoformat(AFTER), 1)[0]
    assert items[0]["fires"][0]["utc"] == command.instant(fire)
    assert items[1]["fires"][0]["utc"] == "2026-03-28T00:15:00Z"
    table = run("--file", str(file), "--after", AFTER, "--project", "other")
    assert "nightly-export" in table.output
    assert "for other/nightly-export" in table.output
    assert "probe (suspended" in table.output


def test_a_broken_manifest_shows_its_findings(tmp_path: Path) -> None:
    """The valid tasks are explained, the broken one is a finding with line and hint, the exit code is 1."""
    file = tmp_path / "tasks.yaml"
    file.write_text(MANIFEST.replace("H 2 * * 1-5", "0 0 30 2 *"))
    done = run("--file", str(file), "--after", AFTER)
    assert done.exit_code == 1
    assert "CO3009" in done.output
    assert "tasks.yaml:7:" in done.output
    assert "Every 15 minutes" in done.output


def test_a_batch_answers_each_line() -> None:
    """Good and bad lines are answered in order; blank lines are passed over; the exit code is 0."""
    lines = [
        json.dumps(
            {"id": 1, "schedule": {"cron": "0 8 * * *", "timezone": "Europe/Berlin"}, "after": AFTER, "count": 2}
        ),
        "nonsense",
        "",
        '{"id": "b", "schedule": {"every": "1500ms"}, "after": "2026-03-28T00:00:00.0001Z", "count": 2}',
    ]
    done = run("--batch", text="\n".join(lines))
    assert done.exit_code == 0
    answers = [json.loads(line) for line in done.output.splitlines()]
    assert answers[0] == {"id": 1, "fires": ["2026-03-28T07:00:00Z", "2026-03-29T06:00:00Z"]}
    assert answers[1]["id"] is None
    assert "not JSON" in answers[1]["error"]
    assert answers[2] == {"id": "b", "fires": ["2026-03-28T00:00:01.500Z", "2026-03-28T00:00:03Z"]}


def test_a_batch_answers_before_it_reads_on() -> None:
    """A program can hold a conversation: each answer is flushed before the next line is awaited."""

    class Answers(io.BytesIO):
        flushed = b""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    answers = Answers()

    class Requests(io.BytesIO):
        asked = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert answers.flushed.count(b"\n") == self.asked
            self.asked += 1
            return super().readline(size)

    line = b'{"id": 7, "schedule": {"cron": "0 0 * * *"}, "after": "2026-03-28T00:00:00Z"}\n'
    batch.answer_batch(Requests(line * 3), answers)
    assert answers.flushed == b'{"id": 7, "fires": ["2026-03-29T00:00:00Z"]}\n' * 3


def test_a_line_without_end_is_cut_not_swallowed() -> None:
    """A line over the limit is an error; the lines behind it are answered."""
    answers = io.BytesIO()
    good = b'{"id": 7, "schedule": {"cron": "0 0 * * *"}, "after": "2026-03-28T00:00:00Z"}\n'
    batch.answer_batch(io.BytesIO(b"x" * (3 * batch.MOST_BYTES) + b"\n" + good), answers)
    long, answered = map(json.loads, answers.getvalue().splitlines())
    assert "longer than" in long["error"]
    assert answered["id"] == 7


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"after": AFTER}, "/schedule: must be an object"),
        ({"schedule": {"cron": "* * * * *"}}, "/after"),
        ({"schedule": {"cron": "* * * * *"}, "after": "yesterday"}, "/after"),
        ({"schedule": {"cron": "* * * * *"}, "after": "2026-03-28T00:00:00"}, "offset"),
        ({"schedule": {"cron": "* * * * *"}, "after": AFTER, "count": True}, "/count"),
        ({"schedule": {"cron": "* * * * *"}, "after": AFTER, "count": 1_000_000}, "/count"),
        ({"schedule": {"cron": "* * * * *"}, "after": AFTER, "limit": 1}, "/limit: unknown"),
        ({"schedule": {"cron": "* * * * *", "cronn": ""}, "after": AFTER}, "/schedule/cronn: unknown"),
        ({"schedule": {"cron": [1]}, "after": AFTER}, "/schedule/cron"),
        ({"schedule": {"cron": {"a": 1}}, "after": AFTER}, "/schedule/cron"),
        ({"schedule": {"cron": []}, "after": AFTER}, "empty"),
        ({"schedule": {"cron": "* * * * *", "timezone": ""}, "after": AFTER}, "/schedule/timezone"),
        ({"schedule": {"cron": "* * * * *", "timezone": "Mars/Base"}, "after": AFTER}, "/schedule/timezone"),
        ({"schedule": {"every": 900}, "after": AFTER}, "/schedule/every"),
        ({"schedule": {"every": "15"}, "after": AFTER}, "/schedule/every"),
        ({"schedule": {"every": "999999999999d"}, "after": AFTER}, "/schedule/every"),
        ({"schedule": {"at": ["x"]}, "after": AFTER}, "/schedule/at"),
        ({"schedule": {"cron": "H * * * *"}, "after": AFTER}, "seed"),
    ],
)
def test_a_bad_request_says_where(request_: dict[str, Any], said: str) -> None:
    """Each answer of an error carries the id and names the field."""
    answered = ask(id="x", **request_)
    assert answered["id"] == "x"
    assert said in answered["error"]


def test_a_seed_resolves_h() -> None:
    """The seed stands in the schedule."""
    one = ask(id=1, schedule={"cron": "H * * * *", "seed": "default/a"}, after=AFTER)
    other = ask(id=1, schedule={"cron": "H * * * *", "seed": "default/b"}, after=AFTER)
    assert one["fires"] != other["fires"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TEXT = st.text(alphabet=st.characters(), max_size=20) | st.sampled_from(
    ["H * * * *", "0 0 * * *", "15m", "\ud800", "2026-01-01T00:00:00", "0001-01-01T00:00:00+23:59", "Europe/Berlin"]
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["id", "schedule", "after", "count"]),
        JSON
        | TEXT
        | st.dictionaries(st.sampled_from(["cron", "every", "anchor", "at", "timezone", "seed"]), TEXT | JSON),
    )
)
def test_no_request_stops_a_batch(request_: dict[str, Any]) -> None:
    """Whatever the JSON, there is an answer, and it is JSON."""
    answered = ask(**request_)
    assert ("fires" in answered) != ("error" in answered)
    json.dumps(answered).encode()


@given(st.binary(max_size=60))
def test_no_bytes_stop_a_batch(line: bytes) -> None:
    """Whatever the bytes, there is an answer."""
    assert "error" in batch.answer(line)


@pytest.mark.parametrize("after", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
def test_the_ends_of_the_calendar_are_answered(after: str) -> None:
    """Starts outside the supported years are no errors."""
    answered = ask(id=1, schedule={"cron": "0 0 * * *", "timezone": "Asia/Tokyo"}, after=after, count=1)
    assert answered["fires"] in (["1970-01-01T15:00:00Z"], [])


CALENDAR = """apiVersion: cron-observer/v1
kind: Calendar
metadata:
  name: free
spec:
  entries:
    - ics: shutdown.ics
    - weekdays: [sat, sun]
"""
SHUTDOWN = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//test//EN
BEGIN:VEVENT
UID:one
DTSTAMP:20260101T000000Z
DTSTART;VALUE=DATE:20260330
DTEND;VALUE=DATE:20260331
SUMMARY:Shutdown
END:VEVENT
END:VCALENDAR
""".replace("\n", "\r\n")


def test_every_part_of_a_schedule_has_an_option(tmp_path: Path) -> None:
    """Clock rules, windows, calendars from files, bounds and jitter are told on the command line."""
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "free.yaml").write_text(CALENDAR)
    (tmp_path / "days" / "shutdown.ics").write_text(SHUTDOWN, newline="")
    zone = ("--timezone", "Europe/Berlin", "--local", "Asia/Tokyo")
    rules = ("--gap", "shift", "--overlap", "both", "--jitter", "5m")
    days = ("--exclude", "free", "--calendars", str(tmp_path), "--on-excluded", "next_allowed")
    bounds = ("--window", "sat-tue 01:00-03:00", "--start-at", "2026-03-28T00:00:00", "--end-at", "2026-04-02T00:00:00")
    done = run("30 2 * * *", *zone, *rules, *days, *bounds, "--after", "2026-03-28T00:00:00", "--format", "json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert [(row["utc"], row["reason"]) for row in told["skipped"]] == [
        ("2026-03-28T01:30:00Z", "coalesced"),
        ("2026-03-29T01:30:00Z", "coalesced"),
        ("2026-03-30T00:30:00Z", "coalesced"),
    ]
    assert [(row["local"], row["here"]) for row in told["fires"]] == [
        ("2026-03-31 02:30:00+02:00", "2026-03-31 09:30:00+09:00")
    ]
    assert "2026-03-30" in told["skipped"][2]["note"]


def test_the_zone_of_the_viewer_is_a_column() -> None:
    """With `--local` the table has a third time; without, only where the machine's zone tells something new."""
    table = run("0 6 * * *", "--after", AFTER, "--count", "1", "--local", "Asia/Tokyo").output
    assert "Asia/Tokyo" in table
    assert "2026-03-28 15:00:00+09:00" in table
    assert "here" not in run("0 6 * * *", "--after", AFTER, "--count", "1").output
    away = CliRunner(env={"TZ": "Asia/Tokyo"}).invoke(command.explain, ["0 6 * * *", "--after", AFTER, "--count", "1"])
    assert "here" in away.output
    assert "2026-03-28 15:00:00+09:00" in away.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--exclude", "free"), "--calendars"),
        (("--window", "10:00"), "is not a window"),
        (("--window", "someday 10:00-11:00"), "is not a window"),
        (("--window", "10:00-25:00"), "is not a window"),
        (("--gap", "jump"), "--gap"),
        (("--jitter", "soon"), "--jitter"),
        (("--local", "Mars/Base"), "not a known time zone"),
        (("--batch", "--jitter", "5m"), "--batch"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments: tuple[str, ...], said: str) -> None:
    """The call is wrong, and the message says which part of it."""
    done = run("0 6 * * *", *arguments)
    assert done.exit_code != 0
    assert said in done.output


def test_a_manifest_brings_its_calendars(tmp_path: Path) -> None:
    """`--file` finds calendars in the same file; one that is nowhere is an error of its task alone."""
    narrowed = MANIFEST.replace(
        "    timezone: Europe/Berlin\n", "    timezone: Europe/Berlin\n    calendars: {exclude: [free]}\n"
    )
    file = tmp_path / "tasks.yaml"
    file.write_text(narrowed)
    lonely = run("--file", str(file), "--after", AFTER, "--count", "1")
    assert lonely.exit_code == 1
    assert "CO3017" in lonely.output
    assert "Every 15 minutes" in lonely.output
    (tmp_path / "shutdown.ics").write_text(SHUTDOWN, newline="")
    file.write_text(f"{narrowed}---\n{CALENDAR}")
    done = run("--file", str(file), "--after", "2026-03-29", "--count", "1", "--format", "json")
    assert done.exit_code == 0, done.output
    item = json.loads(done.output)["items"][0]
    assert item["fires"][0]["local"].startswith("2026-03-31 02:")
    assert [row["note"] for row in item["skipped"]] == ["skipped: 2026-03-30"]
