"""Secrets by reference: settings say where one is, and it is read anew at every use, so that it can be changed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cron_observer.errors import SettingsError

#: Bytes of a file that are read; a longer file is no secret of ours.
LONGEST: Final = 64 * 1024


def read_secret(ref: str) -> str:
    """Return the secret that ``env:NAME`` or ``file:/path`` names, without blanks around it.

    Reads a file, so it blocks. Raises `SettingsError`, which never holds the secret, when there is none.
    """
    kind, _, place = ref.partition(":")
    try:
        raw = os.environb.get(os.fsencode(place), b"") if kind == "env" else _file(Path(place).expanduser())
        found = raw.decode("utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"the secret {ref} cannot be read: {why}", hint="mend the file, or its rights") from None
    if not found:
        raise SettingsError(f"the secret {ref} is not set, or is empty", hint="set the variable, or write the file")
    return found


def _file(path: Path) -> bytes:
    with path.open("rb") as file:
        raw = file.read(LONGEST + 1)
    if len(raw) > LONGEST:
        raise OSError(0, f"it has more than {LONGEST} bytes")
    return raw
