"""The nouns, as frozen values. Pure: nothing here reads a clock, a file or a database."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from cron_observer.durations import CheckIn
from cron_observer.durations import parse_duration as parse_duration  # noqa: PLC0414  a noun for everybody

API_VERSION: Final = "cron-observer/v1"

#: Identity of a task inside its project.
TASK_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?")

#: The kinds of layers: documents that say what others are made of.
DEFAULTS: Final = "Defaults"
PROJECT: Final = "Project"

#: Annotations of a Task that say how it comes to be.
ADOPT: Final = "cron-observer/adopt"
NEW_IDENTITY: Final = "cron-observer/new-identity"

#: Queues of the platform itself, by the form of `run` whose executions wait there. No worker claims from them.
RESERVED_QUEUES: Final[Mapping[str, str]] = {"http": "@http", "checkin": "@checkin"}

#: What the names of queues begin with that belong to the platform.
RESERVED_PREFIX: Final = "@"


def effective_queue(spec: Mapping[str, Any]) -> str:
    """Return the queue in which the executions of a task wait: the platform's own if the platform runs them."""
    run = spec.get("run") or {}
    own = next((queue for form, queue in RESERVED_QUEUES.items() if run.get(form) is not None), None)
    return own or str(spec["queue"])


class Severity(StrEnum):
    """How bad a finding is: an ERROR keeps the document from being applied, a WARNING does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One defect of a manifest or of a source. Lines and columns count from 1; None where there is no place."""

    severity: Severity
    code: str  #: CO####; docs/reference/findings/ explains each
    path: str
    line: int | None = None
    column: int | None = None
    end_line: int | None = None
    end_column: int | None = None
    pointer: str | None = None  #: JSON pointer inside the document
    kind: str | None = None
    name: str | None = None
    message: str
    hint: str | None = None
    url: str | None = None


class GapRule(StrEnum):
    """When a fixed-time label that the clock jumps over fires."""

    FIRST_VALID = "first_valid"  #: at the first instant after the gap
    SKIP = "skip"  #: not at all: SKIPPED(dst_gap)
    SHIFT = "shift"  #: as long after the end of the gap as the label was after its start


class FoldRule(StrEnum):
    """Which passes of a fixed-time label that the clock shows twice are slots (``dst.overlap``)."""

    FIRST = "first"
    SECOND = "second"
    BOTH = "both"


