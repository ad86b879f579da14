"""The words of a review that all its forms share: values, times, counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cron_observer.manifest.scalars import looks_secret, shown
from cron_observer.plan import Step
from cron_observer.plan.guards import why_held
from cron_observer.review.fires import FireDiff
from cron_observer.review.results import ABSENT, Change, Review

#: What stands before a name, by what is done about it.
SIGNS: Final[Mapping[Step, str]] = {
    Step.CREATE: "+",
    Step.RESTORE: "+",
    Step.ADOPT: "+",
    Step.TRANSFER: "+",
    Step.RENAME: ">",
    Step.UPDATE: "~",
    Step.MOVE: "=",
    Step.NOOP: "~",
    Step.KEEP: "!",
    Step.REMOVE: "-",
    Step.HOLD: "-",
}

_MOST: Final = 200  # characters of a value


def value(one: Any) -> str:
    """Write a value of a manifest on one line, as JSON; what looks like a secret is not shown."""
    if one is ABSENT:
        return "none"
    text = json.dumps(one, ensure_ascii=False)
    return "***" if looks_secret(text) else shown(text, _MOST)


def moment(at: datetime, timezone: str) -> str:
    """Write an instant as the wall clock of a zone shows it, with its offset."""
    from cron_observer.schedule import zone

    return at.astimezone(zone(timezone).info).isoformat(sep=" ", timespec="seconds")


def length(span: timedelta) -> str:
    """Write how long something takes: whole days as days, anything else in hours."""
    hours = round(span.total_seconds() / 3600, 1)
    return f"{hours / 24:.0f} days" if hours >= 48 and hours % 24 == 0 else f"{hours:g} hours"


def fires(diff: FireDiff) -> str:
    """Say in a sentence how fires differ."""
    parts = [
        f"{word} {number:,}"
        for word, number in (("moves", len(diff.moved)), ("adds", len(diff.added)), ("removes", len(diff.removed)))
        if number
    ]
    total = sum((len(diff.moved), len(diff.added), len(diff.removed)))
    span = length(diff.until - diff.since)
    if not parts:
        return f"fires as before in the next {span} ({diff.after:,} times)"
    return f"{', '.join(parts)} {'fire' if total == 1 else 'fires'} in the next {span}"


def first(diff: FireDiff) -> str | None:
    """Say where fires differ first."""
    pair = diff.first
    if pair is None:
        return None
    old, new = (None if at is None else moment(at, diff.timezone) for at in pair)
    if old and new:
        return f"first change: {old} -> {new}"
    return f"first change: {new} is new" if new else f"first change: {old} is gone"


def following(diff: FireDiff) -> str:
    """Say when the task fires next, before and after."""
    old, new = (None if at is None else moment(at, diff.timezone) for at in (diff.next_before, diff.next_after))
    if old == new:
        return f"next fire: {new or 'never'}"
    return f"next fire: {old or 'never'} -> {new or 'never'}" if diff.before or old else f"next fire: {new}"


def note(change: Change) -> str | None:
    """Say what is special about a change; None for nothing."""
    if change.step is Step.HOLD:
        return f"HELD: {why_held(change.held)}"
    if change.step is Step.KEEP:
        return f"keeps its last good version ({change.errors} error{'' if change.errors == 1 else 's'})"
    if change.step is Step.RENAME:
        return f"was {change.was}; history kept"
    if change.step is Step.MOVE:
        return "moved, no change"
    return None


def name_of(review: Review) -> tuple[str, str]:
    """Return what the two sides are called."""
    return review.base[:12], "the work tree" if review.head is None else review.head[:12]


def totals(review: Review) -> str:
    """Say in one line what the plan comes to."""
    steps = [f"{number:,} {_VERBS[Step(step)]}" for step, number in review.counts().items() if Step(step) in _VERBS]
    counted = review.fire_counts()
    moving = [f"{verb} {counted[key]:,}" for key, verb in _FIRES if counted[key]]
    said = ", ".join(steps) or "no changes"
    more = f"; fires of {review.uncompared:,} more tasks are not compared" if review.uncompared else ""
    return f"Plan: {said}" + (f"; fires: {', '.join(moving)}" if moving else "") + more


_FIRES: Final = (("moved", "moves"), ("added", "adds"), ("removed", "removes"))

_VERBS: Final[Mapping[Step, str]] = {
    Step.CREATE: "to create",
    Step.RESTORE: "to restore",
    Step.ADOPT: "to adopt",
    Step.TRANSFER: "to take over",
    Step.RENAME: "to rename",
    Step.UPDATE: "to update",
    Step.MOVE: "to move",
    Step.NOOP: "replanned",
    Step.KEEP: "kept",
    Step.REMOVE: "to remove",
    Step.HOLD: "held",
}


def utc(at: datetime | None) -> str | None:
    """Write an instant for programs."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")
