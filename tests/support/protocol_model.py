"""A model of what may become of executions, written from the contract alone: nothing of the product is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

FINAL = {"FINISHED", "FAILED", "CANCELLED", "SKIPPED", "MISSED"}

#: The terms of both tasks of the machine.
TIMEOUT = timedelta(seconds=60)
RETRIES = 1
BACKOFF = timedelta(seconds=10)
LOSSES = 3
ON_TIME = timedelta(seconds=60)
WINDOW = timedelta(hours=1)
LOGS_OPEN = timedelta(minutes=15)


@dataclass
class Exec:
    """One execution."""

    id: UUID
    exclusive: bool  #: of the task with overlap skip and catch-up last; else allow_all and none
    fire_at: datetime
    slot: bool = True
    forced: bool = False
    held: bool = False
    since: datetime | None = None  #: when it took its place
    status: str = "PENDING"
    reason: str | None = None
    late: bool = False
    fence: int = 0
    attempt: int = 0
    losses: int = 0
    available_at: datetime = field(init=False)
    lease: timedelta = timedelta(0)
    lease_until: datetime | None = None
    run_deadline: datetime | None = None
    asked: bool = False
    grace_until: datetime | None = None
    finished_at: datetime | None = None
    words: dict[int, tuple[bytes, datetime]] = field(default_factory=dict)  #: by fence: last word, and when
    lines: dict[int, int] = field(default_factory=dict)  #: by fence
    tries: dict[int, int] = field(default_factory=dict)  #: number of the attempt, by fence

    def __post_init__(self) -> None:
        self.available_at = self.fire_at

    @property
    def holds(self) -> bool:
        """Whether it has its task's place."""
        open_still = self.status == "RUNNING" or (self.status == "PENDING" and self.fence > 0)
        return self.exclusive and not self.forced and open_still

    def end(self, status: str, reason: str | None, now: datetime) -> None:
        """Reach a final status."""
        self.status, self.reason, self.finished_at = status, reason, now
        self.lease_until = self.run_deadline = None

    def wait(self, reason: str | None, until: datetime) -> None:
        """Wait for another claim."""
        self.status, self.reason, self.available_at = "PENDING", reason, until
        self.lease_until = self.run_deadline = None