class OnExcluded(StrEnum):
    """What becomes of a slot on a day that the calendars do not allow."""

    SKIP = "skip"
    NEXT_ALLOWED = "next_allowed"  #: the same local time on the next day that they allow
    PREVIOUS_ALLOWED = "previous_allowed"


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly range of local times, `start` <= t < `end`; one with `end` <= `start` ends on the day after.

    `days` are those on which it begins, 0 = Sunday; times are minutes after midnight, `end` up to 1440.
    """

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def read(cls, block: Mapping[str, Any]) -> Window:
        """Read ``{days: [sun-thu], from: "10:00", to: "14:30"}`` of a valid manifest; no days are all days."""
        days: set[int] = set()
        for text in block.get("days") or ("sun-sat",):
            first, _, last = (text.lower()).partition("-")
            low, high = WEEKDAYS.index(first[:3]), WEEKDAYS.index((last or first)[:3])
            days.update((low + step) % 7 for step in range((high - low) % 7 + 1))
        return cls(frozenset(days), _minutes(block["from"]), _minutes(block["to"]))


WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def _minutes(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """The inputs of a schedule: a union of `cron`, `every` and `at`, read in `timezone`, minus what narrows it.

    Local times (`anchor`, `at`, `start_at`, `end_at`) are ISO 8601; without an offset they are read in `timezone`.
    `seed` is ``project/name`` of the task as first created; it resolves ``H`` and draws the jitter. `include` and
    `exclude` name calendars; what a name means is given to the compiler beside the spec.
    """

    cron: tuple[str, ...] = ()
    every: timedelta | None = None
    anchor: str | None = None
    at: tuple[str, ...] = ()
    timezone: str = "UTC"
    gap: GapRule = GapRule.FIRST_VALID
    overlap: FoldRule = FoldRule.FIRST
    windows: tuple[Window, ...] = ()  #: none = always
    include: tuple[str, ...] = ()  #: none = every day
    exclude: tuple[str, ...] = ()
    on_excluded: OnExcluded = OnExcluded.SKIP
    jitter: timedelta | None = None
    start_at: str | None = None  #: the first nominal instant that may be a slot
    end_at: str | None = None  #: the first that may not any more
    seed: str | None = None

    @classmethod
    def read(cls, block: Mapping[str, Any], seed: str | None = None) -> ScheduleSpec:
        """Take the ``schedule`` block of a valid manifest (camelCase) apart."""

        def several(value: Any) -> tuple[str, ...]:
            return (value,) if isinstance(value, str) else tuple(value or ())

        every, jitter = block.get("every"), block.get("jitter")
        dst, calendars = block.get("dst") or {}, block.get("calendars") or {}
        return cls(
            cron=several(block.get("cron")),
            every=parse_duration(every) if every else None,
            anchor=block.get("anchor"),
            at=several(block.get("at")),
            timezone=block.get("timezone", "UTC"),
            gap=GapRule(dst.get("gap") or GapRule.FIRST_VALID),
            overlap=FoldRule(dst.get("overlap") or FoldRule.FIRST),
            windows=tuple(Window.read(window) for window in block.get("windows") or ()),
            include=tuple(calendars.get("include") or ()),
            exclude=tuple(calendars.get("exclude") or ()),
            on_excluded=OnExcluded(block.get("onExcluded") or OnExcluded.SKIP),
            jitter=parse_duration(jitter) if jitter else None,
            start_at=block.get("startAt"),
            end_at=block.get("endAt"),
            seed=seed,
        )


class Overlap(StrEnum):
    """What happens to a due slot while the task is active."""

    SKIP = "skip"  #: it does not run
    BUFFER_ONE = "buffer_one"  #: the oldest waits, the others do not run
    BUFFER_ALL = "buffer_all"  #: it waits
    CANCEL_OTHER = "cancel_other"  #: what runs is asked to stop, and the newest waits for that
    TERMINATE_OTHER = "terminate_other"  #: what runs is fenced off, and the newest runs at once
    ALLOW_ALL = "allow_all"  #: it runs beside the others, up to `max_parallel` of them


class Catchup(StrEnum):
    """Which of several due slots still run."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class OnResume(StrEnum):
    """Which slots of a pause run when it ends."""

    SKIP = "skip"
    LAST = "last"
    ALL = "all"


class OnWindowClose(StrEnum):
    """What happens to the runs of a task group when its window closes."""

    LET_RUN = "let_run"
    CANCEL = "cancel"


class Late(StrEnum):
    """What happens to a completion that comes after its deadline."""

    ACCEPT = "accept"
    RECORD = "record"
    REJECT = "reject"


