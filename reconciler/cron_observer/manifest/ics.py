"""Calendar files (iCalendar, RFC 5545): from their text to days and spans. Pure, and never raises on bad input.

The only module that knows the library. It is given events alone, each with the few properties that say when it is:
zones that a file brings along, alarms, attachments and nested components are cut out before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, TypedDict

from cron_observer import errors
from cron_observer.manifest import recurrence, rules
from cron_observer.manifest.files import DOCS_URL
from cron_observer.manifest.ics_text import MAX_BYTES, ZONE, Refusal, Sifted, sift
from cron_observer.manifest.recurrence import Budget, NotSupported
from cron_observer.manifest.rules import Rule
from cron_observer.manifest.scalars import shown
from cron_observer.model import Finding

__all__ = ["MAX_BYTES", "CalendarFile", "read"]

MAX_RANGES: Final = 20_000  # days, ranges of days and spans of one file, once repeated
MAX_STEPS: Final = 1_000_000  # days that the rules of one file may look at
LAST_REPEAT: Final = date(2100, 12, 31)  # events that repeat for ever end here

_FIRST, _LAST = date(1970, 1, 1), date(2200, 12, 31)  # beyond them no slot asks
_DAY: Final = timedelta(days=1)
Moment = date | datetime  # a day, or local or aware time; a `datetime` is a `date` too: ask `_is_day`


class CalendarFile(TypedDict):
    """What a calendar file holds. Times without ``Z`` are local to whoever asks."""

    dates: list[list[str]]  #: first and last day of each range, both included
    spans: list[list[str]]  #: start and end of each span; the end is outside
    findings: list[Finding]


@dataclass(slots=True)
class _Event:
    """One event as far as it says when it is."""

    line: int
    uid: str
    start: Moment
    length: timedelta  #: by the wall clock
    component: Any
    zones: Mapping[str, str]  #: what the file's zones are called elsewhere
    zone: Any = None
    replaces: Moment | None = None  #: the occurrence of the other event of this UID that it stands for
    cancelled: bool = False


def read(path: str, data: bytes) -> CalendarFile:
    """Read a calendar file. Whatever is wrong becomes a finding; one that is an error leaves no days."""
    found: list[Finding] = []
    try:
        text = sift(data)
        days, spans = _gathered(_events(text, path, found))
    except Refusal as refusal:
        found.append(_finding(rules.BAD_CALENDAR_FILE, path, str(refusal), refusal.line, refusal.hint))
        return CalendarFile(dates=[], spans=[], findings=found)
    return CalendarFile(
        dates=[[first.isoformat(), last.isoformat()] for first, last in sorted(days)],
        spans=[list(span) for span in sorted(spans)],
        findings=found[: rules.MAX_FINDINGS_A_FILE],
    )


def _finding(rule: Rule, path: str, message: str, line: int | None, hint: str | None = None) -> Finding:
    return Finding(
        severity=rule.severity,
        code=rule.code,
        path=shown(path, 4096),
        line=line,
        message=message,
        hint=hint,
        url=DOCS_URL + rule.code.lower(),
    )


# -- from lines to events ---------------------------------------------------------------------------------------


def _events(text: Sifted, path: str, found: list[Finding]) -> list[_Event]:
    import icalendar

    try:
        parsed = icalendar.Calendar.from_ical("\r\n".join(["BEGIN:VCALENDAR", *text.lines, "END:VCALENDAR", ""]))
        components = parsed.subcomponents
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Refusal(f"this is no iCalendar file that can be read ({type(error).__name__})") from None
    if len(components) != len(text.starts):
        raise Refusal("its events cannot be told apart")
    events = []
    for line, component in zip(text.starts, components, strict=True):
        try:
            event = _event(component, line, text.zones)
        except NotSupported as error:
            raise Refusal(f"{_called(component)}: {error}", line) from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            message = f"{_called(component)} cannot be read ({type(error).__name__})"
            raise Refusal(message, line, "look at its DTSTART and DTEND") from None
        if event is None:
            message = f"{_called(component)} has no time and is left out"
            found.append(_finding(rules.EVENT_LEFT_OUT, path, message, line, "give it a DTSTART and a DTEND"))
        else:
            events.append(event)
    return events


def _called(component: Any) -> str:
    try:
        name = str(component.get("SUMMARY") or "")
    except Exception:  # noqa: BLE001 - whatever the library thinks of it
        name = ""
    return f'the event "{shown(name)}"' if name else "an event without a name"


def _event(component: Any, line: int, zones: Mapping[str, str]) -> _Event | None:
    if component.get("DTSTART") is None:
        return None
    start, zone = _moment(component["DTSTART"], zones)
    end = _moment(component["DTEND"], zones)[0] if component.get("DTEND") is not None else None
    if component.get("DURATION") is not None:
        length = component["DURATION"].dt
    elif end is not None:
        length = _between(start, end)
    else:
        length = _DAY if _is_day(start) else timedelta()
    if _is_day(start):
        # Some programs write the first day as the end of an event of one day.
        length = _DAY if not length else timedelta(days=-(-length // _DAY))
    if length < timedelta() or length > 100_000 * _DAY:
        raise NotSupported("it ends before it begins" if length < timedelta() else "it lasts too long")
    if not length:
        return None
    replaces = None
    if component.get("RECURRENCE-ID") is not None:
        if "RANGE" in component["RECURRENCE-ID"].params:
            raise NotSupported("RECURRENCE-ID with RANGE is not supported")
        replaces = _key(_moment(component["RECURRENCE-ID"], zones)[0])
    cancelled = str(component.get("STATUS") or "").upper() == "CANCELLED"
    return _Event(line, str(component.get("UID") or ""), start, length, component, zones, zone, replaces, cancelled)


def _is_day(moment: Any) -> bool:
    return not isinstance(moment, datetime)


def _between(start: Moment, end: Moment) -> timedelta:
    if _is_day(start) != _is_day(end):
        raise NotSupported("one of its DTSTART and DTEND is a day and the other a time")
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return timedelta(days=end.toordinal() - start.toordinal())
    if start.tzinfo is end.tzinfo:
        return end.replace(tzinfo=None) - start.replace(tzinfo=None)
    if start.tzinfo is None or end.tzinfo is None:
        raise NotSupported("one of its DTSTART and DTEND has a time zone and the other has none")
    return end - start


def _moment(prop: Any, zones: Mapping[str, str]) -> tuple[Moment, Any]:
    """Return the time of a property and its zone: None for days and for local times."""
    return _placed(prop.dt, prop.params.get(ZONE), zones)


def _placed(value: Any, zone_id: Any, zones: Mapping[str, str]) -> tuple[Moment, Any]:
    if not isinstance(value, date):
        raise NotSupported("its time is no date and no time")
    if not isinstance(value, datetime):
        return value, None
    if value.tzinfo is not None:
        return value.astimezone(UTC), UTC
    if zone_id is None:
        return value, None
    zone = _zone(str(zone_id), zones)
    return value.replace(tzinfo=zone), zone


def _zone(name: str, zones: Mapping[str, str]) -> Any:
    from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

    from cron_observer.schedule.zones import zone

    name = name.strip().strip('"')
    tails = ["/".join(name.split("/")[-parts:]) for parts in (2, 3)] if name.startswith("/") else []
    for known in (name, zones.get(name, ""), WINDOWS_TO_OLSON.get(name, ""), *tails):
        try:
            return zone(known).info
        except errors.ScheduleError:
            continue
    raise NotSupported(f'its time zone "{shown(name, 60)}" is not known; write a name of the IANA database')


# -- from events to days and spans ---------------------------------------------------------------------------


def _gathered(events: Sequence[_Event]) -> tuple[set[tuple[date, date]], set[tuple[str, str]]]:
    replaced: dict[str, set[Moment]] = {}
    for event in events:
        if event.replaces is not None:
            replaced.setdefault(event.uid, set()).add(event.replaces)
    days: set[tuple[date, date]] = set()
    spans: set[tuple[str, str]] = set()
    budget = Budget(MAX_STEPS)
    for event in events:
        if event.cancelled:
            continue
        hidden = replaced.get(event.uid, set()) if event.replaces is None else set()
        try:
            for start, length in _occurrences(event, hidden, budget):
                _add(start, length, days, spans)
                if len(days) + len(spans) > MAX_RANGES:
                    raise Refusal(f"it holds more than {MAX_RANGES:,} days and spans", event.line, "split it")
        except NotSupported as error:
            raise Refusal(f"{_called(event.component)}: {error}", event.line) from None
        except (ValueError, TypeError, AttributeError, OverflowError, KeyError, IndexError) as error:
            message = f"{_called(event.component)} cannot be read ({type(error).__name__})"
            raise Refusal(message, event.line, "look at its RRULE, RDATE and EXDATE") from None
    return days, spans


def _add(start: Moment, length: timedelta, days: set[tuple[date, date]], spans: set[tuple[str, str]]) -> None:
    if not isinstance(start, datetime):
        last = min(start + length - _DAY, _LAST)
        if last >= _FIRST and start <= _LAST:
            days.add((max(start, _FIRST), last))
        return
    end = start + length  # by the wall clock: a working day has its hours whatever the clock did
    if start.tzinfo is not None:
        start, end = start.astimezone(UTC), end.astimezone(UTC)
    if end > start and _FIRST.year <= end.year and start.year <= _LAST.year:
        mark = "Z" if start.tzinfo is not None else ""
        first, last_moment = (moment.replace(tzinfo=None, microsecond=0) for moment in (start, end))
        low, high = datetime.combine(_FIRST, time()), datetime.combine(_LAST, time(23, 59, 59))
        spans.add((max(first, low).isoformat() + mark, min(last_moment, high).isoformat() + mark))


def _occurrences(event: _Event, hidden: set[Moment], budget: Budget) -> Iterator[tuple[Moment, timedelta]]:
    """Yield when an event is, each time."""
    component = event.component
    without = set(hidden)
    for moment, _ in _listed(component.get("EXDATE"), event):
        without.add(_key(moment))
    yielded: set[Moment] = set()
    several = [(start, event.length) for start in _repeated(event, budget)]
    several += [(start, length or event.length) for start, length in _listed(component.get("RDATE"), event)]
    for start, length in several:
        key = _key(start)
        day = start.date() if isinstance(start, datetime) else start
        if key not in without and day not in without and key not in yielded:
            yielded.add(key)
            yield start, length


def _key(moment: Moment) -> Moment:
    """Return what two ways of writing the same moment have in common."""
    return moment.astimezone(UTC) if isinstance(moment, datetime) and moment.tzinfo is not None else moment


def _listed(prop: Any, event: _Event) -> Iterator[tuple[Moment, timedelta | None]]:
    """Yield the times of EXDATE or RDATE; of periods, with their length."""
    for values in prop if isinstance(prop, list) else [prop] if prop is not None else []:
        for value in values.dts:
            moment, length = value.dt, None
            if isinstance(moment, tuple):
                moment, end = moment
                length = end if isinstance(end, timedelta) else end - moment
            moment, _ = _placed(moment, values.params.get(ZONE), event.zones)
            if isinstance(moment, datetime) and moment.tzinfo is None and event.zone is not None:
                moment = moment.replace(tzinfo=event.zone)  # some programs do not repeat the zone
            yield moment, length


def _repeated(event: _Event, budget: Budget) -> Iterator[Moment]:
    component, start = event.component, event.start
    rule = component.get("RRULE")
    if rule is None:
        yield start
        return
    if isinstance(rule, list):
        raise NotSupported("it has several rules")
    parts = {str(name).upper(): values if isinstance(values, list) else [values] for name, values in rule.items()}
    first = start.date() if isinstance(start, datetime) else start
    most = int(parts["COUNT"][0]) if "COUNT" in parts else MAX_RANGES + 1
    until = parts["UNTIL"][0] if "UNTIL" in parts else None
    last = min(LAST_REPEAT, _last_day(until)) if until is not None else LAST_REPEAT
    for number, day in enumerate(recurrence.days(parts, first, last, budget)):
        if number >= most:
            return
        moment: Moment = datetime.combine(day, start.time(), start.tzinfo) if isinstance(start, datetime) else day
        if isinstance(until, datetime) and isinstance(moment, datetime) and _later(moment, until):
            return
        yield moment


def _last_day(until: Any) -> date:
    """Return a day up to which all that UNTIL allows is found, in any zone."""
    return until.date() + _DAY if isinstance(until, datetime) else until


def _later(moment: datetime, until: datetime) -> bool:
    if moment.tzinfo is None or until.tzinfo is None:
        return moment.replace(tzinfo=None) > until.replace(tzinfo=None)
    return moment > until
