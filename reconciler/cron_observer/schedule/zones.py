"""Time zones as integers: which offset a local day has, and where the clock jumps.

Seconds count from 1970-01-01: in UTC for instants, on the wall clock for labels. A *label* is what a
wall clock shows; label = instant + offset. A day is a number of days since 1970-01-01 on the wall clock.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cron_observer.schedule.codes import refuse

DAY: Final = 86_400

#: Names that the zone database holds but that mean another place on another machine, or none.
_NO_PLACE: Final = frozenset({"Factory", "localtime", "posixrules", "local"})

#: Days remembered for each zone; beyond it the memory is emptied, not grown.
_REMEMBERED: Final = 20_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Piece:
    """Labels of one day that run with one offset: minutes `first` to below `end` of `day`."""

    day: int
    first: int
    end: int
    offset: int
    fold: int  #: 1 = these labels have been shown before


@dataclass(frozen=True, slots=True)
class Gap:
    """A jump forward at the instant `at`: labels from `first` to below `end` are never shown."""

    at: int
    first: int
    end: int
    before: int  #: the offset before the jump, which gives a skipped label its nominal instant


@dataclass(frozen=True, slots=True)
class Run:
    """The days around a clock change: their pieces in order of instants, and their gaps."""

    first: int
    last: int
    pieces: tuple[Piece, ...]
    gaps: tuple[Gap, ...]

    def repeats(self, day: int, minute: int) -> bool:
        """Whether the clock shows this minute of `day` a second time."""
        return any(piece.fold and piece.day == day and piece.first <= minute < piece.end for piece in self.pieces)


class Zone:
    """One time zone. Use `zone()`, so that days are remembered once for all schedules."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.info = ZoneInfo(key)
        self._midnights: dict[int, int] = {}
        self._days: dict[int, int | Run] = {}

    def offset(self, instant: int) -> int:
        """Seconds that the wall clock is ahead of UTC at `instant`."""
        shift = (_EPOCH + timedelta(seconds=instant)).astimezone(self.info).utcoffset()
        assert shift is not None  # noqa: S101 - a ZoneInfo always has one
        return shift.days * DAY + shift.seconds

    def day(self, day: int) -> int | Run:
        """The offset of a local day without a change near it, else the run of days it belongs to."""
        known = self._days.get(day)
        if known is not None:
            return known
        if len(self._days) > _REMEMBERED:
            self._days.clear()
            self._midnights.clear()
        offset = self._uniform(day)
        if offset is not None:
            self._days[day] = offset
            return offset
        run = self._run(day)
        for member in range(run.first, run.last + 1):
            self._days[member] = run
        return run

    def _midnight(self, day: int) -> int:
        """The offset at midnight UTC of `day`."""
        known = self._midnights.get(day)
        if known is None:
            known = self._midnights[day] = self.offset(day * DAY)
        return known

    def _uniform(self, day: int) -> int | None:
        # Offsets lie within a day of UTC, so a local day lies inside these three days of UTC. No zone
        # changes twice within 24 hours (a test looks), so equal ends mean an equal middle.
        offset = self._midnight(day)
        if (
            offset == self._midnight(day + 1)
            and offset == self._midnight(day - 1)
            and offset == self._midnight(day + 2)
        ):
            return offset
        return None

    def _run(self, day: int) -> Run:
        first = last = day
        while self._uniform(first - 1) is None:
            first -= 1
        while self._uniform(last + 1) is None:
            last += 1
        changes = [
            self._change(utc_day)
            for utc_day in range(first - 1, last + 2)
            if self._midnight(utc_day) != self._midnight(utc_day + 1)
        ]
        offsets = [self._midnight(first - 1), *(self.offset(change) for change in changes)]
        pieces: list[Piece] = []
        gaps: list[Gap] = []
        shown = first * DAY  # labels below it have been shown, or lie before the run
        for number, offset in enumerate(offsets):
            start = changes[number - 1] + offset if number else shown
            end = changes[number] + offset if number < len(changes) else (last + 1) * DAY
            if start > shown:
                gaps.append(Gap(changes[number - 1], shown, start, offsets[number - 1]))
            pieces += _pieces(start, min(end, shown), offset, 1)
            pieces += _pieces(max(start, shown), end, offset, 0)
            shown = max(shown, end)
        return Run(first, last, tuple(pieces), tuple(gaps))

    def _change(self, utc_day: int) -> int:
        """The first instant of `utc_day`, or of its end, with the new offset."""
        low, high = utc_day * DAY, (utc_day + 1) * DAY
        before = self._midnight(utc_day)
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def locate(self, label: int) -> tuple[int, Gap | None]:
        """The instant of a label: the first of two; in a gap by the offset before it, with the gap."""
        place = self.day(label // DAY)
        if isinstance(place, int):
            return label - place, None
        for gap in place.gaps:
            if gap.first <= label < gap.end:
                return label - gap.before, gap
        naive = datetime(1970, 1, 1) + timedelta(seconds=label)  # noqa: DTZ001 - a label has no zone
        shift = naive.replace(tzinfo=self.info).utcoffset()
        assert shift is not None  # noqa: S101 - a ZoneInfo always has one
        return label - (shift.days * DAY + shift.seconds), None

    def passes(self, label: int) -> tuple[int, int]:
        """The instants at which a label is shown, twice the same if it is shown once. In a gap they mean nothing."""
        place = self.day(label // DAY)
        if isinstance(place, int):
            return label - place, label - place
        naive = datetime(1970, 1, 1) + timedelta(seconds=label)  # noqa: DTZ001 - a label has no zone
        first, second = (int((naive.replace(tzinfo=self.info, fold=fold) - _EPOCH).total_seconds()) for fold in (0, 1))
        return first, second

    def next_change(self, after: int, until: int) -> int | None:
        """The first instant of (`after`, `until`] with another offset than before it; None if there is none."""
        day = after // DAY
        while day * DAY < until:
            if self._midnight(day) != self._midnight(day + 1):
                change = self._change(day)
                if after < change <= until:
                    return change
            day += 1
        return None

    def settled(self, instant: int) -> int:
        """The last nominal instant of anything that fires up to `instant`.

        It is `instant` itself, but for the length of a gap after a jump forward: what the gap swallowed
        fires at the jump, while its nominal instants lie behind it.
        """
        day = instant // DAY
        for place in {id(place): place for place in map(self.day, (day - 1, day, day + 1))}.values():
            if isinstance(place, Run):
                for gap in place.gaps:
                    if gap.at <= instant:
                        instant = max(instant, gap.end - gap.before - 1)
        return instant


def _pieces(start: int, end: int, offset: int, fold: int) -> list[Piece]:
    """Cut the labels from `start` to below `end` at midnights, in whole minutes."""
    pieces = []
    while start < end:
        day = start // DAY
        stop = min(end, (day + 1) * DAY)
        # A label is a whole minute: it is shown if it is not before `start` and before `stop`.
        first, last = -((day * DAY - start) // 60), -((day * DAY - stop) // 60)
        if first < last:
            pieces.append(Piece(day, first, last, offset, fold))
        start = stop
    return pieces


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The zone called `name`, exactly, or raise `ScheduleError` at ``/timezone`` with what was meant."""
    if name in _names():
        return Zone(name)
    if not name.strip():
        raise refuse("CO3011", "The time zone is empty.", "write Europe/Berlin or UTC", pointer="/timezone")
    raise refuse("CO3011", f"{name[:80]!r} is not a known time zone.", _zone_hint(name[:80]), pointer="/timezone")


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones() - _NO_PLACE)


def _zone_hint(name: str) -> str:
    if match := re.fullmatch(r"(?:UTC|GMT)?([+-])0?([0-9]{1,2})(?::?00)?", name.strip(), re.IGNORECASE):
        sign = "-" if match[1] == "+" else "+"
        fixed = f"Etc/GMT{sign}{match[2]}"
        if fixed in _names():
            return f"write the name of a place, or {fixed} (its sign is the other way round) for a fixed offset"
    by_letters = {known.lower(): known for known in sorted(_names())}
    asked = name.strip().lower().replace(" ", "_")
    cities = {known.rpartition("/")[2].lower(): known for known in sorted(_names(), reverse=True)}
    exact = by_letters.get(asked) or cities.get(asked)
    if exact:
        return f"did you mean {exact}?"
    near = difflib.get_close_matches(asked, by_letters, n=1, cutoff=0.75)
    if near:
        return f"did you mean {by_letters[near[0]]}?"
    near = difflib.get_close_matches(asked.rpartition("/")[2], cities, n=1, cutoff=0.75)
    if near:
        return f"did you mean {cities[near[0]]}?"
    return "write a name of the IANA database, such as Europe/Berlin or UTC"


@lru_cache(maxsize=1)
def tzdata_version() -> str:
    """The version of the zone data in use, such as ``2026a``; ``unknown`` if the data does not say."""
    for folder in zoneinfo.TZPATH:
        if not (Path(folder) / "UTC").is_file():
            continue
        for name, pattern in (("tzdata.zi", r"# version (\S+)"), ("+VERSION", r"(\S+)")):
            file = Path(folder) / name
            if file.is_file():
                with file.open(encoding="utf-8", errors="replace") as lines:
                    if match := re.match(pattern, lines.readline()):
                        return match[1]
        return "unknown"
    try:
        return str(import_module("tzdata").IANA_VERSION)
    except ModuleNotFoundError:
        return "unknown"
