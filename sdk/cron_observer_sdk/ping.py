"""``cron-observer ping``: one sign of life by the Healthchecks protocol, with retries within a deadline."""

from __future__ import annotations

import argparse
import base64
import http.client
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from cron_observer_sdk import __version__
from cron_observer_sdk.errors import ApiError, CronObserverError, NotConfigured, NotFound, RateLimited, Unavailable
from cron_observer_sdk.options import Parser, duration
from cron_observer_sdk.text import JsonObject, timestamp
from cron_observer_sdk.transport import Endpoint
from cron_observer_sdk.wires import Connection

if TYPE_CHECKING:
    import ssl

#: Bytes of a body that the server takes; of a longer one its end is sent.
BODY_BYTES = 100_000
#: Seconds for all tries together, and how many there are.
TIMEOUT_SECONDS = 10.0
TRIES = 6
#: First and longest pause between tries, drawn between 0 and the current value.
PAUSE_SECONDS = 0.3
LONGEST_PAUSE_SECONDS = 5.0
#: What is read of an answer.
REPLY_BYTES = 64 * 1024

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SLUG = re.compile(r"[^/\s]+/[^/\s]+")

EPILOG = """\
WHERE is a ping URL, a check's UUID, or KEY/SLUG; the last two are looked for at CRON_OBSERVER_URL. No token is needed.
Exit codes: 0 delivered, or spooled; 1 not delivered; 64 the command line is wrong.
"""


def address(where: str, suffix: str = "", rid: str | None = None) -> str:
    """Return the URL to ping. Raise `NotConfigured` where it cannot be one."""
    if where.startswith(("http://", "https://")):
        base = where.rstrip("/")
    elif _UUID.fullmatch(where) or _SLUG.fullmatch(where):
        server = os.environ.get("CRON_OBSERVER_URL", "").strip().rstrip("/")
        if not server:
            raise NotConfigured("CRON_OBSERVER_URL is not set: set it, or give the whole URL")
        base = f"{server}/ping/{quote(where)}"
    else:
        raise NotConfigured(f"{where!r} is no place to ping: give a URL, a UUID, or KEY/SLUG")
    Endpoint.read(base)
    return base + (f"/{suffix}" if suffix else "") + (f"?rid={rid}" if rid else "")


def send(url: str, body: bytes | None = None, *, timeout: float = TIMEOUT_SECONDS, tries: int = TRIES) -> None:
    """Ping; try again until it is taken, the deadline is over or the tries are used up.

    Raise `Unavailable` when nobody answered, another `ApiError` when it was refused.
    """
    parts = urlsplit(url)
    endpoint = Endpoint.read(f"{parts.scheme}://{parts.netloc}")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    context: ssl.SSLContext | None = None
    if endpoint.secure:
        import ssl

        context = ssl.create_default_context()
    deadline, pause = time.monotonic() + timeout, PAUSE_SECONDS
    while True:
        tries -= 1
        failure = _once(Connection(endpoint, context), target, body, deadline)
        if failure is None:
            return
        wait = max(random.uniform(0, pause), failure.retry_after or 0.0)  # noqa: S311  spreading retries is no secret
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        if tries <= 0 or time.monotonic() + wait >= deadline:
            raise failure
        time.sleep(wait)


def _once(connection: Connection, target: str, body: bytes | None, deadline: float) -> Unavailable | None:
    """Ping once; return what a later try may mend. Raise `ApiError` for a refusal."""
    where = f"{connection.host}:{connection.port}"
    connection.deadline = deadline
    headers = {"User-Agent": f"cron-observer-sdk/{__version__}", "Connection": "close"}
    try:
        connection.request("GET" if body is None else "POST", target, body=body, headers=headers)
        answer = connection.getresponse()
        said = answer.read(REPLY_BYTES).decode("utf-8", "replace").strip()
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        what = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(f"cannot reach {where}: {what}")
    finally:
        connection.close()
    if 200 <= answer.status < 300:
        return None
    words = said.splitlines()[0][:200] if said else ""
    message = f"{where} answered {answer.status}{f': {words}' if words else ''}"
    if answer.status == 429 or answer.status >= 500:
        kind = RateLimited if answer.status == 429 else Unavailable
        failure = kind(message, status=answer.status, code=f"http_{answer.status}")
        asked = answer.headers.get("Retry-After", "")
        failure.retry_after = float(asked) if asked.strip().isdigit() else None
        return failure
    refusal = NotFound if answer.status == 404 else ApiError
    raise refusal(message, status=answer.status, code=f"http_{answer.status}")


