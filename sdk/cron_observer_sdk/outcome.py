"""How a run ended, as the wire says it."""

from __future__ import annotations

from typing import Any, NamedTuple

from cron_observer_sdk.errors import Cancelled, Fail, Skip
from cron_observer_sdk.text import JsonObject, clean, headline

#: Characters of a traceback that are sent; the middle of a longer one is left out.
TRACEBACK_LENGTH = 16 * 1024


class Outcome(NamedTuple):
    """The end of an attempt: ``finished``, ``failed``, ``cancelled`` or ``skipped``, and what goes with it."""

    outcome: str
    exit_code: int | None = None
    error: JsonObject | None = None
    result: Any = None
    retryable: bool = True


def fault(kind: str, message: str, trace: str = "") -> JsonObject:
    """Return an error as the wire wants it."""
    return {"type": headline(kind, 200), "message": headline(message), "traceback": trace}


def of_exception(error: BaseException) -> Outcome:
    """Say how a run ended that raised this."""
    name = type(error).__name__
    if isinstance(error, Skip):
        return Outcome("skipped", error=fault(name, str(error)))
    if isinstance(error, Cancelled) or name == "CancelledError":
        return Outcome("cancelled", error=fault(name, _words(error)))
    if isinstance(error, Fail):
        return Outcome("failed", error.exit_code, fault(name, str(error)), retryable=error.retryable)
    if isinstance(error, SystemExit):
        return _of_exit(error)
    return Outcome("failed", error=fault(name, _words(error), trimmed(error)))


def _of_exit(error: SystemExit) -> Outcome:
    """Judge ``sys.exit(…)`` as the shell would."""
    if error.code is None or error.code == 0:
        return Outcome("finished", 0)
    if isinstance(error.code, int):
        return Outcome("failed", error.code & 0xFF)
    return Outcome("failed", 1, fault("SystemExit", _words(error)))


def _words(error: BaseException) -> str:
    """Return the message of somebody else's exception."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not hide the failure
        return f"<{type(error).__name__} without a message>"


def trimmed(error: BaseException) -> str:
    """Return the traceback without the SDK's own frames; the middle of a very long one is left out."""
    import traceback

    try:
        lines = traceback.format_exception(type(error), error, _below_sdk(error))
        text = clean("".join(lines))
    except Exception:  # noqa: BLE001  formatting calls somebody else's code
        return ""
    if len(text) <= TRACEBACK_LENGTH:
        return text
    half = TRACEBACK_LENGTH // 2
    return f"{text[:half]}\n  … {len(text) - 2 * half} characters left out …\n{text[-half:]}"


def _below_sdk(error: BaseException) -> Any:
    """Return the traceback from the first frame that is not the SDK's."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_globals.get("__package__") == __package__:
        place = place.tb_next
    return place if place is not None else error.__traceback__
