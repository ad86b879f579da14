"""`task`: a decorator that is also a context manager, for work that somebody else starts."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast

from cron_observer_sdk.client import Client, default_client
from cron_observer_sdk.context import enter, running
from cron_observer_sdk.errors import NotConfigured, Skip
from cron_observer_sdk.execution import Execution
from cron_observer_sdk.ids import TASK
from cron_observer_sdk.notice import PROCESS
from cron_observer_sdk.outcome import Outcome, of_exception
from cron_observer_sdk.own_run import OwnRun

F = TypeVar("F", bound=Callable[..., Any])


class ObservedTask:
    """Reports a function's calls, or a block, as executions of a task. Made by `task`."""

    def __init__(self, name: str, client: Client | None, queues: Sequence[str] | None, lease_seconds: float) -> None:
        self._name = name
        self._client = client
        self._queues = queues
        self._lease_seconds = lease_seconds
        self._open: list[tuple[OwnRun, Execution | None]] = []  #: entered and not left, with what was current before

    def __call__(self, function: F) -> F:
        """Wrap a function, plain or ``async def``; its arguments and exceptions pass through unchanged."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__} is a generator: use `with task(…)` around its loop")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                async with self._another() as run:
                    return _kept(run, await function(*args, **kwargs))

            wrapper: Any = call_async
        else:

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                with self._another() as run:
                    return _kept(run, function(*args, **kwargs))

            wrapper = call
        wrapper.cron_observer_function = function
        return cast("F", wrapper)

    def __enter__(self) -> Execution:
        """Begin an execution; wait 2 s at most for the server."""
        own = self._own_run()
        own.begin()
        return self._entered(own)

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool | None:
        """End the execution; wait 2 s at most for a server that is silent. `Skip` ends here, all else passes."""
        own = self._left()
        own.end(_judge(own, error))
        return True if isinstance(error, Skip) else None

    async def __aenter__(self) -> Execution:
        """Begin an execution; the loop goes on meanwhile."""
        own = self._own_run()
        await _aside(own.begin)
        return self._entered(own)

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool | None:
        """End the execution; the loop goes on meanwhile."""
        own = self._left()
        outcome = _judge(own, error)
        await _aside(lambda: own.end(outcome))
        return True if isinstance(error, Skip) else None

    def _another(self) -> ObservedTask:
        """Return one for a single call, so that calls may run side by side."""
        return ObservedTask(self._name, self._client, self._queues, self._lease_seconds)

    def _own_run(self) -> OwnRun:
        """Make the run of one call or block."""
        try:
            client = self._client or default_client()
        except NotConfigured as error:  # a wrong address must not keep the work from running
            PROCESS.say("unconfigured", f"{error}: runs are not reported to Cron Observer")
            client = Client("", "")
        return OwnRun(self._name, client, queues=self._queues, lease_seconds=self._lease_seconds)

    def _entered(self, own: OwnRun) -> Execution:
        """Make the execution the current one."""
        self._open.append((own, enter(own.execution)))
        return own.execution

    def _left(self) -> OwnRun:
        """Return the run of the block that ends, and make the one around it current again."""
        here = running()
        place = next((n for n, (own, _) in enumerate(self._open) if own.execution is here), -1)
        own, before = self._open.pop(place)
        enter(before)
        return own


def _kept(run: Execution, value: Any) -> Any:
    """Return a function's value, which is also the result unless the function set another."""
    if value is not None:
        run.result = value
    return value


def _judge(own: OwnRun, error: BaseException | None) -> Outcome:
    """Say how the block ended."""
    if error is None:
        return Outcome("finished", result=own.execution.result)
    return of_exception(error)


async def _aside(function: Callable[[], None]) -> None:
    """Run a function that waits in a thread of its own: the loop's pool may be full of other work."""
    import asyncio

    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def run() -> None:
        try:
            function()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish)

    threading.Thread(target=run, name="cron-observer-aside", daemon=True).start()
    await done


def task(
    name: str,
    *,
    client: Client | None = None,
    queues: Sequence[str] | None = None,
    lease_seconds: float = 30,
) -> ObservedTask:
    """Report what runs here as an execution of `name` (``project/name``, or a task's uid).

        @co.task("billing/invoice-export")
        def export(): ...

        with co.task("billing/invoice-export") as run: ...

    A due slot of the task is claimed if one waits (in `queues`, if they are named), else an execution is created.
    The work always wins: without CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN, or while the server is down, it is done
    all the same.
    Raise `ValueError` for a name that cannot be one.
    """
    if TASK.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a task: write project/name, such as default/nightly-export")
    if not 5 <= lease_seconds <= 3600:
        raise ValueError("lease_seconds is 5 to 3600")
    return ObservedTask(name, client, queues, lease_seconds)
