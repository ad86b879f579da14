"""Whether the process lives and is ready, and the documents about the API itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath

from cron_observer.errors import DatabaseError, NotFound
from cron_observer.manifest import schema
from cron_observer.store import health
from cron_observer.store.engine import Database, clock
from cron_observer_api import wire
from cron_observer_api.operation import ANY_KEY, answer, declare
from cron_observer_api.problems import PROBLEMS

#: Documents that change only with the version; a minute spares most repeats.
_SHORT: Final = {"Cache-Control": "public, max-age=60"}


class Readiness:
    """Says what is missing. `late_roles` names the roles of this process that have not ticked lately."""

    def __init__(
        self,
        database: Database,
        tenant_id: UUID,
        sources: Iterable[str],
        late_roles: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._sources = tuple(sources)
        self._late_roles = late_roles
        self._head: str | None = None

    async def failing(self) -> list[str]:
        """Return what is not ready, as words; empty when all is well."""
        if self._head is None:
            self._head = await asyncio.to_thread(_head)
        late = [f"role {role} has not ticked lately" for role in self._late_roles()]
        try:
            async with self._database.transaction([self._tenant_id]) as conn:
                revision = await health.revision(conn)
                settled = await health.settled(conn, self._tenant_id, await clock(conn))
        except DatabaseError as error:
            return [f"database: {error.message}", *late]
        missing = [name for name in {**dict.fromkeys(self._sources), **settled} if not settled.get(name)]
        schema_ = [] if revision == self._head else [f"schema is at {revision}, needed is {self._head}"]
        return schema_ + late + [f"source {name} has not been looked at yet" for name in missing]


def _head() -> str:
    """Return the revision that this version needs; what reads it is slow to import."""
    from cron_observer.store.migrate import head

    return head()


@get(
    "/livez",
    operation_id="getLiveness",
    opt=declare(summary="Whether the process answers", tag="health", answers={200: wire.Alive}),
)
async def livez() -> Response[bytes]:
    """Answer: that is the whole proof."""
    return answer({"status": "ok"})


@get(
    "/readyz",
    operation_id="getReadiness",
    opt=declare(
        summary="Whether everything that this process needs is there",
        tag="health",
        answers={200: wire.Ready, 503: wire.NotReady},
    ),
)
async def readyz(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer 200, or 503 with what is missing. A repository that cannot be reached does not count."""
    failing = await request.app.state.readiness.failing()
    if failing:
        return answer({"failing": failing}, 503, {"Retry-After": "1"})
    return answer({"status": "ready"})


@get(
    "/schemas/v1/{file:str}",
    operation_id="getSchema",
    opt=declare(
        summary="The JSON Schema of a kind of manifest: task.json",
        tag="documents",
        answers={200: "application/schema+json"},
        problems=("not_found",),
    ),
)
async def get_schema(file: FromPath[str]) -> Response[bytes]:
    """Return the schema that editors and `validate` use."""
    kind, dot, ending = file.rpartition(".")
    if not dot or ending != "json":
        raise NotFound("there is no such schema", hint="ask for /schemas/v1/task.json")
    return Response(msgspec.json.encode(schema(kind)), media_type="application/schema+json", headers=_SHORT)


@get(
    "/problems/{code:str}",
    operation_id="getProblem",
    opt=declare(
        summary="What a problem code means",
        tag="documents",
        scopes=ANY_KEY,
        answers={200: "text/plain"},
        problems=("not_found",),
    ),
)
async def get_problem(code: FromPath[str]) -> Response[bytes]:
    """Return the sentence behind the `type` of a problem."""
    known = PROBLEMS.get(code)
    if known is None:
        raise NotFound("there is no such problem", hint="docs/reference/api.md lists them")
    text = f"{code}\n\nHTTP {known.status}: {known.title}.\nEach answer says more in `detail` and `hint`.\n"
    return Response(text.encode(), media_type="text/plain", headers=_SHORT)


@get(
    "/api/v1/openapi.json",
    operation_id="getDescription",
    opt=declare(
        summary="This description",
        tag="documents",
        scopes=ANY_KEY,
        answers={200: "application/json"},
    ),
)
async def get_description(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return the description of the API, OpenAPI 3.1."""
    return Response(request.app.state.description(), media_type="application/json", headers=_SHORT)


handlers = [livez, readyz, get_schema, get_problem, get_description]