class Backoff(StrEnum):
    """How the wait before a retry grows."""

    CONSTANT = "constant"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a task's spec says about its executions. The defaults are those of the manifest contract."""

    overlap: Overlap = Overlap.SKIP
    catchup: Catchup = Catchup.LAST
    catchup_window: timedelta | None = timedelta(hours=1)  #: None = however old; only with ``all``
    max_runs: int = 10  #: of ``catchup: all`` and ``onResume: all``
    on_resume: OnResume = OnResume.SKIP
    max_lateness: timedelta | None = None  #: a slot later than this never starts
    max_parallel: int | None = None  #: with ``allow_all``; None = any number
    group: str | None = None  #: name of the task group, in the task's project
    start_deadline: timedelta | None = None
    timeout: timedelta = timedelta(hours=1)
    retries_max: int = 0
    backoff: Backoff = Backoff.EXPONENTIAL
    backoff_initial: timedelta = timedelta(seconds=10)
    backoff_cap: timedelta = timedelta(minutes=10)
    late: Late = Late.ACCEPT
    spread: bool = False  #: exponential waits are drawn from all that are no longer (full jitter)
    checkin: CheckIn | None = None  #: of a task that somebody else fires; it runs whether we like it or not

    @classmethod
    def read(cls, spec: Mapping[str, Any]) -> Policy:
        """Read an effective spec (every default filled in, durations as text)."""
        watched = CheckIn.of(spec)
        if watched is not None:
            return cls._watching(watched, Late(spec["late"]))
        retries, catchup = spec["retries"], spec["catchup"]
        deadline, lateness, window = spec.get("startDeadline"), spec.get("maxLateness"), catchup["window"]
        return cls(
            overlap=Overlap(spec["overlap"]),
            catchup=Catchup(catchup["policy"]),
            catchup_window=parse_duration(window) if window else None,
            # Specs that were stored by an earlier version lack the fields below.
            max_runs=catchup.get("maxRuns", 10),
            on_resume=OnResume(spec.get("onResume", OnResume.SKIP)),
            max_lateness=parse_duration(lateness) if lateness else None,
            max_parallel=spec.get("maxParallel"),
            group=spec.get("group"),
            start_deadline=parse_duration(deadline) if deadline else None,
            timeout=parse_duration(spec["timeout"]),
            retries_max=retries["max"],
            backoff=Backoff(retries["backoff"]),
            backoff_initial=parse_duration(retries["initial"]),
            backoff_cap=parse_duration(retries["cap"]),
            late=Late(spec["late"]),
            # A destination that was away must not meet all its retries at once.
            spread=effective_queue(spec) == RESERVED_QUEUES["http"],
        )

    @classmethod
    def _watching(cls, checkin: CheckIn, late: Late) -> Policy:
        """Return the policy of a check-in: every slot counts, runs may overlap, and nothing is tried again by us."""
        return cls(
            overlap=Overlap.ALLOW_ALL,
            catchup=Catchup.ALL,
            catchup_window=None,
            start_deadline=checkin.grace,
            timeout=checkin.max_runtime,
            late=late,
            checkin=checkin,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """One valid Task document: what a source wants a task to be.

    `spec` is effective: every default is filled in, so that two ways of writing the same thing compare equal.
    `line` is the 1-based line of ``metadata.name``.
    """

    name: str
    spec: Mapping[str, Any]
    renamed_from: str | None = None
    transfer_from: str | None = None  #: the source that this one may take the task over from
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    path: str
    line: int
    document: int = 0  #: position of the document in its file, from 0

    @property
    def adopts(self) -> bool:
        """Whether it may take over a task of that name which the API owns."""
        return self.annotations.get(ADOPT) == "true"

    @property
    def begins_anew(self) -> bool:
        """Whether it is another task than a removed one of that name: a uid and a history of its own."""
        return self.annotations.get(NEW_IDENTITY) == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """What one manifest file holds: valid definitions, names whose document is broken, and findings.

    `parseable` is False when the file's documents could not be told apart, so that what it
    declares is unknown and nothing may be removed on its account.
    """

    path: str
    tasks: Sequence[TaskDefinition] = ()
    broken_names: Sequence[str] = ()
    others: Sequence[Definition] = ()  #: calendars, task groups, defaults and projects
    broken_others: Sequence[tuple[str, str]] = ()  #: kind and name
    findings: Sequence[Finding] = ()
    parseable: bool = True
    documents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Where a file's text comes from. All None for a plain folder."""

    id: str | None
    author: str | None = None
    subject: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A stretch of time in which a task's slots do not run. `until` None: until somebody resumes it."""

    since: datetime
    until: datetime | None = None  #: the first instant that is not paused any more

    def holds(self, at: datetime) -> bool:
        """Tell whether `at` lies in the pause."""
        return self.since <= at and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """What a task group says: when its tasks may start, how many may run at once, and whether they have slots."""

    windows: tuple[Window, ...] = ()  #: none = always
    timezone: str = "UTC"
    max_parallel: int | None = None
    on_window_close: OnWindowClose = OnWindowClose.LET_RUN
    suspend: bool = False

    @classmethod
    def read(cls, spec: Mapping[str, Any]) -> GroupSpec:
        """Read the effective spec of a valid TaskGroup document."""
        return cls(
            windows=tuple(Window.read(window) for window in spec.get("windows") or ()),
            timezone=spec.get("timezone", "UTC"),
            max_parallel=spec.get("maxParallel"),
            on_window_close=OnWindowClose(spec.get("onWindowClose") or OnWindowClose.LET_RUN),
            suspend=bool(spec.get("suspend")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One valid document that declares no task: a Calendar, a TaskGroup, Defaults or a Project.

    `spec` is effective, but for Defaults, whose ``spec.spec`` is what tasks are given, as it was written.
    """

    kind: str
    name: str
    spec: Mapping[str, Any]
    transfer_from: str | None = None
    path: str
    line: int
    document: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the documents of a source are read with: its environment, and what its Defaults and Project give them.

    `layers` are valid `Definition`s of the kinds Defaults and Project, of this source alone. Which of them bear upon a
    file, and in which order, is decided where specs are composed.
    """

    environment: str | None = None
    layers: tuple[Definition, ...] = ()
