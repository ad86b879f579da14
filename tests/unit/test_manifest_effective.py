"""Defaults come from the published schema, and tasks of the API obey the same rules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from cron_observer import errors, manifest
from cron_observer.manifest import DELETE
from cron_observer.manifest.body import same
from cron_observer.model import Policy, ScheduleSpec
from support.manifests import SMALLEST

DEFAULTS: dict[str, Any] = {
    "description": "",
    "group": None,
    "suspend": False,
    "queue": "default",
    "priority": 0,
    "payload": None,
    "schedule": {
        "cron": "30 2 * * 1-5",
        "timezone": "UTC",
        "dst": {"gap": "first_valid", "overlap": "first"},
        "windows": [],
        "calendars": {"include": [], "exclude": []},
        "onExcluded": "skip",
        "jitter": None,
        "startAt": None,
        "endAt": None,
    },
    "catchup": {"policy": "last", "window": "1h", "maxRuns": 10},
    "onResume": "skip",
    "maxLateness": None,
    "overlap": "skip",
    "maxParallel": None,
    "startDeadline": None,
    "timeout": "1h",
    "retries": {"max": 0, "backoff": "exponential", "initial": "10s", "cap": "10m"},
    "late": "accept",
    "run": {"external": {}},
    "lifecycle": {"prune": "allow"},
}


def fields(part: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield every field of a schema: its pointer, its schema, and whether it is required."""
    for name, field in part.get("properties", {}).items():
        yield f"{at}/{name}", field, name in part.get("required", ())
        yield from fields(field, f"{at}/{name}")
        yield from fields(field.get("items", {}), f"{at}/{name}")


def test_the_defaults_are_those_of_the_contract() -> None:
    """The smallest manifest means this."""
    (one,) = manifest.parse("a.yaml", SMALLEST.encode()).tasks

    assert one.spec == DEFAULTS
    assert Policy.read(one.spec) == Policy()
    assert ScheduleSpec.read(one.spec["schedule"]) == ScheduleSpec(cron=("30 2 * * 1-5",))


def test_filling_in_defaults_twice_changes_nothing() -> None:
    """Two ways of writing the same thing give equal specs, in the same order."""
    once = manifest.effective({"timeout": "1h", "schedule": {"timezone": "UTC", "cron": "30 2 * * 1-5"}, "retries": {}})

    assert once == DEFAULTS
    assert list(once) == list(DEFAULTS)
    assert manifest.effective(once) == once


def test_the_anchor_has_a_default_only_beside_every() -> None:
    """An interval counts from 1970 unless something else is said; a cron expression has no anchor."""
    schedule = manifest.effective({"schedule": {"every": "5m"}})["schedule"]

    assert schedule == {"every": "5m", "anchor": "1970-01-01T00:00:00"} | {
        name: value for name, value in DEFAULTS["schedule"].items() if name != "cron"
    }


def test_filling_in_defaults_leaves_its_argument() -> None:
    """The spec that is given is not changed, nor is the schema by changing the result."""
    given: dict[str, Any] = {"schedule": {"every": "5m"}}
    manifest.effective(given)["run"]["external"]["x"] = 1

    assert given == {"schedule": {"every": "5m"}}
    assert manifest.effective(given)["run"] == {"external": {}}


KINDS = ["Task", "Calendar", "TaskGroup", "Defaults", "Project"]

#: Where a schema holds a part of a task's spec, in which nothing is filled in.
PARTIAL = ("/spec/spec", "/spec/defaults/Task")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind: str) -> None:
    """Every field of a schema has title, description and examples; every optional one a default."""
    alternatives = {"/spec/schedule/cron", "/spec/schedule/every", "/spec/schedule/at"}
    entries = ("date", "from", "to", "yearly", "weekdays", "holidays", "ics")
    alternatives |= {f"/spec/entries/{name}" for name in entries} | {"/spec/environments"}
    alternatives |= {f"/spec/run/{form}" for form in ("external", "http", "checkin")}
    for pointer, field, required in fields(manifest.schema(kind)):
        assert field["title"], pointer
        assert field["description"], pointer
        assert field["examples"], pointer
        inside = kind in ("Defaults", "Project") and pointer.startswith(tuple(f"{at}/" for at in PARTIAL))
        assert required or "default" in field or pointer in alternatives or inside, pointer
        assert not (inside and "default" in field) or "/windows/" in pointer, pointer  # lists are replaced whole


