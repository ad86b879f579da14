"""From a view model to an answer: the templates, the headers of every page, and what the reader prefers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Request, Response
from markupsafe import Markup

from cron_observer_api.pages import assets, svg, words
from cron_observer_api.pages.anchors import anchor
from cron_observer_api.pages.text import found, plain, prose, visible

#: Nothing but our own files: no inline script or style, no other host, no frame.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-cache",
    "Vary": "Cookie",
}

THEMES: Final = ("system", "light", "dark")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a reader chose, as cookies say it."""

    theme: str = "system"
    zone: str = "UTC"
    keys: bool = True

    @classmethod
    def of(cls, request: Request[Any, Any, Any]) -> Preferences:
        """Read the cookies of a request; whatever is no choice counts as none."""
        theme = request.cookies.get("co_theme", "system")
        return cls(
            theme=theme if theme in THEMES else "system",
            zone=request.cookies.get("co_zone", "UTC"),
            keys=request.cookies.get("co_keys") != "off",
        )


@cache
def environment() -> Environment:
    """Return the templates' environment; every value is escaped, an unknown name is an error."""
    made = Environment(
        loader=FileSystemLoader(Path(str(resources.files("cron_observer_api"))) / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.filters |= {
        "visible": visible,
        "plain": plain,
        "prose": prose,
        "duration": words.duration,
        "count": words.count,
    }
    made.filters |= {"size": words.size, "pretty": pretty, "reason": words.reason, "path": quote}
    made.globals |= {
        "asset": assets.url,
        "svg": svg,
        "words": words,
        "icon": icon,
        "glyph": glyph,
        "found": found,
        "anchor": anchor,
    }
    return made


@cache
def icon(name: str) -> Markup:
    """Return an icon of the sprite; decoration only, words stand beside it."""
    sprite = assets.url("vendor/lucide-1.62.0/icons.svg")
    return Markup(  # noqa: S704  our own names
        f'<svg class="i" viewBox="0 0 24 24" aria-hidden="true"><use href="{sprite}#{name}"/></svg>'
    )


@cache
def glyph(tone: str) -> Markup:
    """Return the shape of a status; its word stands beside it."""
    sprite = assets.url("glyphs.svg")
    return Markup(  # noqa: S704  our own names
        f'<svg class="g" viewBox="0 0 16 16" aria-hidden="true"><use href="{sprite}#{tone}"/></svg>'
    )


def pretty(value: Any) -> str:
    """Write a JSON value over several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def link(path: str, **values: Any) -> str:
    """Return a path with a query string; None and empty values are left out."""
    kept = {name: value for name, value in values.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(kept)}" if kept else path


def base_url(request: Request[Any, Any, Any]) -> str:
    """Return the address under which people reach this server, without a slash at its end."""
    return str(request.app.state.settings.base_url or request.base_url).rstrip("/")


def page(request: Request[Any, Any, Any], template: str, status_code: int = 200, **values: Any) -> Response[bytes]:
    """Render a template as a page, or as 304 when the reader has the same one already."""
    body = environment().get_template(template).render(**values).encode("utf-8", "replace")
    tag = f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "ETag": tag}
    if status_code == 200 and request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers, media_type="text/html")
    return Response(body, status_code=status_code, headers=headers, media_type="text/html")
