"""The state of a source in words: what is true of it, why, and since when. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Conditions = Mapping[str, Mapping[str, Any]]


def failed(old: Conditions, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """Return the conditions of a source that could not be read: what is applied stays as it was."""
    new = dict(old)
    _put(new, "Fetched", "False", reason, message, now)
    _put(new, "Ready", "False", reason, message, now)
    return new


def looked(old: Conditions, where: str, counts: Mapping[str, int], now: datetime) -> dict[str, Any]:
    """Return the conditions of a source of which everything that can be applied is. `where` says what was seen."""
    new: dict[str, Any] = {name: value for name, value in old.items() if name != "PrunePending"}
    _put(new, "Fetched", "True", "Fetched", where, now)
    tasks, errors, held = (counts.get(name, 0) for name in ("tasks", "errors", "held"))
    others = [
        _some(counts[name], noun)
        for name, noun in (("calendars", "calendar"), ("groups", "task group"))
        if counts.get(name)
    ]
    _put(new, "Applied", "True", "Applied", f"{', '.join([_some(tasks, 'task'), *others])} in force", now)
    if held:
        new["PrunePending"] = dict(old.get("PrunePending", {}))
        message = f"{_some(held, 'removal')} waiting until every file can be read"
        _put(new, "PrunePending", "True", "UnparseableFiles", message, now)
    if errors:
        message = f"{_some(errors, 'error')} in manifests: what is broken keeps its last good version"
        _put(new, "Validated", "False", "InvalidManifests", message, now)
        _put(new, "Ready", "False", "InvalidManifests", message, now)
        return new
    if counts.get("files", 0):
        _put(new, "Validated", "True", "Valid", f"{_some(counts['files'], 'file')} valid", now)
    else:
        _put(new, "Validated", "True", "NoManifests", "no *.yaml or *.yml is below the source's paths", now)
    _put(new, "Ready", "True", "Ready", "what the source declares is in force", now)
    return new


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _put(conditions: dict[str, Any], name: str, status: str, reason: str, message: str, now: datetime) -> None:
    old = conditions.get(name, {})
    since = old.get("since") if old.get("status") == status else None
    conditions[name] = {
        "status": status,
        "reason": reason,
        "message": message,
        "since": since or now.isoformat(),
    }
