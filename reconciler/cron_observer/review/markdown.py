"""A review as one comment of a pull request: it begins with a mark by which the next run finds and replaces it."""

from __future__ import annotations

from typing import Final

from cron_observer.markdown import MOST_BYTES, Paper, code
from cron_observer.plan import Step
from cron_observer.review import words
from cron_observer.review.results import Change, Review

#: By what the comment of an earlier run is found.
MARK: Final = "<!-- cron-observer plan -->"

_MOST_FIELDS: Final = 15


def write(review: Review) -> str:
    """Return at most `MOST_BYTES` of Markdown; what does not fit is counted."""
    paper = Paper(MOST_BYTES)
    base, head = words.name_of(review)
    where = f" for {code(review.asked.environment)}" if review.asked.environment else ""
    paper.add(f"{MARK}\n### Plan of cron-observer{where}\n\n")
    paper.add(f"{words.totals(review).removeprefix('Plan: ')} ({code(base)} → {code(head)})\n\n")
    if review.refused:
        paper.add("**Nothing would be applied**: there are errors, and the failure policy is atomic.\n\n")
    for finding in sorted(review.findings, key=lambda one: one.severity):
        place = finding.path + (f":{finding.line}" if finding.line else "")
        paper.add(f"- **{finding.severity}** {finding.code} {code(place)}: {code(finding.message)}\n")
    if review.findings:
        paper.add("\n")
    for change in review.changes:
        paper.add(_change(change))
    return paper.text("entries")


def _change(change: Change) -> str:
    place = f"{change.path}:{change.line}"
    where = f"{code(change.moved_from)} → {code(place)}" if change.moved_from else code(place)
    said = words.note(change)
    lines = [
        f"- **{_WORDS[change.step]}** {change.kind} {code(change.name)} ({where})" + (f" — {said}" if said else "")
    ]
    if change.because:
        lines.append(f"  - because of {', '.join(code(one) for one in change.because)}")
    for one in change.fields[:_MOST_FIELDS]:
        lines.append(f"  - {code(one.pointer)}: {code(words.value(one.before))} → {code(words.value(one.after))}")  # noqa: PERF401
    if len(change.fields) > _MOST_FIELDS:
        lines.append(f"  - and {len(change.fields) - _MOST_FIELDS:,} more fields")
    diff = change.fires
    if diff is not None and change.step not in (Step.HOLD, Step.KEEP):
        first = words.first(diff)
        lines.append(f"  - {words.fires(diff)}")
        lines += [f"  - {first}"] if first else []
        lines.append(f"  - {words.following(diff)}")
    return "\n".join(lines) + "\n"


_WORDS: Final = {
    Step.CREATE: "create",
    Step.RESTORE: "restore",
    Step.ADOPT: "adopt",
    Step.TRANSFER: "take over",
    Step.RENAME: "rename",
    Step.UPDATE: "update",
    Step.MOVE: "move",
    Step.NOOP: "replan",
    Step.KEEP: "keep",
    Step.REMOVE: "remove",
    Step.HOLD: "hold",
}
