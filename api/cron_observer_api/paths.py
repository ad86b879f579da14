"""Ids and names inside paths, read strictly: what is none of ours is not there."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from cron_observer.errors import NotFound
from cron_observer.model import TASK_NAME

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEY_ID: Final = re.compile(r"[a-z0-9]{8}")


def uuid(text: str, what: str) -> UUID:
    """Return the UUID that a path names. Raises `NotFound` for anything but the canonical form."""
    if _UUID.fullmatch(text.lower()) is None or not text.isascii():
        raise NotFound(f"there is no such {what}", hint="ids are UUIDs, as lists show them")
    return UUID(text)


def task_name(text: str) -> str:
    """Return the name of a task. Raises `NotFound` for what can be none."""
    if TASK_NAME.fullmatch(text) is None:
        raise NotFound("there is no such task", hint="names have a-z, 0-9, '-' and '.'")
    return text


def key_id(text: str) -> str:
    """Return the id of a key. Raises `NotFound` for what can be none."""
    if _KEY_ID.fullmatch(text) is None:
        raise NotFound("there is no such key", hint="GET /api/v1/keys lists them")
    return text
