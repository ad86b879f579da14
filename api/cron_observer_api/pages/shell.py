"""What surrounds every page: rail, date navigator, search, source, zone and theme; and how a page is opened."""

from __future__ import annotations

import calendar
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from litestar import Request

from cron_observer.statistics import days_of
from cron_observer.store import shapes, views
from cron_observer.store.statistics_reads import EVERYTHING, Reading
from cron_observer.store.views import Conn, Row
from cron_observer_api.auth import principal_of
from cron_observer_api.pages import moments, svg, waiting, words
from cron_observer_api.pages.moments import When
from cron_observer_api.pages.render import Preferences, link

#: Days of history that the pages count: the heat calendar shows at most a year.
HISTORY: Final = 371

#: Dates that a page can be asked for: none of ours lies outside.
_FIRST: Final = date(1980, 1, 1)
_LAST: Final = date(2199, 12, 31)


@dataclass(slots=True)
class Day:
    """The outcomes of one local day."""

    date: date
    counts: dict[str, int] = field(default_factory=dict)
    late: int = 0

    @property
    def total(self) -> int:
        """Every due execution."""
        return sum(self.counts.values())

    @property
    def ill(self) -> int:
        """Those that failed or were missed."""
        return self.counts.get("FAILED", 0) + self.counts.get("MISSED", 0)

    @property
    def rate(self) -> float | None:
        """The part of what ended well among what ended one way or the other."""
        finished = self.counts.get("FINISHED", 0)
        ended = finished + self.ill
        return finished / ended if ended else None

    def parts(self) -> list[tuple[str, int]]:
        """The outcomes as a bar shows them."""
        named = self.counts.get
        good = named("FINISHED", 0) - self.late
        return [
            ("ok", max(good, 0)),
            ("late", self.late + named("MISSED", 0)),
            ("fail", named("FAILED", 0)),
            ("run", named("RUNNING", 0)),
            ("cancel", named("CANCELLED", 0)),
            ("skip", named("SKIPPED", 0) + named("PENDING", 0)),
        ]

    def said(self) -> str:
        """The day in words, for charts."""
        rate = self.rate
        well = "" if rate is None else f", {100 * rate:.1f} % finished well"
        return f"{moments.long_day(self.date)} {self.date.year}: {words.many(self.total, 'execution')}{well}"


async def _days(reading: Reading, when: When) -> dict[date, Day]:
    """Return every day with due executions of the last `HISTORY` days."""
    first, last = when.today - timedelta(days=HISTORY - 1), when.today
    every, starts = days_of(first, last, when.zone)
    counted = await reading.count(EVERYTHING, starts)
    return {
        every[place]: Day(every[place], {status.upper(): n for status, n in one.counts.items()}, one.late)
        for place, one in sorted(counted.items())
    }


@dataclass(frozen=True, slots=True)
class Cell:
    """One day in the month grid."""

    number: int
    date: date
    href: str | None
    label: str
    kind: str  #: '', 'good', 'bad' or 'fut'
    current: bool


