"""Weekly windows of local time: whether one is open, when it closes, and when the next one opens."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from cron_observer.model import Window
from cron_observer.schedule.zones import DAY, Zone

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WEEK: Final = 7 * DAY

#: 1970-01-01, from which labels count, was a Thursday; weeks begin on Sunday.
_THURSDAY: Final = 4 * DAY


class Windows:
    """The union of weekly windows in one zone. Without any window it is always open."""

    def __init__(self, windows: Iterable[Window], zone: Zone) -> None:
        self.zone = zone
        spans: list[tuple[int, int]] = []
        any_window = False
        for window in windows:
            any_window = True
            length = (window.end - window.start) * 60
            if length <= 0:
                length += DAY
            spans += [(day * DAY + window.start * 60, length) for day in window.days]
        starts, ends = _joined(spans)
        #: Whether there is nothing outside.
        self.always = not any_window or (starts, ends) == ([0], [_WEEK])
        self._starts, self._ends = starts, ends

    def shows(self, label: int) -> bool:
        """Whether a window is open when the clock shows `label`, seconds since 1970."""
        if self.always:
            return True
        second = (label + _THURSDAY) % _WEEK
        at = bisect_right(self._starts, second) - 1
        return at >= 0 and second < self._ends[at]

    def opens_behind(self, label: int) -> int | None:
        """The first label from `label` on with an open window, if no clock changes; None if there is none ever."""
        if self.shows(label):
            return label
        if not self._starts:
            return None
        second = (label + _THURSDAY) % _WEEK
        at = bisect_right(self._starts, second)
        start = self._starts[at] if at < len(self._starts) else self._starts[0] + _WEEK
        return label + start - second

    def open_at(self, instant: datetime) -> bool:
        """Whether a window is open at `instant` (aware)."""
        second = _seconds(instant)
        return self.shows(second + self.zone.offset(second))

    def closes_at(self, instant: datetime) -> datetime | None:
        """The first instant behind `instant` without an open window; None if none is open, or one always is.

        What matters is what the clock shows: where it jumps, a window may close early, or stay open longer.
        """
        if self.always or not self.open_at(instant):
            return None
        second = _seconds(instant)
        while True:
            label = second + self.zone.offset(second)
            closes = second + self._left(label)
            change = self.zone.next_change(second, closes)
            if change is None:
                return _EPOCH + timedelta(seconds=closes)
            if not self.shows(change + self.zone.offset(change)):
                return _EPOCH + timedelta(seconds=change)
            second = change

    def _left(self, label: int) -> int:
        """Seconds until the clock shows the end of the window that is open at `label`."""
        second = (label + _THURSDAY) % _WEEK
        end = self._ends[bisect_right(self._starts, second) - 1]
        if end == _WEEK and self._starts[0] == 0:
            end += self._ends[0]  # it goes on in the next week
        return end - second


def _joined(spans: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Cut (start, length) at the end of the week, and join what touches."""
    cut = []
    for start, length in spans:
        cut.append((start, min(start + length, _WEEK)))
        if start + length > _WEEK:
            cut.append((0, start + length - _WEEK))
    starts: list[int] = []
    ends: list[int] = []
    for start, end in sorted(cut):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


def _seconds(instant: datetime) -> int:
    """Whole seconds since 1970, rounded down. Raise `ValueError` for a time without a zone."""
    if instant.tzinfo is None:
        raise ValueError("windows are asked with aware times")
    return (instant - _EPOCH) // timedelta(seconds=1)
