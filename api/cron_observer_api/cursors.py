"""Cursors: where a page ended, opaque and signed, good for the same list of the same tenant only."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request

from cron_observer.errors import BadCursor, SettingsError
from cron_observer_api.auth import principal_of

T = TypeVar("T")

#: Name of the file in the data folder that holds the key which cursors are signed with.
KEY_FILE: Final = "cursor.key"

#: Bytes of a signature; forging one is guessing 128 bits.
_MAC: Final = 16

#: Characters of a cursor that are looked at; ours are shorter.
_LONGEST: Final = 1000

#: Parameters that may differ between the pages of one list.
_FREE: Final = ("cursor", "limit")


def load_key(folder: Path) -> bytes:
    """Return the signing key kept in `folder`; make it when there is none. Raises `SettingsError`."""
    place = folder / KEY_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            _make_key(place)
        key = place.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{place} cannot be read or made: {error.strerror}", hint="give a `data_dir` that may be written"
        ) from error
    if len(key) != 32:
        raise SettingsError(f"{place} is not 32 bytes long", hint="remove it; lists then begin anew")
    return key


def _make_key(place: Path) -> None:
    """Write a key of chance, whole or not at all: several processes may start at once."""
    draft = place.with_name(f"{KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, place)
    finally:
        draft.unlink()


class Cursors:
    """Makes and reads cursors."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, request: Request[Any, Any, Any], position: Any) -> str | None:
        """Return the cursor behind which the next page begins; None when there is no next page."""
        if position is None:
            return None
        payload = msgspec.json.encode(position)
        return base64.urlsafe_b64encode(self._sign(request, payload) + payload).rstrip(b"=").decode()

    def read(self, request: Request[Any, Any, Any], cursor: str | None, shape: type[T]) -> T | None:
        """Return the position inside `cursor`, None without one. Raises `BadCursor` for any that is not ours."""
        if cursor is None:
            return None
        hint = "begin the list anew, without a cursor"
        padded = cursor[:_LONGEST] + "=" * (-len(cursor[:_LONGEST]) % 4)
        try:
            raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        except (ValueError, binascii.Error) as error:
            raise BadCursor("the cursor cannot be read", hint=hint) from error
        signature, payload = raw[:_MAC], raw[_MAC:]
        if not hmac.compare_digest(signature, self._sign(request, payload)):
            raise BadCursor("the cursor does not belong to this list", hint=hint)
        return msgspec.json.decode(payload, type=shape)

    def derive(self, *parts: bytes) -> bytes:
        """Return 32 bytes that only the holder of the key can make of `parts`."""
        return hmac.digest(self._key, b"derive" + b"".join(hashlib.sha256(part).digest() for part in parts), "sha256")

    def _sign(self, request: Request[Any, Any, Any], payload: bytes) -> bytes:
        query = sorted(
            pair
            for pair in parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True)
            if pair[0] not in _FREE
        )
        bound = [
            str(principal_of(request).tenant_id),
            request.route_handler.operation_id,
            sorted((name, str(value)) for name, value in request.path_params.items()),
            query,
        ]
        return hmac.digest(self._key, msgspec.json.encode(bound) + b"\0" + payload, "sha256")[:_MAC]
