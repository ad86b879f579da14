"""Values with the places where they stand in a text. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cron_observer.manifest.rules import Problem


class Node:
    """One value and where it stands. Offsets count characters from the beginning of the file's text."""

    __slots__ = ("children", "end", "key_end", "key_start", "refused", "start", "style", "value")

    def __init__(self, value: Any, start: int, end: int, style: str) -> None:
        self.value = value  #: the value itself; of mappings and lists, with everything in them
        self.start = start
        self.end = end  #: of mappings and lists in block style: the end of the last thing in them
        self.style = style  #: '' plain, ' " quoted, | > block text, { [ flow, : block mapping, - block list
        self.children: dict[str, Node] | list[Node] | None = None
        self.key_start = self.key_end = -1  #: of the key before the value; -1 where there is none
        self.refused = False  #: a problem was reported already; `value` means nothing

    @property
    def entries(self) -> dict[str, Node]:
        """The values of a mapping by key; empty for anything else."""
        return self.children if isinstance(self.children, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The values of a list; empty for anything else."""
        return self.children if isinstance(self.children, list) else []


@dataclass(slots=True)
class Document:
    """One document of a file: ``text[start:end]`` with its marker."""

    index: int
    start: int
    end: int
    marked: bool  #: begins with ``---``
    root: Node | None = None  #: as far as it could be read
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True  #: False when reading stopped before the end


@dataclass(slots=True)
class Stream:
    """The documents of one file. `problems` are those that belong to no document."""

    text: str
    documents: list[Document]
    problems: list[Problem]
    _starts: list[int] | None = None

    def place(self, offset: int) -> tuple[int, int]:
        """Return line and column of a character, both from 1."""
        if self._starts is None:
            self._starts = [0, *(match.end() for match in re.finditer("\n", self.text))]
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


def pointer(parts: Sequence[str | int]) -> str:
    """Write a JSON pointer (RFC 6901); the whole document is the empty text."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def parts(text: str) -> list[str]:
    """Take a JSON pointer apart."""
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def find(root: Node | None, text: str) -> Node | None:
    """Return the node that a JSON pointer names, None where there is none."""
    node = root
    for part in parts(text):
        if node is None:
            return None
        if isinstance(node.children, list):
            node = node.items[int(part)] if part.isdecimal() and int(part) < len(node.items) else None
        else:
            node = node.entries.get(part)
    return node
