"""Errors, by who must act.

* CronObserverError
  x SettingsError        the operator: mend the settings or the environment    exit 1 at start, before any work
  x DatabaseError        the operator: the database cannot be had or used      exit 1, or 503
  x SourceError          `.permanent`: the operator mends access; else we retry with backoff
  x ScheduleError        the author: the schedule cannot be evaluated          a finding, or a quarantined task
  x NotFound             the caller: there is no such thing                    404
  x Refused              the caller may not                                    403
  x BadRequest           the caller: the request cannot be understood          400
  x OutOfRange           the caller: it asks for more, or for another time, than is allowed   422
  x InvalidSpec          the caller: the task's spec is wrong                  422 with findings
  x Conflict             the caller came too late or is not the owner          409
    + NameTaken, ManifestOwned, AlreadyFinal, AlreadyClaimed, NotRunning, LeaseLost, LogGap

A manifest that is wrong is not an exception: it is a `model.Finding`. A bug is a crash.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CronObserverError(Exception):
    """Something that a person or a client can act upon.

    `code` is the stable word of the wire; `hint` says how to mend it; `facts` are extra members of the answer.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts


class SettingsError(CronObserverError):
    """A setting is wrong or missing."""

    code = "settings"


class DatabaseError(CronObserverError):
    """The database cannot be reached, started or used as it is."""

    code = "unavailable"
    status = 503


class SourceError(CronObserverError):
    """A source cannot be read. `permanent` means that waiting will not help; `reason` is a CamelCase word."""

    code = "source"

    def __init__(self, message: str, *, reason: str, permanent: bool, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.permanent = permanent


class ScheduleError(CronObserverError):
    """A schedule cannot be evaluated. `pointer` is relative to the schedule block: ``/cron``, ``/timezone``."""

    code = "schedule"
    status = 422

    def __init__(self, message: str, *, pointer: str, rule: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.pointer = pointer
        self.rule = rule  #: the CO#### code of the finding


class BadRequest(CronObserverError):
    """The request cannot be understood."""

    code = "bad_request"
    status = 400


class UnknownField(BadRequest):
    """The request has a field that we do not know."""

    code = "unknown_field"


class BadCursor(BadRequest):
    """The cursor is not ours, or belongs to another list."""

    code = "bad_cursor"


class Unauthenticated(CronObserverError):
    """No valid credential came with the request."""

    code = "unauthenticated"
    status = 401


class Refused(CronObserverError):
    """The credential is good but does not allow this."""

    code = "forbidden"
    status = 403


class NotFound(CronObserverError):
    """There is no such thing, or not for this caller."""

    code = "not_found"
    status = 404


class OutOfRange(CronObserverError):
    """The request is understood, but a value of it lies outside of what is allowed; `facts["pointer"]` says which."""

    code = "out_of_range"
    status = 422


class InvalidSpec(CronObserverError):
    """The spec of a task is wrong; `facts["findings"]` says where."""

    code = "invalid_spec"
    status = 422


class IdempotencyMismatch(CronObserverError):
    """The same Idempotency-Key came with another request."""

    code = "idempotency_mismatch"
    status = 422


class Conflict(CronObserverError):
    """The state of the thing does not allow this."""

    code = "conflict"
    status = 409


class InProgress(Conflict):
    """The first request with this Idempotency-Key is still being worked on."""

    code = "in_progress"


class NameTaken(Conflict):
    """Another task of the project has this name."""

    code = "name_taken"


class ManifestOwned(Conflict):
    """The task is owned by a manifest: change it in Git."""

    code = "manifest_owned"


class AlreadyFinal(Conflict):
    """The execution has ended; `facts["execution"]` holds the stored outcome."""

    code = "already_final"


class AlreadyClaimed(Conflict):
    """Somebody else runs the execution."""

    code = "already_claimed"


class NotRunning(Conflict):
    """The execution is not running, or was not begun in this way."""

    code = "not_running"


class LeaseLost(Conflict):
    """The fence is old: the execution was taken back and may run elsewhere."""

    code = "lease_lost"


class LogGap(Conflict):
    """Something is missing before these log lines: `facts` has `expected_seq`, or `expected_offset` of a text."""

    code = "log_gap"
