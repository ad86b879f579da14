"""Run the API: one uvicorn server in the caller's loop, until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import uvicorn

from cron_observer.errors import SettingsError
from cron_observer.service import Heartbeats
from cron_observer.settings import Settings
from cron_observer_api.app import App, create_app

_log = structlog.get_logger("cron_observer.api")

#: Seconds that requests under way may take once the server stops; streams and long polls are told at once.
GRACE: Final = 3


class _Server(uvicorn.Server):
    """A server that leaves signals to whoever runs the process, and says when it listens."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._on_listening()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the fastest event loop that is installed, for `asyncio.Runner`."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def inherited() -> socket.socket | None:
    """Return the listening socket that the process was started with (``CRON_OBSERVER_LISTEN_FD``), or None."""
    number = os.environ.get("CRON_OBSERVER_LISTEN_FD", "")
    if not number.isdecimal():
        return None
    handed = socket.socket(fileno=int(number))
    handed.setblocking(False)
    return handed


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address. Raises `SettingsError` when it cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise SettingsError(f"{host} is no address to listen on", hint="set `host`, such as 127.0.0.1") from error
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="stop who uses it, or set another `port`"
        ) from error
    bound.setblocking(False)
    return bound


async def serve(
    settings: Settings,
    *,
    stop: asyncio.Event,
    heartbeats: Heartbeats | None = None,
    app: App | None = None,
    bound: socket.socket | None = None,
    on_listening: Callable[[int], None] = lambda _port: None,
) -> None:
    """Serve until `stop` is set; then end streams and long polls, finish what is under way, and return.

    `heartbeats` are those of the process's other roles. `bound` is a socket from `listen`, for a caller that chose
    the port, `app` one of `create_app`, for a caller that looks at it. `on_listening` is told the port once requests
    are answered. Raises `SettingsError` when the address is taken.
    """
    if app is None:
        app = create_app(settings, late_roles=tuple if heartbeats is None else heartbeats.failing)
    listening = bound or inherited() or listen(settings.host, settings.port)
    try:
        async with app.lifespan():
            await _until(stop, app, listening, on_listening)
    finally:
        listening.close()


async def _until(stop: asyncio.Event, app: App, listening: socket.socket, on_listening: Callable[[int], None]) -> None:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    port: int = listening.getsockname()[1]

    def listens() -> None:
        _log.info("api_listens", port=port)
        on_listening(port)

    server = _Server(config, listens)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        _log.info("api_stops", port=port)
        app.drain()
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        if not serving.done():
            # the caller itself was cancelled: there is no time for grace
            server.force_exit = server.should_exit = True
            app.drain()
            await asyncio.gather(serving, return_exceptions=True)
