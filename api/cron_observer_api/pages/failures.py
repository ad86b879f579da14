"""What a reader sees when a page cannot be shown: the same facts as the API's problem, as a page."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response

from cron_observer_api import problems
from cron_observer_api.pages.render import Preferences, page


def show(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer an exception of a page with a page; the log says what the API's handler would say."""
    answer = problems.handle(request, error)
    told = problems.ours(error)
    shown = page(
        request,
        "error.html",
        told.status,
        preferences=Preferences.of(request),
        status=told.status,
        message=told.message[:1].upper() + told.message[1:],
        hint=told.hint,
        again=told.status >= 500,
    )
    kept = {"retry-after", "www-authenticate", "allow"}
    shown.headers |= {name: value for name, value in answer.headers.items() if name.lower() in kept}
    shown.headers["Cache-Control"] = "no-store"
    return shown
