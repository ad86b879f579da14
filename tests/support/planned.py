"""Documents, files and rows in a few words, and plans of them."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID, uuid5

from cron_observer.model import Commit, Definition, Finding, ParsedFile, Severity, TaskDefinition
from cron_observer.plan import CALENDAR, GROUP, Actual, DesiredFile, Plan, Terms, plan, spec_hash

SOURCE, OTHER, PROJECT, ELSEWHERE = (UUID(int=number) for number in range(1, 5))
NEW: Final = Commit(id="new", author="Ada")

NIGHT: Final = {"windows": [{"from": "20:00", "to": "06:00"}], "timezone": "UTC"}
WEEKEND: Final = {"entries": [{"weekdays": ["sat", "sun"]}]}


def task(name: str = "alpha", path: str = "a.yaml", *, spec: dict[str, Any] | None = None, **more: Any) -> DesiredFile:
    """Make a file that declares one task; `more` are fields of its definition."""
    one = TaskDefinition(name=name, spec=spec or {"cron": "old"}, path=path, line=4, **more)
    return DesiredFile(file=ParsedFile(path=path, tasks=(one,), documents=1), commit=NEW)


def other(kind: str, name: str, path: str, spec: dict[str, Any] | None = None, **more: Any) -> DesiredFile:
    """Make a file that declares a calendar, a group, or a layer."""
    effective = spec if spec is not None else {GROUP: NIGHT, CALENDAR: WEEKEND}.get(kind, {"spec": {}})
    one = Definition(kind=kind, name=name, spec=effective, path=path, line=4, **more)
    return DesiredFile(file=ParsedFile(path=path, others=(one,), documents=1), commit=NEW)


def broken(path: str, *names: str) -> DesiredFile:
    """Make a file with documents that cannot be applied."""
    finding = Finding(severity=Severity.ERROR, code="CO1201", path=path, message="it is broken")
    return DesiredFile(file=ParsedFile(path=path, broken_names=names, findings=(finding,)), commit=NEW)


def unparseable(path: str) -> DesiredFile:
    """Make a file of which nobody knows what it declares."""
    return DesiredFile(file=ParsedFile(path=path, parseable=False), commit=NEW)


def row(name: str = "alpha", path: str | None = "a.yaml", **fields: Any) -> Actual:
    """Make a row as the apply of `task` left it."""
    values: dict[str, Any] = {
        "uid": uuid5(SOURCE, f"{fields.get('kind', 'Task')} {name}"),
        "project_id": PROJECT,
        "name": name,
        "spec_hash": spec_hash({"cron": "old"}, {}, {}),
        "generation": 1,
        "seed": f"default/{name}",
        "source_id": SOURCE,
        "source": "main",
        "path": path,
        "document": 0,
        "line": 4,
        "commit": "new",
        "sync": "SYNCED",
    }
    return Actual(**(values | fields))


def other_row(kind: str, name: str, path: str | None, **fields: Any) -> Actual:
    """Make a row as the apply of `other` left it."""
    spec = {GROUP: NIGHT, CALENDAR: WEEKEND}.get(kind, {"spec": {}})
    more: dict[str, Any] = {"kind": kind, "seed": None, "spec": spec, "spec_hash": spec_hash(spec, {}, {})}
    return row(name, path, **(more | fields))


def planned(
    desired: list[DesiredFile], actual: list[Actual], gone: tuple[str, ...] = (), terms: Terms | None = None
) -> Plan:
    """Plan for the source of these tests."""
    return plan(desired, gone, actual, source_id=SOURCE, project_id=PROJECT, terms=terms or Terms())


def steps(made: Plan) -> dict[str, str]:
    """Return the step of each name; of what is held also why."""
    return {one.name: one.step.value + (f" {one.held}" if one.held else "") for one in made.actions}


def codes(made: Plan) -> dict[str, list[str]]:
    """Return the codes of the findings of each file that has some."""
    return {path: [one.code for one in several] for path, several in sorted(made.findings.items()) if several}
