"""The words of the pages: statuses, reasons, durations, sizes. One word each, the glossary's. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple


class Badge(NamedTuple):
    """A state as people see it: shape (`tone` names glyph and colour), word, and a sentence for the title."""

    tone: str
    word: str
    title: str = ""


#: Why an execution stands where it stands.
REASONS: Final[Mapping[str, str]] = {
    "exit_code": "the command ended with an error code",
    "error": "an error was reported",
    "timed_out": "it ran past its timeout",
    "lease_lost": "it fell silent",
    "cancelled": "a person cancelled it",
    "overlap": "another run of the task was active",
    "calendar": "a calendar excludes the day",
    "window": "outside the window of its task group",
    "paused": "the task was paused",
    "too_late": "too late for the catch-up policy",
    "no_worker": "nobody took it in time",
    "coalesced": "it fell onto the instant of another slot",
    "dst_gap": "the local time did not exist",
    "task_deleted": "its task was removed",
    "observer_down": "Cron Observer was down",
    "worker_skipped": "the worker decided not to run it",
}

TRIGGERS: Final[Mapping[str, str]] = {
    "schedule": "Schedule",
    "catchup": "Catch-up",
    "manual": "By hand",
    "api": "Reported by a worker",
    "backfill": "Backfill",
    "checkin": "Check-in",
}

#: Which slots run when a pause ends.
ON_RESUME: Final[Mapping[str, str]] = {
    "skip": "what it leaves out does not run",
    "last": "at its end the newest slot that it left out runs",
    "all": "at its end the slots that it left out run, as many as the task allows",
}

#: What moved an execution off the time that its schedule names.
MOVED: Final[Mapping[str, str]] = {"dst": "a clock change", "calendar": "a calendar", "jitter": "jitter"}

#: What happened to an execution, as its history tells it.
EVENTS: Final[Mapping[str, str]] = {
    "created": "Created",
    "claimed": "Claimed",
    "started": "Started",
    "accepted": "Accepted by the destination",
    "late_started": "Begun after it was given up",
    "restarted": "Begun anew by a ping",
    "unknown": "Not known: we could not hear its pings",
    "retry_scheduled": "Failed, will be retried",
    "released": "Given back by the worker",
    "lease_expired": "Taken back from a silent worker",
    "finished": "Finished",
    "failed": "Failed",
    "worker_skipped": "Skipped by the worker",
    "cancel_requested": "Cancellation asked for",
    "cancelled": "Cancelled",
    "skipped": "Skipped",
    "missed": "Missed",
    "gave_up": "Given up: no attempt is left",
    "late_finished": "Finished after its deadline",
    "late_failed": "Failed after its deadline",
    "late_recorded": "Reported after its deadline",
}

#: What a revision of a task did to it.
ACTIONS: Final[Mapping[str, str]] = {
    "create": "created",
    "update": "changed",
    "restore": "restored",
    "rename": "renamed",
    "adopt": "taken over from the API",
    "transfer": "taken over from another source",
    "detach": "detached from its manifest",
}

_STATUS: Final[Mapping[str, tuple[str, str]]] = {
    "FINISHED": ("ok", "Finished"),
    "FAILED": ("fail", "Failed"),
    "RUNNING": ("run", "Running"),
    "CANCELLED": ("cancel", "Cancelled"),
    "SKIPPED": ("skip", "Skipped"),
    "MISSED": ("late", "Missed"),
}

#: Statuses by which lists can be narrowed, worst first.
STATUSES: Final = ("FAILED", "MISSED", "RUNNING", "PENDING", "FINISHED", "SKIPPED", "CANCELLED")


def reason(code: str | None) -> str:
    """Say a reason code in words; unknown codes as they are, none as nothing."""
    return "" if code is None else REASONS.get(code, code.replace("_", " "))


def moved(code: str | None) -> str:
    """Say what moved an execution: ``moved by a calendar and jitter``; nothing for one that stands where it should."""
    parts = [MOVED.get(part, part) for part in (code or "").split("+") if part]
    return f"moved by {' and '.join(parts)}" if parts else ""


def status(value: str, *, late: bool = False, why: str | None = None, upcoming: bool = False) -> Badge:
    """Return the badge of an execution. A waiting one is Upcoming until it is due."""
    if value == "PENDING":
        if upcoming:
            return Badge("plan", "Upcoming", "planned; not due yet")
        return Badge("wait", "Waiting", "due; nobody has begun it yet")
    tone, word = _STATUS[value]
    title = reason(why)
    if late and value == "FINISHED":
        tone, title = "late", "reported after its deadline"
    return Badge(tone, word, title)


def mark(rank: int, *, upcoming: bool = False) -> Badge:
    """Return the badge of a mark on the timeline, by the worst outcome in it."""
    known = ("FAILED", "MISSED", "LATE", "RUNNING", "CANCELLED", "FINISHED", "SKIPPED")
    if rank >= len(known):
        return status("PENDING", upcoming=upcoming)
    if known[rank] == "LATE":
        return Badge("late", "Late")
    return status(known[rank])


def tone_of(value: str, late: bool) -> str:
    """Return the tone of a run in a chart."""
    return status(value, late=late).tone


def health(row: Mapping[str, Any]) -> Badge:
    """Return how a task does: what keeps it from running, else how its last run went."""
    if row["status"] == "PAUSED":
        return Badge("pause", "Paused", row["pause_reason"] or "its slots do not run until it is resumed")
    standing = {
        "DELETING": Badge("skip", "Deleting", "the task is being deleted"),
        "REMOVED": Badge("skip", "Removed", "its manifest is gone; history stays"),
        "QUARANTINED": Badge("fail", "Quarantined", "its schedule cannot be evaluated"),
        "DISABLED": Badge("skip", "Suspended", "it or its group is suspended: no slots are planned"),
    }.get(row["status"])
    if standing is not None:
        return standing
    bars: Sequence[Sequence[Any]] = row["bars"] or ()
    if not bars:
        return Badge("wait", "No runs yet", "nothing has been due yet")
    _, last, late, _, _, why = bars[-1]
    word = {"FINISHED": "Healthy", "FAILED": "Failing"}.get(last)
    badge = status(last, late=late, why=why)
    if late and last == "FINISHED":
        return Badge("late", "Late", "the last run was reported after its deadline")
    return badge._replace(word=word, title=badge.title or "how the last run went") if word else badge


def sync(value: str | None, owner: str) -> Badge:
    """Return how a task stands to its manifest."""
    if owner == "api":
        return Badge("plain", "API-owned", "made through the API; no manifest defines it")
    return {
        "SYNCED": Badge("synced", "Synced", "the task is as its manifest says"),
        "KEPT_LAST_GOOD": Badge("late", "Kept last good", "its manifest is broken; the last good version runs"),
        "HELD": Badge("late", "Held", "its manifest is gone, and its removal waits"),
    }.get(value or "", Badge("skip", "Unknown", "its source has not been read yet"))


def outcome(value: str) -> Badge:
    """Return the badge of a run of a source."""
    return {
        "running": Badge("run", "Running"),
        "applied": Badge("ok", "Applied"),
        "unchanged": Badge("synced", "Unchanged"),
        "observed": Badge("plan", "Observed", "planned and reported; the source is only observed"),
        "refused": Badge("fail", "Refused", "nothing of the commit was applied; what was applied before runs on"),
        "failed": Badge("fail", "Failed"),
        "abandoned": Badge("skip", "Abandoned"),
    }[value]


def file_state(state: str, *, errors: int, warnings: int, kept: bool) -> Badge:
    """Return the badge of a manifest file."""
    if state == "ok" and not errors:
        return Badge("late", "Applied, warned") if warnings else Badge("ok", "Applied")
    if state == "unparseable":
        return Badge("fail", "Cannot be read", "its documents cannot be told apart; nothing of it is pruned")
    return Badge("fail", "Kept last good" if kept else "Not applied", "at least one of its documents is broken")


def duration(seconds: float | None) -> str:
    """Say a length of time with at most two units: ``4 ms``, ``0.21 s``, ``12 m 04 s``, ``1 h 42 m``, ``3 d 04 h``."""
    if seconds is None:
        return "–"
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds * 1000:.0f} ms" if seconds < 0.01 else f"{seconds:.{2 if seconds < 1 else 1}f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller:02} {name}"
    return f"{whole} s"


def span(seconds: float) -> str:
    """Say a length of time with one unit: ``12 s``, ``40 min``, ``2 h``, ``3 days``."""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{int(seconds)} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h"
    days = int(seconds // 86_400)
    return "1 day" if days == 1 else f"{days} days"


def size(count: int) -> str:
    """Say a number of bytes: ``812 B``, ``18.4 GB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: int) -> str:
    """Write a whole number with thousands apart."""
    return f"{number:,}"


def many(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 task``, ``2 tasks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def median(values: Sequence[float]) -> float | None:
    """Return the middle of some numbers, None of none."""
    if not values:
        return None
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2


def usual(bars: Sequence[Sequence[Any]] | None) -> float | None:
    """Return the median seconds of the finished runs among a task's last ones."""
    return median([bar[3] for bar in bars or () if bar[1] == "FINISHED" and bar[3] is not None])


def delay(row: Mapping[str, Any]) -> float | None:
    """Return the seconds between an execution's fire time and its claim; None where it never was claimed first.

    What reports itself waits for nobody.
    """
    claimed: datetime | None = row["claimed_at"]
    fired: datetime = row["fire_at"]
    if claimed is None or row["attempt"] > 1 or row["trigger"] in ("api", "checkin"):
        return None
    return max(0.0, (claimed - fired).total_seconds())
