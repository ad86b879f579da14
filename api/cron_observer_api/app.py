"""The app: every call of the API and every page, with the guard, the edge and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from copy import copy
from functools import cache, partial
from typing import Any

from litestar import Litestar, Request, Response, Router
from litestar.datastructures import State
from litestar.events import SimpleEventEmitter
from litestar.types import ControllerRouterHandler

from cron_observer.errors import SettingsError
from cron_observer.settings import Settings
from cron_observer.store.engine import Database
from cron_observer.store.tenants import tenant_id
from cron_observer.store.tokens import SigningKeys
from cron_observer_api import (
    api_keys,
    description,
    detaching,
    executions,
    health,
    hooks,
    log_reads,
    metrics,
    pages,
    pinging,
    pings,
    projects,
    ranges,
    sentry,
    sources,
    statistics,
    stream,
    tasks,
    times,
    work,
)
from cron_observer_api.auth import KeyRing, guard, is_loopback
from cron_observer_api.cursors import Cursors, load_key
from cron_observer_api.door import Door
from cron_observer_api.edge import Edge, Hosts
from cron_observer_api.health import Readiness
from cron_observer_api.limits import Limiter
from cron_observer_api.operation import PREFIX
from cron_observer_api.pages import failures
from cron_observer_api.pages.log_book import LogBook
from cron_observer_api.problems import handle
from cron_observer_api.stream import Hub


class App(Litestar):
    """A Litestar app behind its edge."""

    #: Set by `create_app`; without it requests go straight to the routes.
    edge: Edge | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        await (self.edge or self.routed)(scope, receive, send)

    def twin(self, state: State) -> App:
        """Return an app with the same routes and a state of its own."""
        made = copy(self)
        made.state, made.event_emitter = state, SimpleEventEmitter([])
        return made

    def drain(self) -> None:
        """End streams and long polls: the server is about to stop."""
        self.state.draining.set()
        for end in self.state.to_drain:
            end()

    async def routed(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection that has passed the edge."""
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings,
    *,
    database: Database | None = None,
    late_roles: Callable[[], Iterable[str]] = tuple,
) -> App:
    """Make the app. `database` is the API role's pool; without it one is opened from the settings, and closed.

    `late_roles` names the roles of this process that have not ticked lately. Raises `SettingsError`.
    """
    pool = _open(settings) if database is None else database
    app = _assembled().twin(State(_shared(settings, pool, late_roles) | {"opened": database is None}))
    # Made when it is first asked for: most processes are never asked.
    app.state.description = cache(partial(description.rendered, app))
    door = Door(app, PREFIX + work.router.path, work.hot, _answer)
    app.state.door = door
    app.edge = Edge(door, Hosts.of(settings.host, settings.base_url, settings.allowed_hosts), settings.base_url)
    return app


@cache
def _assembled() -> App:
    """Assemble what every app of this process has in common; to find out all about its handlers is slow."""
    return App(
        route_handlers=_routes(),
        guards=[guard],
        exception_handlers={Exception: _answer},
        lifespan=[_running],
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,
    )


@asynccontextmanager
async def _running(app: Litestar) -> AsyncIterator[None]:
    """Run what an app does beside its requests."""
    touching = asyncio.create_task(app.state.key_ring.run())
    try:
        async with work.running(app), pings.running(app):
            yield
    finally:
        app.state.draining.set()
        touching.cancel()
        await asyncio.gather(touching, return_exceptions=True)
        await app.state.hub.close()
        await app.state.log_book.close()
        if app.state.opened:
            await app.state.database.close()


def _routes() -> list[ControllerRouterHandler]:
    api: list[ControllerRouterHandler] = [
        *projects.handlers,
        *api_keys.handlers,
        *detaching.handlers,
        *executions.handlers,
        *pinging.handlers,
        *log_reads.handlers,
        *ranges.handlers,
        *sources.handlers,
        *statistics.handlers,
        *stream.handlers,
        *tasks.handlers,
        *times.handlers,
        work.router,
    ]
    return [
        Router(path=PREFIX, route_handlers=api),
        *health.handlers,
        *hooks.handlers,
        *pings.handlers,
        *sentry.handlers,
        metrics.get_metrics,
        *pages.routers,
    ]


def _answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer an exception: with a page for a reader who is lost, with a problem for everybody else."""
    reader = "text/html" in request.headers.get("accept", "") and request.method == "GET"
    if reader and not request.scope["path"].startswith(PREFIX):
        return failures.show(request, error)
    return handle(request, error)


def _open(settings: Settings) -> Database:
    url = settings.database_of("api")
    if url is None:
        raise SettingsError(
            "no database is set for the API", hint="set `database_url`, or let `cron-observer up` start one"
        )
    return Database(url, "cron_observer_api", pool_size=settings.pool_of("api"))


def _shared(settings: Settings, database: Database, late_roles: Callable[[], Iterable[str]]) -> dict[str, Any]:
    """Return what the handlers share, by the names under which they find it in `app.state`."""
    tenant = tenant_id(settings.tenant)
    return {
        "settings": settings,
        "database": database,
        "tenant_id": tenant,
        "loopback": is_loopback(settings.host),
        "key_ring": KeyRing(database),
        "signing_keys": SigningKeys(database),
        "limiter": Limiter(),
        "hook_limiter": hooks.limiter(),
        "cursors": Cursors(load_key(settings.data_dir)),
        "readiness": Readiness(database, tenant, [source.name for source in settings.sources], late_roles),
        "hub": Hub(database),
        "log_book": LogBook(database),
        "repeating": set(),
        "draining": asyncio.Event(),
        # what else has to end when the server stops; each may be called again
        "to_drain": [],
    }
