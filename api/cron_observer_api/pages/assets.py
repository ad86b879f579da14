"""The pages' files: read once, named by the hash of their content, cached for ever by that name."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

#: The path under which the files are served.
PREFIX: Final = "/static"

_FOREVER: Final = "public, max-age=31536000, immutable"

#: What no browser must guess at.
_TYPES: Final = {
    ".woff2": "font/woff2",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    "": "text/plain",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file: its bytes, the first half of their hash, and what they are."""

    content: bytes
    digest: str
    kind: str


@cache
def _load() -> dict[str, Asset]:
    """Read every file of ``static/``."""
    found: dict[str, Asset] = {}
    root = resources.files("cron_observer_api") / "static"
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        for entry in folder.iterdir():
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                waiting.append((f"{name}/", entry))
                continue
            content = entry.read_bytes()
            dot = entry.name.rfind(".")
            ending = entry.name[dot:] if dot > 0 else ""
            kind = _TYPES.get(ending) or mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
            found[name] = Asset(content, hashlib.sha256(content).hexdigest()[:16], kind)
    return found


def url(name: str) -> str:
    """Return the address of a file of ``static/``. Vendored files carry their version in their path instead."""
    asset = _load()[name]
    return f"{PREFIX}/{name}" if name.startswith("vendor/") else f"{PREFIX}/{name}?v={asset.digest}"


@get("/{name:path}", include_in_schema=False, opt={"public": True}, sync_to_thread=False)
def _asset(request: Request, name: FromPath[str]) -> Response[bytes]:  # type: ignore[type-arg]
    """Serve one file."""
    asset = _load().get(str(name).lstrip("/"))
    if asset is None:
        raise NotFoundException("there is no such file")
    tag = f'"{asset.digest}"'
    named = str(name).lstrip("/").startswith("vendor/") or request.query_params.get("v") == asset.digest
    headers = {
        "ETag": tag,
        "Cache-Control": _FOREVER if named else "no-cache",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    }
    if request.headers.get("if-none-match") == tag:
        return Response(b"", status_code=304, headers=headers, media_type=asset.kind)
    return Response(asset.content, headers=headers, media_type=asset.kind)


router: Final = Router(path=PREFIX, route_handlers=[_asset])
