"""Excerpts of findings: numbered lines, and a caret under the place."""

from __future__ import annotations

from typing import Any

import pytest

from cron_observer_api.pages.reporting import run_ways
from cron_observer_api.pages.sync import excerpt


def finding(text: str | None, **changes: Any) -> dict[str, Any]:
    """A finding at 11:3 to 11:9."""
    return {"excerpt": text, "line": 11, "column": 3, "end_line": 11, "end_column": 9, **changes}


def test_the_caret_stands_under_the_place() -> None:
    """Only the finding's own line has carets, from its first to its last column."""
    shown = excerpt(finding("10 |     timezone: UTC\n11 |   timout: 1h\n12 |   late: accept"))
    assert [line["number"] for line in shown] == [10, 11, 12]
    assert [line["text"] for line in shown] == ["    timezone: UTC", "  timout: 1h", "  late: accept"]
    assert [line["caret"] for line in shown] == [None, "  ^^^^^^", None]


@pytest.mark.parametrize(
    ("changes", "caret"),
    [
        ({"end_line": 14}, "  ^"),
        ({"end_column": None}, "  ^"),
        ({"end_column": 3}, "  ^"),
        ({"end_column": 500}, "  ^^^^^^^^^^"),
        ({"column": 40, "end_column": 41}, " " * 39 + "^"),
        ({"column": None}, None),
    ],
)
def test_strange_ends_still_give_a_caret(changes: dict[str, Any], caret: str | None) -> None:
    """An end on another line, none at all, or beyond the line never makes the caret vanish or run away."""
    (line,) = excerpt(finding("11 |   timout: 1h", **changes))
    assert line["caret"] == caret


def test_no_text_no_excerpt() -> None:
    """A finding without a line has no excerpt."""
    assert excerpt(finding(None)) == []


def test_the_ways_to_report_are_the_sdks() -> None:
    """What the page tells people to write compiles and names what the SDK has."""
    import inspect

    from cron_observer_sdk import Worker
    from cron_observer_sdk.handle import Execution

    ways = {way["id"]: way["text"] for way in run_ways("http://localhost:8475", "default/export", "gpu")}
    compile(ways["python"], "page", "exec")
    assert list(inspect.signature(Worker.run).parameters) == ["self", "handlers"]
    inspect.signature(Worker).bind(queues=["gpu"])
    inspect.signature(Execution.log).bind(object(), "reading", payload={})
    assert 'Worker(queues=["gpu"]).run({"default/export": run})' in ways["python"]
    assert "cron-observer run default/export -- " in ways["shell"]
    assert '"tasks": ["default/export"]' in ways["curl"]
