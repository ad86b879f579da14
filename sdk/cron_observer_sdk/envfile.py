"""Files of variables: ``NAME=value`` a line, as `docker --env-file` and systemd's `EnvironmentFile=` have them."""

from __future__ import annotations

import re
from pathlib import Path

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def read_env_file(name: str) -> dict[str, str]:
    """Return the variables of a file. Raise `OSError`, or `ValueError` that names the line and not what it says.

    Empty lines and those that begin with ``#`` are left out. A value may stand between quotation marks, which are
    taken off; nothing is expanded.
    """
    try:
        text = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8") from None
    found: dict[str, str] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or "\x00" in line:
            raise ValueError(f"{name}:{number} is no NAME=value")
        value = match.group(2).strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[match.group(1)] = value
    return found
