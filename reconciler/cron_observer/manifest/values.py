"""Walk through values, and hold values that came as JSON to the limits of YAML. Pure and iterative."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cron_observer.manifest import rules
from cron_observer.manifest.scalars import (
    MAX_DEPTH,
    MAX_NODES,
    Refusal,
    check_key,
    check_text,
    concealed,
    integer,
    number,
)

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule at a place of a value: `path` leads to it, `on_key` means the key and not the value.

    `within` is the path that the message begins with; None where it is `path`.
    """

    rule: rules.Rule
    path: Path
    message: str
    hint: str | None = None
    on_key: bool = False
    within: Path | None = None

    def sentence(self, skip: int = 0) -> str:
        """Return the message with the field before it; `skip` leaves out the first parts of the path."""
        field = dotted((self.path if self.within is None else self.within)[skip:])
        return concealed(f"{field}: {self.message}" if field else self.message)


def discreet(faults: Iterable[Fault]) -> list[Fault]:
    """Return faults in their order; of a value that is refused as a secret nothing else is said, it could be quoted."""
    found = list(faults)
    secret = {fault.path for fault in found if fault.rule is rules.SECRET}
    return [fault for fault in found if fault.rule is rules.SECRET or fault.path not in secret] if secret else found


def dotted(path: Path) -> str:
    """Write a path as people do: ``spec.schedule.cron[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value in `value` with its path, itself first, in order."""
    waiting: list[tuple[Path, Any]] = [(path, value)]
    while waiting:
        at, current = waiting.pop()
        yield at, current
        if isinstance(current, dict):
            waiting.extend(((*at, key), inner) for key, inner in reversed(current.items()))
        elif isinstance(current, list):
            waiting.extend(((*at, index), inner) for index, inner in reversed(list(enumerate(current))))


def limits(value: Any) -> list[Fault]:
    """Return where a JSON value breaks the limits that the YAML loader keeps by itself."""
    faults: list[Fault] = []
    for count, (path, current) in enumerate(walk(value), 1):
        if count > MAX_NODES:
            faults.append(Fault(rules.TOO_MANY_NODES, (), f"there are more than {MAX_NODES} values"))
            break
        if len(path) >= MAX_DEPTH and isinstance(current, dict | list):
            message = f"mappings and lists are nested more than {MAX_DEPTH} deep"
            faults.append(Fault(rules.TOO_DEEP, path, message))
            break
        try:
            _check(path, current)
        except Refusal as refusal:
            faults.append(Fault(refusal.rule, _safe(path), refusal.message, refusal.hint))
    return faults


def _safe(path: Path) -> Path:
    return tuple(part if isinstance(part, int) else part[:256].encode(errors="replace").decode() for part in path)


def _check(path: Path, value: Any) -> None:
    if path and isinstance(path[-1], str):
        check_key(path[-1])
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int):
        integer(value)
    elif isinstance(value, float):
        number(value)
