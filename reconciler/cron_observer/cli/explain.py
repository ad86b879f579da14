"""`cron-observer explain`: what a schedule means and when it fires, by the function that plans slots.

What is heavy is imported when the command runs, so that the help of the others stays fast.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click

from cron_observer.cli.batch import MOST_FIRES, answer_batch, instant
from cron_observer.cli.calendar_files import CalendarFiles
from cron_observer.errors import ScheduleError
from cron_observer.model import (
    FoldRule,
    GapRule,
    OnExcluded,
    ScheduleSpec,
    Severity,
    TaskDefinition,
    Window,
    parse_duration,
)

if TYPE_CHECKING:
    from cron_observer.schedule import Explanation, Fire, Skipped

EXIT_FINDINGS: Final = 1

_WINDOW: Final = re.compile(
    r"(?:([a-z,-]+) +)?((?:[01][0-9]|2[0-3]):[0-5][0-9])-((?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00)"
)

#: What makes a schedule on the command line.
_OF_SCHEDULE: Final = (
    *("timezone", "every", "anchor", "at", "seed", "gap", "overlap", "windows", "include", "exclude"),
    *("on_excluded", "jitter", "start_at", "end_at"),
)


class _Duration(click.ParamType[timedelta]):
    """A duration such as 15m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read the text, or end with a usage error."""
        try:
            return value if isinstance(value, timedelta) else parse_duration(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


class _Moment(click.ParamType[datetime]):
    """An ISO 8601 time; without an offset it is naive."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read the text, or end with a usage error."""
        try:
            return value if isinstance(value, datetime) else datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a time: write 2026-03-28T00:00:00, with Z or an offset if you like.", param, ctx
            )


class _WindowText(click.ParamType[Window]):
    """A weekly window such as "sun-thu 10:00-14:30"; without days it opens every day."""

    name = "window"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Window:
        """Read the text, or end with a usage error."""
        if isinstance(value, Window):
            return value
        match = _WINDOW.fullmatch(value.strip().lower())
        try:
            days = match[1].split(",") if match and match[1] else None
            return Window.read({"days": days, "from": match[2], "to": match[3]} if match else {})
        except (KeyError, ValueError):
            self.fail(f'{value!r} is not a window: write "sun-thu 10:00-14:30" or "22:00-06:00".', param, ctx)


