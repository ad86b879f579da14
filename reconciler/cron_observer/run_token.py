"""Run tokens: what a run may show instead of its project's key, good for one claim of one execution.

A token names its tenant, execution and fence, and proves them by a MAC under the tenant's signing key. Nothing is
stored of it: it is worth exactly what its fence is worth, and dies with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
from dataclasses import dataclass
from typing import Final
from uuid import UUID

#: What every run token begins with.
PREFIX: Final = "crt_"

#: Bytes of a signing key.
KEY_BYTES: Final = 32

#: What is signed begins with this, so that the same key can never be made to sign anything else.
_PURPOSE: Final = b"cron-observer run token 1\0"

#: Tenant, execution and fence; the MAC comes behind. 72 bytes together: base64url needs no padding.
_CLAIM: Final = struct.Struct(">16s16sQ")

_TOKEN: Final = re.compile(r"crt_[A-Za-z0-9_-]{96}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a token says; only `is_genuine` says whether it is true."""

    tenant_id: UUID
    execution_id: UUID
    fence: int
    mac: bytes


def _mac(key: bytes, claim: bytes) -> bytes:
    return hmac.new(key, _PURPOSE + claim, hashlib.sha256).digest()


def mint(key: bytes, tenant_id: UUID, execution_id: UUID, fence: int) -> str:
    """Return the token of one claim of an execution, signed with the key of its tenant."""
    claim = _CLAIM.pack(tenant_id.bytes, execution_id.bytes, fence)
    return PREFIX + base64.urlsafe_b64encode(claim + _mac(key, claim)).decode()


def read_token(text: str) -> Claimed | None:
    """Return what a text says that has the form of a token, None for any other."""
    if _TOKEN.fullmatch(text) is None:
        return None
    raw = base64.urlsafe_b64decode(text.removeprefix(PREFIX))
    tenant, execution, fence = _CLAIM.unpack(raw[: _CLAIM.size])
    return Claimed(
        tenant_id=UUID(bytes=tenant), execution_id=UUID(bytes=execution), fence=fence, mac=raw[_CLAIM.size :]
    )


def is_genuine(claimed: Claimed, key: bytes) -> bool:
    """Say whether `claimed` was signed with `key`; takes as long whatever the answer is."""
    claim = _CLAIM.pack(claimed.tenant_id.bytes, claimed.execution_id.bytes, claimed.fence)
    return hmac.compare_digest(claimed.mac, _mac(key, claim))
