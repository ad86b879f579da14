"""`task`, a decorator that is also a context manager, and `execution`: for work that somebody else starts."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5

from cron_observer_sdk.asynchronous import in_thread
from cron_observer_sdk.client import Client, default_client
from cron_observer_sdk.context import enter, running
from cron_observer_sdk.errors import NotConfigured, Skip
from cron_observer_sdk.handle import Execution
from cron_observer_sdk.ids import TASK, uuid7
from cron_observer_sdk.notice import PROCESS, strict
from cron_observer_sdk.outcome import Outcome, of_exception
from cron_observer_sdk.own_run import OwnRun
from cron_observer_sdk.text import JsonObject

#: Under which idempotency keys become ids.
_KEYS = UUID("6f0cf5a2-6b3a-5c1e-9d0c-0a4b5e1f7c38")

F = TypeVar("F", bound=Callable[..., Any])


class Observed:
    """Reports a block as an execution of a task. Made by `execution`; also the half of `task` that is a block."""

    def __init__(
        self,
        name: str,
        client: Client | None,
        queues: Sequence[str] | None,
        lease_seconds: float,
        said: JsonObject | None = None,
        execution_id: str | None = None,
    ) -> None:
        self._name = name
        self._client = client
        self._queues = queues
        self._lease_seconds = lease_seconds
        self._said = said  #: about the run, for the first line of its log
        self._execution_id = execution_id
        self._open: list[tuple[OwnRun, Execution | None]] = []  #: entered and not left, with what was current before

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
        await in_thread(own.begin)
        return self._entered(own)

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool | None:
        """End the execution; the loop goes on meanwhile."""
        own = self._left()
        outcome = _judge(own, error)
        await in_thread(lambda: own.end(outcome))
        return True if isinstance(error, Skip) else None

    def _own_run(self) -> OwnRun:
        """Make the run of one call or block."""
        try:
            client = self._client or default_client()
        except NotConfigured as error:  # a wrong address must not keep the work from running
            if strict():
                raise
            PROCESS.say("unconfigured", f"{error}: runs are not reported to Cron Observer")
            client = Client("", "")
        return OwnRun(
            self._name,
            client,
            queues=self._queues,
            lease_seconds=self._lease_seconds,
            execution_id=self._execution_id,
        )

    def _entered(self, own: OwnRun) -> Execution:
        """Make the execution the current one."""
        if self._said:
            own.execution.log("this run has an idempotency key or an attempt of its caller's", **self._said)
        self._open.append((own, enter(own.execution)))
        return own.execution

    def _left(self) -> OwnRun:
        """Return the run of the block that ends, and make the one around it current again."""
        here = running()
        place = next((n for n, (own, _) in enumerate(self._open) if own.execution is here), -1)
        own, before = self._open.pop(place)
        enter(before)
        return own


class ObservedTask(Observed):
    """Reports a function's calls, or a block, as executions of a task. Made by `task`."""

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

    def _another(self) -> ObservedTask:
        """Return one for a single call, so that calls may run side by side."""
        return ObservedTask(self._name, self._client, self._queues, self._lease_seconds)


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
    _check(name, lease_seconds)
    return ObservedTask(name, client, queues, lease_seconds)


def execution(
    name: str,
    *,
    attempt: int | None = None,
    idempotency_key: str | None = None,
    client: Client | None = None,
    lease_seconds: float = 30,
) -> Observed:
    """Report a block as a run of its own of `name`; no due slot is claimed.

        with co.execution("ops/backup", idempotency_key="2026-11-21") as run:
            if not run.repeated:
                backup()

    The same `idempotency_key` (and `attempt`, if it is given) is the same execution: whoever comes second finds
    `run.repeated` set and reports nothing; the block runs all the same. Both are noted in the log; the attempts that
    the server counts are its own. Raise `ValueError` for a name that cannot be one.
    """
    _check(name, lease_seconds)
    said = {"attempt": attempt, "idempotency_key": idempotency_key}
    known = {key: value for key, value in said.items() if value is not None}
    if idempotency_key is None:
        minted = uuid7()
    else:
        minted = str(uuid5(_KEYS, f"{name}\n{'' if attempt is None else attempt}\n{idempotency_key}"))
    return Observed(name, client, None, lease_seconds, known, minted)


def _check(name: str, lease_seconds: float) -> None:
    """Raise `ValueError` for what cannot be."""
    if TASK.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a task: write project/name, such as default/nightly-export")
    if not 5 <= lease_seconds <= 3600:
        raise ValueError("lease_seconds is 5 to 3600")
