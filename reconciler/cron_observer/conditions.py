"""The state of a source in words: what is true of it, why, and since when. Pure.

`Ready` is the summary of the others and the one to alert on. `Stale` and `Suspended` are not stored: `shown` derives
them when somebody looks, because time makes them true while nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

Conditions = Mapping[str, Mapping[str, Any]]

#: Intervals between two looks after which a source that is behind is called stale, and the least time in seconds.
STALE_INTERVALS: Final = 3
STALE_LEAST: Final = 30.0

#: Why removals wait, by the plan's word for it: the condition's reason, and the rest of its sentence.
_WAITING: Final = {
    "confirm": ("AwaitingApproval", "waiting for an approval"),
    "too_many": ("AwaitingApproval", "waiting for an approval"),
    "all_of_kind": ("AwaitingApproval", "waiting for an approval"),
    "empty_tree": ("AwaitingApproval", "waiting for an approval"),
    "rewritten": ("AwaitingApproval", "waiting for an approval"),
    "unparseable": ("UnparseableFiles", "waiting until every file can be read"),
    "in_use": ("InUse", "waiting until nothing refers to it"),
    "handed_over": ("HandedOver", "waiting for the source that takes over"),
    "prune_off": ("PruneOff", "waiting for ever: the source removes nothing"),
    "disabled": ("PruneOff", "waiting for ever: the manifest forbids it"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a commit as a whole is not applied. `condition` is the one that it makes false."""

    condition: str  #: Applied or SourceVerified
    reason: str  #: a CamelCase word
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at a source found out.

    `held` are the removals that wait, each with its `reason`; `plan_hash` is what an approval of them names.
    """

    name: str
    where: str  #: where the source stands, in words
    counts: Mapping[str, int]
    verified: bool = False  #: signatures were asked for, and good
    observing: bool = False  #: mode observe: planned, and not applied
    refusal: Refusal | None = None
    held: Sequence[Mapping[str, Any]] = ()
    plan_hash: str | None = None
    rewritten: tuple[str, str] | None = None  #: the commit that was applied and the one that does not follow from it


def failed(old: Conditions, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """Return the conditions of a source that could not be read: what is applied stays as it was."""
    new = dict(old)
    _put(new, "Fetched", "False", reason, message, now)
    return _summed_up(new, now)


def again(old: Conditions, where: str, now: datetime) -> dict[str, Any]:
    """Return the conditions of a source that was read and stands as it was judged before."""
    new = dict(old)
    _put(new, "Fetched", "True", "Fetched", where, now)
    return _summed_up(new, now)


def looked(old: Conditions, seen: Seen, now: datetime) -> dict[str, Any]:
    """Return the conditions of a source that was read and judged."""
    gone = {"PrunePending", "HistoryRewritten", "SourceVerified"}
    new: dict[str, Any] = {name: value for name, value in old.items() if name not in gone}
    _put(new, "Fetched", "True", "Fetched", seen.where, now)
    if seen.rewritten is not None:
        before, after = (commit[:7] for commit in seen.rewritten)
        message = f"{after} does not follow from {before}, which was applied: the branch was pushed by force"
        new["HistoryRewritten"] = dict(old.get("HistoryRewritten", {}))
        _put(new, "HistoryRewritten", "True", "PushedByForce", message, now)
    refusal = seen.refusal
    if refusal is not None and refusal.condition == "SourceVerified":
        new["SourceVerified"] = dict(old.get("SourceVerified", {}))
        _put(new, "SourceVerified", "False", refusal.reason, refusal.message, now)
    elif seen.verified:
        new["SourceVerified"] = dict(old.get("SourceVerified", {}))
        _put(new, "SourceVerified", "True", "Verified", "the signatures that are asked for are good", now)
    _applied(new, seen, now)
    if refusal is None or refusal.reason == "ValidationFailed":  # else nothing of the commit has been read
        _validated(new, seen.counts, now)
    if seen.held:
        new["PrunePending"] = dict(old.get("PrunePending", {}))
        _pending(new, seen, now)
    return _summed_up(new, now)


def _applied(new: dict[str, Any], seen: Seen, now: datetime) -> None:
    if seen.refusal is not None:
        _put(new, "Applied", "False", seen.refusal.reason, seen.refusal.message, now)
    elif seen.observing:
        message = "the source is only observed: what a commit would change is planned and not applied"
        _put(new, "Applied", "False", "Observing", message, now)
    else:
        kinds = (("calendars", "calendar"), ("groups", "task group"))
        others = [_some(seen.counts[name], noun) for name, noun in kinds if seen.counts.get(name)]
        tasks = _some(seen.counts.get("tasks", 0), "task")
        _put(new, "Applied", "True", "Applied", f"{', '.join([tasks, *others])} in force", now)


def _validated(new: dict[str, Any], counts: Mapping[str, int], now: datetime) -> None:
    if errors := counts.get("errors", 0):
        message = f"{_some(errors, 'error')} in manifests: what is broken keeps its last good version"
        _put(new, "Validated", "False", "InvalidManifests", message, now)
    elif counts.get("files", 0):
        _put(new, "Validated", "True", "Valid", f"{_some(counts['files'], 'file')} valid", now)
    else:
        _put(new, "Validated", "True", "NoManifests", "no *.yaml or *.yml is below the source's paths", now)


def _pending(new: dict[str, Any], seen: Seen, now: datetime) -> None:
    """Say what waits; where an approval releases it, that comes first, with the command."""
    words = [str(one.get("reason")) for one in seen.held]
    reason, why = min(
        (_WAITING.get(word, ("Held", f"waiting: {word}")) for word in words),
        key=lambda one: (one[0] != "AwaitingApproval", one),
    )
    several = [word for word in words if _WAITING.get(word, ("Held", ""))[0] == reason]
    message = f"{_some(len(several), 'removal')} {why}"
    if "rewritten" in words:
        message = "the new history is waiting for an approval"
    if seen.plan_hash is not None and reason == "AwaitingApproval":
        message += f": cron-observer sources approve {seen.name} {seen.plan_hash}"
    _put(new, "PrunePending", "True", reason, message, now)


def _summed_up(new: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Set `Ready`: the first that is not as it should be says why."""
    observing = new.get("Applied", {}).get("reason") == "Observing"
    last = ("Validated", "Applied") if observing else ("Applied", "Validated")
    for name in ("Fetched", "SourceVerified", *last):
        one = new.get(name, {})
        if one.get("status") == "False":
            status = "Unknown" if name == "Applied" and observing else "False"
            _put(new, "Ready", status, one["reason"], one["message"], now)
            return new
    pending = new.get("PrunePending", {})
    if pending.get("reason") == "AwaitingApproval":
        _put(new, "Ready", "False", "AwaitingApproval", pending["message"], now)
    else:
        _put(new, "Ready", "True", "Ready", "what the source declares is in force", now)
    return new


