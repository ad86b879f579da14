"""A worker finds the function for an execution and calls it as it wants to be called."""

from __future__ import annotations

from typing import Any

import pytest

import cron_observer_sdk as co
from cron_observer_sdk.handlers import Handlers, call

FACTS = {"task": {"uid": "7c9e6679-7425-40de-944b-e07fc1f90ae7", "project": "a", "name": "b"}}


def test_names_come_before_uids_before_any() -> None:
    """The most telling name wins."""
    by_name, by_uid, other = (lambda: 1), (lambda: 2), (lambda: 3)
    assert Handlers({"*": other, FACTS["task"]["uid"]: by_uid, "a/b": by_name}).find(FACTS) is by_name
    assert Handlers({"*": other, FACTS["task"]["uid"]: by_uid}).find(FACTS) is by_uid
    assert Handlers({"*": other}).find(FACTS) is other
    assert Handlers({"x/y": other}).find(FACTS) is None


def test_only_a_worker_for_any_task_claims_everything() -> None:
    """Without ``*`` the handlers' names narrow the claims."""
    assert Handlers({"a/b": print, "c/d": print}).names() == ("a/b", "c/d")
    assert Handlers({"a/b": print, "*": print}).names() is None


def test_a_worker_without_handlers_is_refused() -> None:
    """An empty mapping is a mistake, not a worker."""
    with pytest.raises(ValueError, match="at least one handler"):
        Handlers({})


class Method:
    """Handlers may be methods."""

    def takes(self, run: Any) -> Any:
        """Take the execution."""
        return run

    def alone(self) -> str:
        """Take nothing."""
        return "alone"


async def slow(run: Any) -> Any:
    """Be a coroutine."""
    return run


@pytest.mark.parametrize(
    "function", [lambda run: run, lambda run, /: run, lambda *all: all[0], Method().takes, slow, lambda run, day=1: run]
)
def test_the_execution_is_given_to_who_asks(function: Any) -> None:
    """A first positional parameter gets the execution; coroutines run to their end."""
    run = co.Execution.nowhere()
    assert call(function, run) is run


@pytest.mark.parametrize(
    "function", [lambda: "alone", Method().alone, lambda day="alone": day, lambda *, day="alone": day]
)
def test_nothing_is_given_to_who_does_not(function: Any) -> None:
    """Functions without a required parameter are called without one."""
    assert call(function, co.Execution.nowhere()) == "alone"


def test_a_decorated_function_is_not_reported_twice() -> None:
    """A worker calls what `task` wraps, for it reports the run already."""
    seen: list[co.Execution] = []

    @co.task("a/b")
    def work(run: co.Execution) -> None:
        seen.append(run)

    run = co.Execution.nowhere()
    call(work, run)
    assert seen == [run]
