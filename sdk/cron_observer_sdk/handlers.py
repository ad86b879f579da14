"""What a worker runs: functions by the name of their task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cron_observer_sdk.context import enter
from cron_observer_sdk.handle import Execution
from cron_observer_sdk.text import JsonObject

if TYPE_CHECKING:
    import asyncio

#: Takes the `Execution` or nothing; may be ``async def``.
Handler = Callable[..., Any]

ANY = "*"  #: the handler for tasks without one of their own


class Handlers:
    """Finds the function for an execution."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        if not handlers:
            raise ValueError("a worker needs at least one handler")
        self._by_name = dict(handlers)

    def names(self) -> tuple[str, ...] | None:
        """Return the tasks to claim; None where any will do."""
        return None if ANY in self._by_name else tuple(self._by_name)

    def find(self, facts: JsonObject) -> Handler | None:
        """Return the function for an execution: by name, by the task's uid, else the one for any."""
        task = facts["task"]
        for name in (f"{task['project']}/{task['name']}", task.get("uid"), ANY):
            if name in self._by_name:
                return self._by_name[name]
        return None


def call(handler: Handler, execution: Execution) -> Any:
    """Call a handler to its end and return its value.

    A function that `task` decorated is called without it: the run is reported by the worker already.
    """
    function = getattr(handler, "cron_observer_function", handler)
    value = function(execution) if _wants_execution(function) else function()
    if inspect.iscoroutine(value):
        import asyncio

        return asyncio.run(value)
    return value


def _wants_execution(function: Handler) -> bool:
    """Say whether the first positional parameter has to be given."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return True
    if not parameters:
        return False
    first = parameters[0]
    if first.kind is first.VAR_POSITIONAL:
        return True
    return first.kind in {first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD} and first.default is first.empty


def on_loop(handlers: Mapping[str, Handler], loop: asyncio.AbstractEventLoop) -> dict[str, Handler]:
    """Return the handlers with each ``async def`` among them run by `loop`, while its thread waits."""
    return {name: _on_loop(handler, loop) for name, handler in handlers.items()}


def _on_loop(handler: Handler, loop: asyncio.AbstractEventLoop) -> Handler:
    """Return a plain handler that has the loop do the work."""
    function = getattr(handler, "cron_observer_function", handler)
    if not inspect.iscoroutinefunction(function):
        return handler

    async def work(execution: Execution) -> Any:
        enter(execution)  # a task of the loop has a context of its own
        return await (function(execution) if _wants_execution(function) else function())

    def wait(execution: Execution) -> Any:
        import asyncio

        return asyncio.run_coroutine_threadsafe(work(execution), loop).result()

    return wait
