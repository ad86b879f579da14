"""Instants as people read them: in UTC or in the reader's zone, always with the absolute time behind them. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from markupsafe import Markup

from cron_observer_api.pages import words

_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONG_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def zone(name: str | None) -> ZoneInfo:
    """Return the zone that a reader asked for; UTC for none and for what is no zone."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError, UnicodeError):
        return ZoneInfo("UTC")


def long_day(day: date) -> str:
    """Write ``Saturday 21 November``."""
    return f"{_LONG_WEEKDAYS[day.weekday()]} {day.day} {MONTHS[day.month - 1]}"


def weekday(number: int) -> str:
    """Write ``Monday`` for 0."""
    return _LONG_WEEKDAYS[number]


def short_day(day: date) -> str:
    """Write ``Sat 21``."""
    return f"{_WEEKDAYS[day.weekday()]} {day.day}"


class When:
    """How one page writes instants: `now` is the database's clock, `zone` the reader's."""

    def __init__(self, now: datetime, zone: ZoneInfo) -> None:
        self.now = now
        self.zone = zone
        self.today = now.astimezone(zone).date()

    @property
    def zone_name(self) -> str:
        """The zone's name, as a heading says it."""
        return self.zone.key

    def day(self, instant: datetime) -> date:
        """The local date of an instant."""
        return instant.astimezone(self.zone).date()

    def ago(self, instant: datetime | None) -> Markup | str:
        """Write how long ago an instant was, or how far ahead it is."""
        if instant is None:
            return "–"
        seconds = (self.now - instant).total_seconds()
        if abs(seconds) < 1:
            return self._element(instant, "now")
        said = words.span(seconds)
        return self._element(instant, f"{said} ago" if seconds > 0 else f"in {said}", relative=True)

    def clock(self, instant: datetime | None, *, seconds: bool = False) -> Markup | str:
        """Write the time of day; the date too where it is another day."""
        if instant is None:
            return "–"
        local = instant.astimezone(self.zone)
        said = f"{local:%H:%M:%S}" if seconds else f"{local:%H:%M}"
        if local.date() != self.today:
            said = f"{self._near(local.date())} {said}"
        return self._element(instant, said + self._fold(local))

    def time(self, instant: datetime | None) -> Markup | str:
        """Write the time of day alone, where the day is known from elsewhere."""
        if instant is None:
            return "–"
        local = instant.astimezone(self.zone)
        return self._element(instant, f"{local:%H:%M:%S}{self._fold(local)}")

    def full(self, instant: datetime | None) -> Markup | str:
        """Write date and time with seconds and the offset from UTC."""
        if instant is None:
            return "–"
        return self._element(instant, self.absolute(instant))

    def exact(self, instant: datetime | None) -> Markup | str:
        """Write the time of day with milliseconds."""
        if instant is None:
            return "–"
        local = instant.astimezone(self.zone)
        return self._element(instant, f"{local:%H:%M:%S}.{local.microsecond // 1000:03}")

    def next(self, instant: datetime | None) -> Markup | str:
        """Write a coming instant: how far ahead if near, else day and time."""
        if instant is None:
            return "–"
        if timedelta(0) <= instant - self.now < timedelta(hours=3):
            return self.ago(instant)
        return self.clock(instant)

    def absolute(self, instant: datetime) -> str:
        """Write ``2026-11-21 07:00:12 UTC`` or with the offset of another zone."""
        local = instant.astimezone(self.zone)
        if self.zone.key == "UTC":
            return f"{local:%Y-%m-%d %H:%M:%S} UTC"
        offset = local.strftime("%z")
        return f"{local:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:]}"

    def _near(self, day: date) -> str:
        distance = abs((day - self.today).days)
        if distance < 7:
            return _WEEKDAYS[day.weekday()]
        written = f"{day.day} {MONTHS[day.month - 1][:3]}"
        return written if day.year == self.today.year else f"{written} {day.year}"

    def _fold(self, local: datetime) -> str:
        """On the hour that a clock change repeats, the offset says which of the two is meant."""
        other = local.replace(fold=1 - local.fold)
        return "" if other.utcoffset() == local.utcoffset() else f" {local:%z}"

    def _element(self, instant: datetime, said: str, *, relative: bool = False) -> Markup:
        stamp = instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        mark = " data-rel" if relative else ""
        title = self.absolute(instant)
        return Markup(f'<time datetime="{stamp}" title="{title}"{mark}>{said}</time>')  # noqa: S704  digits and our words