class _Zone(click.ParamType[ZoneInfo]):
    """The name of a time zone."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        """Read the name, or end with a usage error."""
        from cron_observer.schedule import zone

        try:
            return value if isinstance(value, ZoneInfo) else zone(value).info
        except ScheduleError as error:
            self.fail(f"{error.message} {error.hint or ''}".strip(), param, ctx)


def _choice(choices: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([choice.value for choice in choices])


_PLACE: Final = click.Path(exists=True, path_type=Path)
_MANIFEST: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Say what a schedule means and when it fires.")
@click.argument("cron", nargs=-1)
@click.option("--timezone", help="IANA zone in which local times are read.  [default: UTC]")
@click.option("--every", type=_Duration(), help="An interval: 15m, 90s, 1d.")
@click.option("--anchor", help="Local time from which the interval counts.")
@click.option("--at", multiple=True, help="A one-off local time; may be given several times.")
@click.option("--gap", type=_choice(GapRule), help="What the clock skips.  [default: first_valid]")
@click.option("--overlap", type=_choice(FoldRule), help="What it shows twice.  [default: first]")
@click.option(
    "--window", "windows", multiple=True, type=_WindowText(), help='Only then: "sun-thu 10:00-14:30". Several add up.'
)
@click.option("--include", multiple=True, help="Only on days of this calendar; may be given several times.")
@click.option("--exclude", multiple=True, help="Not on days of this calendar; may be given several times.")
@click.option("--calendars", type=_PLACE, help="Manifest or folder that holds the calendars.  [default: --file]")
@click.option("--on-excluded", type=_choice(OnExcluded), help="What is excluded.  [default: skip]")
@click.option("--jitter", type=_Duration(), help="Fire up to so much later: 5m.")
@click.option("--start-at", help="Local time of the first slot that may be.")
@click.option("--end-at", help="Local time from which there are no slots.")
@click.option("--seed", help="project/name of the task, which resolves H.")
@click.option("--after", type=_Moment(), help="Show fires after this time.  [default: now]")
@click.option("--count", type=click.IntRange(0, MOST_FIRES), default=10, show_default=True, help="How many fires.")
@click.option("--local", type=_Zone(), help="Show fires in this zone too.  [default: that of this machine]")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--file", "file", type=_MANIFEST, help="Explain a manifest.")
@click.option("--project", default="default", show_default=True, help="With --file: the project, which resolves H.")
@click.option("--batch", is_flag=True, help="Read requests as JSON lines, write answers as JSON lines.")
@click.pass_context
def explain(context: click.Context, /, cron: tuple[str, ...], form: str, **options: Any) -> None:
    """Say what a schedule means and when it fires next.

    CRON are cron expressions, in quotes; several are a union, as with --every and --at.

    With --batch each line of standard input is {"id", "schedule", "after", "count"}, with the schedule as in
    a manifest and optionally its "seed"; each is answered by a line {"id", "fires"} or {"id", "error"}.

    Exit code: 0 when the schedule is right, 1 when it is not, 64 when the call is wrong.
    """
    given = [name for name in _OF_SCHEDULE if options[name] not in (None, ())]
    if options["batch"]:
        if cron or given or options["file"] or options["after"] or options["calendars"]:
            raise click.UsageError("--batch takes its schedules from standard input alone.", context)
        try:
            answer_batch(sys.stdin.buffer, sys.stdout.buffer)
        except BrokenPipeError:
            # Whoever asked has gone. What is left in the buffer must not complain again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            context.exit(EXIT_FINDINGS)
    elif options["file"]:
        if cron or given:
            raise click.UsageError("--file takes its schedules from the manifest alone.", context)
        _explain_file(context, form, options)
    elif cron or options["every"] is not None or options["at"]:
        if (options["include"] or options["exclude"]) and not options["calendars"]:
            raise click.UsageError("--include and --exclude need --calendars: where their manifests are.", context)
        _explain_one(context, cron, form, options)
    else:
        raise click.UsageError("Give a cron expression, --every, --at, --file or --batch.", context)


def _explain_one(context: click.Context, cron: tuple[str, ...], form: str, options: Mapping[str, Any]) -> None:
    same = ("every", "anchor", "at", "seed", "windows", "include", "exclude", "jitter", "start_at", "end_at")
    spec = ScheduleSpec(
        cron=cron,
        timezone="UTC" if options["timezone"] is None else options["timezone"],
        gap=GapRule(options["gap"] or GapRule.FIRST_VALID),
        overlap=FoldRule(options["overlap"] or FoldRule.FIRST),
        on_excluded=OnExcluded(options["on_excluded"] or OnExcluded.SKIP),
        **{name: options[name] for name in same},
    )
    calendars = CalendarFiles(options["calendars"]) if options["calendars"] else None
    try:
        told = _told(spec, calendars, options)
    except ScheduleError as error:
        _complain(error)
        context.exit(EXIT_FINDINGS)
    if form == "json":
        click.echo(json.dumps(_as_json(spec, told, options), indent=2))
    else:
        _print(told, options)


def _explain_file(context: click.Context, form: str, options: Mapping[str, Any]) -> None:
    from cron_observer.cli.formats.text import explained
    from cron_observer.manifest import parse

    file: Path = options["file"]
    data = file.read_bytes()
    parsed = parse(str(file), data)
    texts = {parsed.path: data.decode("utf-8", "replace").split("\n")}
    for finding in parsed.findings:
        click.echo(explained(finding, texts), err=True)
    wrong = any(finding.severity is Severity.ERROR for finding in parsed.findings)
    calendars = CalendarFiles(options["calendars"] or file)
    items = []
    for number, task in enumerate(parsed.tasks):
        spec = ScheduleSpec.read(task.spec["schedule"], f"{options['project']}/{task.name}")
        if form == "table":
            click.echo(("\n" if number else "") + click.style(_title(task, file), bold=True))
        try:
            told = _told(spec, calendars, options)
        except ScheduleError as error:
            _complain(error)
            wrong = True
            continue
        if form == "json":
            items.append({"task": task.name, "line": task.line, **_as_json(spec, told, options)})
        else:
            _print(told, options)
    if form == "json":
        click.echo(json.dumps({"items": items}, indent=2))
    if wrong:
        context.exit(EXIT_FINDINGS)


def _title(task: TaskDefinition, file: Path) -> str:
    suspended = " (suspended: it has no slots)" if task.spec.get("suspend") else ""
    return f"{task.name}{suspended}  {click.format_filename(file)}:{task.line}"


def _told(spec: ScheduleSpec, calendars: CalendarFiles | None, options: Mapping[str, Any]) -> Explanation:
    from cron_observer import schedule

    named = calendars.named(spec) if calendars else {}
    schedule.compile(spec, named)  # before its zone is used to read `--after`
    after: datetime = options["after"] or datetime.now(UTC)
    if after.tzinfo is None:
        after = after.replace(tzinfo=ZoneInfo(spec.timezone))
    return schedule.explain(spec, after, options["count"], named)


def _here(at: datetime, options: Mapping[str, Any]) -> str:
    """Say an instant in the zone of `--local`, else of this machine."""
    zone: ZoneInfo | None = options["local"]
    name = os.environ.get("TZ", "").removeprefix(":")
    if zone is None and name:
        try:
            zone = ZoneInfo(name)
        except (ValueError, OSError):
            zone = None  # a rule such as EST5EDT4: the machine knows it
    return at.astimezone(zone).isoformat(sep=" ")


def _as_json(spec: ScheduleSpec, told: Explanation, options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "words": told.words,
        "kind": told.kind,
        "rule": told.rule,
        "timezone": spec.timezone,
        "fires": [
            {"local": fire.local, "utc": instant(fire.utc), "here": _here(fire.utc, options), "note": fire.note}
            for fire in told.fires
        ],
        "skipped": [
            {"local": row.local, "utc": instant(row.utc), "reason": row.reason, "note": row.note, "slots": row.slots}
            for row in told.skipped
        ],
        "notes": list(told.notes),
    }


def _print(told: Explanation, options: Mapping[str, Any]) -> None:
    click.echo(told.words)
    click.echo(f"{told.kind}: {told.rule}")
    for note in told.notes:
        click.echo(f"note: {note}")
    click.echo()
    if not told.fires:
        click.echo("  no fires")
    shown: list[Fire | Skipped] = sorted([*told.skipped, *told.fires], key=lambda row: row.utc)
    rows = [[row.local, instant(row.utc), _here(row.utc, options), row.note or ""] for row in shown]
    if rows:
        here = str(options["local"] or "here")
        # The machine's own zone is worth a column where it says something that the others do not.
        if options["local"] is None and all(row[2] in (row[0], _utc(row[1])) for row in rows):
            here = ""
            rows = [[local, utc, "", note] for local, utc, _, note in rows]
        rows.insert(0, ["local", "UTC", here, ""])
        widths = [max(len(row[column]) for row in rows) for column in (0, 1, 2)]
        for local, utc, third, note in rows:
            middle = f"{third:{widths[2]}}  " if here else ""
            click.echo(f"  {local:{widths[0]}}  {utc:{widths[1]}}  {middle}{note}".rstrip())


def _utc(text: str) -> str:
    return text.replace("T", " ").replace("Z", "+00:00")


def _complain(error: ScheduleError) -> None:
    place = f" {error.pointer}" if error.pointer else ""
    click.echo(f"{click.style(f'error[{error.rule}]', fg='red', bold=True)}{place}: {error.message}", err=True)
    if error.hint:
        click.echo(f" = hint: {error.hint}", err=True)
