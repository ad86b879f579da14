"""What each call is, said once beside its handler: who may call it, what goes in and what comes out.

The guard, the readers of bodies and the description in ``/api/v1/openapi.json`` all read the same declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request, Response
from litestar.handlers import BaseRouteHandler

from cron_observer.store.keys import SCOPES
from cron_observer_api import body as bodies

T = TypeVar("T")

#: Where a handler's `opt` keeps its declaration.
OPT: Final = "operation"

#: The scopes of a call that every key may make.
ANY_KEY: Final = SCOPES

#: The prefix of everything that the description covers.
PREFIX: Final = "/api/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of the API."""

    summary: str
    tag: str
    #: any of these scopes lets a key in (`admin` always does); empty: anybody may call
    scopes: tuple[str, ...] = ()
    #: writes need a key even on loopback
    write: bool = False
    #: a run may call it with its token; the handler asks `auth.check_run` about execution and fence
    run_token: bool = False
    #: the Struct of the JSON body, None for none
    body: Any = None
    body_optional: bool = False
    body_limit: int = bodies.BODY_LIMIT
    gzip: bool = False
    media_types: tuple[str, ...] = ("application/json",)
    #: the Struct whose fields are the parameters of the query string
    query: type[msgspec.Struct] | None = None
    #: status -> type of the JSON answer, a media type as text for others, None for no content
    answers: Mapping[int, Any] = field(default_factory=dict)
    #: codes of problems beyond those that every call has
    problems: tuple[str, ...] = ()
    #: refuses in plain text, as the protocol that it speaks has it
    plain: bool = False
    #: takes an Idempotency-Key
    idempotent: bool = False
    description: str = ""


def declare(**members: Any) -> dict[str, Any]:
    """Return the `opt` of a handler with its `Operation`."""
    return {OPT: Operation(**members)}


def operation_of(handler: BaseRouteHandler) -> Operation | None:
    """Return what a handler declares; pages and files declare nothing."""
    found: Operation | None = handler.opt.get(OPT)
    return found


async def read(request: Request[Any, Any, Any], shape: type[T]) -> T:
    """Return the body of a request as its handler declares it; `shape` is that declaration again, for types."""
    declared = operation_of(request.route_handler)
    if declared is None or declared.body is not shape:
        raise TypeError(f"{request.route_handler} does not declare this body")
    return await bodies.read_body(
        request,
        shape,
        declared.body_limit,
        gzip=declared.gzip,
        optional=declared.body_optional,
        media_types=declared.media_types,
    )


def query(request: Request[Any, Any, Any], shape: type[T]) -> T:
    """Return the query string of a request as its handler declares it."""
    declared = operation_of(request.route_handler)
    if declared is None or declared.query is not shape:
        raise TypeError(f"{request.route_handler} does not declare this query")
    return bodies.read_query(request, shape)


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Make a JSON answer."""
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"} | dict(headers or {}),
    )
