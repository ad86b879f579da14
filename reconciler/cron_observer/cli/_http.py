"""What the commands that talk to a server share: where it is, how it is asked, how answers are printed."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import rich_click as click

from cron_observer.cli import options
from cron_observer.errors import CronObserverError, SettingsError

#: What `./start` writes for those who come after it.
DEV_ENV: Final = "dev.env"

#: Seconds that an answer may take.
TIMEOUT: Final = 30.0

_LINE: Final = re.compile(r"(?:export )?(CRON_OBSERVER_(?:URL|TOKEN))=(.*)")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

#: ``--format`` and ``--data-dir`` of every command.
output = click.option(
    "--format", "style", type=click.Choice(("table", "json")), default="table", help="How to print. Default: table."
)
place = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where `dev.env` of a running `up` lies, when CRON_OBSERVER_URL is not set.",
)


class ServerError(CronObserverError):
    """The server refused, or could not be reached."""

    code = "server"


class Server:
    """A server's API, as one key sees it."""

    def __init__(self, url: str, token: str | None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise SettingsError(f"{url} is no address of a server", hint="CRON_OBSERVER_URL begins with http://")
        self.url = url.rstrip("/")
        self._token = token
        local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        # a proxy for the world is none for this machine
        self._opener = build_opener(ProxyHandler({})) if local else build_opener()

    def call(self, method: str, *path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """Ask for ``/api/v1/`` and the parts of `path`; return the answer. Raises `ServerError`."""
        target = f"{self.url}/api/v1/{'/'.join(quote(part, safe='') for part in path)}"
        given = {name: value for name, value in (query or {}).items() if value is not None}
        if given:
            target += f"?{urlencode(given)}"
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = Request(target, data=data, headers=headers, method=method)  # noqa: S310  http(s), checked above
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                raw = answer.read()
        except HTTPError as error:
            raise _refused(error) from error
        except (URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(
                f"{self.url} does not answer: {reason}",
                hint="start it with ./start, or set CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN",
            ) from error
        return json.loads(raw) if raw else None

    def pages(self, *path: str, query: Mapping[str, Any] | None = None, most: int | None = None) -> Iterator[Any]:
        """Yield the items of a list, page after page, at most `most`."""
        cursor, left = None, most
        while left is None or left > 0:
            asked = {**(query or {}), "limit": 200 if left is None else min(200, left), "cursor": cursor}
            page = self.call("GET", *path, query=asked)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])


def _refused(error: HTTPError) -> ServerError:
    try:
        told = json.loads(error.read())
        return ServerError(f"{told['detail']} ({told['code']})", hint=told.get("hint"))
    except (ValueError, KeyError, TypeError):
        return ServerError(f"the server answered {error.code} {error.reason}", hint="is it Cron Observer?")


def connect(data_dir: Path | None) -> Server:
    """Return the server that the environment names, else the one that `up` left a note about."""
    url = os.environ.get("CRON_OBSERVER_URL")
    if url:
        return Server(url, os.environ.get("CRON_OBSERVER_TOKEN"))
    settings = options.load({"data_dir": data_dir})
    note = settings.data_dir / DEV_ENV
    try:
        lines = note.read_text(encoding="utf-8").splitlines() if note.exists() else []
    except OSError as error:
        raise SettingsError(f"{note} cannot be read: {error.strerror}", hint="set CRON_OBSERVER_URL") from error
    noted = {match[1]: match[2].strip("'\"") for match in map(_LINE.fullmatch, lines) if match}
    token = os.environ.get("CRON_OBSERVER_TOKEN") or noted.get("CRON_OBSERVER_TOKEN")
    return Server(noted.get("CRON_OBSERVER_URL") or f"http://127.0.0.1:{settings.port}", token)


def printable(text: str) -> str:
    """Return a text with everything that a terminal would obey made visible."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def show(rows: Iterable[Any], columns: Sequence[tuple[str, str]], style: str) -> None:
    """Print rows: as JSON whole, or as a table of `columns`, each a heading and a dotted path."""
    found = list(rows)
    if style == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = [[heading for heading, _ in columns]]
    table += [[_cell(row, path) for _, path in columns] for row in found]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def show_one(found: Mapping[str, Any], style: str) -> None:
    """Print one thing: as JSON whole, or a line for each member."""
    if style == "json":
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    width = max(len(name) for name in found)
    for name in found:
        click.echo(f"{name.ljust(width)}  {_cell(found, name)}".rstrip())


def _cell(row: Any, path: str) -> str:
    value: Any = row
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return "-"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return printable(" ".join(value))
    if isinstance(value, dict | list):
        return printable(json.dumps(value, ensure_ascii=False))
    return printable(str(value).lower() if isinstance(value, bool) else str(value))


def named(task: str, project: str) -> tuple[str, str]:
    """Return project and name of a task given as ``project/name`` or as a name in `project`."""
    place_, slash, name = task.rpartition("/")
    return (place_, name) if slash else (project, task)


def to_terminal() -> bool:
    """Say whether somebody looks at what is printed."""
    return sys.stdout.isatty()
