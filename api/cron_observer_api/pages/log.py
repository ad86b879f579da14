"""The log on the page of an execution, and its lines alone, for the viewer that scrolls through a million of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer.errors import NotFound
from cron_observer.store import logs
from cron_observer.store.views import Row
from cron_observer_api.auth import principal_of
from cron_observer_api.pages import moments
from cron_observer_api.pages.ansi import coloured
from cron_observer_api.pages.render import Preferences, link, page
from cron_observer_api.pages.shell import Opened
from cron_observer_api.pages.text import visible

#: Lines of a log on one page.
LINES: Final = 200

#: Levels by which a log can be narrowed: at least this one.
LEVELS: Final = (("", "All"), ("INFO", "Info"), ("WARN", "Warn"), ("ERROR", "Error"))


def identity(text: str) -> UUID:
    """Return the id of an execution that a path names."""
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound("there is no such execution", hint="an execution's id is a UUID") from error


class _Asked:
    """Which lines of a log a reader asks for, read from a query string; nonsense counts as nothing.

    `line` is one to be seen amid others, `rank` the number of a line among those of its level, `mark` a text that is
    shown but narrows nothing.
    """

    def __init__(self, query: Mapping[str, Any]) -> None:
        self.attempt = _number(query.get("attempt"))
        line = _number(query.get("line"))
        self.line = line or None
        self.first = _number(query.get("from")) if line is None else max(0, line - 1 - LINES // 4)
        self.rank = _number(query.get("rank"))
        self.limit = min(max(_number(query.get("limit")) or LINES, 1), 1000)
        level = str(query.get("level", "")).upper()
        self.level = level if level in logs.LEVELS else None
        self.query = str(query.get("q", "")).replace("\0", "")[:200]
        self.mark = str(query.get("mark", "")).replace("\0", "")[:200] or self.query

    @property
    def wanted(self) -> logs.Wanted:
        return logs.Wanted.of(self.level, self.query or None)


def _number(text: Any) -> int | None:
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 10 else None


@get("/executions/{execution_id:str}/log", include_in_schema=False)
async def log_lines(request: Request[Any, Any, Any], execution_id: FromPath[str]) -> Response[bytes]:
    """Answer with lines of a log alone, as the viewer asks for them."""
    wanted = identity(execution_id)
    tenant = principal_of(request).tenant_id
    asked = _Asked(request.query_params)
    first: int | None = asked.first or 0
    async with request.app.state.database.transaction([tenant]) as conn:
        of = await logs.parts(conn, tenant, wanted, asked.attempt)
        total = await _total(conn, tenant, wanted, of, asked)
        if asked.rank is not None and asked.level is not None:
            first = await logs.place(conn, tenant, wanted, of, logs.LEVELS.index(asked.level), asked.rank)
        found: Sequence[Any] = ()
        more = None
        if first is not None:
            found, more = await logs.look(
                conn, tenant, wanted, of, from_seq=first, limit=asked.limit, wanted=asked.wanted
            )
    for part in of:
        if part.loose >= logs.LOOSE_MAX:
            request.app.state.packer.note(tenant, wanted, part.fence)
    zone = moments.zone(Preferences.of(request).zone)
    lines = [_line(item, asked.mark, zone) for item in logs.items(found)]
    return page(request, "_lines.html", lines=lines, gaps={}, at_end=more is None, total=total, cuts=_cuts_text(of))


async def _total(conn: Any, tenant: UUID, wanted: UUID, of: Sequence[logs.Part], asked: _Asked) -> int:
    """Return how many lines there are to scroll through; of a level, only those that are kept."""
    if asked.level is None:
        return of[-1].base + of[-1].lines if of else 0
    lowest = logs.LEVELS.index(asked.level)
    return sum(sum(counts[lowest:]) for counts in await logs.amounts(conn, tenant, wanted, of))


def _cuts_text(of: Sequence[logs.Part]) -> str:
    return msgspec.json.encode([cut.shown() for cut in logs.cuts(of)]).decode()


async def section(shown: Opened, wanted: UUID, attempts: Sequence[Row]) -> dict[str, Any]:
    """Read a page of lines: from where the address says, else the last ones."""
    asked = _Asked(shown.query)
    numbers = sorted({row["attempt"] for row in attempts})
    attempt = asked.attempt if asked.attempt in numbers else numbers[-1] if numbers else None
    of = await logs.parts(shown.conn, shown.tenant_id, wanted, attempt)
    stored = of[-1].base + of[-1].lines if of else 0
    total = await _total(shown.conn, shown.tenant_id, wanted, of, asked)
    narrowed = asked.wanted.narrowed
    first = asked.first if asked.first is not None else 0 if narrowed else max(0, stored - LINES)
    found, more = await logs.look(
        shown.conn, shown.tenant_id, wanted, of, from_seq=first, limit=LINES, wanted=asked.wanted
    )
    items = logs.items(found)
    several = len(numbers) > 1
    here = f"/executions/{wanted}"
    keep = {"attempt": attempt if several else None, "level": asked.level, "q": asked.query}

    def to(**changed: Any) -> str:
        return link(here, **(keep | changed)) + "#log"

    before = first > 0 and not narrowed
    api = f"/api/v1{here}/logs"
    chosen = {"attempt": attempt, "level": asked.level, "q": asked.query}
    return {
        "lines": [_line(item, asked.query, shown.when.zone) for item in items],
        "gaps": {} if narrowed else _gaps(of, items, first),
        "missing": sum(cut.lines for cut in logs.cuts(of)),
        "stored": stored,
        "total": total,
        "cuts": _cuts_text(of),
        "line": asked.line,
        "attempt": attempt,
        "attempts": [{"number": n, "href": to(attempt=n), "current": n == attempt} for n in numbers if several],
        "level": asked.level or "",
        "levels": [
            {"word": word, "href": to(level=level), "current": level == (asked.level or "")} for level, word in LEVELS
        ],
        "query": asked.query,
        "at_end": more is None,
        "earlier": to(**{"from": max(0, first - LINES)}) if before else None,
        "start": to(**{"from": "0"}) if before else None,
        "later": to(**{"from": more}) if more is not None else None,
        "url": link(f"{here}/log", attempt=attempt),
        "matches": link(f"{api}/matches", attempt=attempt),
        "raw": link(f"{api}.txt", **chosen),
        "packed": link(f"{api}.txt.gz", **chosen),
        "narrowed": narrowed,
    }


def _gaps(of: Sequence[logs.Part], items: Sequence[Mapping[str, Any]], first: int) -> dict[int, dict[str, int]]:
    """Return what is missing on this page, by the number of the line in front of which it is to be said."""
    gaps = {}
    for cut in logs.cuts(of):
        end = cut.from_seq + cut.lines
        following = next((item["seq"] for item in items if item["seq"] >= end), None)
        if following is not None and first <= cut.from_seq:
            gaps[following + 1] = cut.shown()
    return gaps


def _line(item: Mapping[str, Any], query: str, zone: Any) -> dict[str, Any]:
    """Return one line of a log: its number from 1, its time, and its text made safe."""
    stamp = item["ts"] or item["received_at"]
    try:
        at = datetime.fromisoformat(stamp).astimezone(zone)
        said = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
    except (ValueError, TypeError, OverflowError):
        said = ""
    fields = item["fields"] or {}
    return {
        "number": item["seq"] + 1,
        "time": said,
        "level": item["level"],
        "text": coloured(item["message"], query),
        "flags": item["flags"],
        "fields": [
            (visible(name), visible(value if isinstance(value, str) else repr(value))) for name, value in fields.items()
        ]
        if isinstance(fields, Mapping)
        else [],
    }
