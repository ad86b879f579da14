"""The sources: what revision is applied, what each file came to, and what is wrong, to the column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer import conditions
from cron_observer.errors import NotFound
from cron_observer.store import source_reads, views_sync
from cron_observer.store.links import line_link, public_url
from cron_observer.store.views import Row
from cron_observer_api.pages import waiting, words
from cron_observer_api.pages.anchors import anchor
from cron_observer_api.pages.moments import When
from cron_observer_api.pages.render import link, page
from cron_observer_api.pages.shell import opened, source_chip

#: Findings, files and runs on one page.
FINDINGS: Final = 100
FILES: Final = 100
RUNS: Final = 20

#: A line of an excerpt that carries its own number: ``11 |   timout: 1h``.
_NUMBERED: Final = re.compile(r"[> ]*(\d+) ?[|│] ?(.*)")

#: Conditions that are bad news when they hold.
_WARNINGS: Final = ("HistoryRewritten", "PrunePending", "Stale", "Suspended")

#: Words for what a run did.
_COUNTS: Final = (
    *("created", "adopted", "transferred", "renamed", "updated", "restored", "moved", "removed", "kept", "held"),
)

#: Kinds beside tasks: what their counts begin with, and what one and several of them are called.
_OTHERS: Final = {
    "calendars_": ("calendar", "calendars"),
    "groups_": ("task group", "task groups"),
    "defaults_": ("Defaults", "Defaults"),
    "projects_": ("Project", "Projects"),
}


@get("/sync", include_in_schema=False)
async def sync(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show every source, what is wrong in any of them, and the last runs."""
    async with opened(request) as shown:
        heads = await views_sync.heads(shown.conn, shown.tenant_id)
        found = await views_sync.findings(shown.conn, shown.tenant_id, limit=FINDINGS)
        runs = await views_sync.runs(shown.conn, shown.tenant_id, limit=RUNS)
        frame = shown.frame("Sync", "sync", ("sources",))
    return page(
        request,
        "sync.html",
        **frame,
        cards=[_card(row, heads.get(row["source_id"]), shown.when) for row in shown.sources],
        found=[_finding(row) for row in found],
        total=sum(row["errors"] + row["warnings"] for row in shown.sources),
        runs=[_run(row) for row in runs],
        several=len(shown.sources) > 1,
    )


@get("/sync/{source:str}", include_in_schema=False)
async def source(request: Request[Any, Any, Any], source: FromPath[str]) -> Response[bytes]:
    """Show one source: its revision, conditions, findings, files and runs."""
    async with opened(request) as shown:
        row = next((one for one in shown.sources if one["name"] == source), None)
        if row is None:
            raise NotFound(f"there is no source {source}", hint="look at the list of sources")
        identity: UUID = row["source_id"]
        heads = await views_sync.heads(shown.conn, shown.tenant_id)
        found = await views_sync.findings(shown.conn, shown.tenant_id, source_id=identity, limit=FINDINGS)
        files = await views_sync.files(
            shown.conn, shown.tenant_id, identity, limit=FILES + 1, after=_file_position(shown.query.get("after"))
        )
        before = _run_position(shown.query.get("before"))
        runs = await views_sync.runs(shown.conn, shown.tenant_id, source_id=identity, limit=RUNS + 1, after=before)
        frame = shown.frame(f"Source {source}", "sync", ("sources",))
    here = f"/sync/{source}"
    return page(
        request,
        "source.html",
        **frame,
        card=_card(row, heads.get(identity), shown.when),
        conditions=_conditions(_standing(row, shown.when.now)),
        held=waiting.held(row),
        told=waiting.told(heads.get(identity)),
        found=[_finding(one) for one in found],
        total=row["errors"] + row["warnings"],
        files=[_file(one, row) for one in files[:FILES]],
        more_files=link(here, after=_to_position(files[FILES - 1])) + "#files" if len(files) > FILES else None,
        first_files=link(here) + "#files" if shown.query.get("after") else None,
        runs=[_run(one) for one in runs[:RUNS]],
        more_runs=link(here, before=str(runs[RUNS - 1]["run_id"])) + "#runs" if len(runs) > RUNS else None,
        first_runs=link(here) + "#runs" if before else None,
    )


