"""The description of the API: up to date, whole, and stable where clients rely on it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from litestar.routes import HTTPRoute

from cron_observer.lifecycle import Status, Trigger
from cron_observer.settings import Settings
from cron_observer.store.keys import SCOPES
from cron_observer.store.logs import LEVELS
from cron_observer.store.task_reads import TASK_STATUSES
from cron_observer_api import wire
from cron_observer_api.app import App, create_app
from cron_observer_api.operation import operation_of
from cron_observer_api.problems import PROBLEMS

PUBLISHED = Path(__file__).parents[2] / "schemas" / "openapi.json"

#: Names that generated clients are made of: one may be added, none renamed.
OPERATIONS = {
    "appendLogs", "approveRemovals", "backfillTask", "beginExecution", "cancelExecution", "claim",
    "completeExecution", "createKey", "createTask", "deleteTask", "detachTask", "getDescription", "getExecution",
    "getLiveness", "getMetrics", "getProblem", "getProject", "getReadiness", "getRun", "getSchema", "getSource",
    "getTask", "getWorkerExecution", "heartbeat", "listDays", "listExecutionEvents", "listExecutions", "listKeys",
    "listPending", "listProjects", "listSourceRuns", "listSources", "listTaskRanges", "listTasks", "openStream",
    "patchExecution", "patchTask", "pauseTask", "putTask", "readExecutionLogText", "readExecutionLogs",
    "receiveWebhook", "releaseExecution", "resumeSource", "resumeTask", "revokeKey", "startExecution",
    "suspendSource", "syncSource", "triggerTask",
}  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    """The app, only to be looked at."""
    folder = tmp_path_factory.mktemp("data")
    return create_app(Settings(data_dir=folder, database_url="postgresql+psycopg://nobody@/nothing"))


@pytest.fixture(scope="module")
def described(app: App) -> dict[str, Any]:
    """The description as an object."""
    found: dict[str, Any] = json.loads(app.state.description())
    return found


def calls(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return path, method and description of every call."""
    return [(path, method, call) for path, of in described["paths"].items() for method, call in of.items()]


def test_the_published_description_is_the_app_s(app: App) -> None:
    """schemas/openapi.json is what scripts/openapi writes now."""
    assert PUBLISHED.read_bytes() == app.state.description(), "run scripts/openapi"


def test_operation_ids_are_stable_and_unique(described: dict[str, Any]) -> None:
    """Every call has a name of its own, and no published one has gone."""
    names = [call["operationId"] for _, _, call in calls(described)]
    assert len(names) == len(set(names))
    assert set(names) >= OPERATIONS


def test_every_route_of_the_api_declares_itself(app: App, described: dict[str, Any]) -> None:
    """No call below /api is missing, with its methods and the parameters of its path."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute) or not route.path_format.startswith("/api"):
            continue
        for handler in route.route_handlers:
            methods = set(handler.http_methods) - {"OPTIONS", "HEAD"}
            if not methods:
                continue
            assert operation_of(handler) is not None, route.path_format
            for method in methods:
                call = described["paths"][route.path_format][method.lower()]
                named = {one["name"] for one in call["parameters"] if one["in"] == "path"}
                assert named == set(re.findall(r"\{([a-z_]+)\}", route.path_format))


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    """Every $ref is defined, and every schema is used."""
    text = json.dumps(described)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = described
        for step in reference.split("/"):
            found = found[step]
    for name in described["components"]["responses"]:
        assert f"#/components/responses/{name}" in text


def test_every_error_is_declared(described: dict[str, Any]) -> None:
    """Calls with a key can be refused for it, writes for their body; each problem has its content type."""
    for path, method, call in calls(described):
        statuses = set(call["responses"])
        assert {"400", "414", "431", "500"} <= statuses, (path, method)
        if call.get("security") != []:
            assert {"401", "403", "429", "503"} <= statuses, (path, method)
        if "requestBody" in call:
            assert {"413", "415"} <= statuses, (path, method)
        if "{" in path:
            assert "404" in statuses, (path, method)
        for status, given in call["responses"].items():
            shared = given.get("$ref", "").rsplit("/", 1)[-1]
            told = described["components"]["responses"].get(shared, given)
            if int(status) >= 400 and (path, status) != ("/readyz", "503"):
                # pings are refused in the words of their protocol
                plain = {"text/plain"} if path.startswith("/ping/") else set()
                assert set(told["content"]) == {"application/problem+json"} | plain, (path, method, status)


def test_every_problem_code_is_known_by_its_status() -> None:
    """The codes of the contract are there, each with the status that the contract gives it."""
    contract = {
        400: "bad_request unknown_field bad_cursor bad_host",
        401: "unauthenticated",
        403: "forbidden",
        404: "not_found",
        409: "manifest_owned name_taken already_final already_claimed not_running lease_lost log_gap in_progress",
        422: "invalid_spec idempotency_mismatch",
        429: "rate_limited",
        503: "unavailable",
    }
    for status, codes in contract.items():
        for code in codes.split():
            assert PROBLEMS[code].status == status


def test_the_reference_names_every_call_and_every_code(described: dict[str, Any]) -> None:
    """docs/reference/api.md has a row for each call and for each problem code, and none for others."""
    page = (PUBLISHED.parents[1] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE))
    assert rows == {f"{method.upper()} {path}" for path, method, _ in calls(described)}
    codes = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `([a-z_]+)` \|", page, re.MULTILINE)}
    told = {(known.status, code) for code, known in PROBLEMS.items()}
    assert codes == told


def test_the_words_of_the_wire_are_those_of_the_core() -> None:
    """Statuses, triggers, scopes and levels are listed once more for the description, and alike."""
    assert set(get_args(wire.Status)) == set(Status)
    assert set(get_args(wire.Trigger)) == set(Trigger)
    assert get_args(wire.Scope) == SCOPES
    assert get_args(wire.Level) == LEVELS
    assert get_args(wire.TaskStatus) == TASK_STATUSES
