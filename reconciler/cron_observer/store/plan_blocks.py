"""The schedule block of a plan, written so that two ways of saying the same are equal. Pure.

Defaults are left out, so that blocks which earlier versions have stored stay equal to what is made of the same
manifest today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from cron_observer.model import WEEKDAYS, FoldRule, GapRule, OnExcluded, Window, parse_duration

_DAY: Final = 24 * 60
#: What `anchor` is when none is written.
_FIRST_MIDNIGHT: Final = "1970-01-01T00:00:00"

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode


def normalised(
    schedule: Mapping[str, Any],
    seed: str,
    calendars: Mapping[str, str] | None = None,
    group: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the block that is planned from a manifest's `schedule` block.

    `calendars` gives the digest of what each calendar's name means; a name becomes ``name@digest``, so that a
    changed calendar is a changed block. A name that it lacks stays bare, and planning says so. `group` is
    ``{"name", "uid", "timezone", "windows"}`` of the task's group, None without one.
    """
    digests, named = calendars or {}, schedule.get("calendars") or {}
    resolved = {
        side: [f"{name}@{digests[name]}" if name in digests else name for name in _several(named.get(side))]
        for side in ("include", "exclude")
    }
    return canonical({**schedule, "calendars": resolved, "seed": seed, "group": group})


def canonical(block: Mapping[str, Any]) -> dict[str, Any]:
    """Return a block, just made or stored by any version, in the one way in which it is written."""
    shared = {name: value for name, value in block.items() if name != "seed"}
    return {**_made(_encode(shared)), "seed": block["seed"]}


@lru_cache(maxsize=4096)
def _made(json: bytes) -> dict[str, Any]:
    """Do so with all but the seed, in which most blocks are those of other tasks, too; it must not be changed."""
    block = _decode(json)
    every, jitter = block.get("every"), block.get("jitter")
    dst, calendars = block.get("dst") or {}, block.get("calendars") or {}
    named = {side: sorted(set(_several(calendars.get(side)))) for side in ("include", "exclude")}
    excluded = block.get("onExcluded") if any(named.values()) else None
    anchor = _time(block.get("anchor"))
    made = {
        "cron": sorted({" ".join(text.split()) for text in _several(block.get("cron"))}),
        "every": _milliseconds(every) if every else None,
        "anchor": None if every and anchor == _FIRST_MIDNIGHT else anchor,
        "at": sorted({_time(text) or "" for text in _several(block.get("at"))}),
        "timezone": block.get("timezone") or "UTC",
        "dst": _without_defaults(dst, {"gap": GapRule.FIRST_VALID, "overlap": FoldRule.FIRST}),
        "windows": _windows(block.get("windows")),
        "calendars": _without_defaults(named, {}),
        "onExcluded": _without_defaults({"rule": excluded}, {"rule": OnExcluded.SKIP}).get("rule"),
        "jitter": _milliseconds(jitter) if jitter and parse_duration(jitter) else None,
        "startAt": _time(block.get("startAt")),
        "endAt": _time(block.get("endAt")),
        "group": _group(block.get("group")),
    }
    return {key: value for key, value in made.items() if value}


def _several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _milliseconds(text: str) -> str:
    return f"{parse_duration(text) // timedelta(milliseconds=1)}ms"


def _without_defaults(values: Mapping[str, Any], defaults: Mapping[str, str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value and value != defaults.get(key)}


def _time(text: str | None) -> str | None:
    """Write a time to the second, one with an offset in UTC; what is no time stays as it is."""
    try:
        at = datetime.fromisoformat(text or "")
        if at.microsecond or len(text or "") < len("2026-01-01T00:00"):
            return text
        return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z" if at.tzinfo else at.isoformat()
    except (ValueError, OverflowError):
        return text


def _windows(blocks: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Write windows in order, each pair of times once; together all of the week is no window at all."""
    days: dict[tuple[int, int], set[int]] = {}
    for block in blocks or ():
        window = Window.read(block)
        # Midnight as an end is that of the day on which the window begins, or of the next: the same instant.
        days.setdefault((window.start, window.end or _DAY), set()).update(window.days)
    if any(len(chosen) == len(WEEKDAYS) and start == end % _DAY for (start, end), chosen in days.items()):
        return []
    return [
        ({"days": [WEEKDAYS[day] for day in sorted(chosen)]} if len(chosen) < len(WEEKDAYS) else {})
        | {"from": _clock(start), "to": _clock(end)}
        for (start, end), chosen in sorted(days.items())
    ]


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _group(group: Mapping[str, Any] | None) -> dict[str, Any] | None:
    windows = _windows(group.get("windows")) if group else None
    if not group or not windows:
        return None
    return {
        "name": group["name"],
        "uid": str(group["uid"]),
        "timezone": group.get("timezone") or "UTC",
        "windows": windows,
    }
