"""Long lists as parameters: written as PostgreSQL reads arrays, in one go. Pure.

The driver looks at each element of a list by itself. With a hundred thousand of them that takes longer than the
server needs to write the rows. The statement says the type: ``%(uids)s::uuid[]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import cast
from uuid import UUID


def uuids(values: Iterable[UUID]) -> str:
    """Return ids as text of a ``uuid[]``."""
    return plain([f"{value.int:032x}" for value in values])


def times(values: Iterable[datetime | None]) -> str:
    """Return aware instants as text of a ``timestamptz[]``."""
    found: list[str] = []
    known: dict[int, str] = {}
    held = list(values)  # so that an object's id is its own for as long as this takes
    for value in held:
        text = known.get(id(value))
        if text is None:
            text = known[id(value)] = "NULL" if value is None else value.isoformat()
        found.append(text)
    return plain(found)


def numbers(values: Iterable[float | None]) -> str:
    """Return numbers as text of an array of their type."""
    return plain(["NULL" if value is None else str(value) for value in values])


def texts(values: Iterable[str | None]) -> str:
    """Return any texts as text of a ``text[]``."""
    held = list(values)
    if held and None not in held:
        # all at once: NUL is the one character that no text of the database has
        joined = "\0".join(cast("list[str]", held))
        if joined.count("\0") == len(held) - 1:
            return "{" + _quoted(joined).replace("\0", '","') + "}"
    return plain(["NULL" if value is None else _quoted(value) for value in held])


def hashes(values: Iterable[bytes]) -> str:
    """Return bytes as text of a ``bytea[]``."""
    return plain([f'"\\\\x{value.hex()}"' for value in values])


def plain(values: Iterable[str]) -> str:
    """Return what needs no quotes, such as digits of ids, as text of an array."""
    return "{" + ",".join(values) + "}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
