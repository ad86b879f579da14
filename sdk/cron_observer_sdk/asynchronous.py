"""The client for `async` code: the same calls, each made in a thread of its own while the loop goes on."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from cron_observer_sdk.client import Client, default_client

if TYPE_CHECKING:
    import asyncio
    from typing import Concatenate, ParamSpec

    P = ParamSpec("P")

Value = TypeVar("Value")


async def in_thread(function: Callable[[], Value]) -> Value:
    """Run a function that waits in a thread of its own: the loop's pool may be full of other work.

    If the caller is cancelled the function goes on to its end, and what it returns is lost.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    done: asyncio.Future[Value] = loop.create_future()

    def finish(value: Value | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = function()
        except BaseException as raised:  # noqa: BLE001  it is raised where it is awaited
            error = raised
        try:
            loop.call_soon_threadsafe(finish, value, error)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name="cron-observer-aside", daemon=True).start()
    return await done


def _lifted(
    method: Callable[Concatenate[Client, P], Value],
) -> Callable[Concatenate[AsyncClient, P], Awaitable[Value]]:
    """Return the method as one that is awaited."""

    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Value:
        return await in_thread(lambda: method(self.client, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class AsyncClient:
    """A `Client` whose calls are awaited. Takes the same arguments, or a client to share its connections.

    Without any it is the client of the environment.
    """

    def __init__(self, url: str | None = None, token: str | None = None, **options: Any) -> None:
        given = url is not None or token is not None or bool(options)
        self.client = Client(url, token, **options) if given else default_client()

    @classmethod
    def of(cls, client: Client) -> AsyncClient:
        """Return one that makes its calls through `client`."""
        made = cls.__new__(cls)
        made.client = client
        return made

    def __repr__(self) -> str:
        """Show the address, never the token."""
        return f"AsyncClient({self.client.url!r})"

    async def __aenter__(self) -> AsyncClient:
        """Return the client, to be closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the idle connections."""
        self.client.close()

    claim = _lifted(Client.claim)
    start = _lifted(Client.start)
    heartbeat = _lifted(Client.heartbeat)
    logs = _lifted(Client.logs)
    complete = _lifted(Client.complete)
    complete_many = _lifted(Client.complete_many)
    release = _lifted(Client.release)
    create = _lifted(Client.create)
    pending = _lifted(Client.pending)
    get = _lifted(Client.get)
    patch = _lifted(Client.patch)
    trigger = _lifted(Client.trigger)
