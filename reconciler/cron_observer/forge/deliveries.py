"""Deliveries of webhooks: whether a forge signed one, which event it is, and which ref of which repository. Pure.

Which forge it is says the address that the delivery came to, never the delivery.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from cron_observer.forge.places import repository_path

#: The header fields with the signature, in order: the first that is there decides, and none after it.
_SIGNATURES: Final = {
    "github": (b"x-hub-signature-256",),
    "gitlab": (b"x-gitlab-token",),
    "gitea": (b"x-gitea-signature", b"x-hub-signature-256"),
    "forgejo": (b"x-forgejo-signature", b"x-gitea-signature", b"x-hub-signature-256"),
}

#: Where the name of the event and the id of the delivery stand. GitLab's other ids are those of the hook or event.
_EVENTS: Final = {
    "github": (b"x-github-event", b"x-github-delivery"),
    "gitlab": (b"x-gitlab-event", b"idempotency-key"),
    "gitea": (b"x-gitea-event", b"x-gitea-delivery"),
    "forgejo": (b"x-forgejo-event", b"x-forgejo-delivery"),
}

#: Events that tell of a moved ref.
_PUSHES: Final = {"push", "Push Hook", "Tag Push Hook"}

_DELIVERY: Final = re.compile(r"[!-~]{1,200}")
_NO_COMMIT: Final = re.compile(r"0+")

Headers = Sequence[tuple[bytes, bytes]]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the header fields of a delivery say; nothing of it may be believed before `verify` said yes."""

    id: str | None  #: the same for a repeat; None when the forge sends none that we could keep
    push: bool  #: a ref was moved; everything else concerns us not


@dataclass(frozen=True, slots=True)
class Push:
    """What a push tells. Other members of its payload are not looked at, least of all addresses."""

    repository: str  #: owner/name, on GitLab with all its groups
    ref: str
    after: str  #: the commit that `ref` stands at; zeros when it was deleted


class _Repository(msgspec.Struct):
    full_name: str


class _Project(msgspec.Struct):
    path_with_namespace: str


class _Payload(msgspec.Struct, kw_only=True):
    ref: str
    after: str
    commits: list[Any] = []


class _GitHubPayload(_Payload, kw_only=True):
    repository: _Repository


class _GitLabPayload(_Payload, kw_only=True):
    project: _Project


def delivery_of(provider: str, headers: Headers) -> Delivery:
    """Return what the header fields of a delivery say."""
    event, identity = _EVENTS[provider]
    events, ids = _values(headers, event), _values(headers, identity)
    told = ids[0].decode("latin-1") if len(ids) == 1 else ""
    return Delivery(
        id=told if _DELIVERY.fullmatch(told) else None,
        push=len(events) == 1 and events[0].decode("latin-1") in _PUSHES,
    )


def verify(provider: str, headers: Headers, raw: bytes, secrets: Iterable[str]) -> bool:
    """Tell whether a delivery was signed with one of `secrets`. `raw` is the body as it came, byte for byte."""
    for field in _SIGNATURES[provider]:
        given = _values(headers, field)
        if given:
            return len(given) == 1 and _matches(provider, field, given[0], raw, secrets)
    return False


def _matches(provider: str, field: bytes, given: bytes, raw: bytes, secrets: Iterable[str]) -> bool:
    prefix = b"sha256=" if field == b"x-hub-signature-256" else b""
    found = False
    for secret in secrets:
        wanted = secret.encode()
        if provider != "gitlab":
            wanted = prefix + hmac.new(wanted, raw, hashlib.sha256).hexdigest().encode()
        # bytes: texts beyond ASCII cannot be compared; every secret is tried, so that the time tells nothing
        found = hmac.compare_digest(wanted, given) or found
    return found


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value.strip() for field, value in headers if field.lower() == name]


class Decode(Protocol):
    """Reads JSON strictly into a type, and refuses what does not fit."""

    def __call__(self, raw: bytes, shape: type[T], /) -> T:
        """Return `raw` as `shape`."""


def read_push(provider: str, raw: bytes, decode: Decode) -> Push:
    """Return the push that the JSON `raw` tells of. Raises what `decode` raises."""
    if provider == "gitlab":
        told = decode(raw, _GitLabPayload)
        return Push(told.project.path_with_namespace, told.ref, told.after)
    known = decode(raw, _GitHubPayload)
    return Push(known.repository.full_name, known.ref, known.after)


def concerns(push: Push, url: str, ref: str | None) -> bool:
    """Tell whether `push` moved `ref` of the repository at `url`; None stands for a ref that is not known yet.

    A ref that was deleted concerns nobody: what was applied stays. An address without owner and name, such as that of
    a mirror on this machine, says nothing about the forge's, so that the signature is enough.
    """
    if _NO_COMMIT.fullmatch(push.after):
        return False
    if ref is None:
        moved = push.ref.startswith("refs/heads/")
    else:
        moved = push.ref in (ref, f"refs/heads/{ref}", f"refs/tags/{ref}")
    path, name = repository_path(url) or "", push.repository
    return moved and ("/" not in path or ("/" in name and f"/{path}".lower().endswith(f"/{name}".lower())))
