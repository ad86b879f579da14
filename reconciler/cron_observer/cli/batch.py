"""`cron-observer explain --batch`: requests as JSON lines, each answered by a line. For machines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from cron_observer.errors import ScheduleError
from cron_observer.model import FoldRule, GapRule, OnExcluded, ScheduleSpec, parse_duration

if TYPE_CHECKING:
    from cron_observer.schedule.calendars import Calendar

#: The most fires that one request may ask for.
MOST_FIRES: Final = 10_000

#: Bytes of one line of a batch; the longest sensible request is a few kilobytes.
MOST_BYTES: Final = 1 << 20

_DAY: Final = r"(sun|mon|tue|wed|thu|fri|sat)"
_DAYS: Final = re.compile(f"{_DAY}(-{_DAY})?")
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


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
        calendars = _read_calendars(request.get("calendars", {}))
        fires = schedule.compile(spec, calendars).next_fires(after, count)
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
    unknown = sorted(request.keys() - {"id", "schedule", "after", "count", "calendars"})
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


def _text(value: Any, place: str) -> None:
    if not isinstance(value, str):
        raise _RequestError(f"{place}: must be a text")
    if not value.strip():
        raise _RequestError(f"{place}: is empty")


def _texts(value: Any, place: str) -> None:
    if not isinstance(value, str | list) or not all(isinstance(text, str) for text in value):
        raise _RequestError(f"{place}: must be a text or a list of texts")


def _names(value: Any, place: str) -> None:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise _RequestError(f"{place}: must be a list of texts")


def _duration(value: Any, place: str) -> None:
    _text(value, place)
    try:
        parse_duration(value)
    except (ValueError, OverflowError) as error:
        raise _RequestError(f"{place}: {error}") from None


def _one_of(choices: type[StrEnum]) -> Callable[[Any, str], None]:
    def check(value: Any, place: str) -> None:
        if value not in tuple(choices):
            raise _RequestError(f"{place}: must be one of {', '.join(choices)}")

    return check


def _object(**fields: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise _RequestError(f"{place}: must be an object")
        for name, inner in value.items():
            if name not in fields:
                raise _RequestError(f"{place}/{name}: unknown field")
            fields[name](inner, f"{place}/{name}")

    return check


def _clock(value: Any, place: str) -> None:
    if not isinstance(value, str) or not (_TIME.fullmatch(value) or (value == "24:00" and place.endswith("/to"))):
        raise _RequestError(f"{place}: must be a time of day such as 14:30")


def _days(value: Any, place: str) -> None:
    _names(value, place)
    if not value or not all(_DAYS.fullmatch(text) for text in value):
        raise _RequestError(f"{place}: must be a list of weekdays and ranges such as sat or sun-thu")


_WINDOW: Final = _object(days=_days, **{"from": _clock, "to": _clock})


def _windows(value: Any, place: str) -> None:
    if not isinstance(value, list):
        raise _RequestError(f"{place}: must be a list")
    for number, window in enumerate(value):
        _WINDOW(window, f"{place}/{number}")
        for name in ("from", "to"):
            if name not in window:
                raise _RequestError(f"{place}/{number}/{name}: is missing")


_BLOCK: Final = _object(
    cron=_texts,
    every=_duration,
    anchor=_text,
    at=_texts,
    timezone=_text,
    dst=_object(gap=_one_of(GapRule), overlap=_one_of(FoldRule)),
    windows=_windows,
    calendars=_object(include=_names, exclude=_names),
    onExcluded=_one_of(OnExcluded),
    jitter=_duration,
    startAt=_text,
    endAt=_text,
    seed=_text,
)


def _read_block(block: Mapping[str, Any]) -> ScheduleSpec:
    """Read a ``schedule`` block that no schema has seen."""
    # A field that is null is one that is not there, as in a manifest.
    given = {name: value for name, value in block.items() if value is not None or name not in {"startAt", "endAt"}}
    _BLOCK(given, "/schedule")
    return ScheduleSpec.read(given, given.get("seed"))


def _read_calendars(given: Any) -> dict[str, Calendar]:
    """Read the calendars of a request: their contents by name."""
    from cron_observer.schedule.calendars import read_calendar

    if not isinstance(given, dict):
        raise _RequestError("/calendars: must be an object")
    found = {}
    for name, content in given.items():
        try:
            found[name] = read_calendar(content)
        except ScheduleError as error:
            raise _RequestError(f"/calendars/{name}{error.pointer}: {error.message}") from None
    return found