OPEN = ("//metadata/labels", "//metadata/annotations", "//spec/environments", "//spec/run/http/headers")


@pytest.mark.parametrize("kind", KINDS)
def test_mappings_are_closed(kind: str) -> None:
    """No mapping of a schema takes fields that it does not name, but for labels and annotations."""
    for pointer, field, _ in fields({"properties": {"": manifest.schema(kind)}}):
        for part in (field, field.get("items", {})):
            if part.get("type") == "object" and pointer not in OPEN:
                assert part["additionalProperties"] is False, pointer


@pytest.mark.parametrize("kind", ["Calendar", "TaskGroup"])
def test_the_other_kinds_show_themselves(kind: str) -> None:
    """The examples of a schema are valid, and so is each example of each field in its place."""
    published = manifest.schema(kind)
    spec = published["properties"]["spec"]
    specs = [*(one["spec"] for one in published["examples"]), *spec["examples"]]
    needed = (
        {"entries": [{"weekdays": ["sun"]}]} if kind == "Calendar" else {"windows": [{"from": "22:00", "to": "06:00"}]}
    )
    specs += [{**needed, name: value} for name, field in spec["properties"].items() for value in field["examples"]]
    entries = spec["properties"].get("entries", {}).get("items", {}).get("properties", {})
    beside = {"from": {"to": "2027-01-02"}, "to": {"from": "2026-12-24"}}
    specs += [
        {"entries": [{name: value, **beside.get(name, {})}]}
        for name, field in entries.items()
        for value in field["examples"]
    ]
    for one in specs:
        document = {"apiVersion": "cron-observer/v1", "kind": kind, "metadata": {"name": "x"}, "spec": one}
        parsed = manifest.parse("x.yaml", json.dumps(document).encode())

        assert parsed.findings == (), one
        assert [other.kind for other in parsed.others] == [kind]
        assert manifest.effective(parsed.others[0].spec, kind) == parsed.others[0].spec


def test_the_schema_is_the_contract_of_this_version() -> None:
    """Exactly these fields exist: what is not implemented is not in the schema."""
    expected = """/apiVersion /kind /metadata /metadata/name /metadata/renamedFrom
        /metadata/transferFrom /metadata/labels
        /metadata/annotations
        /spec /spec/description /spec/group /spec/suspend /spec/queue /spec/priority /spec/payload
        /spec/schedule /spec/schedule/cron /spec/schedule/every /spec/schedule/anchor /spec/schedule/at
        /spec/schedule/timezone /spec/schedule/dst /spec/schedule/dst/gap /spec/schedule/dst/overlap
        /spec/schedule/windows /spec/schedule/windows/days /spec/schedule/windows/from /spec/schedule/windows/to
        /spec/schedule/calendars /spec/schedule/calendars/include /spec/schedule/calendars/exclude
        /spec/schedule/onExcluded /spec/schedule/jitter /spec/schedule/startAt /spec/schedule/endAt
        /spec/catchup /spec/catchup/policy /spec/catchup/window /spec/catchup/maxRuns /spec/onResume
        /spec/maxLateness /spec/overlap /spec/maxParallel /spec/startDeadline /spec/timeout /spec/retries
        /spec/retries/max /spec/retries/backoff /spec/retries/initial /spec/retries/cap /spec/late /spec/run
        /spec/run/external /spec/run/http /spec/run/http/method /spec/run/http/url /spec/run/http/headers
        /spec/run/http/body /spec/run/http/auth /spec/run/http/auth/secretRef /spec/run/http/auth/header
        /spec/run/http/signing /spec/run/http/signing/secretRef /spec/run/http/timeout /spec/run/checkin
        /spec/run/checkin/grace /spec/run/checkin/earlyMargin /spec/run/checkin/minRuntime
        /spec/run/checkin/maxRuntime /spec/run/checkin/heartbeat
        /spec/lifecycle /spec/lifecycle/prune /spec/environments"""

    assert [pointer for pointer, _, _ in fields(manifest.schema("Task"))] == expected.split()