@dataclass(frozen=True, slots=True)
class Navigator:
    """The date navigator: one month, and the days with executions up to its end."""

    title: str
    previous: str | None
    next: str | None
    blanks: int
    cells: Sequence[Cell]
    days: Sequence[dict[str, Any]]
    before: str | None  #: href of the nearest earlier day with executions
    after: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open page: the transaction it reads in, and what its frame needs."""

    conn: Conn
    tenant_id: UUID
    when: When
    sources: Sequence[Row]
    reading: Reading  #: statistics as of this page
    days: Mapping[date, Day]
    chosen: date | None
    month: date
    preferences: Preferences
    path: str
    query: Mapping[str, str]

    def frame(self, title: str, here: str, topics: Sequence[str] = ()) -> dict[str, Any]:
        """Return the values that the base template needs."""
        return {
            "title": title,
            "here": here,
            "topics": ",".join(topics),
            "when": self.when,
            "preferences": self.preferences,
            "navigator": navigator(self),
            "sources": [source_chip(row, self.when) for row in self.sources],
            "broken": sum(row["errors"] for row in self.sources),
            "back": link(self.path, **self.query),
            "chosen": self.chosen,
            "searched": self.query.get("q", "") if here == "tasks" else "",
        }


def read_date(text: str | None) -> date | None:
    """Read a date of a query string; None for what is none."""
    try:
        read = date.fromisoformat(text) if text and len(text) == 10 else None
    except ValueError:
        return None
    return read if read and _FIRST <= read <= _LAST else None


def _month(text: str | None, otherwise: date) -> date:
    found = read_date(f"{text}-01") if text else None
    return found or otherwise.replace(day=1)


@asynccontextmanager
async def opened(request: Request[Any, Any, Any]) -> AsyncIterator[Opened]:
    """Open a transaction for a page and read what its frame shows: a handful of statements."""
    preferences = Preferences.of(request)
    tenant = principal_of(request).tenant_id
    query = dict(request.query_params.items())
    async with request.app.state.database.transaction([tenant]) as conn:
        now, sources = await views.shell(conn, tenant)
        when = When(now, moments.zone(preferences.zone))
        reading = await Reading.begin(conn, tenant, now)
        days = await _days(reading, when)
        chosen = read_date(query.get("date"))
        yield Opened(
            conn=conn,
            tenant_id=tenant,
            when=when,
            sources=sources,
            reading=reading,
            days=days,
            chosen=chosen,
            month=_month(query.get("month"), chosen or when.today),
            preferences=preferences,
            path=request.url.path,
            query=query,
        )


def navigator(page: Opened) -> Navigator:
    """Lay out the month and the list of days."""
    first, today = page.month, page.when.today
    length = calendar.monthrange(first.year, first.month)[1]
    cells = [_cell(page, first.replace(day=number)) for number in range(1, length + 1)]
    last = first.replace(day=length)
    listed = sorted((day for day in page.days if day <= last), reverse=True)[:14]
    chosen = page.chosen
    known = sorted(page.days)
    here = chosen or today
    return Navigator(
        title=f"{moments.MONTHS[first.month - 1]} {first.year}",
        previous=_to_month(page, first - timedelta(days=1)) if any(day < first for day in known) else None,
        next=_to_month(page, last + timedelta(days=1)) if last < today else None,
        blanks=first.weekday(),
        cells=cells,
        days=[_listed(page.days[day], today, chosen) for day in listed],
        before=next((f"/?date={day}" for day in reversed(known) if day < here), None),
        after=next((f"/?date={day}" for day in known if day > here), None),
    )


def _to_month(page: Opened, day: date) -> str:
    query = {name: value for name, value in page.query.items() if name != "month"}
    return link(page.path, **query, month=f"{day:%Y-%m}")


def _cell(page: Opened, day: date) -> Cell:
    counted = page.days.get(day)
    kind = "fut" if day > page.when.today else "" if counted is None else "bad" if counted.ill else "good"
    said = counted.said() if counted else f"{moments.long_day(day)} {day.year}: no executions"
    return Cell(
        number=day.day,
        date=day,
        href=None if day > page.when.today or counted is None else f"/?date={day.isoformat()}",
        label=said,
        kind=kind,
        current=day == (page.chosen or page.when.today),
    )


def _listed(day: Day, today: date, chosen: date | None) -> dict[str, Any]:
    near = {today: "Today, ", today - timedelta(days=1): "Yesterday, "}.get(day.date, "")
    return {
        "href": f"/?date={day.date.isoformat()}",
        "label": near + moments.short_day(day.date),
        "total": words.count(day.total),
        "ill": day.ill,
        "said": day.said(),
        "bar": svg.stack(day.parts()),
        "current": day.date == chosen,
    }


def source_chip(row: Row, when: When) -> dict[str, Any]:
    """Say which revision a source has applied, and whether it is well."""
    commit = row["applied_commit"]
    ready = condition(row["conditions"], "Ready")
    return {
        "name": row["name"],
        "revision": f"{row['name']}@{commit[:7]}" if commit else row["name"],
        "synced": row["observed_at"] or row["applied_at"],
        "errors": row["errors"],
        "warnings": row["warnings"],
        "tone": waiting.chip_tone(row, when.now),
        "ready": ready,
        "when": when,
    }


def condition(conditions: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    """Return one condition of a source, if it is known."""
    found = (conditions or {}).get(name)
    return found if isinstance(found, dict) else None


def day_bounds(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the instants between which a local date lies."""
    return shapes.day_bounds(day, zone)
