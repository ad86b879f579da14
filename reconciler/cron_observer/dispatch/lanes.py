"""How many requests may be under way: in all, for a tenant, and to one destination. Pure.

Places are shared so that who waits long harms only himself. A destination's first request may begin as long as a place
is free. Those beside it share half of all places: the more of these a destination has already, the more of them have to
be free for another. So however long some hang, there are places for the others until a hundred of them hang. No tenant
takes the last eighth of the places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import Final, TypeVar
from uuid import UUID

from cron_observer.dispatch.request import Destination

#: The part of all places that requests beside a destination's first share, and the one that a tenant leaves to others.
_BESIDE: Final = 2
_LEFT: Final = 8

_Key = TypeVar("_Key", bound=Hashable)


class Lanes:
    """What is under way in one dispatcher."""

    def __init__(self, total: int, each: int) -> None:
        """`total` requests at once, at most `each` of them to one destination of a tenant."""
        self._total = total
        self._each = each
        self._lanes: Counter[Destination] = Counter()
        self._tenants: Counter[UUID] = Counter()
        self._busy = 0

    @property
    def free(self) -> int:
        """How many more requests may begin, to whatever destinations."""
        return self._total - self._busy

    def is_open(self, where: Destination) -> bool:
        """Say whether another request to a destination may begin."""
        if self.free <= 0 or self._tenants[where.tenant_id] >= self._total - self._total // _LEFT:
            return False
        under_way, shared = self._lanes[where], self._total // _BESIDE
        unshared = shared - (self._busy - len(self._lanes))
        return under_way == 0 or (under_way < self._each and unshared * self._each > shared * (under_way - 1))

    def enter(self, where: Destination) -> bool:
        """Take a place for a request to a destination; False if it has to wait."""
        if not self.is_open(where):
            return False
        self._lanes[where] += 1
        self._tenants[where.tenant_id] += 1
        self._busy += 1
        return True

    def leave(self, where: Destination) -> None:
        """Give a place back."""
        _less(self._lanes, where)
        _less(self._tenants, where.tenant_id)
        self._busy -= 1


def _less(counter: Counter[_Key], key: _Key) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
