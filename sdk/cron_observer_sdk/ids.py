"""Identifiers: ids that the client mints, so that a repeated request is harmless, and names of tasks."""

from __future__ import annotations

import os
import re
import threading
import time

#: ``project/name``, or the uid of a task.
TASK = re.compile(r"[^/\s]+/[^/\s]+|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_last = [0]  #: the newest timestamp part handed out: 48 bits of milliseconds and 12 bits below one
_locks = [threading.Lock()]


def _after_fork() -> None:
    """Replace the lock, which another thread may have held at the moment of the fork."""
    _locks[0] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def uuid7() -> str:
    """Mint a UUIDv7: ids of one process sort by the time of the call."""
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    stamp = (milliseconds << 12) | (rest * 4096 // 1_000_000)
    with _locks[0]:
        stamp = max(stamp, _last[0] + 1)
        _last[0] = stamp
    tail = int.from_bytes(os.urandom(8), "big") & 0x3FFF_FFFF_FFFF_FFFF
    number = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | tail
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
