"""How work ends is judged once, and told in the wire's words."""

from __future__ import annotations

import asyncio

import pytest

from cron_observer_sdk.errors import Cancelled, Fail, Skip
from cron_observer_sdk.outcome import TRACEBACK_LENGTH, of_exception


class BrokenError(Exception):
    """Cannot say what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def caught(error: BaseException) -> BaseException:
    """Raise and catch, so that there is a traceback."""
    with pytest.raises(type(error)) as raised:
        raise error
    return raised.value


def test_an_exception_is_a_failure_with_its_traceback() -> None:
    """Type, message and traceback of an exception are told, and it may be retried."""
    outcome = of_exception(caught(ValueError("no such day")))
    assert (outcome.outcome, outcome.exit_code, outcome.retryable) == ("failed", None, True)
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["message"]) == ("ValueError", "no such day")
    assert outcome.error["traceback"].startswith("Traceback (most recent call last):")
    assert outcome.error["traceback"].endswith("ValueError: no such day\n")


def test_skip_cancel_and_fail_are_no_bugs() -> None:
    """The three words of work have outcomes of their own and no traceback."""
    assert of_exception(Skip("holiday"))._asdict() == {
        "outcome": "skipped",
        "exit_code": None,
        "error": {"type": "Skip", "message": "holiday", "traceback": ""},
        "result": None,
        "retryable": True,
    }
    assert of_exception(Cancelled("asked")).outcome == "cancelled"
    assert of_exception(asyncio.CancelledError()).outcome == "cancelled"
    failed = of_exception(Fail("disk full", retryable=False, exit_code=28))
    assert (failed.outcome, failed.exit_code, failed.retryable) == ("failed", 28, False)


@pytest.mark.parametrize(
    ("code", "outcome", "number"),
    [(None, "finished", 0), (0, "finished", 0), (3, "failed", 3), (256 + 7, "failed", 7), ("disk full", "failed", 1)],
)
def test_exits_are_judged_as_the_shell_does(code: object, outcome: str, number: int) -> None:
    """``sys.exit`` in work gives its exit code."""
    judged = of_exception(SystemExit(code))
    assert (judged.outcome, judged.exit_code) == (outcome, number)


def test_an_endless_traceback_keeps_its_head_and_tail() -> None:
    """A traceback of a megabyte is cut in the middle, and says so."""
    outcome = of_exception(caught(ValueError("x" * 1_000_000)))
    assert outcome.error is not None
    assert len(outcome.error["traceback"]) < TRACEBACK_LENGTH + 200
    assert "characters left out" in outcome.error["traceback"]
    assert len(outcome.error["message"]) == 4096


def test_a_broken_exception_is_still_a_failure() -> None:
    """An exception that cannot be printed is reported by its type."""
    outcome = of_exception(caught(BrokenError()))
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["message"]) == ("BrokenError", "<BrokenError without a message>")
