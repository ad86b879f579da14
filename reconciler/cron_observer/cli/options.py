"""Options that several commands share, and how settings are found for a command."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cron_observer import settings as settings_module
from cron_observer.errors import DatabaseError
from cron_observer.settings import Settings

#: Where a running `up` says how its database is reached, for the other commands on the machine.
RUNTIME: Final = "up.toml"


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Return the settings of a command: flags that were given, the environment, the file."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return settings_module.load(given, os.environ, config)


def database_url(settings: Settings) -> str:
    """Return the administrator's URL of the database: the one that is set, else that of a running `up`.

    Raises `DatabaseError` when there is neither.
    """
    if settings.database_url:
        return settings.database_url
    runtime = settings.data_dir / RUNTIME
    if runtime.exists():
        running = settings_module.load({}, {}, runtime).database_url
        if running:
            return running
    raise DatabaseError(
        f"no database is set, and nothing runs in {settings.data_dir}",
        hint="set CRON_OBSERVER_DATABASE_URL, or run ./start first",
    )