def spool_ping(url: str, body: bytes | None) -> None:
    """Leave a ping to the spool. Raise `OSError`, or `ImportError` where there can be none."""
    from cron_observer_sdk.spool import Spool

    head: JsonObject = {"v": 1, "what": "ping", "url": url, "started_at": timestamp(time.time())}
    if body is not None:
        head["body"] = base64.b64encode(body).decode("ascii")
    Spool().create(head).close()


def replay_ping(head: JsonObject) -> None:
    """Send a ping that was spooled. Raise `ApiError`."""
    body = head.get("body")
    try:
        send(str(head.get("url", "")), None if body is None else base64.b64decode(str(body)), tries=2)
    except (NotConfigured, ValueError) as error:
        raise ApiError(f"it cannot be read: {error}", code="unreadable") from None


def parser() -> Parser:
    """Return the parser."""
    made = Parser(
        prog="cron-observer ping",
        description="Send a sign of life by the Healthchecks protocol.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("where", metavar="WHERE", help="a ping URL, a UUID, or KEY/SLUG")
    kind = made.add_mutually_exclusive_group()
    kind.add_argument("--start", action="store_const", const="start", dest="suffix", help="the work begins")
    kind.add_argument("--fail", action="store_const", const="fail", dest="suffix", help="the work has failed")
    kind.add_argument("--log", action="store_const", const="log", dest="suffix", help="only a word for the log")
    kind.add_argument("--exit", type=_code, dest="suffix", metavar="N", help="the work ended with this exit code")
    made.add_argument("--rid", type=_rid, metavar="UUID", help="which run this belongs to, the same at start and end")
    made.add_argument("--body", metavar="FILE", help="send this along; - is standard input; its last 100 kB count")
    made.add_argument(
        "--timeout", type=duration, default=TIMEOUT_SECONDS, metavar="TIME", help="for all tries (default 10s)"
    )
    made.add_argument("--spool", action="store_true", help="if nobody answers, leave it to the spool")
    return made


def _code(text: str) -> str:
    """Read an exit code."""
    if not re.fullmatch(r"[0-9]{1,3}", text) or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not an exit code: 0 to 255")
    return str(int(text))


def _rid(text: str) -> str:
    """Read a run id."""
    if not _UUID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a UUID")
    return text


def _body(name: str | None) -> bytes | None:
    """Read the end of the body. Raise `ValueError` for a file that cannot be read."""
    if name is None:
        return None
    try:
        whole = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise ValueError(f"--body: cannot read {name}: {error.strerror} (a file, or - for standard input)") from None
    return whole[-BODY_BYTES:]


def main(arguments: Sequence[str]) -> int:
    """Ping as the arguments say; return the exit code."""
    reader = parser()
    asked = reader.parse_args(list(arguments))
    try:
        url = address(asked.where, asked.suffix or "", asked.rid)
        body = _body(asked.body)
    except (NotConfigured, ValueError) as error:
        reader.error(str(error))
    try:
        send(url, body, timeout=asked.timeout)
    except CronObserverError as error:
        if not (asked.spool and isinstance(error, Unavailable)):
            sys.stderr.write(f"cron-observer: {error}\n")
            return 1
        return _left_to_spool(url, body, error)
    return 0


def _left_to_spool(url: str, body: bytes | None, error: Unavailable) -> int:
    """Spool the ping; return the exit code."""
    try:
        spool_ping(url, body)
    except (OSError, ImportError) as trouble:
        sys.stderr.write(f"cron-observer: {error}; it cannot be spooled: {trouble}\n")
        return 1
    sys.stderr.write(f"cron-observer: {error}; spooled\n")
    return 0
