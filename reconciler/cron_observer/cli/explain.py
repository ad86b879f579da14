"""`cron-observer explain`: what a schedule means and when it fires, by the function that plans slots.

What is heavy is imported when the command runs, so that the help of the others stays fast.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from zoneinfo import ZoneInfo

import click

from cron_observer.errors import ScheduleError
from cron_observer.model import ScheduleSpec, Severity, TaskDefinition, parse_duration

if TYPE_CHECKING:
    from cron_observer.schedule import Explanation

EXIT_FINDINGS: Final = 1

#: The most fires that one request may ask for.
MOST_FIRES: Final = 10_000

#: Bytes of one line of a batch; the longest sensible request is a few kilobytes.
MOST_BYTES: Final = 1 << 20

_KINDS: Final = {
    "fixed-time": "what a clock change skips fires right after it, what it repeats fires the first time only",
    "interval-like": "elapsed time: a clock change neither moves nor drops a fire",
    "mixed": "each part by its own rule for clock changes, see the notes",
}


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


@click.command(short_help="Say what a schedule means and when it fires.")
@click.argument("cron", nargs=-1)
@click.option("--timezone", help="IANA zone in which local times are read.  [default: UTC]")
@click.option("--every", type=_Duration(), help="An interval: 15m, 90s, 1d.")
@click.option("--anchor", help="Local time from which the interval counts.")
@click.option("--at", multiple=True, help="A one-off local time; may be given several times.")
@click.option("--seed", help="project/name of the task, which resolves H.")
@click.option("--after", type=_Moment(), help="Show fires after this time.  [default: now]")
@click.option("--count", type=click.IntRange(0, MOST_FIRES), default=10, show_default=True, help="How many fires.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--file", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Explain a manifest."
)
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
    given = [name for name in ("timezone", "every", "anchor", "at", "seed") if options[name] not in (None, ())]
    if options["batch"]:
        if cron or given or options["file"] or options["after"]:
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
        _explain_one(context, cron, form, options)
    else:
        raise click.UsageError("Give a cron expression, --every, --at, --file or --batch.", context)


def _explain_one(context: click.Context, cron: tuple[str, ...], form: str, options: Mapping[str, Any]) -> None:
    spec = ScheduleSpec(
        cron=cron,
        every=options["every"],
        anchor=options["anchor"],
        at=options["at"],
        timezone="UTC" if options["timezone"] is None else options["timezone"],
        seed=options["seed"],
    )
    try:
        told = _told(spec, options)
    except ScheduleError as error:
        _complain(error)
        context.exit(EXIT_FINDINGS)
    if form == "json":
        click.echo(json.dumps(_as_json(spec, told), indent=2))
    else:
        _print(told)


def _explain_file(context: click.Context, form: str, options: Mapping[str, Any]) -> None:
    from cron_observer.cli.validate import explained
    from cron_observer.manifest import parse

    file: Path = options["file"]
    data = file.read_bytes()
    parsed = parse(str(file), data)
    texts = {parsed.path: data.decode("utf-8", "replace").split("\n")}
    for finding in parsed.findings:
        click.echo(explained(finding, texts), err=True)
    items = []
    for number, task in enumerate(parsed.tasks):
        spec = ScheduleSpec.read(task.spec["schedule"], f"{options['project']}/{task.name}")
        told = _told(spec, options)
        if form == "json":
            items.append({"task": task.name, "line": task.line, **_as_json(spec, told)})
            continue
        click.echo(("\n" if number else "") + click.style(_title(task, file), bold=True))
        _print(told)
    if form == "json":
        click.echo(json.dumps({"items": items}, indent=2))
    if any(finding.severity is Severity.ERROR for finding in parsed.findings):
        context.exit(EXIT_FINDINGS)


def _title(task: TaskDefinition, file: Path) -> str:
    suspended = " (suspended: it has no slots)" if task.spec.get("suspend") else ""
    return f"{task.name}{suspended}  {click.format_filename(file)}:{task.line}"


def _told(spec: ScheduleSpec, options: Mapping[str, Any]) -> Explanation:
    from cron_observer import schedule

    schedule.compile(spec)  # before its zone is used to read `--after`
    after: datetime = options["after"] or datetime.now(UTC)
    if after.tzinfo is None:
        after = after.replace(tzinfo=ZoneInfo(spec.timezone))
    return schedule.explain(spec, after, options["count"])


def _as_json(spec: ScheduleSpec, told: Explanation) -> dict[str, Any]:
    return {
        "words": told.words,
        "kind": told.kind,
        "timezone": spec.timezone,
        "fires": [{"local": fire.local, "utc": instant(fire.utc), "note": fire.note} for fire in told.fires],
        "notes": list(told.notes),
    }


def _print(told: Explanation) -> None:
    click.echo(told.words)
    click.echo(f"{told.kind}: {_KINDS[told.kind]}")
    for note in told.notes:
        click.echo(f"note: {note}")
    click.echo()
    if not told.fires:
        click.echo("  no fires")
        return
    rows = [("local", "UTC", ""), *((fire.local, instant(fire.utc), fire.note or "") for fire in told.fires)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for local, utc, note in rows:
        click.echo(f"  {local:{widths[0]}}  {utc:{widths[1]}}  {note}".rstrip())


def _complain(error: ScheduleError) -> None:
    place = f" {error.pointer}" if error.pointer else ""
    click.echo(f"{click.style(f'error[{error.rule}]', fg='red', bold=True)}{place}: {error.message}", err=True)
    if error.hint:
        click.echo(f" = hint: {error.hint}", err=True)


def instant(at: datetime) -> str:
    """Write an instant as ``2026-03-29T01:00:00Z``, with milliseconds only if it has any."""
    text = at.astimezone(UTC).isoformat(timespec="milliseconds" if at.microsecond else "seconds")
    return text.removesuffix("+00:00") + "Z"


def answer_batch(lines: BinaryIO, answers: BinaryIO) -> None:
    """Answer each line of `lines` with a line, at once; a bad line is answered by its error and passed over."""
    for line in _lines(lines):
        if line.strip():
            answers.write(json.dumps(answer(line)).encode() + b"\n")
            answers.flush()


def _lines(source: BinaryIO) -> Iterator[bytes]:
    """The lines of `source`; of a longer one than is allowed only the beginning, so that memory stays bounded."""
    while line := source.readline(MOST_BYTES + 1):
        rest = line
        while len(rest) > MOST_BYTES and not rest.endswith(b"\n"):
            rest = source.readline(MOST_BYTES + 1)
        yield line


def answer(line: bytes) -> dict[str, Any]:
    """Answer one request of a batch: ``{"id", "fires"}`` or ``{"id", "error"}``."""
    from cron_observer import schedule

    if len(line) > MOST_BYTES:
        return {"id": None, "error": f"the line is longer than {MOST_BYTES} bytes"}
    try:
        request = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return {"id": None, "error": f"the line is not JSON: {error}"}
    if not isinstance(request, dict):
        return {"id": None, "error": "the line is not a JSON object"}
    id_ = request.get("id")
    try:
        spec, after, count = _read_request(request)
        fires = schedule.compile(spec).next_fires(after, count)
    except ScheduleError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return {"id": id_, "error": f"/schedule{error.pointer}: {error.message}{hint}"}
    except _RequestError as error:
        return {"id": id_, "error": str(error)}
    return {"id": id_, "fires": [instant(fire) for fire in fires]}


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


class _RequestError(Exception):
    """A request of a batch cannot be understood."""


def _read_request(request: Mapping[str, Any]) -> tuple[ScheduleSpec, datetime, int]:
    unknown = sorted(request.keys() - {"id", "schedule", "after", "count"})
    if unknown:
        raise _RequestError(f"/{unknown[0]}: unknown field")
    block, after, count = request.get("schedule"), request.get("after"), request.get("count", 1)
    if not isinstance(block, dict):
        raise _RequestError("/schedule: must be an object")
    if not isinstance(after, str):
        raise _RequestError('/after: must be a time such as "2026-03-28T00:00:00Z"')
    try:
        start = datetime.fromisoformat(after)
    except ValueError:
        raise _RequestError(f"/after: {after[:60]!r} is not a time") from None
    if start.tzinfo is None:
        raise _RequestError("/after: needs Z or an offset")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MOST_FIRES:
        raise _RequestError(f"/count: must be a whole number from 0 to {MOST_FIRES}")
    return _read_block(block), start, count


def _read_block(block: Mapping[str, Any]) -> ScheduleSpec:
    """Read a ``schedule`` block that no schema has seen."""
    for name, value in block.items():
        listed = name in {"cron", "at"}
        if not listed and name not in {"every", "anchor", "timezone", "seed"}:
            raise _RequestError(f"/schedule/{name}: unknown field")
        if isinstance(value, list) and listed:
            if not all(isinstance(text, str) for text in value):
                raise _RequestError(f"/schedule/{name}: must be a text or a list of texts")
        elif not isinstance(value, str):
            raise _RequestError(f"/schedule/{name}: must be a text{' or a list of texts' if listed else ''}")
        elif not value.strip() and not listed:
            raise _RequestError(f"/schedule/{name}: is empty")
    try:
        return ScheduleSpec.read(block, block.get("seed"))
    except (ValueError, OverflowError) as error:
        raise _RequestError(f"/schedule/every: {error}") from None
