"""Problems, and the members that those of some codes have."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, UnsetType

from cron_observer_api.wire.base import Out
from cron_observer_api.wire.executions import Execution
from cron_observer_api.wire.sources import Finding


class Problem(Out):
    """An error (RFC 9457). `code` is stable; some codes have further members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None


class UnknownFieldProblem(Problem):
    """A field that is not known; `pointer` is its JSON pointer."""

    pointer: str


class Repository(Out):
    """Where a manifest stands."""

    kind: Literal["manifest"]
    source: str
    repository: str
    ref: str | None
    path: str
    line: int | None
    commit: str | None
    url: str | None


class Conflict(Out):
    """A field that the request would change. A side that does not have it leaves it out."""

    pointer: str
    current: Any | UnsetType = UNSET
    requested: Any | UnsetType = UNSET


class ManifestOwnedProblem(Problem):
    """The task is changed in Git: where, which fields, and the unified diff that does it."""

    owner: Repository
    conflicts: list[Conflict]
    patch: str


class InvalidSpecProblem(Problem):
    """The spec is wrong: each finding names the pointer of its field."""

    findings: list[Finding]


class AlreadyFinalProblem(Problem):
    """The execution has ended, and so."""

    execution: Execution


class LogGapProblem(Problem):
    """Lines are missing: begin with this one."""

    expected_seq: int


#: What further members the problems of a code have.
PROBLEMS: Final = {
    "unknown_field": UnknownFieldProblem,
    "manifest_owned": ManifestOwnedProblem,
    "invalid_spec": InvalidSpecProblem,
    "already_final": AlreadyFinalProblem,
    "log_gap": LogGapProblem,
}
