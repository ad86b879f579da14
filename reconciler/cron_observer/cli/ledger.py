"""``cron-observer db check``: the second witness of the slot ledger."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from cron_observer.cli import _http, options

if TYPE_CHECKING:
    from cron_observer.ledger import Defect, Verdict
    from cron_observer.store.ledger import Asked

EXIT_DEFECTS: Final = 1

#: Defects that one call tells; the rest is counted.
MOST: Final = 10_000


class Moment(click.ParamType[datetime]):
    """A date (its midnight, UTC) or an ISO 8601 time with its offset."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read it."""
        if isinstance(value, datetime):
            return value
        try:
            if len(value) == 10:
                return datetime.combine(date.fromisoformat(value), time.min, tzinfo=UTC)
            read = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time; write 2026-07-01 or 2026-07-01T12:00:00Z", param, ctx)
        if read.tzinfo is None:
            self.fail(f"{value!r} has no offset; write {value}Z for UTC", param, ctx)
        return read.astimezone(UTC)


@dataclass(slots=True)
class _Told:
    """The verdicts of all tasks together."""

    tasks: int = 0
    generations: int = 0
    slots: int = 0
    ranges: int = 0
    unreadable: int = 0
    defects: list[Defect] = field(default_factory=list)
    more: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> None:
        self.tasks += 1
        self.generations += verdict.generations
        self.slots += verdict.slots
        self.ranges += verdict.ranges
        self.unreadable += verdict.unreadable
        self.kinds.update(defect.kind for defect in verdict.defects)
        room = max(MOST - len(self.defects), 0)
        self.more += verdict.more + max(len(verdict.defects) - room, 0)
        self.defects += verdict.defects[:room]


@click.command()
@click.option("--from", "since", type=Moment(), help="Begin here. Default: 7 days before --to.")
@click.option("--to", "until", type=Moment(), help="End here. Default: now.")
@click.option("--project", help="Only the tasks of this project.")
@click.option("--task", help="Only this task: its uid, name or project/name.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
@_http.output
@_http.place
@click.pass_context
def check(
    context: click.Context,
    since: datetime | None,
    until: datetime | None,
    project: str | None,
    task: str | None,
    config: Path | None,
    style: str,
    data_dir: Path | None,
) -> None:
    """Recompute every nominal slot of a period from the plans of that time, and compare it with the ledger.

    It writes nothing, and computes the slots by other code than planned them. Exit code: 0 when every slot is
    there once, where it belongs and with an outcome; 1 when something is wrong, a line each; 64 when the call is.
    """
    from cron_observer.store.ledger import Asked

    if since is not None and until is not None and since >= until:
        raise click.UsageError("--from must be before --to")
    settings = options.load({"data_dir": data_dir}, config)
    asked = Asked(since=since, until=until, project=project, task=task)
    told = asyncio.run(_check(options.database_url(settings), settings.tenant, asked, style))
    if task is not None and not told.tasks:
        raise click.UsageError(f"there is no planned task {task!r}")
    if style == "json":
        click.echo(json.dumps(_as_json(told), indent=2, default=str))
    else:
        click.echo(_summary(told))
    if told.kinds:
        context.exit(EXIT_DEFECTS)


async def _check(url: str, tenant: str, asked: Asked, style: str) -> _Told:
    from cron_observer.store import ledger
    from cron_observer.store.engine import Database
    from cron_observer.store.tenants import tenant_id

    told = _Told()
    database = Database(url, "cron_observer_api", pool_size=1, application="cron-observer db check")
    try:
        async for _, verdict in ledger.check(database, tenant_id(tenant), asked):
            told.add(verdict)
            if style == "table":
                _print(verdict.defects, verdict.more)
    finally:
        await database.close()
    return told


def _print(defects: Sequence[Defect], more: int) -> None:
    """Print what is wrong with one task, as soon as it is known."""
    for defect in defects:
        click.echo(_http.printable(f"{defect.task}  {defect.label}  {defect.kind}: {defect.what}; {defect.mend}"))
    if more:
        click.echo(_http.printable(f"{defects[0].task}  and {more:,} more"))


def _summary(told: _Told) -> str:
    """Say what was looked at, and how much is wrong."""
    looked = f"{told.tasks:,} tasks, {told.generations:,} generations, {told.slots:,} slots, {told.ranges:,} ranges"
    unread = f"; {told.unreadable:,} generations could not be evaluated and own nothing" if told.unreadable else ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(told.kinds.items()))
    return f"{looked} checked{unread}; {kinds or 'nothing is wrong'}"


def _as_json(told: _Told) -> Mapping[str, Any]:
    return {
        "ok": not told.kinds,
        "tasks": told.tasks,
        "generations": told.generations,
        "slots": told.slots,
        "ranges": told.ranges,
        "unreadable": told.unreadable,
        "defects": [asdict(defect) for defect in told.defects],
        "more": told.more,
    }
