"""A review for programs. docs/reference/cli.md documents the members; they only grow within one `FORMAT_VERSION`."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from cron_observer.manifest.scalars import looks_secret
from cron_observer.review.fires import FireDiff
from cron_observer.review.results import ABSENT, Change, Field, Review
from cron_observer.review.words import utc

#: Raised when a member goes away or changes its meaning.
FORMAT_VERSION: Final = 1


def write(review: Review) -> str:
    """Return the review as JSON."""
    document = {
        "format_version": FORMAT_VERSION,
        "from": {"commit": review.base},
        "to": {"commit": review.head},
        "environment": review.asked.environment,
        "at": utc(review.asked.now),
        "days": review.asked.span / timedelta(days=1),
        "files": review.files,
        "refused": review.refused,
        "counts": review.counts(),
        "fires": review.fire_counts(),
        "uncompared": review.uncompared,
        "actions": [_change(one) for one in review.changes],
        "findings": [asdict(one) for one in review.findings],
        "plan_hash": None,  # only a server, which knows what is in force, can have a removal approved
    }
    return json.dumps(document, indent=2) + "\n"


def _change(one: Change) -> dict[str, Any]:
    return {
        "action": str(one.step),
        "kind": one.kind,
        "name": one.name,
        "renamed_from": one.was,
        "path": one.path,
        "line": one.line,
        "moved_from": one.moved_from,
        "changed": [_field(field) for field in one.fields],
        "because": list(one.because),
        "held": one.held,
        "errors": one.errors,
        "fires": None if one.fires is None else _fires(one.fires),
    }


def _field(one: Field) -> dict[str, Any]:
    """Tell a value that differs; one that is not there has no member."""
    found: dict[str, Any] = {"pointer": one.pointer}
    for name, value in (("before", one.before), ("after", one.after)):
        if value is not ABSENT:
            found[name] = "***" if looks_secret(json.dumps(value, ensure_ascii=False)) else value
    return found


def _fires(diff: FireDiff) -> dict[str, Any]:
    old, new = diff.first or (None, None)
    return {
        "timezone": diff.timezone,
        "since": utc(diff.since),
        "until": utc(diff.until),
        "before": diff.before,
        "after": diff.after,
        "removed": len(diff.removed),
        "added": len(diff.added),
        "moved": len(diff.moved),
        "first_change": None if diff.first is None else {"before": utc(old), "after": utc(new)},
        "next_before": utc(diff.next_before),
        "next_after": utc(diff.next_after),
    }
