"""Every error of the API as ``application/problem+json``, with a stable `code` and a `hint`."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from litestar import Request, Response
from litestar.enums import HttpMethod
from litestar.exceptions import HTTPException

from cron_observer.errors import BadRequest, CronObserverError, NotFound, ScheduleError

MEDIA_TYPE: Final = "application/problem+json"

_log = structlog.get_logger("cron_observer.api")


class BadHost(BadRequest):
    """The Host header names somebody else."""

    code = "bad_host"


class TooLarge(CronObserverError):  # noqa: N818  named like those of cron_observer.errors
    """The body is larger than this call takes."""

    code = "too_large"
    status = 413


class UriTooLong(CronObserverError):  # noqa: N818  named like those of cron_observer.errors
    """The address is longer than we read."""

    code = "uri_too_long"
    status = 414


class UnsupportedMedia(CronObserverError):  # noqa: N818  named like those of cron_observer.errors
    """The body is not in a form that this call reads."""

    code = "unsupported_media_type"
    status = 415


class RateLimited(CronObserverError):  # noqa: N818  named like those of cron_observer.errors
    """Too many requests with this credential. ``facts["retry_after_seconds"]`` says how long to wait."""

    code = "rate_limited"
    status = 429


class HeadersTooLarge(CronObserverError):  # noqa: N818  named like those of cron_observer.errors
    """There are more or longer header fields than we read."""

    code = "headers_too_large"
    status = 431


class Problem(NamedTuple):
    """What a code stands for."""

    status: int
    title: str


#: Every code there is; ``GET /problems/{code}`` and the API's description tell the same.
PROBLEMS: Final = {
    "bad_request": Problem(400, "The request cannot be understood"),
    "unknown_field": Problem(400, "The request has a field that is not known"),
    "bad_cursor": Problem(400, "The cursor does not belong to this list"),
    "bad_host": Problem(400, "The Host header names another server"),
    "unauthenticated": Problem(401, "A valid API key is needed"),
    "forbidden": Problem(403, "The credential does not allow this"),
    "not_found": Problem(404, "There is no such thing"),
    "method_not_allowed": Problem(405, "The address does not take this method"),
    "manifest_owned": Problem(409, "The task is owned by a manifest in Git"),
    "name_taken": Problem(409, "The name is taken"),
    "already_final": Problem(409, "The execution has ended"),
    "already_claimed": Problem(409, "Somebody else runs the execution"),
    "not_running": Problem(409, "The execution is not running"),
    "lease_lost": Problem(409, "The lease of the execution is lost"),
    "log_gap": Problem(409, "Log entries are missing before these"),
    "in_progress": Problem(409, "The first request with this Idempotency-Key is still being worked on"),
    "conflict": Problem(409, "The state of the thing does not allow this"),
    "too_large": Problem(413, "The body is too large"),
    "uri_too_long": Problem(414, "The address is too long"),
    "unsupported_media_type": Problem(415, "The body is in a form that is not read here"),
    "invalid_spec": Problem(422, "The spec of the task is not valid"),
    "out_of_range": Problem(422, "A value lies outside of what is allowed"),
    "idempotency_mismatch": Problem(422, "The Idempotency-Key was used for another request"),
    "rate_limited": Problem(429, "Too many requests"),
    "headers_too_large": Problem(431, "The header fields are too large"),
    "internal": Problem(500, "Something is wrong on our side"),
    "unavailable": Problem(503, "The service cannot answer right now"),
}

#: Codes of what Litestar refuses by itself.
_BY_STATUS: Final = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    422: "bad_request",
    429: "rate_limited",
    431: "headers_too_large",
    503: "unavailable",
}

#: What to do where the error itself does not say better.
_HINTS: Final = {
    400: "mend the request as /api/v1/openapi.json describes it",
    401: "send Authorization: Bearer co_…",
    403: "use a key with another scope",
    404: "check the path and the id; /api/v1/openapi.json lists every address",
    405: "the Allow header lists the methods",
    409: "read it again and decide anew",
    413: "send less at a time",
    415: "send Content-Type: application/json",
    422: "mend what the detail names",
    500: "the server's log says more; try again, and report it if it stays",
    503: "try again in a moment",
}


#: The same where a code says more than its status.
_HINTS_OF_CODES: Final = {
    "already_final": "nothing more is to be reported: `execution` says how it ended",
    "log_gap": "go on from where the answer says that the log ends",
    "not_running": "claim it first, or read how it stands",
}


def problem(error: CronObserverError) -> dict[str, Any]:
    """Return the body that tells a client about `error`."""
    known = PROBLEMS.get(error.code)
    title = known.title if known else HTTPStatus(error.status).phrase
    return {
        "type": f"/problems/{error.code}",
        "title": title,
        "status": error.status,
        "detail": error.message,
        "code": error.code,
        "hint": error.hint or _HINTS_OF_CODES.get(error.code) or _HINTS.get(error.status),
    } | error.facts


def headers(error: CronObserverError) -> dict[str, str]:
    """Return the header fields that belong to `error`."""
    extra = {"Cache-Control": "no-store"}
    if error.status == 401:
        extra["WWW-Authenticate"] = 'Bearer realm="cron-observer"'
    elif error.status == 429:
        extra["Retry-After"] = str(max(1, round(error.facts.get("retry_after_seconds", 1))))
    elif error.status == 503:
        extra["Retry-After"] = "1"
    return extra


def respond(error: CronObserverError, extra: dict[str, str] | None = None) -> Response[bytes]:
    """Make the answer that tells a client about `error`."""
    return Response(
        msgspec.json.encode(problem(error)),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=headers(error) | (extra or {}),
    )


def ours(error: Exception) -> CronObserverError:
    """Translate anything that was raised into an error of ours; what nobody foresaw becomes ``internal``."""
    if isinstance(error, ScheduleError):
        return BadRequest(error.message, hint=error.hint, pointer=error.pointer)
    if isinstance(error, CronObserverError):
        return error
    if isinstance(error, HTTPException):
        status = error.status_code
        code = _BY_STATUS.get(status, "bad_request" if status < 500 else "internal")
        return _framework_error(code)
    return _framework_error("internal")


def _framework_error(code: str) -> CronObserverError:
    """Make an error of the class of `code`, with its title as the message: never with what the client sent."""
    known = PROBLEMS[code]
    if code == "not_found":
        return NotFound(known.title)
    made = CronObserverError(known.title)
    made.code, made.status = code, known.status  # type: ignore[misc]
    return made


def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer any exception: the one exception handler of the app."""
    told = ours(error)
    if told.status >= 500 and told.code != "unavailable":
        _log.error("request_failed", path=request.scope["path"], method=request.method, exc_info=error)
    elif told.code == "unavailable":
        _log.warning("request_refused", path=request.scope["path"], detail=told.message)
    return respond(told, {"Allow": ", ".join(_allowed(request))} if told.status == 405 else None)


def _allowed(request: Request[Any, Any, Any]) -> list[str]:
    """Return the methods that the path of a request takes."""
    allowed = []
    for method in HttpMethod:
        try:
            request.app.asgi_router.handle_routing(path=request.scope["path"], method=method.value)
        except HTTPException:
            continue
        allowed.append("GET, HEAD" if method is HttpMethod.GET else method.value)
    return allowed
