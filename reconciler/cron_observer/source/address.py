"""Repository addresses: which are allowed, and where the credentials in them go. Pure but for looking at folders."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from cron_observer.errors import SourceError

_ALLOWED: Final = "use https://, ssh://, user@host:path, file:/// or a path"

#: Without transport security only to this machine: what is fetched decides what runs.
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

#: user@host:path, the short form of ssh.
_SCP: Final = re.compile(r"(?:([A-Za-z0-9._~][A-Za-z0-9._~-]*)@)?([A-Za-z0-9][A-Za-z0-9.-]*):(?!//)([^:\s-][^\s]*)")

_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:.]+")

#: What `git check-ref-format` refuses, and a dash in front.
_BAD_IN_REF: Final = re.compile(r"^-|^/|/$|//|\.\.|@\{|^@$|\.$|(^|/)\.|\.lock(/|$)|[\x00-\x20\x7f~^:?*\[\\]")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """An allowed address, taken apart. `url` is what Git is told: credentials are not in it."""

    url: str
    protocol: str  #: file, https, http or ssh
    path: Path | None = None  #: of a local repository or folder
    host: str | None = None  #: scheme, host and port that credentials belong to
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def local(self) -> bool:
        """Tell whether it is on this machine, so that it can be watched."""
        return self.path is not None


def _refuse(message: str, hint: str = _ALLOWED) -> SourceError:
    return SourceError(message, reason="AddressRefused", permanent=True, hint=hint)


def read_address(url: str) -> Address:
    """Take an address apart. Raises `SourceError` (``AddressRefused``) for a form that we do not use."""
    if not url or url.startswith("-") or re.search(r"[\x00-\x1f\x7f]", url):
        raise _refuse("the address of the source is empty or holds characters that no address has")
    if "::" in url.split("/", 1)[0]:
        raise _refuse("addresses of Git's remote helpers (word::…) are not used")
    if "://" in url:
        return _read_url(url)
    if ":" in url.split("/", 1)[0]:  # as Git reads it: a colon before any slash means another host
        if _SCP.fullmatch(url) is None:
            raise _refuse("the address of the source is no host and path", "write ./ before a path with a colon")
        return Address(url=url, protocol="ssh")
    return _local(Path(url).expanduser())


def _local(path: Path) -> Address:
    absolute = path.absolute()
    return Address(url=str(absolute), protocol="file", path=absolute)


def _read_url(url: str) -> Address:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _refuse("the address of the source is not a URL") from None
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise _refuse("a file:// address names a path on this machine: file:///srv/tasks.git")
        return _local(Path(unquote(parts.path) or "/"))
    if parts.scheme not in ("https", "http", "ssh"):
        raise _refuse(f"addresses with {parts.scheme[:20]}:// are not used")
    if not host or not _HOST.fullmatch(host) or parts.fragment:
        raise _refuse("the address of the source names no host")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise _refuse("http:// is used for this machine only: others could change what is read", "use https://")
    where = f"[{host}]" if ":" in host else host
    where = where if port is None else f"{where}:{port}"
    if parts.scheme == "ssh":
        user = parts.username or ""
        if user.startswith("-") or parts.query:
            raise _refuse("the address of the source is not a URL of ssh")
        return Address(url=f"ssh://{user + '@' if user else ''}{where}{parts.path}", protocol="ssh")
    query = f"?{parts.query}" if parts.query else ""
    return Address(
        url=f"{parts.scheme}://{where}{parts.path}{query}",
        protocol=parts.scheme,
        host=f"{parts.scheme}://{where}",
        username=None if parts.username is None else unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
    )


def git_dir(path: Path) -> Path | None:
    """Return the Git folder of a checked-out or bare repository at `path`, or None if it is no repository."""
    inner = path / ".git"
    try:
        if inner.is_file():
            named = inner.read_text(encoding="utf-8", errors="replace").removeprefix("gitdir:").strip()
            inner = path / named
        for folder in (inner, path):
            if (folder / "HEAD").exists() and ((folder / "objects").is_dir() or (folder / "commondir").is_file()):
                return folder
    except OSError:
        return None
    return None


def common_dir(folder: Path) -> Path:
    """Return where the refs of a Git folder are: itself, but for a linked work tree."""
    try:
        return folder / (folder / "commondir").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return folder


def is_commit(ref: str) -> bool:
    """Tell whether `ref` is a whole commit id."""
    return _COMMIT.fullmatch(ref) is not None


def qualified(ref: str) -> tuple[str, ...]:
    """Return the full names that `ref` may mean, the preferred first.

    Raises `SourceError` (``RefRefused``) for what can be no name of a ref.
    """
    if not ref or len(ref) > 250 or _BAD_IN_REF.search(ref):
        raise SourceError(
            "the ref of the source is not a name that Git allows",
            reason="RefRefused",
            permanent=True,
            hint="give a branch such as main, a tag, refs/…, or a whole commit id",
        )
    if ref.startswith("refs/"):
        return (ref,)
    return (f"refs/heads/{ref}", f"refs/tags/{ref}")
