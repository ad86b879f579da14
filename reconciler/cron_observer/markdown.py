"""Markdown that says what it is meant to say, whatever the texts in it hold, and that fits where it is posted."""

from __future__ import annotations

import re
from typing import Final

#: Bytes of one text: forges take some 64 KiB for a comment.
MOST_BYTES: Final = 60_000


def code(text: str, limit: int = 2000) -> str:
    """Return a text as a code span: nothing in it is read as Markdown, as a mention or as a reference."""
    from cron_observer.manifest.scalars import shown

    said = shown(text, limit)
    if not said.strip():
        return f"`` {said or ' '} ``"
    runs = {len(run) for run in re.findall("`+", said)}
    fence = "`" * next(length for length in range(1, len(said) + 2) if length not in runs)
    pad = " " if said.startswith(("`", " ")) or said.endswith(("`", " ")) else ""
    return f"{fence}{pad}{said}{pad}{fence}"


class Paper:
    """A text that grows piece by piece up to so many bytes; what does not fit is counted."""

    def __init__(self, most: int) -> None:
        """Keep 200 of the `most` bytes for saying that there is more."""
        self._left = most - 200
        self._parts: list[str] = []
        self._hidden = 0

    def add(self, piece: str) -> None:
        """Add a piece if it fits; once one does not, none of those behind it is added."""
        size = len(piece.encode())
        if self._hidden or size > self._left:
            self._hidden += 1
            return
        self._left -= size
        self._parts.append(piece)

    def text(self, noun: str) -> str:
        """Return what was added, with a line about what was left out."""
        more = f"\n… and {self._hidden:,} more {noun}; run the command to see them.\n" if self._hidden else ""
        return "".join(self._parts) + more
