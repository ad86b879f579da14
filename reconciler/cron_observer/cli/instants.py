"""Times as commands take them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import rich_click as click

from cron_observer.model import parse_duration


class Instant(click.ParamType[str]):
    """A time with an offset, as text for the API; with `ahead` also a duration from now."""

    name = "time"

    def __init__(self, *, ahead: bool = False) -> None:
        self._ahead = ahead

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the instant in UTC, or refuse the option."""
        found = _ahead(value) if self._ahead else None
        if found is None:
            found = _with_offset(value)
        if found is None:
            also = ", or a duration such as 6h" if self._ahead else ""
            self.fail(f"{value!r} is no time with an offset such as 2026-12-24T18:00:00+01:00{also}", param, ctx)
        return found.isoformat()


def _ahead(text: str) -> datetime | None:
    try:
        return datetime.now(UTC) + parse_duration(text)
    except (ValueError, OverflowError):
        return None


def _with_offset(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return None if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
