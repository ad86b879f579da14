"""`cron-observer plan` in the current folder's repository, and manifests to plan for."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, tzinfo
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cron_observer.cli.plan import plan

#: When plans are made: a Monday, far from the times of day at which the manifests of tests fire.
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

HEAD = "apiVersion: cron-observer/v1\n"


class _AtNoon(datetime):
    """What the command takes for the clock: the fires that it compares begin there."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return NOON.astimezone(tz)


def run(*arguments: str) -> Result:
    """Run the command in this process, at `NOON`, whatever time it is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.modules[plan.callback.__module__], "datetime", _AtNoon)
        return CliRunner().invoke(plan, list(arguments), catch_exceptions=False)


def look(*arguments: str, base: str = "HEAD") -> dict[str, Any]:
    """Return what the command prints as JSON."""
    result = run("--base", base, "--format", "json", *arguments)
    assert result.exit_code in (0, 1), result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def told(found: dict[str, Any]) -> dict[str, str]:
    """Return what is done about each name."""
    return {f"{one['kind']} {one['name']}": one["action"] for one in found["actions"]}


def document(kind: str, name: str, spec: str) -> str:
    """Write a manifest of another kind; `spec` is flow style."""
    return f"{HEAD}kind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def task(name: str, **spec: str) -> str:
    """Write a task on one calendar and group, or whatever `spec` says of its schedule and itself."""
    schedule = spec.pop("schedule", '{cron: "0 4 * * *"}')
    extra = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return f"{HEAD}kind: Task\nmetadata: {{name: {name}}}\nspec:\n{extra}  schedule: {schedule}\n"
