"""Sources, the stream and health."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from cron_observer_api.wire.base import GivenInstant, Id, In, Instant, Line, Out, Prose, Seconds


class Finding(Out):
    """What is wrong in a manifest, and where."""

    severity: Literal["error", "warning"]
    code: str
    path: str
    line: int | None
    column: int | None
    end_line: int | None
    end_column: int | None
    pointer: str | None
    kind: str | None
    name: str | None
    message: str
    hint: str | None
    url: str | None


class Condition(Out):
    """One thing that is true, false or not known of a source, since when and why."""

    status: str
    reason: str
    message: str
    since: Instant | None


class Suspension(Out):
    """Since when, until when, by whom and why a source is not looked at."""

    by: str
    reason: str | None
    since: Instant
    until: Instant | None


class Held(Out):
    """A removal that does not happen, and why."""

    kind: str
    name: str
    path: str | None
    line: int | None
    reason: str


class Source(Out):
    """Where manifests come from, and how far they have been applied."""

    name: str
    project: str
    url: str
    ref: str | None
    environment: str | None
    mode: str
    observed_commit: str | None
    applied_commit: str | None
    applied_at: Instant | None
    stale_seconds: Seconds | None
    conditions: dict[str, Condition]
    counts: dict[str, Any]
    requested_seq: int
    handled_seq: int
    suspended: Suspension | None
    held: list[Held]
    plan_hash: str | None


class SourceWithFindings(Source):
    """A source, and what is wrong in its files now (at most 1,000; `counts` has the true number)."""

    findings: list[Finding]


class Sources(Out):
    """A page of sources."""

    items: list[Source]
    next_cursor: str | None


class RunCommit(Out):
    """The commit that a run looked at."""

    author: str | None
    subject: str | None
    at: Instant | None


class Run(Out):
    """One pass over a source."""

    id: Id
    source: str
    trigger: Literal["poll", "neighbour", "push", "detach", "resume", "manual", "approval"]
    from_commit: str | None
    to_commit: str | None
    commit: RunCommit
    outcome: Literal["running", "applied", "unchanged", "observed", "refused", "failed", "abandoned"]
    error: str | None
    counts: dict[str, Any]
    findings: list[Finding]
    strategy: Literal["tree", "full"] | None
    timings: dict[str, Seconds] | None
    held: list[Held]
    plan_hash: str | None
    started_at: Instant
    finished_at: Instant | None


class Runs(Out):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None


class SyncRequested(Out):
    """Done when the source's `handled_seq` has reached this."""

    requested_seq: int


class Accepted(Out):
    """The delivery was signed well. Nothing says whether it woke a source."""

    accepted: Literal[True]


class ApprovalBody(In):
    """Consent to the removals that wait under `plan_hash`, which the source shows."""

    plan_hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    reason: Prose | None = None


class Approval(Out):
    """A consent; the next pass uses it up."""

    source: str
    plan_hash: str
    reason: str | None
    actor: str
    created_at: Instant


class ReasonBody(In):
    """Why."""

    reason: Prose = ""


class SuspendBody(In):
    """Why, and until when; without `until` it lasts until somebody resumes the source."""

    reason: Line
    until: GivenInstant | None = None


class StreamQuery(In):
    """Which topics; `last_event_id` stands in for the header of that name where it cannot be set."""

    topics: Annotated[str, Meta(min_length=1, max_length=2000)]
    last_event_id: Annotated[str, Meta(max_length=100)] | None = None


class Alive(Out):
    """The process answers."""

    status: Literal["ok"]


class Ready(Out):
    """Everything that this process needs is there."""

    status: Literal["ready"]


class NotReady(Out):
    """What is missing."""

    failing: list[str]
