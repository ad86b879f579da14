"""The guard against a database clock that jumps.

The database's clock decides, and this process's CLOCK_BOOTTIME, which no operator and no NTP steps, watches it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

#: How far the database's clock may stand from where it should be. NTP slews far less; a busy loop adds some.
TOLERANCE: Final = timedelta(seconds=2)

#: How fast the expectation follows a small difference: 1 ms a second. NTP slews at most half of that, so a true
#: clock is followed and a clock that runs off is not.
DRIFT: Final = 0.001

#: Seconds after which a clock that has jumped, and has run steadily since, is believed. Until then nothing expires.
STEADY: Final = 60.0


def boottime() -> float:
    """Return seconds since the machine started, those of its sleep included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What to make of a reading of the database's clock.

    `now` is fit for decisions: never more than `TOLERANCE` ahead of the truth. While `frozen`, nothing may expire
    and nobody be accused of lateness. `jumped` marks the first reading of a freeze and `thawed` the first after
    one: extend leases then, since their holders could not help it.
    """

    now: datetime
    frozen: bool = False
    jumped: bool = False
    thawed: bool = False
    offset: timedelta = timedelta(0)  #: how far the database's clock is ahead of where it should be


class ClockGuard:
    """Compares the database's clock with CLOCK_BOOTTIME. One for each loop of a process."""

    def __init__(self) -> None:
        self._at: datetime | None = None  #: the database's time at `_boot`, as far as we believe it
        self._boot = 0.0
        self._apart_since: float | None = None
        self._apart_by = timedelta(0)

    def observe(self, db_now: datetime, boot: float | None = None) -> Reading:
        """Judge `db_now`, just read from the database, at `boot` seconds of CLOCK_BOOTTIME (default: now)."""
        boot = boottime() if boot is None else boot
        if self._at is None:
            self._at, self._boot = db_now, boot
            return Reading(now=db_now)
        elapsed = boot - self._boot
        expected = self._at + timedelta(seconds=elapsed)
        offset = db_now - expected
        now = min(db_now, expected + TOLERANCE)
        if abs(offset) <= TOLERANCE:
            follow = timedelta(seconds=DRIFT * max(elapsed, 0.0))
            self._at, self._boot = expected + max(-follow, min(follow, offset)), boot
            return Reading(now=now, thawed=self._thaw(), offset=offset)
        first = self._apart_since is None
        if self._apart_since is None or abs(offset - self._apart_by) > TOLERANCE:
            self._apart_since, self._apart_by = boot, offset
        elif boot - self._apart_since >= STEADY:
            self._at, self._boot = db_now, boot
            return Reading(now=db_now, thawed=self._thaw(), offset=offset)
        return Reading(now=now, frozen=True, jumped=first, offset=offset)

    def _thaw(self) -> bool:
        was_frozen = self._apart_since is not None
        self._apart_since = None
        return was_frozen
