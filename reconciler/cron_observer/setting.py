"""How the value of a setting is read, whether it comes from a flag, a variable or a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, get_origin, get_type_hints


class WrongValueError(ValueError):
    """A value does not fit; the message says what fits."""


def a_text(value: Any) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise WrongValueError("must be a text that is not empty")
    return value.strip()


def a_whole(low: int, high: int) -> Callable[[Any], int]:
    """Return a reader of whole numbers from `low` to `high`."""

    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise WrongValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def a_number(low: float, high: float) -> Callable[[Any], float]:
    """Return a reader of numbers from `low` to `high`."""

    def read(value: Any) -> float:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise WrongValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def a_choice(*words: str) -> Callable[[Any], str]:
    """Return a reader of one of these words."""

    def read(value: Any) -> str:
        if value not in words:
            raise WrongValueError(f"must be one of {', '.join(words)}")
        return str(value)

    return read


def several(value: Any) -> tuple[str, ...]:
    """Read a list of texts, or texts separated by commas."""
    if isinstance(value, str):
        value = [part for part in (part.strip() for part in value.split(",")) if part]
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) and part for part in value):
        raise WrongValueError("must be a list of texts")
    return tuple(value)


def a_path(value: Any) -> Path:
    """Read the path of a file or folder; ``~`` is the home folder."""
    if isinstance(value, Path):
        return value
    return Path(a_text(value)).expanduser()


def a_name(value: Any) -> str:
    """Read a name of a-z, 0-9 and dashes."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise WrongValueError("must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends")
    return value


def a_database(value: Any) -> str:
    """Read the URL of a PostgreSQL database."""
    match = re.fullmatch(r"postgres(?:ql)?(?:\+psycopg)?://(\S+)", a_text(value))
    if match is None:
        raise WrongValueError("must be a URL such as postgresql://user@host/database")
    return f"postgresql+psycopg://{match[1]}"


def a_url(value: Any) -> str:
    """Read a URL of http or https, without a query."""
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", a_text(value)):
        raise WrongValueError("must be a URL such as https://cron.example.org")
    return a_text(value).rstrip("/")


#: Where a secret is: in an environment variable or in a file.
_SECRET: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")


def a_switch(value: Any) -> bool:
    """Read true or false."""
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise WrongValueError("must be true or false")
    return value


def a_secret(value: Any) -> str:
    """Read where a secret is (``env:NAME`` or ``file:/path``); the secret itself is refused."""
    if not isinstance(value, str) or not _SECRET.fullmatch(value.strip()):
        raise WrongValueError("must say where the secret is: env:NAME or file:/path")
    return value.strip()


def secrets(value: Any) -> tuple[str, ...]:
    """Read where one or several secrets are."""
    return tuple(a_secret(one) for one in several(value))


def networks(value: Any) -> tuple[str, ...]:
    """Read networks such as 10.20.0.0/16."""
    try:
        return tuple(str(ip_network(one.strip())) for one in several(value))
    except ValueError as error:
        raise WrongValueError("must be networks such as 10.20.0.0/16, without bits behind the mask") from error


def ports(value: Any) -> tuple[int, ...]:
    """Read numbers of TCP ports."""
    listed = [value] if isinstance(value, int) else [*value] if isinstance(value, list | tuple) else several(value)
    try:
        return tuple(dict.fromkeys(a_whole(1, 65_535)(one) for one in listed))
    except WrongValueError as error:
        raise WrongValueError("must be whole numbers from 1 to 65535") from error


class Setting(NamedTuple):
    """How a setting is read, and what it means."""

    read: Callable[[Any], Any]
    doc: str  #: unit, default and reason; docs/reference/settings.md repeats it


def declared(kind: type) -> dict[str, Setting]:
    """Return the settings that a class of settings declares, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: Setting(*hint.__metadata__) for name, hint in hints.items() if get_origin(hint) is Annotated}
