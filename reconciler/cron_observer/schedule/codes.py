"""The codes of schedule findings, and the one way to raise them."""

from __future__ import annotations

from typing import Final

from cron_observer.errors import ScheduleError

#: What each code means, in a line. `docs/reference/schedule.md` lists the same.
CODES: Final[dict[str, str]] = {
    "CO3001": "The schedule says nothing: none of cron, every and at is given.",
    "CO3002": "The cron expression is empty, too long, or holds characters that no cron expression has.",
    "CO3003": "The cron expression does not have five fields.",
    "CO3004": "A value of the cron expression is outside the range of its field, or is no value at all.",
    "CO3005": "A range of the cron expression runs backwards.",
    "CO3006": "A step of the cron expression is zero, larger than its field, or stands where none may.",
    "CO3007": "The cron expression uses syntax of another system that is not supported here.",
    "CO3008": "The cron macro is not known.",
    "CO3009": "The cron expression never fires: no date matches it.",
    "CO3010": "H cannot be resolved without the task's project and name.",
    "CO3011": "The time zone is not known.",
    "CO3012": "The interval of every is out of range.",
    "CO3013": "The anchor is not a local time, or there is no every that it could anchor.",
    "CO3014": "A time of at is not a local time.",
    "CO3015": "A time lies outside the years 1970 to 2200.",
    "CO3016": "The cron expression is read in two ways by the two readers that must agree.",
    "CO3017": "A calendar that include or exclude names is not known.",
    "CO3018": "A time of startAt or endAt is not a local time.",
    "CO3019": "The schedule ends before it starts.",
    "CO3020": "The jitter is out of range.",
    "CO3021": "A schedule that counts elapsed time cannot move slots off excluded days.",
    "CO3022": "The schedule never fires: windows, start, end or calendars leave nothing of it.",
    "CO3023": "A window lies outside a day, or there are too many.",
}


def refuse(rule: str, message: str, hint: str | None = None, *, pointer: str = "") -> ScheduleError:
    """Make the error for `rule`, one of `CODES`; whoever knows the place fills `pointer` in later."""
    if rule not in CODES:
        raise KeyError(rule)
    return ScheduleError(message, pointer=pointer, rule=rule, hint=hint)
