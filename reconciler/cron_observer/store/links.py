"""Where a line of a manifest can be seen on its forge, and repository addresses that may be shown. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

#: user@host:path, the short form of ssh.
_SCP: Final = re.compile(r"(?:[^@/\s]+@)?([^:/\s]+):(?!//)([^\s]+)")

#: How each kind of forge writes the address of a line.
_SHAPES: Final = {
    "github": "{base}/blob/{commit}/{path}#L{line}",
    "gitlab": "{base}/-/blob/{commit}/{path}#L{line}",
    "gitea": "{base}/src/commit/{commit}/{path}#L{line}",
    "bitbucket": "{base}/src/{commit}/{path}#lines-{line}",
}

#: Words in a host name that give the forge away.
_FORGES: Final = {
    "github": "github",
    "gitlab": "gitlab",
    "gitea": "gitea",
    "forgejo": "gitea",
    "codeberg": "gitea",
    "bitbucket": "bitbucket",
}


def _address(url: str) -> tuple[str, str] | None:
    """Return host (with a port of http) and path of a repository on a server, or None for anything else."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ssh", "git+ssh", "git") and parts.hostname:
        try:
            port = parts.port if parts.scheme in ("http", "https") else None
        except ValueError:
            return None
        return (f"{parts.hostname}:{port}" if port else parts.hostname), parts.path
    short = _SCP.fullmatch(url)
    return (short[1].lower(), short[2]) if short and not parts.scheme else None


def public_url(url: str) -> str:
    """Return the address of a repository without credentials, query and fragment."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https", "ssh", "git+ssh", "git"):
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    return url


def line_link(url: str | None, commit: str | None, path: str | None, line: int | None) -> str | None:
    """Return the address of a line at a commit on GitHub, GitLab, Gitea, Forgejo or Bitbucket; else None."""
    if not (url and commit and path):
        return None
    address = _address(url)
    if address is None:
        return None
    host, repository = address
    forge = next((_FORGES[word] for word in re.split(r"[.:]", host) if word in _FORGES), None)
    if forge is None:
        return None
    scheme = "http" if urlsplit(url).scheme == "http" else "https"
    base = f"{scheme}://{host}/{quote(repository.strip('/').removesuffix('.git'))}"
    return _SHAPES[forge].format(base=base, commit=quote(commit), path=quote(path), line=line or 1)