class Model:
    """All executions of one tenant."""

    def __init__(self) -> None:
        self.all: dict[UUID, Exec] = {}

    def due(self, now: datetime) -> Iterator[Exec]:
        """Yield what waits and is due."""
        yield from (one for one in self.all.values() if one.status == "PENDING" and one.available_at <= now)

    def active(self, *, exclusive: bool) -> bool:
        """Say whether the task's place is held."""
        return exclusive and any(one.holds for one in self.all.values())

    def since(self, *, exclusive: bool) -> datetime | None:
        """Say since when the task's place is held."""
        return (
            max((one.since for one in self.all.values() if one.holds and one.since), default=None)
            if exclusive
            else None
        )

    def settle(self, *, exclusive: bool, now: datetime) -> list[Exec]:
        """Skip what shall not run of one task; return what was never claimed and may."""
        waiting = [one for one in self.due(now) if one.exclusive is exclusive and one.fence == 0]
        waiting.sort(key=lambda one: (one.fire_at, one.id))
        since = self.since(exclusive=exclusive)
        held = [one for one in waiting if one.slot and (one.held or (since is not None and one.fire_at >= since))]
        slots = [one for one in waiting if one.slot and now - one.fire_at <= (WINDOW if exclusive else ON_TIME)]
        slots = [one for one in slots if one not in held]
        if exclusive:
            slots = slots[-1:]
        slots += held
        for one in [one for one in waiting if one.slot and one not in slots]:
            one.end("SKIPPED", "too_late", now)
        rest = [one for one in waiting if one.status == "PENDING"]
        if not exclusive:
            return rest
        busy = self.active(exclusive=True)
        for one in [one for one in rest if one.slot][: None if busy else -1]:
            one.end("SKIPPED", "overlap", now)
        rest = [one for one in rest if one.status == "PENDING"]
        line = [one for one in rest if not one.forced]
        for one in line if busy else line[1:]:
            one.held = True
        return [one for one in rest if one.forced or one in ([] if busy else line[:1])]

    def claim(self, wanted: int, lease: timedelta, now: datetime) -> list[tuple[UUID, int]]:
        """Serve one worker; return ids and fences."""
        self.expire(now)
        given: list[tuple[UUID, int]] = []
        tasks = {one.exclusive for one in self.due(now)}
        fresh = [one for exclusive in sorted(tasks) for one in self.settle(exclusive=exclusive, now=now)]
        again = [one for one in self.due(now) if one.fence > 0]
        for one in self.in_turns([*fresh, *again])[:wanted]:
            one.status, one.reason = "RUNNING", None
            one.fence, one.attempt = one.fence + 1, one.attempt + 1
            one.lease, one.lease_until, one.run_deadline = lease, now + lease, now + TIMEOUT
            one.since = one.since or now
            one.lines[one.fence], one.tries[one.fence] = 0, one.attempt
            given.append((one.id, one.fence))
        return given

    @staticmethod
    def in_turns(some: list[Exec]) -> list[Exec]:
        """Order by age, the tasks in turns."""
        some.sort(key=lambda one: (one.available_at, one.id))
        before = {one.id: sum(other.exclusive is one.exclusive for other in some[:n]) for n, one in enumerate(some)}
        return sorted(some, key=lambda one: before[one.id])

    def expire(self, now: datetime) -> None:
        """Let every deadline pass that has passed."""
        for one in self.all.values():
            self.expire_one(one, now)

    def expire_one(self, one: Exec, now: datetime) -> None:
        """Let the deadlines of one execution pass."""
        if one.status != "RUNNING" or one.run_deadline is None or one.lease_until is None:
            return
        if one.grace_until is not None and one.grace_until <= now:
            one.end("CANCELLED", "cancelled", now)
        elif one.run_deadline <= now:
            self.fail(one, "timed_out", now)
        elif one.lease_until <= now:
            if one.asked:
                one.end("CANCELLED", "cancelled", now)
            elif one.losses >= LOSSES:
                one.end("FAILED", "lease_lost", now)
            else:
                one.wait("lease_lost", now)
                one.attempt, one.losses = one.attempt - 1, one.losses + 1

    @staticmethod
    def fail(one: Exec, reason: str, now: datetime, *, retryable: bool = True) -> None:
        """End a try as failed."""
        if retryable and not one.asked and one.attempt <= RETRIES:
            one.wait(reason, now + BACKOFF)
        else:
            one.end("FAILED", reason, now)

    @staticmethod
    def refusal(one: Exec, fence: int) -> str | None:
        """Say why a report under a fence is refused."""
        if fence != one.fence or one.status == "PENDING":
            return "lease_lost"
        return "already_final" if one.status in FINAL else None

    def start(self, one: Exec, fence: int) -> str | None:
        """Begin."""
        return self.refusal(one, fence)

    def beat(self, one: Exec, fence: int, now: datetime) -> str | None:
        """Renew the lease."""
        refused = self.refusal(one, fence)
        if refused is None:
            one.lease_until = now + one.lease
        return refused

    def log(self, one: Exec, fence: int, first: int, count: int, now: datetime) -> str | None:
        """Append lines."""
        refused = self.refusal(one, fence)
        if refused is not None:
            said = one.words.get(fence)
            ended = one.finished_at if one.status in FINAL else said[1] if said else None
            if fence != one.fence or fence == 0 or ended is None or now > ended + LOGS_OPEN:
                return refused
        if first > one.lines[fence]:
            return "log_gap"
        one.lines[fence] = max(one.lines[fence], first + count)
        return None

    def complete(self, one: Exec, fence: int, outcome: str, word: bytes, now: datetime) -> str | None:
        """Say the last word."""
        if fence in one.words:
            if one.words[fence][0] == word:
                return None
            return "lease_lost" if fence != one.fence else "already_final"
        if fence == one.fence and one.status == "RUNNING" and one.run_deadline is not None and one.run_deadline <= now:
            held = one.holds
            self.expire_one(one, now)
            self.freed(one, held=held, now=now)
        reasons = {"finished": None, "failed": "error", "cancelled": "cancelled", "skipped": "worker_skipped"}
        if fence == one.fence and one.status == "RUNNING":
            one.words[fence] = (word, now)
            if outcome == "failed":
                self.fail(one, "error", now)
            else:
                status = {"finished": "FINISHED", "cancelled": "CANCELLED", "skipped": "SKIPPED"}[outcome]
                one.end(status, reasons[outcome], now)
            return None
        taken_back = one.reason in {"timed_out", "lease_lost"} and one.status in {"PENDING", "FAILED"}
        if fence == one.fence and taken_back and outcome in {"finished", "failed"}:
            one.words[fence] = (word, now)
            if one.status == "PENDING" and one.reason == "lease_lost":
                one.attempt += 1
            one.end("FINISHED" if outcome == "finished" else "FAILED", reasons[outcome], now)
            one.late = True
            return None
        if one.fence == 0:
            return "not_running"
        return "already_final" if one.status in FINAL and fence == one.fence else "lease_lost"

    def release(self, one: Exec, fence: int, now: datetime) -> str | None:
        """Give back."""
        if self.refusal(one, fence) is None and one.run_deadline is not None and one.run_deadline <= now:
            held = one.holds
            self.expire_one(one, now)
            self.freed(one, held=held, now=now)
        refused = self.refusal(one, fence)
        if refused is None and one.asked:
            one.end("CANCELLED", "cancelled", now)
        elif refused is None:
            one.wait(None, now)
            one.attempt -= 1
        return refused

    def cancel(self, one: Exec, grace: timedelta, now: datetime) -> str | None:
        """Ask for the end."""
        if one.status in FINAL:
            return "already_final"
        if one.status == "PENDING":
            one.end("CANCELLED", "cancelled", now)
        else:
            one.asked = True
            one.grace_until = min(now + grace, one.grace_until or now + grace)
        return None

    def freed(self, one: Exec, *, held: bool, now: datetime) -> None:
        """Skip what fell due beside a run that a report has just ended."""
        if held and one.status in FINAL:
            one.status, status = "RUNNING", one.status
            self.settle(exclusive=True, now=now)
            one.status = status
