"""Signatures of requests, as Standard Webhooks are signed. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from cron_observer.errors import SettingsError

#: What a signing secret begins with.
PREFIX: Final = "whsec_"

#: Bytes of a key.
_SHORTEST: Final = 24
_LONGEST: Final = 64

#: Secrets that sign one request: the old and the new one, and one to spare.
_MOST: Final = 3


def keys_of(secret: str, name: str) -> list[bytes]:
    """Read the keys of a signing secret: one, or several between blanks while it is changed.

    Raises `SettingsError`, which never holds the secret.
    """
    parts = secret.split()
    keys = []
    for part in parts:
        try:
            keys.append(base64.b64decode(part.removeprefix(PREFIX), validate=True))
        except binascii.Error:
            keys.append(b"")
    sound = all(part.startswith(PREFIX) for part in parts) and all(_SHORTEST <= len(key) <= _LONGEST for key in keys)
    if not parts or not sound or len(parts) > _MOST:
        raise SettingsError(
            f"the secret {name} cannot sign: it is not {PREFIX} and the base64 of {_SHORTEST} to {_LONGEST} bytes",
            hint=f"make one with: echo {PREFIX}$(head -c 32 /dev/urandom | base64)",
        )
    return keys


def sign(keys: Sequence[bytes], identity: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``: a signature by each key, of id, timestamp and body."""
    signed = b".".join((identity.encode(), str(timestamp).encode(), body))
    made = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return " ".join(f"v1,{one}" for one in made)