def test_the_schema_stays_in_what_draft_07_editors_read() -> None:
    """No reference and no keyword that only newer drafts know decides about a document."""
    text = str(manifest.schema("task"))

    assert manifest.schema("task")["$id"] == "https://cron-observer.dev/schemas/v1/task.json"
    for word in ("$ref", "$dynamicRef", "prefixItems", "unevaluatedProperties", "$defs"):
        assert f"'{word}'" not in text


def test_an_unknown_kind_has_no_schema() -> None:
    """Asking for a schema that is not there is a 404."""
    with pytest.raises(errors.NotFound):
        manifest.schema("../task")


# -- tasks of the API -------------------------------------------------------------------------------------


def test_a_body_of_the_api_gets_the_same_defaults() -> None:
    """A valid body comes back effective, without findings."""
    spec, findings = manifest.parse_spec("nightly-export", {"schedule": {"cron": "30 2 * * 1-5"}}, {"team": "x"})

    assert (spec, findings) == (DEFAULTS, [])


@pytest.mark.parametrize(
    ("name", "spec", "labels", "pointer", "message"),
    [
        ("x\n", {}, {}, "/name", "name: "),
        ("x", {"schedule": {"cron": "x"}}, {}, "/schedule/cron", "schedule.cron: "),
        ("x", {"schedule": {"cron": ["* * * * *", "x"]}}, {}, "/schedule/cron/1", "schedule.cron[1]: "),
        ("x", {"foo": 1}, {}, "/foo", 'unknown field "foo"'),
        ("x", {"retries": {"max": True}}, {}, "/retries/max", "retries.max: "),
        ("x", {}, {"tier": 1}, "/labels/tier", "labels.tier: "),
        ("x", {"payload": {"a": "x\0y"}}, {}, "/payload/a", "U+0000"),
        ("x", {"payload": {"a": "\ud800"}}, {}, "/payload/a", "U+D800"),
        ("x", {"payload": float("nan")}, {}, "/payload", "too large"),
        ("x", {"payload": 10**30}, {}, "/payload", "too large"),
        ("x", {"payload": {"k" * 300: 1}}, {}, "/payload/" + "k" * 256, "longer than 256"),
        ("x", {"payload": ["x"] * 20_001}, {}, "", "more than 20000"),
        ("x", {"payload": {"password": "hunter2"}}, {}, "/payload/password", "secret"),
        ("x", {"timeout": "8d"}, {}, "/timeout", "expected 1s to 7d"),
    ],
)
def test_a_body_of_the_api_is_held_to_the_same_rules(
    name: str, spec: dict[str, Any], labels: dict[str, Any], pointer: str, message: str
) -> None:
    """Pointers lead into the body, and there is neither path nor line."""
    _, (one,) = manifest.parse_spec(name, {"schedule": {"every": "1m"}, **spec}, labels)

    assert (one.pointer, one.path, one.line) == (pointer, "", None)
    assert message in one.message


def test_deep_bodies_are_refused() -> None:
    """A payload nested a thousand deep is one finding, not a crash."""
    deep: Any = 1
    for _ in range(1000):
        deep = [deep]
    _, (one,) = manifest.parse_spec("x", {"schedule": {"every": "1m"}, "payload": deep}, {})

    assert one.code == "CO1110"


def test_differences_are_found_field_by_field() -> None:
    """Changes name the field, what it is and what was asked for; the payload and lists are one value."""
    current = {"timeout": "1h", "retries": {"max": 0, "cap": "1m"}, "payload": {"a": 1}, "schedule": {"cron": "x"}}
    requested = {
        "timeout": "1h",
        "retries": {"max": 1, "cap": "1m"},
        "payload": {"a": 1.0},
        "schedule": {"every": "1m"},
    }

    assert manifest.changes(current, requested) == [
        ("/retries/max", 0, 1),
        ("/payload", {"a": 1}, {"a": 1.0}),
        ("/schedule/cron", "x", DELETE),
        ("/schedule/every", DELETE, "1m"),
    ]
    assert manifest.changes(current, current) == []


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0, False), ("1", 1), (None, {}), ([], {})])
def test_sameness_tells_types_apart(one: object, other: object) -> None:
    """What JSON tells apart is not the same."""
    assert not same({"a": [one]}, {"a": [other]})
    assert same({"a": [one]}, {"a": [one]})


def test_durations_of_the_defaults_are_read() -> None:
    """The defaults are durations that the model reads."""
    assert Policy.read(DEFAULTS).timeout == timedelta(hours=1)
