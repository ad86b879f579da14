"""Logs: names from a closed list, secrets blotted out."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import cron_observer
import cron_observer_api
from cron_observer import log
from cron_observer.log import EVENTS

METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
API_KEY = "co_0a1b2c3d_" + "x" * 43


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave the logging of the process as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(log_format: str = "json", level: str = "info", **fields: Any) -> str:
    """Return what is written for one event."""
    stream = io.StringIO()
    log.configure(log_format, level, stream)
    structlog.get_logger().warning("loop_failed", **fields)
    return stream.getvalue()


def logged() -> Iterator[tuple[str, str]]:
    """Find the events that the code logs, and where."""
    for package in (cron_observer, cron_observer_api):
        for path in Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in METHODS
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in {"log", "_log"}
                ):
                    assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno} makes its event up"
                    yield str(node.args[0].value), f"{path.name}:{node.lineno}"


def test_events_are_from_the_closed_list() -> None:
    """The code logs exactly the events that are listed, so that alerts on them do not rot."""
    found = dict(logged())
    assert {event: place for event, place in found.items() if event not in EVENTS} == {}
    assert set(EVENTS) - set(found) == set()


def test_json_is_one_object_a_line() -> None:
    """Each event is one line of JSON with name, level and time in UTC."""
    text = written(role="scheduler", failures=3)
    assert text.count("\n") == 1
    event = json.loads(text)
    assert (event["event"], event["level"], event["role"], event["failures"]) == (
        "loop_failed",
        "warning",
        "scheduler",
        3,
    )
    assert event["timestamp"].endswith("Z")


def test_people_get_text() -> None:
    """The console form is no JSON, and not coloured where there is no terminal."""
    text = written("console", role="scheduler")
    assert "loop_failed" in text
    assert "role=scheduler" in text
    assert "\x1b" not in text


def test_auto_is_json_where_nobody_looks() -> None:
    """Without a terminal the automatic form is JSON."""
    assert json.loads(written("auto"))["event"] == "loop_failed"


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "fields",
    [
        {"password": "hunter22"},
        {"run_token": "hunter22"},
        {"nested": {"Authorization": "hunter22"}},
        {"reason": "cannot reach postgresql+psycopg://app:hunter22@db/x"},
        {"url": "https://hunter22@forge.example/repo.git"},
        {"url": "https://x-oauth:hunter22@forge.example/repo.git"},
        {"detail": "header was: Authorization: Bearer hunter22hunter22"},
        {"argv": ["git", "fetch", "https://u:hunter22@forge.example/repo.git"]},
    ],
    ids=str,
)
def test_secrets_are_blotted_out(log_format: str, fields: dict[str, Any]) -> None:
    """No secret is written, whatever the field is called or wherever in a text it stands."""
    text = written(log_format, **fields)
    assert "hunter22" not in text
    assert "***" in text


def test_api_keys_keep_their_prefix_only() -> None:
    """An API key in a text is cut down to the prefix that lists show."""
    text = written(reason=f"key {API_KEY} is revoked")
    assert "co_0a1b2c3d_***" in text
    assert "xxxx" not in text


def test_secrets_in_tracebacks_are_blotted_out() -> None:
    """A traceback that quotes a URL does not give its password away."""
    stream = io.StringIO()
    log.configure("json", "info", stream)
    try:
        int("postgresql://app:hunter22@db/x")
    except ValueError:
        structlog.get_logger().exception("loop_failed")
    assert "Traceback" in stream.getvalue()
    assert "hunter22" not in stream.getvalue()


def test_libraries_log_in_the_same_form() -> None:
    """What libraries log through the standard library is an event like any other, without secrets."""
    stream = io.StringIO()
    log.configure("json", "info", stream)
    logging.getLogger("uvicorn.error").warning("broken: %s", "https://u:hunter22@h/")
    event = json.loads(stream.getvalue())
    assert event["level"] == "warning"
    assert event["event"] == "broken: https://***@h/"


def test_the_level_bounds_what_is_written() -> None:
    """Events below the level are left out."""
    assert written(level="error") == ""


def test_addresses_of_pings_are_blotted_out() -> None:
    """Neither an address nor a ping key stays in a path, nor a DSN; ids of other things do."""
    address, key = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
    for path in (f"/ping/{address}/start", f"/ping/{key}/backup", f"/api/7/cron/backup/{key}/", f"http://{key}@h/7"):
        said = written(path=path)
        assert address not in said
        assert key not in said
    assert address in written(path=f"/api/v1/executions/{address}")
