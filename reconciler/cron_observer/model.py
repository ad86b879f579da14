"""The nouns, as frozen values. Pure: nothing here reads a clock, a file or a database."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

API_VERSION: Final = "cron-observer/v1"

#: Identity of a task inside its project.
TASK_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?")

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


class Severity(StrEnum):
    """How bad a finding is: an ERROR keeps the document from being applied, a WARNING does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One defect of a manifest or of a source. Lines and columns count from 1; None where there is no place."""

    severity: Severity
    code: str  #: CO####; docs/reference/findings.md explains each
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """The inputs of a schedule: a union of `cron`, `every` and `at`, read in `timezone`.

    Local times (`anchor`, `at`) are ISO 8601; without an offset they are read in `timezone`.
    `seed` is ``project/name`` of the task as first created; it resolves ``H``.
    """

    cron: tuple[str, ...] = ()
    every: timedelta | None = None
    anchor: str | None = None
    at: tuple[str, ...] = ()
    timezone: str = "UTC"
    seed: str | None = None

    @classmethod
    def read(cls, block: Mapping[str, Any], seed: str | None = None) -> ScheduleSpec:
        """Take the ``schedule`` block of a valid manifest (camelCase) apart."""

        def several(value: Any) -> tuple[str, ...]:
            return (value,) if isinstance(value, str) else tuple(value or ())

        every = block.get("every")
        return cls(
            cron=several(block.get("cron")),
            every=parse_duration(every) if every else None,
            anchor=block.get("anchor"),
            at=several(block.get("at")),
            timezone=block.get("timezone") or "UTC",
            seed=seed,
        )


class Overlap(StrEnum):
    """What happens to a due slot while the task is active."""

    SKIP = "skip"
    ALLOW_ALL = "allow_all"


class Catchup(StrEnum):
    """Which of several due slots still run."""

    NONE = "none"
    LAST = "last"


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
    catchup_window: timedelta = timedelta(hours=1)
    start_deadline: timedelta | None = None
    timeout: timedelta = timedelta(hours=1)
    retries_max: int = 0
    backoff: Backoff = Backoff.EXPONENTIAL
    backoff_initial: timedelta = timedelta(seconds=10)
    backoff_cap: timedelta = timedelta(minutes=10)
    late: Late = Late.ACCEPT

    @classmethod
    def read(cls, spec: Mapping[str, Any]) -> Policy:
        """Read an effective spec (every default filled in, durations as text)."""
        retries, catchup = spec["retries"], spec["catchup"]
        deadline = spec.get("startDeadline")
        return cls(
            overlap=Overlap(spec["overlap"]),
            catchup=Catchup(catchup["policy"]),
            catchup_window=parse_duration(catchup["window"]),
            start_deadline=parse_duration(deadline) if deadline else None,
            timeout=parse_duration(spec["timeout"]),
            retries_max=retries["max"],
            backoff=Backoff(retries["backoff"]),
            backoff_initial=parse_duration(retries["initial"]),
            backoff_cap=parse_duration(retries["cap"]),
            late=Late(spec["late"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDefinition:
    """One valid Task document: what a source wants a task to be.

    `spec` is effective: every default is filled in, so that two ways of writing the same thing compare equal.
    `line` is the 1-based line of ``metadata.name``.
    """

    name: str
    spec: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    path: str
    line: int
    document: int = 0  #: position of the document in its file, from 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """What one manifest file holds: valid definitions, names whose document is broken, and findings.

    `parseable` is False when the file's documents could not be told apart, so that what it
    declares is unknown and nothing may be removed on its account.
    """

    path: str
    tasks: Sequence[TaskDefinition] = ()
    broken_names: Sequence[str] = ()
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
