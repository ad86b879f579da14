"""Theme, time zone and single keys: links that set a cookie and lead back."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Response, get
from litestar.datastructures import Cookie

from cron_observer_api.pages import moments
from cron_observer_api.pages.render import HEADERS, THEMES

_YEAR: Final = 365 * 86_400


def safe_path(text: str | None) -> str:
    """Return a path on this server to lead back to; the overview for anything else."""
    if not text or not text.startswith("/") or text.startswith("//") or "\\" in text or not text.isprintable():
        return "/"
    return text


@get("/preferences", include_in_schema=False, opt={"public": True}, sync_to_thread=False)
def preferences(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Remember what the query string chooses, in cookies that hold nothing else."""
    query = request.query_params
    chosen: dict[str, str] = {}
    if query.get("theme") in THEMES:
        chosen["co_theme"] = query["theme"]
    if "zone" in query:
        chosen["co_zone"] = moments.zone(query["zone"]).key
    if query.get("keys") in ("on", "off"):
        chosen["co_keys"] = query["keys"]
    cookies = [Cookie(key=name, value=value, max_age=_YEAR, samesite="lax", path="/") for name, value in chosen.items()]
    headers = {**HEADERS, "Location": safe_path(query.get("next"))}
    return Response(b"", status_code=303, headers=headers, cookies=cookies, media_type="text/html")
