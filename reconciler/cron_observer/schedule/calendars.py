"""Calendars: sets of days and spans of time, flattened to immutable content and asked on integers.

The content of a calendar is JSON, resolved (no names of other calendars, no files) and addressed by its digest::

    {"parts": [{"timezone": null, "dates": [["2026-12-24", "2026-12-26"]], "yearly": ["12-25"], "weekdays": [0, 6],
                "holidays": [{"country": "DE", "subdivision": "BE"}],
                "spans": [["2026-12-31T17:00:00Z", "2026-12-31T23:00:00Z"]]}]}

A calendar holds what any of its parts holds. Dates are inclusive; spans end before their second time, and those
without ``Z`` are local times. A part without a zone is read in the zone of the schedule that asks.
Pure: public holidays come from data that is installed with the program. No other module knows that library.
"""

from __future__ import annotations

import calendar
import difflib
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

from cron_observer.errors import ScheduleError
from cron_observer.model import Window
from cron_observer.schedule.dates import (
    FIRST_DAY,
    FIRST_YEAR,
    LAST_YEAR,
    Ranges,
    day_of,
    iso,
    month_day,
    refuse,
    seconds_of,
)
from cron_observer.schedule.zones import DAY, Zone, zone

MOST_CALENDARS: Final = 100  #: that one calendar may be made of, itself included
MOST_RANGES: Final = 100_000  #: dates and spans of one calendar, with all that it is made of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LOCAL_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - labels have no zone
_WEEKDAY_NAMES: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_REMEMBERED: Final = 20_000  # days of one part; beyond it the memory is emptied, not grown


