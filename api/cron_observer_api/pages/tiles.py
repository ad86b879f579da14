"""Parts that the overview and the page of a day share: tiles of figures, and the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from cron_observer.statistics import Totals
from cron_observer.store.statistics_reads import EVERYTHING
from cron_observer.store.views import Row
from cron_observer_api.pages import svg, words
from cron_observer_api.pages.shell import Opened

#: Lanes of the timeline.
BUSIEST: Final = 8


class Pieces(NamedTuple):
    """Figures of a window: of its slices, of its larger pieces, and of the whole; what is empty is left out."""

    slices: dict[int, Figures]
    halves: dict[int, Figures]
    whole: Figures | None
    why: list[tuple[str, str, int]]  #: status, reason and number of the whole, most first


class Figures(NamedTuple):
    """How a stretch of time went. Durations in seconds, within `statistics.ERROR`."""

    total: int
    finished: int
    failed: int
    missed: int
    skipped: int
    late: int
    busy: float  #: seconds for which anything ran
    p95: float | None
    delay: float | None  #: the median

    @classmethod
    def of(cls, totals: Totals) -> Figures:
        """Return those of what was counted."""
        named = totals.counts.get
        return cls(
            total=totals.total,
            finished=named("finished", 0),
            failed=named("failed", 0),
            missed=named("missed", 0),
            skipped=named("skipped", 0),
            late=totals.late,
            busy=totals.durations.sum / 1_000_000 + totals.running,
            p95=totals.durations.quantile(0.95),
            delay=totals.delays.quantile(0.5),
        )


async def measured(shown: Opened, starts: Sequence[datetime], *, half: int) -> Pieces:
    """Count the slices that begin at `starts`, the last of which is their end; `half` of them are a larger piece."""
    found = await shown.reading.count(EVERYTHING, starts, timed=True)
    halves: dict[int, Totals] = {}
    whole = Totals()
    for place, one in sorted(found.items()):
        halves.setdefault(place // half, Totals()).merge(one)
        whole.merge(one)
    return Pieces(
        {place: Figures.of(one) for place, one in found.items()},
        {place: Figures.of(one) for place, one in halves.items()},
        Figures.of(whole) if found else None,
        whole.why(),
    )


def rate_of(row: Figures | None) -> float | None:
    if row is None:
        return None
    ended: int = row.finished + row.failed + row.missed
    return 100 * row.finished / ended if ended else None


def tile(label: str, value: Markup | str, note: Markup | str, spark: Markup, tone: str = "") -> dict[str, Any]:
    return {"label": label, "value": value, "note": note, "spark": spark, "tone": tone}


def with_units(text: str) -> Markup:
    """Set units smaller than their numbers."""
    parts = [
        Markup("{}").format(part) if part[:1].isdigit() or part == "–" else Markup("<small>{}</small>").format(part)
        for part in text.split()
    ]
    return Markup(" ").join(parts)


def arrow(change: float) -> str:
    return "▲" if change > 0 else "▼" if change < 0 else "="


def chart(shown: Opened, rows: Sequence[Row], since: datetime, until: datetime, title: str) -> dict[str, Any]:
    """Lay the timeline out; `rows` come by task."""
    lanes: dict[tuple[str, str], svg.Lane] = {}
    several = len({row["project_name"] for row in rows}) > 1
    for row in rows:
        key = (row["project_name"], row["name"])
        lane = lanes.setdefault(
            key, svg.Lane(name="/".join(key) if several else row["name"], href=f"/tasks/{key[0]}/{key[1]}")
        )
        badge = words.mark(row["rank"], upcoming=row["ahead"])
        ends = row["begins"] + timedelta(seconds=row["usual"] or 0) if row["ahead"] else row["ends"]
        lane.marks.append(
            svg.Mark(
                begins=row["begins"],
                ends=ends,
                tone=badge.tone,
                word=badge.word,
                href=f"/executions/{row['id']}",
                count=row["n"],
            )
        )
    for lane in lanes.values():
        _part(lane.marks)
    when = shown.when
    first, last = since.astimezone(when.zone), until.astimezone(when.zone)
    said = f"Executions of the busiest tasks, {first:%H:%M} to {last:%H:%M}, {title}"
    return {
        "lanes": list(lanes.values()),
        "svg": svg.timeline(list(lanes.values()), since, until, when.now, when.zone, title=said),
    }


def _part(marks: list[svg.Mark]) -> None:
    """End a hollow mark where the next one begins, so that usual durations do not overlap."""
    marks.sort(key=lambda mark: mark.begins)
    for place, (mark, following) in enumerate(pairwise(list(marks))):
        if mark.tone == "plan" and mark.ends > following.begins:
            marks[place] = replace(mark, ends=following.begins)
