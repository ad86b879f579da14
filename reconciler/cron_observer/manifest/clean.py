"""Read YAML in which everything is in order, without the place of every value: a few times faster than `loader`. Pure.

It refuses nothing and words nothing. It builds what `loader.load` would build, and gives up as soon as anything is out
of the ordinary.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cron_observer.manifest.loader import (
    ALIAS,
    ENDS,
    MAPPING,
    MAX_DOCUMENTS,
    SCALAR,
    SEQUENCE,
    chunks,
    decode,
    events,
)
from cron_observer.manifest.scalars import (
    CONSTANTS,
    MAX_DEPTH,
    MAX_KEY_CHARACTERS,
    NUMERIC_START,
    check_text,
    has_bidi,
    resolve,
)

#: Bytes that no rule about characters is about.
_ORDINARY: Final = b"\t\n" + bytes(range(0x20, 0x7F))
#: Characters of a document that is too short to break the limits of texts (four bytes each) and of nodes (one each).
_SHORT: Final = 16_000
_CONTENT: Final = re.compile(r"^[ \t]*[^#\s]", re.MULTILINE)
#: Without these a document has no anchor and no tag, and no text with characters that the file does not hold.
_SIGNS: Final = ("&", "!", "\\")


class Clean(NamedTuple):
    """A document that the loader finds nothing wrong with."""

    value: dict[str, Any]
    line: int  #: of ``metadata.name``; of the document where there is none


class _Unsure(Exception):  # noqa: N818 - control flow inside this module
    """The other loader has to look at it."""


def read(data: bytes) -> list[Clean] | None:
    """Return the documents of a file; None unless it is certain that `loader.load` finds nothing wrong with them."""
    if data.isascii() and not data.translate(None, _ORDINARY):
        text = data.decode("ascii")
    else:
        text, problem = decode(data)
        if problem is not None or has_bidi(text):
            return None
    documents: list[Clean] = []
    try:
        for start, end, marked in chunks(text) if "---" in text or "..." in text else ((0, len(text), False),):
            if end - start > _SHORT or len(documents) == MAX_DOCUMENTS:
                return None
            if marked or _CONTENT.search(text, start, end):
                value, line = _value(text[start:end])
                documents.append(Clean(value, text.count("\n", 0, start) + line + 1))
    except Exception:  # noqa: BLE001 - ours, and whatever libyaml raises: the other loader says what is wrong
        return None
    return documents


def _value(content: str) -> tuple[dict[str, Any], int]:
    """Build the value of one document: one loop without a call for each event, for which a sync of many files waits."""
    careful = any(sign in content for sign in _SIGNS)
    stack: list[tuple[Any, str | None]] = []  # what is being read around the container, and the key of it there
    root: Any = None
    container: Any = None
    key: str | None = None  # of a mapping: what the next value belongs to
    line = 0
    for event in events(content):
        kind = type(event)
        if careful:
            _look(event)
        if kind is SCALAR:
            value = event.value
            if key is None and type(container) is dict:
                if value in container or not (event.style or _is_plain_key(value)) or len(value) > MAX_KEY_CHARACTERS:
                    raise _Unsure
                key = value
                continue
            if not event.style:
                value = _number(value) if value[:1] in NUMERIC_START and value else CONSTANTS.get(value, value)
            if key is None:
                container.append(value)  # a document that is a scalar has no container, and raises
                continue
            container[key] = value
            if key == "name" and len(stack) == 2 and stack[1][1] == "metadata":
                line = event.start_mark.line
            key = None
            continue
        if kind is MAPPING or kind is SEQUENCE:
            value = {} if kind is MAPPING else []
            _put(value, container, key, len(stack), root)
            root = value if root is None else root
            stack.append((container, key))
            container, key = value, None
        elif kind in ENDS:
            container, key = stack.pop()[0], None
        elif kind is ALIAS:
            raise _Unsure
    if type(root) is not dict:
        raise _Unsure
    return root, line


def _put(value: Any, container: Any, key: str | None, depth: int, root: Any) -> None:
    """Put a mapping or list where it belongs."""
    if depth == MAX_DEPTH:
        raise _Unsure
    if key is not None:
        container[key] = value
    elif type(container) is list:
        container.append(value)
    elif container is not None or root is not None:
        raise _Unsure  # it is a key, or a second document


def _look(event: Any) -> None:
    """Refuse anchors, tags and what escapes can bring into a text."""
    if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
        raise _Unsure
    if type(event) is SCALAR:
        check_text(event.value)
        if has_bidi(event.value):
            raise _Unsure


@lru_cache(maxsize=4096)
def _is_plain_key(text: str) -> bool:
    return text != "<<" and isinstance(resolve(text), str)


@lru_cache(maxsize=4096)  # most are small numbers and durations
def _number(text: str) -> str | int | float | bool | None:
    value = resolve(text)
    if type(value) is float and value.is_integer():
        raise _Unsure  # what holds documents against their schema quickly takes it for a whole number
    return value
