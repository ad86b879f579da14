"""JSON on its way into the database."""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode


def to_json(value: Any) -> str | None:
    """Return `value` as JSON text, and None for None, which leaves a column as it is."""
    return None if value is None else _encode(value).decode()
