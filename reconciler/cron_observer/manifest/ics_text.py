"""The text of a calendar file, without what does not say when its events are. Pure.

Zones that a file brings along, alarms, attachments and nested components are cut out before any library sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cron_observer.manifest.scalars import shown

MAX_BYTES: Final = 5 * 1024 * 1024  # of one file
MAX_EVENTS: Final = 20_000  # of one file
MAX_DEPTH: Final = 20  # components inside one another
MAX_LINES: Final = 160_000  # properties of all events that are kept
MAX_LINE: Final = 200_000  # characters of one of them: as many dates as a file may hold
MAX_RULE: Final = 2_000  # characters of a rule
MAX_NAME: Final = 1_000  # characters of what an event is called; it only serves to find the event

_KEPT: Final = frozenset(
    ("DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "UID", "STATUS", "SUMMARY")
)
#: The parameter that names the zone of a time, called so that the library does not look for it.
ZONE: Final = "X-ZONE"
_ZONE_OF: Final = re.compile(r';TZID=("[^"]*"|[^;:,"]*)', re.IGNORECASE)
_EVENT: Final = ["VCALENDAR", "VEVENT"]
_ZONE: Final = ["VCALENDAR", "VTIMEZONE"]
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_ZONE_ID: Final = re.compile(r"TZID(?:;[^:\r\n]*)?:(.{1,200})")
_ZONE_PLACE: Final = re.compile(r"X-LIC-LOCATION(?:;[^:\r\n]*)?:(.{1,200})")
_ENDS: Final = re.compile("\r\n|\n|\r")


class Refusal(Exception):  # noqa: N818 - never leaves this room; it becomes a finding
    """The whole file cannot be used; `line` counts from 1."""

    def __init__(self, message: str, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.hint = hint


@dataclass(slots=True)
class Sifted:
    """The lines of the events, those on which they begin, and what their zones are called elsewhere."""

    lines: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    zones: dict[str, str] = field(default_factory=dict)


def sift(data: bytes) -> Sifted:
    """Return the events of a calendar file with the properties that say when they are. Raises `Refusal`."""
    if len(data) > MAX_BYTES:
        raise Refusal(f"the file has {len(data):,} bytes; at most {MAX_BYTES:,} are read", hint="split it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(f"the file is not UTF-8 (byte {error.start + 1})", hint="save it as UTF-8") from None
    if "\0" in text:
        raise Refusal("the file holds NUL characters")
    sieve = _Sieve()
    for number, line in _unfolded(text):
        name, _, rest = line.partition(":")
        word = name.upper()
        if word == "BEGIN":
            sieve.begin(rest.strip().upper()[:32], number)
        elif word == "END":
            sieve.end(rest.strip().upper()[:32], number)
        else:
            sieve.take(line, number)
    return sieve.finished()


def _unfolded(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, those that were folded put together."""
    start, parts = 0, list[str]()
    for number, line in enumerate(_ENDS.split(text), 1):
        if line[:1] in (" ", "\t") and parts:
            parts.append(line[1:])
            continue
        if parts:
            yield start, "".join(parts)
        start, parts = number, [line]
    if parts:
        yield start, "".join(parts)


class _Sieve:
    """Takes a file line by line."""

    def __init__(self) -> None:
        self.kept = Sifted()
        self.stack: list[str] = []
        self.begun = False
        self.zone: str | None = None

    def begin(self, name: str, number: int) -> None:
        """Go into a component."""
        self.stack.append(name)
        self.begun = self.begun or self.stack == ["VCALENDAR"]
        if len(self.stack) > MAX_DEPTH:
            raise Refusal("its components are nested too deeply", number)
        if self.stack == _EVENT:
            if len(self.kept.starts) >= MAX_EVENTS:
                raise Refusal(f"it has more than {MAX_EVENTS:,} events", number, "split it")
            self.kept.starts.append(number)
            self.kept.lines.append("BEGIN:VEVENT")

    def end(self, name: str, number: int) -> None:
        """Go out of a component."""
        if not self.stack or self.stack[-1] != name:
            raise Refusal(f"END:{shown(name, 32)} ends nothing that has begun", number)
        if self.stack == _EVENT:
            self.kept.lines.append("END:VEVENT")
        self.stack.pop()

    def take(self, line: str, number: int) -> None:
        """Keep a property that is needed."""
        if self.stack == _EVENT:
            word = _NAME.match(line)
            if word is not None and word[0].upper() in _KEPT:
                self.keep(word[0].upper(), line, number)
        elif self.stack == _ZONE:
            if match := _ZONE_ID.fullmatch(line):
                self.zone = match[1].strip()
            elif (match := _ZONE_PLACE.fullmatch(line)) and self.zone is not None:
                self.kept.zones[self.zone] = match[1].strip()

    def keep(self, word: str, line: str, number: int) -> None:
        """Keep a property of an event, if it may be so long."""
        if word == "SUMMARY" and len(line) > MAX_NAME:
            return
        most = MAX_RULE if word == "RRULE" else MAX_LINE
        if len(line) > most:
            raise Refusal(f"its {word} has {len(line):,} characters; at most {most:,} are read", number)
        if len(self.kept.lines) >= MAX_LINES:
            raise Refusal("its events have too many properties", number, "split it")
        self.kept.lines.append(_ZONE_OF.sub(rf";{ZONE}=\1", line, count=1))

    def finished(self) -> Sifted:
        """Return what was kept, once the file has ended."""
        if self.stack:
            raise Refusal(f"the file ends inside of {shown(self.stack[-1], 32)}", hint="is it cut off?")
        if not self.begun:
            raise Refusal("this is no iCalendar file: it does not begin with BEGIN:VCALENDAR")
        return self.kept
