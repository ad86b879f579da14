"""What waits in a source: removals that are held and who may release them, a suspension, what its forge knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from cron_observer.store.links import line_link
from cron_observer.store.views import Row
from cron_observer_api.pages import words

#: Held removals that one page lists.
LISTED: Final = 50

#: Why a removal is held.
_REASONS: Final[Mapping[str, str]] = {
    "confirm": "its lifecycle asks for an approval",
    "disabled": "its lifecycle keeps it from being removed",
    "too_many": "the commit removes many at once",
    "all_of_kind": "the commit removes all of the kind",
    "empty_tree": "the commit leaves no manifest",
    "rewritten": "the history was rewritten",
    "unparseable": "a file cannot be read",
    "prune_off": "the source removes nothing",
    "in_use": "others still refer to it",
    "handed_over": "another source takes it over",
}

#: The steps of a pass, as far as their time is told.
_STEPS: Final = ("resolve", "fetch", "verify", "gather", "plan", "apply", "pin", "tidy")

#: How a pass compared: with what was applied, or with all that is known.
_STRATEGIES: Final[Mapping[str, str]] = {"tree": "difference", "full": "everything"}

_STATES: Final[Mapping[str, tuple[str, str]]] = {
    "pending": ("wait", "pending"),
    "success": ("ok", "success"),
    "failure": ("fail", "failure"),
    "error": ("fail", "error"),
}


def chip_tone(row: Row, now: datetime) -> str:
    """Return the tone of a source in the bar of every page: that of the worst that is known of it."""
    if suspension(row, now) is not None:
        return "pause"
    if row["failures"]:
        return "fail"
    behind = row["observed_commit"] not in (None, row["applied_commit"])
    return "late" if row["errors"] or behind else "synced"


def suspension(row: Row, now: datetime) -> dict[str, Any] | None:
    """Return who suspended a source, why, since and until when; None when nobody did, or it has ended."""
    since, until = row["suspended_at"], row["suspended_until"]
    if since is None or (until is not None and until <= now):
        return None
    return {"by": row["suspended_by"], "reason": row["suspend_reason"], "since": since, "until": until}


def held(row: Row) -> dict[str, Any] | None:
    """Return the removals that a source holds, with the command that releases them if one does; None for none."""
    removals: Sequence[Mapping[str, Any]] = row["held"] or ()
    plan_hash = row["plan_hash"]
    if not removals and plan_hash is None:
        return None
    return {
        "count": len(removals),
        "items": [_removal(one, row) for one in removals[:LISTED]],
        "plan_hash": plan_hash,
        "command": f"cron-observer sources approve {row['name']} {plan_hash}" if plan_hash else None,
        "words": words.many(len(removals), "removal") if removals else "a rewritten history",
    }


def _removal(one: Mapping[str, Any], row: Row) -> dict[str, Any]:
    path, line = one.get("path"), one.get("line")
    return {
        "kind": one["kind"],
        "name": one["name"],
        "place": f"{path}:{line}" if path and line else path,
        "url": line_link(row["url"], row["applied_commit"], path, line),
        "reason": _REASONS.get(one["reason"], str(one["reason"]).replace("_", " ")),
    }


def strategy(value: str | None) -> str | None:
    """Say how a run compared."""
    return None if value is None else _STRATEGIES.get(value, value)


def timings(taken: Mapping[str, float] | None) -> str:
    """Say how long the two slowest steps of a run took, in their order: ``fetch 31 ms, plan 4 ms``."""
    known = taken or {}
    slowest = sorted((step for step in _STEPS if step in known), key=lambda step: -known[step])[:2]
    return ", ".join(f"{step} {words.duration(known[step])}" for step in _STEPS if step in slowest)


def told(head: Row | None) -> dict[str, Any] | None:
    """Say what the forge knows of the newest commit that it was to be told of; None when there is none."""
    if head is None or head["told_commit"] is None:
        return None
    tone, word = _STATES[head["told_state"]]
    return {
        "badge": words.Badge(tone, word, head["told_description"]),
        "commit": head["told_commit"],
        "sent_at": head["told_at"],
        "error": head["told_error"],
        "gave_up": head["told_gave_up_at"] is not None,
    }
