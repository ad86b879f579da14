"""Logs: compressed chunks of lines, appended by sequence, read by line.

A worker numbers its lines from 0 under each claim. Read back, lines are numbered from 0 in each attempt: when an
attempt was offered again after a lost lease, the lines of the second claim follow those of the first (`log_base`).
"""

from cron_observer.store.logs.chunks import Chunk, pack, pack_lines
from cron_observer.store.logs.exporting import Export, export
from cron_observer.store.logs.lines import LEVELS, MESSAGE_MAX, NO_STAMP, Lines, encode, make, split, stamp
from cron_observer.store.logs.packing import LOOSE_MAX, pack_loose
from cron_observer.store.logs.reading import (
    Cut,
    Part,
    Wanted,
    amounts,
    cuts,
    items,
    look,
    parts,
    place,
    read,
)
from cron_observer.store.logs.storing import AFTER_END, Appended, Caps, Stored, append, counts

__all__ = [
    "AFTER_END",
    "LEVELS",
    "LOOSE_MAX",
    "MESSAGE_MAX",
    "NO_STAMP",
    "Appended",
    "Caps",
    "Chunk",
    "Cut",
    "Export",
    "Lines",
    "Part",
    "Stored",
    "Wanted",
    "amounts",
    "append",
    "counts",
    "cuts",
    "encode",
    "export",
    "items",
    "look",
    "make",
    "pack",
    "pack_lines",
    "pack_loose",
    "parts",
    "place",
    "read",
    "split",
    "stamp",
]
