"""What all shapes are made of."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

#: RFC 3339, UTC, milliseconds, ``Z``.
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Seconds = float

#: A time that a client gives: RFC 3339 with its offset.
GivenInstant = Annotated[datetime, Meta(tz=True)]

Line = Annotated[str, Meta(min_length=1, max_length=200)]
Prose = Annotated[str, Meta(max_length=2000)]
Words = Annotated[str, Meta(max_length=400)]
TaskReference = Annotated[str, Meta(max_length=300, description="A uid, project/name, or a name.")]
Zone = Annotated[str, Meta(max_length=64, description="An IANA time zone.")]
Limit = Annotated[int, Meta(ge=1, le=200)]

Status = Literal["PENDING", "RUNNING", "FINISHED", "FAILED", "CANCELLED", "SKIPPED", "MISSED"]
Trigger = Literal["schedule", "catchup", "manual", "api", "backfill", "checkin"]
Level = Literal["DEBUG", "INFO", "WARN", "ERROR"]
Scope = Literal["read", "report", "trigger", "tasks:write", "admin"]


class In(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What comes in: an unknown field is refused."""


class Out(msgspec.Struct, kw_only=True):
    """What goes out."""


class PageQuery(In):
    """Which page of a list."""

    limit: Limit = 50
    cursor: str | None = None


Sequence = Annotated[int, Meta(ge=0, le=2_147_483_647)]
Fence = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

#: What `PATCH` takes: a merge patch, also under its own name.
PATCH_TYPES: Final = ("application/json", "application/merge-patch+json")