# What time alone makes true


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """A source that nobody looks at for a while, and who wanted that."""

    by: str
    reason: str | None
    since: datetime
    until: datetime | None

    def holds(self, now: datetime) -> bool:
        """Tell whether it has not ended by itself."""
        return self.until is None or self.until > now


def behind_since(stored: Conditions, observed_at: datetime | None) -> datetime | None:
    """Return the last time at which what is applied was known to be what the source holds; None: never."""
    applied = stored.get("Applied", {})
    if applied.get("status") == "False" and applied.get("since"):
        since = datetime.fromisoformat(applied["since"])
        return since if observed_at is None else min(since, observed_at)
    return observed_at


def is_stale(stored: Conditions, observed_at: datetime | None, poll_seconds: float, now: datetime) -> bool:
    """Tell whether a source has been behind for more than three intervals."""
    since = behind_since(stored, observed_at)
    return since is not None and now - since > stale_after(poll_seconds)


def stale_after(poll_seconds: float) -> timedelta:
    """Return for how long a source may be behind."""
    return timedelta(seconds=max(STALE_LEAST, STALE_INTERVALS * poll_seconds))


def shown(
    stored: Conditions,
    *,
    observed_at: datetime | None,
    poll_seconds: float,
    suspension: Suspension | None,
    now: datetime,
) -> dict[str, Any]:
    """Return stored conditions with those that time makes: `Stale`, and `Suspended`, which beats `Ready`."""
    new = dict(stored)
    since = behind_since(stored, observed_at)
    if suspension is not None and suspension.holds(now):
        end = (
            "until somebody resumes it" if suspension.until is None else f"until {suspension.until:%Y-%m-%d %H:%M} UTC"
        )
        why = f": {suspension.reason}" if suspension.reason else ""
        message = f"suspended by {suspension.by} {end}{why}"
        _put(new, "Suspended", "True", "Suspended", message, suspension.since)
        _put(new, "Ready", "False", "Suspended", message, suspension.since)
    if since is not None and is_stale(stored, observed_at, poll_seconds, now):
        message = f"what is applied was last known to be current at {since:%Y-%m-%d %H:%M:%S} UTC"
        _put(new, "Stale", "True", "Behind", message, since + stale_after(poll_seconds))
    return new


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _put(conditions: dict[str, Any], name: str, status: str, reason: str, message: str, now: datetime) -> None:
    old = conditions.get(name, {})
    since = old.get("since") if old.get("status") == status else None
    conditions[name] = {
        "status": status,
        "reason": reason,
        "message": message,
        "since": since or now.isoformat(),
    }
