"""Write values as YAML that any reader takes for what it is: ambiguous texts are quoted. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cron_observer.manifest.scalars import Refusal, resolve

#: Longer flow collections are written as blocks where there is a choice.
SHORT: Final = 60

_OTHER_READERS: Final = re.compile(  # YAML 1.1 takes these for booleans, numbers, dates or merge keys
    r"(?i:y|n|yes|no|on|off|true|false|null|~|=|<<)\Z|[-+.]?[0-9][0-9_:.,\-]*\Z|0[xo][0-9a-fA-F_]+\Z|[0-9]{4}-.*\Z"
)
_PLAIN: Final = re.compile(r"[^\W]([\w ./+@%=~;$^()-]|:(?=[\w/])|,(?=[\w ]))*\Z|/[\w./+@%=~-]*\Z")
_ESCAPE: Final = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


def _is_plain(text: str, *, flow: bool, key: bool) -> bool:
    if not _PLAIN.match(text) or text.endswith((" ", ":")) or _OTHER_READERS.match(text):
        return False
    if not all(character.isprintable() for character in text):
        return False
    if (flow or key) and ("," in text or ":" in text):
        return False
    try:
        return isinstance(resolve(text), str)
    except Refusal:
        return False


def double_quoted(text: str) -> str:
    """Write a text in double quotes."""
    return _ESCAPE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def single_quoted(text: str) -> str | None:
    """Write a text in single quotes; None when it has characters that need escapes."""
    if not text.isprintable() or _ESCAPE.search(text):
        return None
    return "'" + text.replace("'", "''") + "'"


def scalar(value: Any, *, flow: bool = False, key: bool = False, style: str = "") -> str:
    """Write a text, number, boolean or null on one line, texts in the quotes of `style` if they can be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    if style == "'" and (quoted := single_quoted(value)) is not None:
        return quoted
    if style == '"' or not _is_plain(value, flow=flow, key=key):
        return double_quoted(value)
    return value


def flow(value: Any, style: str = "") -> str:
    """Write any value on one line."""
    if isinstance(value, Mapping):
        inner = (f"{scalar(k, flow=True, key=True, style=style)}: {flow(v, style)}" for k, v in value.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item, style) for item in value) + "]"
    return scalar(value, flow=True, style=style)


def is_literal(text: str) -> bool:
    """Tell whether a text can be written as a literal block (``|``)."""
    body = text.removesuffix("\n")
    lines = body.split("\n")
    return (
        len(lines) > 1
        and bool(lines[0])
        and bool(lines[-1])
        and not lines[0][0].isspace()
        and all(not line or line.strip(" \t") for line in lines)
        and all(c.isprintable() or c in "\n\t" for c in body)
        and not _ESCAPE.search(body)
    )


def literal(text: str, indent: int) -> list[str]:
    """Write a text for which `is_literal` holds: the indicator, then its lines."""
    kept = text.endswith("\n")
    lines = (text[:-1] if kept else text).split("\n")
    return ["|" if kept else "|-", *(" " * indent + line if line else "" for line in lines)]


def block(value: Any, indent: int, step: int = 2) -> list[str]:
    """Write a mapping or list that is not empty as indented lines."""
    if isinstance(value, Mapping):
        lines: list[str] = []
        for key, inner in value.items():
            lines += entry(key, inner, indent, step)
        return lines
    return [line for item in value for line in listed(item, indent, step)]


def entry(key: str, value: Any, indent: int, step: int = 2) -> list[str]:
    """Write one entry of a block mapping."""
    start = " " * indent + scalar(key, key=True) + ":"
    if isinstance(value, Mapping | list) and value:
        return [start, *block(value, indent + step, step)]
    if isinstance(value, str) and is_literal(value):
        first, *rest = literal(value, indent + step)
        return [f"{start} {first}", *rest]
    return [f"{start} {flow(value) if isinstance(value, Mapping | list) else scalar(value)}"]


def listed(value: Any, indent: int, step: int = 2) -> list[str]:
    """Write one item of a block list."""
    if isinstance(value, Mapping | list) and value:
        first, *rest = block(value, indent + 2, step)
        return [" " * indent + "- " + first.lstrip(" "), *rest]
    if isinstance(value, str) and is_literal(value):
        first, *rest = literal(value, indent + step)
        return [f"{' ' * indent}- {first}", *rest]
    return [f"{' ' * indent}- {flow(value) if isinstance(value, Mapping | list) else scalar(value)}"]


def leaves(value: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of everything in nested mappings, the deepest first."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, (*at, key))
    if at:
        yield at
