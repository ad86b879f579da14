"""Jitter: each slot fires a little later, by an amount that anybody can compute again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cron_observer.schedule.codes import refuse
from cron_observer.schedule.evaluate import EPOCH, Slot

#: The most that a slot may be late by its jitter.
LONGEST_JITTER: Final = timedelta(days=1)

_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Jitter:
    """Delays of up to `most`, exclusive, drawn from `seed` (``project/name``) and the nominal instant."""

    most: timedelta
    seed: str | None

    def delayed(self, slot: Slot, next_fire: int | None) -> Slot:
        """Delay a slot that fires; the schedule fires next at `next_fire` (milliseconds), None if not within `most`.

        It stays strictly before the next fire, so jitter never reorders fires, nor lets two of them meet.
        """
        most = self.most // _MILLISECOND
        if next_fire is not None:
            most = min(most, next_fire - (slot.fire_at - EPOCH) // _MILLISECOND)
        delay = self._draw(slot) % most
        if not delay:
            return slot
        moved = f"{slot.moved_by}+jitter" if slot.moved_by else "jitter"
        return slot._replace(fire_at=slot.fire_at + delay * _MILLISECOND, moved_by=moved)

    def _draw(self, slot: Slot) -> int:
        if self.seed is None:
            raise refuse(
                "CO3010",
                "jitter needs the task's project and name to be drawn.",
                "give the seed (`project/name`)",
                pointer="/jitter",
            )
        nominal = (slot.nominal_at - EPOCH) // _MILLISECOND
        digest = hashlib.sha256(f"jitter\n{self.seed}\n{nominal}".encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big")
