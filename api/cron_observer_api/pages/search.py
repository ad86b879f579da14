"""The search box of the task list: words and tokens such as ``status:failed label:team=data``. Pure."""

from __future__ import annotations

import shlex
from typing import Any, Final

from cron_observer.store.views_tasks import TaskFilter

#: What `status:` takes: standing of a task, or how its last run went.
STANDING: Final = {
    "active": "ACTIVE",
    "paused": "PAUSED",
    "suspended": "DISABLED",
    "disabled": "DISABLED",
    "quarantined": "QUARANTINED",
    "deleting": "DELETING",
    "removed": "REMOVED",
}
LAST: Final = {
    "failed": "FAILED",
    "failing": "FAILED",
    "running": "RUNNING",
    "finished": "FINISHED",
    "healthy": "FINISHED",
    "missed": "MISSED",
    "late": "LATE",
    "skipped": "SKIPPED",
    "waiting": "PENDING",
    "cancelled": "CANCELLED",
}
SYNC: Final = {"synced": "SYNCED", "kept": "KEPT_LAST_GOOD", "held": "HELD"}

#: Tokens with what they take, for the help under the box.
TOKENS: Final = (
    ("status:", "failed, running, late, missed, waiting, paused, suspended, quarantined, removed"),
    ("sync:", "synced, kept, held"),
    ("owner:", "manifest, api"),
    ("label:", "team=data, or a key alone"),
    ("source:", "its name"),
    ("queue:", "its name"),
)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def read(text: str) -> tuple[TaskFilter, list[str]]:
    """Read what somebody typed; the second part says, in sentences, what was not understood."""
    chosen: dict[str, Any] = {"words": [], "labels": {}, "label_keys": []}
    strange: list[str] = []
    for part in _split(text.replace("\0", ""))[:32]:
        name, colon, value = part.partition(":")
        if not colon or name not in ("status", "sync", "owner", "label", "source", "project", "queue"):
            chosen["words"].append(part)
        elif not value:
            strange.append(f"{name}: needs a value")
        else:
            _token(chosen, strange, name, value)
    return TaskFilter(**chosen), strange


def _token(chosen: dict[str, Any], strange: list[str], name: str, value: str) -> None:
    """Take one token; several of a kind widen what they choose."""
    lower = value.lower()
    if name == "status" and lower in STANDING:
        chosen["statuses"] = [*(chosen.get("statuses") or []), STANDING[lower]]
    elif name == "status" and lower in LAST:
        chosen["runs"] = [*(chosen.get("runs") or []), LAST[lower]]
    elif name == "sync" and lower in SYNC:
        chosen["syncs"] = [*(chosen.get("syncs") or []), SYNC[lower]]
    elif name == "owner" and lower in ("manifest", "api"):
        chosen["owner"] = lower
    elif name == "label":
        key, equals, wanted = value.partition("=")
        if equals:
            chosen["labels"][key] = wanted
        else:
            chosen["label_keys"].append(key)
    elif name in ("source", "project", "queue"):
        chosen[name] = value
    else:
        strange.append(f"{name}:{value} is not known")
