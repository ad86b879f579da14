"""Identifiers that sort by time: 48 bits of Unix milliseconds, version 8, and a hash or chance."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from cron_observer.schedule.evaluate import Slot

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_REST: Final = 80  #: bits behind the milliseconds
_VERSION: Final = 8 << 76
_VARIANT: Final = 0b10 << 62
#: The bits that neither time, version nor variant takes.
_FREE: Final = (1 << 76) - 1 - (0b11 << 62)
#: The digit that holds the variant, for each that the hash may have in its place.
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) & 0b11] for digit in "0123456789abcdef"}


class SlotMark(NamedTuple):
    """What the ids of one slot share, whichever task it is of."""

    digits: str  #: the milliseconds
    label: bytes

    @classmethod
    def of(cls, slot: Slot) -> SlotMark:
        """Return that of a slot."""
        return cls(f"{_milliseconds(slot.nominal_at):012x}", _label(slot))

    def id_of(self, task: bytes) -> str:
        """Return the 32 digits of `slot_id` for the bytes of a task's uid, without making any object of it."""
        rest = hashlib.sha256(task + self.label).hexdigest()
        return f"{self.digits}8{rest[1:4]}{_VARIANTS[rest[4]]}{rest[5:20]}"


def slot_id(task_uid: UUID, slot: Slot) -> UUID:
    """The id of a task's slot: the same for the same nominal label and fold, whoever computes it."""
    return _make(slot.nominal_at, hashlib.sha256(task_uid.bytes + _label(slot)).digest())


def _label(slot: Slot) -> bytes:
    return f"{slot.nominal_local.isoformat()}/{slot.fold}".encode()


def new_id(at: datetime, *parts: object) -> UUID:
    """An id for what is no slot, created `at`: the same for the same `parts`, random without any."""
    if not parts:
        return _make(at, os.urandom(10))
    digest = hashlib.sha256()
    for part in parts:
        text = str(part).encode()
        digest.update(b"%d:" % len(text))
        digest.update(text)
    return _make(at, digest.digest())


def id_floor(at: datetime) -> UUID:
    """The smallest UUID with the millisecond of `at`; bounds a search by time."""
    return UUID(int=_milliseconds(at) << _REST)


def id_ceil(at: datetime) -> UUID:
    """The largest UUID with the millisecond of `at`."""
    return UUID(int=(_milliseconds(at) << _REST) | (1 << _REST) - 1)


def id_time(id: UUID) -> datetime:  # noqa: A002 - it is one
    """The millisecond that an id begins with, aware UTC."""
    return _EPOCH + (id.int >> _REST) * _MILLISECOND


def _milliseconds(at: datetime) -> int:
    milliseconds = (at - _EPOCH) // _MILLISECOND
    if not 0 <= milliseconds < 1 << 48:
        raise ValueError(f"{at} cannot begin an id")
    return milliseconds


def _make(at: datetime, rest: bytes) -> UUID:
    free = int.from_bytes(rest[:10], "big") & _FREE
    return UUID(int=(_milliseconds(at) << _REST) | _VERSION | _VARIANT | free)
