"""The sources that a process looks after, and under which rules what they hold is judged."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from cron_observer.manifest import VALIDATOR_VERSION
from cron_observer.plan import canonical
from cron_observer.plan.actions import Key
from cron_observer.plan.terms import Holder, Terms
from cron_observer.settings import SourceSettings
from cron_observer.source import Source, SourceSpec, Target, read_address
from cron_observer.store.sources import Lease


@dataclass(slots=True)
class Subject:
    """A source that this process looks after."""

    spec: SourceSpec
    tenant_id: UUID
    source_id: UUID
    kind: str
    source: Source
    local: bool
    settings: SourceSettings
    #: `applied_seq` and the digest of the folder that was applied then: saves reading the table of files
    digest: tuple[int, str | None] | None = None
    counted: int = 0  #: the bytes that had been fetched when the pass under way began

    @property
    def fetched(self) -> int:
        """Return the bytes that the pass under way has fetched."""
        return max(0, self.source.fetched - self.counted)  # it may have been opened anew since, as something else

    @property
    def enforces(self) -> bool:
        """Whether what is planned is applied."""
        return self.settings.mode == "enforce"

    @property
    def verifies(self) -> bool:
        """Whether signatures are asked for."""
        return self.settings.verify != "none"

    @property
    def reports(self) -> bool:
        """Whether the forge is told how its commits fare."""
        return self.source.has_commits and None not in (self.settings.provider, self.settings.status_ref)

    def commit(self, target: Target) -> str | None:
        """Return the commit of a target; a folder has none."""
        return target.id if self.source.has_commits else None

    def where(self, target: Target) -> str:
        """Say where the source stands."""
        if not self.source.has_commits:
            return "the folder was read"
        if target.id is None:
            return "the repository has no commits"
        short = (target.ref or "HEAD").removeprefix("refs/heads/").removeprefix("refs/tags/")
        return f"{short} is at {target.id[:7]}" if short != target.id else f"commit {target.id[:7]}"

    def judgement(self, target: Target) -> str:
        """Return what stands for a target and every rule that it is judged by. Blocks where keys are in files.

        As long as it is the same, judging again would come to the same end.
        """
        one = self.settings
        rules: list[Any] = [target.id, VALIDATOR_VERSION, one.mode, one.failure_policy, one.prune, one.max_deletes]
        rules += [one.max_delete_percent, one.on_rewrite, one.verify, sorted(one.committers), one.environment]
        rules += [read_address(self.spec.url).url, self.kind, one.project, sorted(one.paths), sorted(one.ignore)]
        if self.verifies:
            rules += [_digest(one.allowed_signers), _digest(one.gpg_keys)]
        return hashlib.sha256(canonical(rules)).hexdigest()

    def terms(self, held: Lease, target: Target, others: Others) -> Terms:
        """Return the terms under which a target is planned: the operator's, and what is known of others."""
        one, counts = self.settings, held.counts
        owned = {kind: counts.get(name, 0) for kind, name in _COUNTED.items()}
        return Terms(
            source=held.name,
            target=target.id,
            failure_policy=one.failure_policy,
            prune=one.prune,
            max_deletes=one.max_deletes,
            max_percent=one.max_delete_percent,
            owned=owned,
            empty=others.empty,
            approved=others.approved,
            holders=others.holders,
            awaited=others.awaited,
            limit=others.limit,
            bearing=others.bearing,
            task_count=counts.get("tasks", 0),
        )


#: What the counts of a source call the living rows of a kind.
_COUNTED = {"Task": "tasks", "Calendar": "calendars", "TaskGroup": "groups"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What a plan has to know beside settings, files and rows; see `Terms`."""

    empty: bool = False
    approved: Collection[str] = ()
    holders: Mapping[Key, Sequence[Holder]] = field(default_factory=dict)
    awaited: Collection[Key] = ()
    limit: int | None = None
    bearing: Collection[Key] | None = None


def overlap(one: Subject, other: Subject) -> bool:
    """Tell whether two sources read the same files for the same project: each would take what is the other's."""
    first, second = one.spec, other.spec
    places = [(read_address(spec.url).url, spec.ref, spec.project) for spec in (first, second)]
    if places[0] != places[1]:
        return False
    if not first.paths or not second.paths:
        return True
    return any(_holds(a, b) or _holds(b, a) for a in first.paths for b in second.paths)


def _holds(outer: str, inner: str) -> bool:
    """Tell whether a folder is another one, or above it; of globs, whether they are equal."""
    above, below = outer.strip("/"), inner.strip("/")
    return above == below or below.startswith(f"{above}/")


def rewriting(held: Lease, target: Target) -> str:
    """Return what an approval of another history is bound to: the commit in force, and the one in its place."""
    return hashlib.sha256(canonical(["rewritten", held.applied_commit, target.id])).hexdigest()


def _digest(path: Path | None) -> str | None:
    """Return what stands for the content of a file; one that cannot be read has none."""
    try:
        return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
