"""A review for the terminal."""

from __future__ import annotations

from typing import Final

import click

from cron_observer.manifest.scalars import shown
from cron_observer.plan import Step
from cron_observer.review import words
from cron_observer.review.results import Change, Review

_COLOURS: Final = {"+": "green", "-": "red", "~": "yellow", ">": "cyan", "=": "cyan", "!": "red"}

#: Fields of one change that are told; of more, how many.
_MOST_FIELDS: Final = 30


def write(review: Review) -> str:
    """Return the changes and a line of totals, each line ended."""
    base, head = words.name_of(review)
    count = f"{review.files:,} file{'' if review.files == 1 else 's'} changed"
    where = f", environment {shown(review.asked.environment)}" if review.asked.environment else ""
    lines = [f"{base} -> {head}: {count}{where}"]
    if review.refused:
        lines.append("  nothing would be applied: there are errors, and the failure policy is atomic")
    width = max((len(f"{one.kind} {one.name}") for one in review.changes), default=0)
    for change in review.changes:
        lines += _change(change, min(width, 60))
    lines.append(words.totals(review))
    return "\n".join(lines) + "\n"


def _change(change: Change, width: int) -> list[str]:
    sign = words.SIGNS[change.step]
    place = f"{shown(change.path, 4096)}:{change.line}"
    if change.moved_from:
        place = f"{shown(change.moved_from, 4096)} -> {place}"
    said = words.note(change)
    head = f"{f'{change.kind} {change.name}':{width}}  {place}" + (f"  {said}" if said else "")
    lines = [f"  {click.style(sign, fg=_COLOURS[sign], bold=True)} {head}"]
    if change.because:
        lines.append(f"      because of {', '.join(change.because)}")
    for one in change.fields[:_MOST_FIELDS]:
        lines.append(f"      {shown(one.pointer, 300)}: {words.value(one.before)} -> {words.value(one.after)}")  # noqa: PERF401
    if len(change.fields) > _MOST_FIELDS:
        lines.append(f"      and {len(change.fields) - _MOST_FIELDS:,} more fields")
    diff = change.fires
    if diff is not None and change.step not in (Step.HOLD, Step.KEEP):
        first = words.first(diff)
        told = [words.fires(diff), *([first] if first else []), words.following(diff)]
        lines.append(f"      {'; '.join(told)}")
    return lines