# -- asking ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Part:
    """What a calendar holds in one zone; None is the zone of the schedule that asks. Days count from 1970-01-01."""

    zone: Zone | None
    dates: Ranges
    yearly: frozenset[tuple[int, int]]
    weekdays: int  #: bit d is set for weekday d, 0 = Sunday
    holidays: tuple[tuple[str, str | None], ...]
    instants: Ranges
    labels: Ranges
    _known: dict[int, bool] = field(default_factory=dict)

    def holds(self, label: int, instant: int, asking: Zone) -> bool:
        """Tell whether the part holds a moment; `Calendar.holds`."""
        label = self._label(label, instant, asking)
        day = label // DAY
        known = self._known.get(day)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[day] = self.of_day(day) is not None
        return (
            known
            or (bool(self.instants.starts) and self.instants.find(instant) >= 0)
            or (bool(self.labels.starts) and self.labels.find(label) >= 0)
        )

    def name_of(self, label: int, instant: int, asking: Zone) -> str | None:
        """Say what of the part holds a moment."""
        label = self._label(label, instant, asking)
        named = self.of_day(label // DAY)
        if named is None and (at := self.instants.find(instant)) >= 0:
            start, end = (
                _EPOCH + timedelta(seconds=ranges[at]) for ranges in (self.instants.starts, self.instants.ends)
            )
            named = f"{start:%Y-%m-%dT%H:%MZ} to {end:%Y-%m-%dT%H:%MZ}"
        if named is None and (at := self.labels.find(label)) >= 0:
            start, end = (
                _LOCAL_EPOCH + timedelta(seconds=ranges[at]) for ranges in (self.labels.starts, self.labels.ends)
            )
            named = f"{start:%Y-%m-%dT%H:%M} to {end:%Y-%m-%dT%H:%M}"
        return named

    def steady_until(self, label: int, instant: int, asking: Zone) -> int:
        """`Calendar.steady_until`."""
        zone, label = self.zone or asking, self._label(label, instant, asking)
        turn = min((label // DAY + 1) * DAY, self.labels.turn(label)) - label + instant
        if not isinstance(zone.day(label // DAY), int) and (change := zone.next_change(instant, turn)) is not None:
            turn = change
        return min(turn, self.instants.turn(instant))

    def _label(self, label: int, instant: int, asking: Zone) -> int:
        own = self.zone
        if own is None or own.key == asking.key:
            return label
        offset = own.day(instant // DAY)
        return instant + (offset if isinstance(offset, int) else own.offset(instant))

    def of_day(self, day: int) -> str | None:
        """Say why the whole of a day belongs to the part; None if it does not."""
        shown = date.fromordinal(FIRST_DAY + day)
        for country, subdivision in self.holidays:
            named = _public(country, subdivision, shown.year).get(day)
            if named is not None:
                return named
        if (at := self.dates.find(day)) >= 0:
            first, last = self.dates.starts[at], self.dates.ends[at] - 1
            return iso(first) if first == last else f"{iso(first)} to {iso(last)}"
        if (shown.month, shown.day) in self.yearly:
            return f"{shown.day} {calendar.month_name[shown.month]} of each year"
        weekday = (day + 4) % 7
        return _WEEKDAY_NAMES[weekday] if self.weekdays >> weekday & 1 else None


class Calendar:
    """A calendar that can be asked. Equal content makes equal calendars. Use `read_calendar`."""

    __slots__ = ("_parts", "digest", "uses_holidays")

    def __init__(self, parts: Sequence[_Part], digest: str) -> None:
        self._parts = tuple(parts)
        self.digest = digest  #: of the content it was read from
        self.uses_holidays = any(part.holidays for part in parts)  #: the answer depends on `holidays_version`

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calendar) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def holds(self, label: int, instant: int, zone: Zone) -> bool:
        """Tell whether the calendar holds a moment: what the clock of `zone` shows, and the instant, in seconds."""
        return any(part.holds(label, instant, zone) for part in self._parts)

    def steady_until(self, label: int, instant: int, zone: Zone) -> int:
        """Return an instant behind `instant` before which `holds` does not change: at most the next local midnight."""
        return min((part.steady_until(label, instant, zone) for part in self._parts), default=instant + DAY)

    def name_of(self, label: int, instant: int, zone: Zone) -> str | None:
        """Say what holds a moment: the holiday, the date, the weekday; None where `holds` is false."""
        names = (part.name_of(label, instant, zone) for part in self._parts)
        return next((name for name in names if name is not None), None)


# -- content -----------------------------------------------------------------------------------------------


def digest(content: Mapping[str, Any]) -> str:
    """Return the address of a content: SHA-256, in hexadecimal, of its canonical JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_calendar(content: Mapping[str, Any]) -> Calendar:
    """Make the calendar of a content; raise `ScheduleError` when it is damaged or its countries are not known."""
    try:
        parts = [_read_part(part) for part in content["parts"]]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise refuse(
            "CO1407", f"The stored calendar cannot be read ({type(error).__name__}).", "apply its manifest again"
        ) from None
    return Calendar(parts, digest(content))


def _read_part(part: Mapping[str, Any]) -> _Part:
    spans = [(first, last) for first, last in part.get("spans") or ()]
    mask = 0
    for number in part.get("weekdays") or ():
        if not 0 <= number <= 6:
            raise ValueError("weekday")
        mask |= 1 << number
    countries = [(entry["country"], entry.get("subdivision")) for entry in part.get("holidays") or ()]
    for country, subdivision in countries:
        check_holidays(country, subdivision)
    return _Part(
        zone=zone(part["timezone"]) if part.get("timezone") else None,
        dates=Ranges((day_of(first), day_of(last) + 1) for first, last in part.get("dates") or ()),
        yearly=frozenset(month_day(text) for text in part.get("yearly") or ()),
        weekdays=mask,
        holidays=tuple(dict.fromkeys(countries)),
        instants=Ranges((seconds_of(a), seconds_of(b)) for a, b in spans if a.endswith("Z")),
        labels=Ranges((seconds_of(a), seconds_of(b)) for a, b in spans if not a.endswith("Z")),
    )


# -- from manifests to content -----------------------------------------------------------------------------


def resolve(
    name: str, specs: Mapping[str, Mapping[str, Any]], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Flatten a calendar and all calendars that it is based on into one content.

    `specs` are the effective specs of the project's calendars by name. `files` are the calendar files that
    their ``ics`` entries name, each ``{"dates": [[from, to]…], "spans": [[from, to]…]}``. Raises `ScheduleError`,
    with a pointer into the spec of `name`: what is wrong further down stands at the ``base`` that leads there.
    """
    order: list[str] = []
    parts: list[dict[str, Any]] = []

    def take(wanted: str, way: tuple[str, ...]) -> None:
        if wanted in way:
            chain = " → ".join([*way[way.index(wanted) :], wanted])
            raise refuse("CO1404", f"The calendar contains itself: {chain}.", "remove one of these from its base")
        if wanted in order:
            return
        if wanted not in specs:
            raise refuse("CO1403", f"The calendar {wanted!r} is not declared.", near(wanted, specs))
        if len(way) >= MOST_CALENDARS or len(order) >= MOST_CALENDARS:
            raise refuse("CO1409", f"It is made of more than {MOST_CALENDARS} calendars.")
        order.append(wanted)
        try:
            parts.append(part_of(specs[wanted], files))
        except ScheduleError as error:
            error.message = f"The calendar {wanted!r} cannot be used. {error.message}" if way else error.message
            raise
        for number, base in enumerate(specs[wanted].get("base") or ()):
            try:
                take(base, (*way, wanted))
            except ScheduleError as error:
                error.pointer = f"/base/{number}"
                raise

    take(name, ())
    ranges = sum(len(part["dates"]) + len(part["spans"]) for part in parts)
    if ranges > MOST_RANGES:
        raise refuse("CO1409", f"It holds {ranges:,} dates and spans; {MOST_RANGES:,} are allowed.")
    return {"parts": [part for number, part in enumerate(parts) if part not in parts[:number]]}


def part_of(spec: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the part of a calendar's own entries; raise `ScheduleError` at the first that is wrong."""
    if spec.get("timezone"):
        zone(spec["timezone"])
    dates: list[tuple[int, int]] = []
    spans: list[tuple[str, str]] = []
    yearly: set[str] = set()
    days: set[int] = set()
    public: list[dict[str, Any]] = []
    for number, entry in enumerate(spec.get("entries") or ()):
        at = f"/entries/{number}"
        if "date" in entry:
            dates.append((_date_at(entry, "date", at), _date_at(entry, "date", at)))
        elif "from" in entry:
            dates.append(_range_at(entry, at))
        elif "yearly" in entry:
            yearly.add(_yearly_at(entry["yearly"], f"{at}/yearly"))
        elif "weekdays" in entry:
            days |= Window.read({"days": entry["weekdays"], "from": "00:00", "to": "24:00"}).days
        elif "holidays" in entry:
            public.append(_holidays_at(entry["holidays"], f"{at}/holidays"))
        else:
            file = files.get(entry["ics"])
            if file is None:
                raise refuse("CO1408", f"The calendar file {entry['ics']!r} is not there.", pointer=f"{at}/ics")
            dates += ((day_of(first), day_of(last)) for first, last in file["dates"])
            spans += ((first, last) for first, last in file["spans"])
    joined = Ranges((first, last + 1) for first, last in dates)
    return {
        "timezone": spec.get("timezone"),
        "dates": [[iso(first), iso(end - 1)] for first, end in zip(joined.starts, joined.ends, strict=True)],
        "yearly": sorted(yearly),
        "weekdays": sorted(days),
        "holidays": sorted(
            (one for number, one in enumerate(public) if one not in public[:number]),
            key=lambda one: (one["country"], one["subdivision"] or ""),
        ),
        "spans": [list(span) for span in sorted(set(spans))],
    }


def _date_at(entry: Mapping[str, Any], name: str, at: str) -> int:
    try:
        return day_of(entry[name])
    except ValueError:
        hint = f"write a date that exists, such as 2026-12-24, of the years {FIRST_YEAR} to {LAST_YEAR}"
        raise refuse("CO1405", f"{entry[name]!r} is no date.", hint, pointer=f"{at}/{name}") from None


def _range_at(entry: Mapping[str, Any], at: str) -> tuple[int, int]:
    first, last = _date_at(entry, "from", at), _date_at(entry, "to", at)
    if last < first:
        message = f"The range ends on {entry['to']}, before it begins on {entry['from']}."
        raise refuse("CO1406", message, "swap the two; both days belong to the range", pointer=f"{at}/to")
    return first, last


def _yearly_at(text: str, pointer: str) -> str:
    try:
        month_day(text)
    except ValueError:
        message = f"{text!r} is no day of a year."
        raise refuse("CO1405", message, "write month and day, such as 12-25", pointer=pointer) from None
    return text


def _holidays_at(entry: Mapping[str, Any], pointer: str) -> dict[str, Any]:
    country, subdivision = entry["country"], entry.get("subdivision")
    try:
        check_holidays(country, subdivision)
    except ScheduleError as error:
        error.pointer = pointer + error.pointer
        raise
    return {"country": country, "subdivision": subdivision}


def near(word: str, known: Iterable[str]) -> str | None:
    """Say which known name was probably meant, None if none is near."""
    by_letters = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), by_letters, n=1, cutoff=0.6)
    return f"did you mean {by_letters[found[0]]}?" if found else None


# -- public holidays ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def holidays_version() -> str:
    """The version of the holiday data in use, such as ``0.109``."""
    return version("holidays")


@lru_cache(maxsize=1)
def countries() -> Mapping[str, Sequence[str]]:
    """The countries whose public holidays are known, by their code, with the codes of their subdivisions."""
    import holidays

    return holidays.list_supported_countries(include_aliases=False)


@lru_cache(maxsize=4096)
def check_holidays(country: str, subdivision: str | None) -> None:
    """Raise `ScheduleError` unless the holidays of a country and subdivision are known; the pointer is relative."""
    known = countries()
    if country not in known:
        message = f"The public holidays of {country!r} are not known."
        raise refuse("CO1401", message, _country_hint(country), pointer="/country")
    if subdivision is not None and subdivision not in known[country]:
        message = f"{country} has no subdivision {subdivision!r}."
        raise refuse("CO1402", message, _subdivision_hint(country, subdivision), pointer="/subdivision")


def _country_hint(asked: str) -> str:
    from holidays.registry import COUNTRIES

    words = {code: code for code in countries()}
    for name, (_, code, *others) in COUNTRIES.items():
        if code in words:
            words |= dict.fromkeys((name.replace("_", " "), *(other for other in others if other.isupper())), code)
    by_letters = {word.lower(): code for word, code in words.items()}
    lowered = asked.strip().lower()
    found = [lowered] if lowered in by_letters else difflib.get_close_matches(lowered, by_letters, n=1, cutoff=0.7)
    if found:
        return f"did you mean {by_letters[found[0]]}?"
    return "write the two letters of ISO 3166, such as DE, FR or US"


def _subdivision_hint(country: str, asked: str) -> str:
    import holidays

    known = countries()[country]
    if not known:
        return "leave the subdivision out: this country has none"
    aliases = getattr(holidays, country).get_subdivision_aliases()
    words = {code.lower(): code for code in known}
    words |= {alias.lower(): code for code, names in aliases.items() if code in known for alias in names}
    lowered = asked.strip().lower().removeprefix(f"{country.lower()}-")
    found = [lowered] if lowered in words else difflib.get_close_matches(lowered, words, n=1, cutoff=0.7)
    if found:
        return f"did you mean {words[found[0]]}?"
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"known there: {listed}"


@lru_cache(maxsize=8192)
def _public(country: str, subdivision: str | None, year: int) -> Mapping[int, str]:
    """The public holidays of one year: the day, counted from 1970-01-01, and its name in English where it has one."""
    import holidays

    entity = getattr(holidays, country)
    if not entity.start_year <= year <= entity.end_year:
        return {}  # the data says nothing about these years
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of some countries the moving feasts are known for fewer years
        found = holidays.country_holidays(country, subdiv=subdivision, years=year, expand=False, language="en_US")
    return {day.toordinal() - FIRST_DAY: str(named) for day, named in found.items()}
