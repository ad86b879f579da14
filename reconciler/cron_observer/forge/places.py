"""Where a repository lives on its forge: the address of the forge's API and the name there. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

#: user@host:path, the short form of ssh.
_SHORT: Final = re.compile(r"(?:[^@/\s]+@)?(?P<host>\[[^\]]+\]|[^:/\s]+):(?!//)(?P<path>[^\s]+)")

_SCHEMES: Final = ("http", "https", "ssh", "git", "git+ssh")

#: The end of an API's address, where it is the same on every server of the kind.
_ENDS: Final = {"gitlab": "/api/v4", "gitea": "/api/v1", "forgejo": "/api/v1"}


@dataclass(frozen=True, slots=True)
class Place:
    """A repository on its forge, as the API names it."""

    provider: str
    api: str  #: address of the API, without a slash at its end
    repository: str  #: owner/name, quoted; on GitLab the whole path with its slashes quoted

    def statuses(self, commit: str) -> str:
        """Return the address at which a status of `commit` is put."""
        collection = "projects" if self.provider == "gitlab" else "repos"
        return f"{self.api}/{collection}/{self.repository}/statuses/{quote(commit, safe='')}"


def _split(url: str) -> tuple[str, str, str] | None:
    """Return scheme, host with its port of http, and path of a repository on a server; None for one on a disk."""
    parts = urlsplit(url)
    if parts.scheme in _SCHEMES and parts.hostname:
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        try:
            port = parts.port if parts.scheme in ("http", "https") else None
        except ValueError:
            return None
        return ("http" if parts.scheme == "http" else "https"), f"{host}:{port}" if port else host, parts.path
    short = _SHORT.fullmatch(url) if not parts.scheme or "@" in url.partition(":")[0] else None
    return ("https", short["host"].lower(), short["path"]) if short else None


def repository_path(url: str) -> str | None:
    """Return the path of a repository on its server: ``acme/tasks``; None for one that is on no server."""
    found = _split(url)
    return None if found is None else found[2].strip("/").removesuffix(".git")


def place_of(provider: str, url: str, forge_url: str | None) -> Place | None:
    """Return where the repository at `url` is on its forge; None when neither address says it.

    `forge_url` is the address of the API, or of the forge where the rest is known; without it, that of `url`.
    """
    found, end = _split(url), _ENDS.get(provider, "")
    path = "" if found is None else found[2].strip("/").removesuffix(".git")
    if forge_url is not None:
        api = forge_url.rstrip("/")
        api = api if api.endswith(end) else api + end
        prefix = urlsplit(api.removesuffix(end)).path.strip("/")
        path = path.removeprefix(f"{prefix}/") if prefix else path
    elif found is None:
        return None
    elif provider == "github":
        api = "https://api.github.com" if found[1] == "github.com" else f"{found[0]}://{found[1]}/api/v3"
    else:
        *folders, _owner, _name = [*([""] * 2), *path.split("/")]
        # on GitLab every folder may be a group; on the others what is left is where the forge is mounted
        mount = "/".join(["", *(one for one in folders if one)]) if provider != "gitlab" else ""
        api = f"{found[0]}://{found[1]}{mount}{end}"
    parts = path.split("/")
    if len(parts) < 2 or not all(parts):
        return None
    name = quote(path, safe="") if provider == "gitlab" else "/".join(quote(part, safe="") for part in parts[-2:])
    return Place(provider, api, name)