def _file_position(text: str | None) -> tuple[int, str] | None:
    rank, _, path = (text or "").replace("\0", "").partition(":")
    return (int(rank), path) if rank in ("0", "1") and path else None


def _to_position(row: Row) -> str:
    return f"{int(row['state'] == 'ok')}:{row['path']}"


def _run_position(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _card(row: Row, head: Row | None, when: When) -> dict[str, Any]:
    """Say how a source stands."""
    known: Mapping[str, Any] = head or {}
    files = known.get("files") or {}
    commit = row["applied_commit"]
    suspended = waiting.suspension(row, when.now)
    if suspended is not None:
        badge = words.Badge("pause", "Suspended", suspended["reason"] or "nobody looks at it until it is resumed")
    elif row["failures"]:
        badge = words.Badge(
            "fail", "Cannot be read", f"{words.many(row['failures'], 'try')} failed".replace("trys", "tries")
        )
    elif row["first_pass_at"] is None:
        badge = words.Badge("wait", "First read", "the first pass has not ended yet")
    elif row["observed_commit"] not in (None, commit):
        badge = words.Badge("late", "Behind", "a newer revision has been seen and is not applied yet")
    else:
        badge = words.Badge("synced", "Synced", "what the source says is applied")
    sound = (
        words.Badge("fail", words.many(row["errors"], "error"))
        if row["errors"]
        else words.Badge("late", words.many(row["warnings"], "warning"))
        if row["warnings"]
        else words.Badge("ok", "No findings")
    )
    return {
        **source_chip(row, when),
        "badge": badge,
        "sound": sound,
        "kind": "Git repository" if row["kind"] == "git" else "Folder",
        "url": public_url(row["url"]),
        "ref": (row["ref"] or "").removeprefix("refs/heads/"),
        "commit": commit,
        "commit_url": line_link(row["url"], commit, known.get("path"), None),
        "author": known.get("author"),
        "subject": known.get("subject"),
        "committed_at": known.get("committed_at"),
        "applied_at": row["applied_at"],
        "observed_at": row["observed_at"],
        "tasks": known.get("tasks", 0),
        "files": sum(files.values()),
        "broken": sum(number for state, number in files.items() if state != "ok"),
        "poll": words.span(row["poll_seconds"]),
        "project": row["project_name"],
        "waiting": row["requested_seq"] > row["handled_seq"] and suspended is None,
        "suspended": suspended,
        "held": waiting.held(row),
        "observed": row["mode"] == "observe",
        "atomic": row["failure_policy"] == "atomic",
        "environment": row["environment"],
        "error": known.get("error") if known.get("outcome") == "failed" else None,
    }


def _finding(row: Row) -> dict[str, Any]:
    place = row["path"]
    if row["line"]:
        place += f":{row['line']}" + (f":{row['column']}" if row["column"] else "")
    return {
        "tone": "fail" if row["severity"] == "error" else "late",
        "word": "Error" if row["severity"] == "error" else "Warning",
        "code": row["code"],
        "place": place,
        "path": row["path"],
        "anchor": anchor(row["path"]),
        "source": row["source_name"],
        "pointer": row["pointer"],
        "name": row["name"],
        "message": row["message"],
        "hint": row["hint"],
        "excerpt": excerpt(row),
        "kept": row["good_commit"] if row["severity"] == "error" else None,
        "url": line_link(row["source_url"], row["commit"], row["path"], row["line"]),
    }


def excerpt(row: Row) -> list[dict[str, Any]]:
    """Return the lines of a finding's excerpt: number, text, and for its own line where the caret stands."""
    text: str | None = row["excerpt"]
    if not text:
        return []
    raw = text.splitlines()
    numbered = [match for line in raw if (match := _NUMBERED.fullmatch(line))]
    if numbered:
        lines = [(int(match[1]), match[2]) for match in numbered]
    elif len(raw) == 1:
        lines = [(row["line"], raw[0])]
    else:
        lines = [((row["line"] or 1) - (len(raw) - 1) // 2 + offset, line) for offset, line in enumerate(raw)]
    return [{"number": number, "text": line, "caret": _caret(row, number, line)} for number, line in lines]


def _caret(row: Row, number: int | None, line: str) -> str | None:
    """Return spaces and carets under the place of a finding, or None on other lines."""
    if number != row["line"] or not row["column"]:
        return None
    column: int = row["column"]
    end: int = row["end_column"] if row["end_line"] == row["line"] and row["end_column"] else column + 1
    start = column - 1
    width = max(1, min(end - column, max(1, len(line) - start)))
    return " " * start + "^" * width


def _file(row: Row, source_row: Row) -> dict[str, Any]:
    return {
        "path": row["path"],
        "anchor": anchor(row["path"]),
        "badge": words.file_state(row["state"], errors=row["errors"], warnings=row["warnings"], kept=row["kept"]),
        "documents": row["documents"],
        "tasks": [
            {"name": name, "href": f"/tasks/{project}/{name}", "sync": words.sync(sync, "manifest")}
            for project, name, sync, _ in row["tasks"] or []
        ],
        "findings": row["errors"] + row["warnings"],
        "commit": row["good_commit"] or row["commit"],
        "url": line_link(source_row["url"], row["commit"], row["path"], None),
    }


def _run(row: Row) -> dict[str, Any]:
    counts: Mapping[str, Any] = row["counts"] or {}
    did = [f"{counts[name]} {name}" for name in _COUNTS if counts.get(name)]
    for prefix, called in _OTHERS.items():
        several = {name: counts[prefix + name] for name in _COUNTS if counts.get(prefix + name)}
        did += [f"{number} {called[number > 1]} {name}" for name, number in several.items()]
    ended: datetime | None = row["finished_at"]
    return {
        "id": row["run_id"],
        "source": row["source_name"],
        "badge": words.outcome(row["outcome"]),
        "commit": row["to_commit"],
        "author": row["author"],
        "subject": row["subject"],
        "trigger": row["trigger"],
        "did": ", ".join(did) or ("nothing to change" if row["outcome"] in ("unchanged", "applied") else ""),
        "plan_hash": row["plan_hash"],
        "strategy": waiting.strategy(row["strategy"]),
        "timings": waiting.timings(row["timings"]),
        "error": row["error"],
        "at": row["started_at"],
        "seconds": (ended - row["started_at"]).total_seconds() if ended else None,
    }


def _standing(row: Row, now: datetime) -> Mapping[str, Any]:
    """Return the conditions of a source with those that time makes."""
    return conditions.shown(
        row["conditions"],
        observed_at=row["observed_at"],
        poll_seconds=row["poll_seconds"],
        suspension=source_reads.suspension_of(row),
        now=now,
    )


def _conditions(known: Mapping[str, Any] | None) -> Sequence[dict[str, Any]]:
    """Return a source's conditions as rows: what, whether, since when, why."""
    rows = []
    for name, value in sorted((known or {}).items()):
        told = value if isinstance(value, dict) else {"status": value}
        status = {"True": "ok", "False": "fail"}.get(str(told.get("status")).capitalize(), "wait")
        tone = ("late" if status == "ok" else "ok") if name in _WARNINGS else status
        rows.append(
            {
                "name": name,
                "tone": tone,
                "word": {"ok": "True", "fail": "False"}.get(status, "Unknown"),
                "reason": told.get("reason"),
                "message": told.get("message"),
                "since": _since(told.get("since")),
            }
        )
    return rows


def _since(text: Any) -> datetime | None:
    try:
        read = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return read if read.tzinfo else None
