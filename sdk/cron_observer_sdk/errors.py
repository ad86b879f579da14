"""Errors, by who acts on them.

* CronObserverError
  x NotConfigured        no URL or no token: set CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN
  x ApiError             the server refused, or could not be reached
    + Unavailable        no usable answer in time: connection, 502, 503, 504
      - RateLimited      429
    + BadRequest  Unauthenticated  Forbidden  NotFound  TooLarge
    + Conflict           AlreadyFinal  AlreadyClaimed  NotRunning  LeaseLost  LogGap

* raised by the work to say how it ended: Skip, Fail, Cancelled
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class CronObserverError(Exception):
    """Something that the caller of the SDK can act upon."""


class NotConfigured(CronObserverError):
    """The server's address or the token is missing or cannot be used."""


class ApiError(CronObserverError):
    """The server refused a call, or did not answer it.

    `status` is the HTTP status (0: there was no answer), `code` the stable word of the problem,
    `hint` says how to mend it, `problem` is the whole body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "unavailable",
        hint: str | None = None,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.hint = hint
        self.problem: Mapping[str, Any] = problem or {}

    def __str__(self) -> str:
        """Say what happened and, where the server told it, how to mend it."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Unavailable(ApiError):
    """No usable answer came before the deadline of the call; trying later may help.

    `retry_after` is what the server asked for, in seconds, if it did.
    """

    retry_after: float | None = None


class RateLimited(Unavailable):
    """There were too many requests, also after waiting as the server asked."""


class BadRequest(ApiError):
    """The server does not understand the request."""


class Unauthenticated(ApiError):
    """The token is missing, unknown or revoked."""


class Forbidden(ApiError):
    """The token is good but lacks the scope for this call."""


class NotFound(ApiError):
    """There is no such thing, or not for this token."""


class TooLarge(ApiError):
    """The body is larger than the server takes."""


class Conflict(ApiError):
    """The state of the thing does not allow the call."""


class AlreadyFinal(Conflict):
    """The execution has ended; `stored` is the outcome that counts, as far as the server told it."""

    @property
    def stored(self) -> Mapping[str, Any]:
        """Return the execution as the server stored it; empty if the answer does not hold it."""
        stored = self.problem.get("execution", self.problem)
        return stored if isinstance(stored, dict) else {}


class AlreadyClaimed(Conflict):
    """Somebody else runs the execution."""


class NotRunning(Conflict):
    """The execution is not running, or was not begun in this way."""


class LeaseLost(Conflict):
    """The execution was taken back: another worker may run it now. Stop, and report nothing."""


class LogGap(Conflict):
    """Log entries are missing before these; `expected_seq` is the number that the server waits for."""

    @property
    def expected_seq(self) -> int:
        """Return the number of the entry that the server expects next."""
        return int(self.problem.get("expected_seq", 0))


class Skip(Exception):
    """Raised by work that found nothing to do: the outcome is ``skipped``, and nobody is alarmed."""


class Fail(Exception):
    """Raised by work that failed without a bug: no traceback is sent. `retryable=False` ends the retries."""

    def __init__(self, message: str, *, retryable: bool = True, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.exit_code = exit_code


class Cancelled(Exception):
    """Raised by `Execution.raise_if_cancelled` when somebody asked to stop: the outcome is ``cancelled``."""


_BY_CODE = {
    "bad_request": BadRequest,
    "unknown_field": BadRequest,
    "unauthenticated": Unauthenticated,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "already_final": AlreadyFinal,
    "already_claimed": AlreadyClaimed,
    "not_running": NotRunning,
    "lease_lost": LeaseLost,
    "log_gap": LogGap,
    "rate_limited": RateLimited,
    "unavailable": Unavailable,
}

_BY_STATUS = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def from_problem(status: int, problem: Mapping[str, Any], fallback: str) -> ApiError:
    """Make the exception for a refusal; `fallback` is the message when the body holds none."""
    code = problem.get("code")
    code = code if isinstance(code, str) else f"http_{status}"
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, ApiError)
    text = problem.get("detail") or problem.get("title") or fallback
    hint = problem.get("hint")
    return kind(
        str(text),
        status=status,
        code=code,
        hint=str(hint) if hint else None,
        problem=problem,
    )
