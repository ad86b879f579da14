"""Durations as manifests write them, and the clocks that check-ins are watched by. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> timedelta:
    """Read ``90s``, ``15m``, ``250ms``: digits and one of ms, s, m, h, d. Raise `ValueError` otherwise."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write digits and one of ms, s, m, h, d")
    number, unit = match.groups()
    if unit == "ms":
        return timedelta(milliseconds=int(number))
    return timedelta(seconds=int(number) * int(_SECONDS[unit]))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckIn:
    """The clocks of a task that somebody else fires and we watch, each on its own. None: not looked at."""

    grace: timedelta = timedelta(minutes=10)  #: how long after a slot its first ping may come
    early_margin: timedelta = timedelta(minutes=1)  #: how long before it
    min_runtime: timedelta | None = None  #: a success sooner than this after the start is a failure
    max_runtime: timedelta = timedelta(hours=1)  #: a run that has said nothing of its end by then has failed
    heartbeat: timedelta | None = None  #: a run that gives no sign for longer has failed

    @classmethod
    def read(cls, block: Mapping[str, Any]) -> CheckIn:
        """Read the ``run.checkin`` block of a valid manifest."""

        def clock(name: str) -> timedelta | None:
            return parse_duration(block[name]) if block.get(name) else None

        return cls(
            grace=clock("grace") or timedelta(minutes=10),
            early_margin=parse_duration(block.get("earlyMargin") or "1m"),
            min_runtime=clock("minRuntime"),
            max_runtime=clock("maxRuntime") or timedelta(hours=1),
            heartbeat=clock("heartbeat"),
        )

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> CheckIn | None:
        """Return the clocks of a task by its spec; None when it is no check-in."""
        block = (spec.get("run") or {}).get("checkin")
        return None if block is None else cls.read(block)


def start_patience(spec: Mapping[str, Any]) -> timedelta | None:
    """Return how long a slot may wait until it begins, None for any time."""
    watched, deadline = CheckIn.of(spec), spec.get("startDeadline")
    if watched is not None:
        return watched.grace
    return parse_duration(deadline) if deadline else None
