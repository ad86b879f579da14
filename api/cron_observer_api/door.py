"""The workers' door: the calls that are made most often, past the framework's routing.

A report costs less to write than a framework needs to find its handler. So these few calls are looked up here, by the
same declarations, and are served by the same guard and the same handlers; whatever is not one of them goes on to the
app. What a caller sees is the same on both ways.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from litestar import Request, Response
from litestar.handlers import BaseRouteHandler

from cron_observer_api.auth import guard

Handler = Callable[..., Awaitable[Response[bytes]]]

#: One segment that needs no escapes; any other is left to the app.
_SEGMENT: Final = "{execution_id:str}"
_PLAIN: Final = re.compile(r"[0-9A-Za-z-]{1,64}")


class _Call:
    """One call: what the guard asks about, what serves it, and how the metrics name it."""

    __slots__ = ("handler", "serve", "template")

    def __init__(self, handler: BaseRouteHandler, path: str) -> None:
        self.handler = handler
        self.serve: Handler = handler.fn
        self.template = path.replace(":str", "")


class Door:
    """Serves POST calls whose path is fixed, or has an execution's id in one place."""

    def __init__(
        self,
        app: Any,
        prefix: str,
        handlers: Iterable[BaseRouteHandler],
        failed: Callable[[Request[Any, Any, Any], Exception], Response[bytes]],
    ) -> None:
        """`app` is the Litestar app, `handlers` are among its routes under `prefix`; `failed` answers exceptions."""
        self._app = app
        self._failed = failed
        self._fixed: dict[str, _Call] = {}
        self._about: dict[str, _Call] = {}
        self._stem = f"{prefix}/executions/"
        for handler in handlers:
            self.open(prefix, handler)

    def open(self, prefix: str, handler: BaseRouteHandler) -> None:
        """Serve one more of the app's routes here."""
        (path,) = handler.paths
        whole = prefix + path
        before, found, after = whole.partition(_SEGMENT)
        if not found:
            self._fixed[whole] = _Call(handler, whole)
        elif before == self._stem:
            self._about[after] = _Call(handler, whole)
        else:
            raise ValueError(f"{whole} is not about an execution")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request that has passed the edge."""
        call, about = self._find(scope)
        if call is None:
            await self._app.routed(scope, receive, send)
            return
        scope["litestar_app"] = self._app
        scope["route_handler"] = call.handler
        scope["path_template"] = call.template
        scope["path_params"] = about
        scope.setdefault("state", {})
        request: Request[Any, Any, Any] = Request(scope, receive, send)
        try:
            await guard(request, call.handler)
            response = await call.serve(request, **about)
        except Exception as error:  # noqa: BLE001  the app answers whatever it is
            response = self._failed(request, error)
        await _reply(send, response)

    def _find(self, scope: Any) -> tuple[_Call | None, dict[str, str]]:
        path: str = scope["path"]
        if scope["method"] != "POST":
            return None, {}
        if path.startswith(self._stem):
            identity, slash, rest = path[len(self._stem) :].partition("/")
            call = self._about.get(slash + rest)
            return (call, {"execution_id": identity}) if _PLAIN.fullmatch(identity) else (None, {})
        return self._fixed.get(path), {}


async def _reply(send: Any, response: Response[bytes]) -> None:
    """Send an answer whose body is whole."""
    body: bytes = response.content
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    headers.append((b"content-type", str(response.media_type).encode("ascii")))
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
