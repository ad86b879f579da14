"""Under which terms a source is applied: what it may remove without being asked, and what others have to do with it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from cron_observer.plan.actions import Key, canonical


@dataclass(frozen=True, slots=True)
class Holder:
    """A living task or calendar that refers to a calendar or task group, and where it stands, in words."""

    kind: str
    name: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an operator allows, and what a plan has to know of others. The defaults know nothing and allow much."""

    source: str = ""  #: the name of the source, for commands that are told
    target: str | None = None  #: the commit that is planned for, or the digest of a folder
    failure_policy: str = "isolate"  #: isolate, or atomic: one error keeps everything from being applied
    prune: bool = True  #: whether anything is removed
    max_deletes: int = 5  #: removals that need no approval, however many percent they are
    max_percent: float = 20.0  #: more than `max_deletes` that are more than this of what is owned need one
    #: Living rows of the source before the pass, by kind; without them nothing is too many.
    owned: Mapping[str, int] = field(default_factory=dict)
    empty: bool = False  #: the tree holds no manifest at all
    approved: Collection[str] = ()  #: hashes of plans whose removals somebody has approved
    #: Who refers to the calendars and groups that the plan may remove, whoever owns them (`at_risk`).
    holders: Mapping[Key, Sequence[Holder]] = field(default_factory=dict)
    awaited: Collection[Key] = ()  #: names that another source waits to take over from this one
    limit: int | None = None  #: the most tasks that the source may have (limits.tasks of its Project)
    task_count: int = 0  #: living tasks of the source before the pass
    #: The Defaults and Projects that tasks were read with (`layers_after`); None: as the plan decides.
    bearing: Collection[Key] | None = None


def approval_hash(target: str | None, removals: Iterable[tuple[str, UUID | str]]) -> str:
    """Return what an approval is bound to: the SHA-256 of a target and what is removed, by kind and uid, as hex."""
    listed = sorted([kind, str(uid)] for kind, uid in removals)
    return hashlib.sha256(canonical([target, listed])).hexdigest()


#: Terms that know nothing.
NO_TERMS: Final = Terms()
