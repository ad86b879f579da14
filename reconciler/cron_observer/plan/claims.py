"""Who has a name: the documents that declare it, and the one that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from cron_observer.manifest import rules
from cron_observer.manifest.rules import Rule
from cron_observer.model import ADOPT, Commit, Definition, TaskDefinition
from cron_observer.plan.actions import (
    LAYERS,
    NOT_HANDED_OVER,
    NOUNS,
    OWNED_BY_API,
    OWNED_BY_SOURCE,
    TASK,
    Action,
    Actual,
    DesiredFile,
    Findings,
    Key,
    Step,
    hash_of,
)
from cron_observer.plan.terms import NO_TERMS, Terms

_NAME: Final = "/metadata/name"


@dataclass(frozen=True, slots=True)
class Claim:
    """A document that declares a name; `declared` is None when it is broken."""

    desired: DesiredFile
    declared: TaskDefinition | Definition | None

    @property
    def path(self) -> str:
        """The file it stands in."""
        return self.desired.file.path

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return self.path if self.declared is None else f"{self.path}:{self.declared.line}"


def claims_of(desired: Sequence[DesiredFile]) -> dict[Key, list[Claim]]:
    """Return who declares each name, well or badly, by path."""
    claims: dict[Key, list[Claim]] = {}
    for one in sorted(desired, key=lambda one: one.file.path):
        for task in one.file.tasks:
            claims.setdefault((TASK, task.name), []).append(Claim(one, task))
        for other in one.file.others:
            claims.setdefault((other.kind, other.name), []).append(Claim(one, other))
        for name in one.file.broken_names:
            claims.setdefault((TASK, name), []).append(Claim(one, None))
        for kind, name in one.file.broken_others:
            claims.setdefault((kind, name), []).append(Claim(one, None))
    return claims


@dataclass(frozen=True, slots=True)
class Scene:
    """What decisions about a name are made from."""

    source_id: UUID
    project_id: UUID
    gone: frozenset[str]
    read: Mapping[str, DesiredFile]
    findings: Findings
    terms: Terms = NO_TERMS
    holds: Mapping[UUID, str] = field(default_factory=dict)  #: removals that wait because of others, and for what

    @property
    def holding(self) -> bool:
        """Whether there is a file of which nobody knows what it declares."""
        return any(not one.file.parseable for one in self.read.values())

    def held(self, row: Actual) -> str | None:
        """Say what keeps a row in force that is declared nowhere any more; None when it is removed."""
        if row.kind in LAYERS and (self.terms.bearing is not None or row.project_id != self.project_id):
            # what holds is decided already; in a project that the source has left, nothing does
            bears = row.project_id == self.project_id and (row.kind, row.name) in (self.terms.bearing or ())
            return "unparseable" if bears else None
        if self.holding:
            return "unparseable"
        if row.kind in LAYERS:  # nothing is lost with them: whoever is made of them is made anew
            return None
        if (row.kind, row.name) in self.terms.awaited and row.project_id == self.project_id:
            return "handed_over"
        if not self.terms.prune:
            return "prune_off"
        return "disabled" if row.prune == "disabled" else self.holds.get(row.uid)

    def ours(self, row: Actual) -> bool:
        """Tell whether the source may change a row: it is its own, or was some source's and is removed."""
        return row.source_id == self.source_id or (row.removed and row.source_id is not None)

    def still_declares(self, row: Actual) -> bool:
        """Tell whether the file that `row` comes from declares it for all that is known.

        A file that was not read in this pass has not changed and was valid, so it declares whatever is in sync
        with it. Of one that cannot be parsed nobody knows.
        """
        if row.removed or row.path is None or row.path in self.gone:
            return False
        read = self.read.get(row.path)
        if read is not None:
            return not read.file.parseable and row.sync != "HELD"
        return row.sync == "SYNCED"


def decide(key: Key, claims: Sequence[Claim], row: Actual | None, scene: Scene) -> Action | None:
    """Return what is done about a name, as far as the name alone decides; None for nothing."""
    if row is not None and not scene.ours(row):
        return _take_over(key, claims, row, scene)
    if not claims:
        if row is None or row.removed:
            return None
        return stay(row, scene) if scene.still_declares(row) else unclaimed(row, scene)
    chosen = choose(claims, row, scene)
    if chosen is None or chosen.declared is None:
        return None if row is None or row.removed else stay(row, scene)
    return place(key[0], chosen.declared, chosen.desired.commit, row)


def choose(claims: Sequence[Claim], row: Actual | None, scene: Scene) -> Claim | None:
    """Return the claim that counts, and refuse the others: whoever has the name keeps it, newcomers are errors."""
    incumbent: Claim | None = None
    if row is not None and not row.removed:
        at_home = [claim for claim in claims if claim.path == row.path]
        if len(at_home) == 1:
            incumbent = at_home[0]
        elif not at_home and scene.still_declares(row):
            for claim in claims:
                _refuse(claim, f"{row.path}:{row.line}", scene)
            return None
    if len(claims) == 1:
        return claims[0]
    for claim in claims:
        if claim is not incumbent:
            other = incumbent or next(rival for rival in claims if rival is not claim)
            _refuse(claim, other.place, scene)
    return incumbent


def _refuse(claim: Claim, other: str, scene: Scene) -> None:
    if claim.declared is not None:
        noun = NOUNS[TASK if isinstance(claim.declared, TaskDefinition) else claim.declared.kind]
        message = f'the {noun} "{claim.declared.name}" is declared in {other} too'
        scene.findings.add(claim.declared, rules.DUPLICATE_NAME, message, "rename one of them, or remove it")


def _take_over(key: Key, claims: Sequence[Claim], row: Actual, scene: Scene) -> Action | None:
    """Take a row over from the API, or from another source that declares it no more; else say whose it is."""
    ways = [None if claim.declared is None else _way(claim.declared, row) for claim in claims]
    if any(ways):
        chosen = choose(claims, None, scene)
        step = None if chosen is None else ways[claims.index(chosen)]
        if chosen is None or chosen.declared is None or step is None:
            return None
        return replace(place(key[0], chosen.declared, chosen.desired.commit, row), step=step)
    for claim in claims:
        if claim.declared is not None:
            scene.findings.add(claim.declared, *_owned(claim.declared, row))
    return None


def _way(declared: TaskDefinition | Definition, row: Actual) -> Step | None:
    """Return how a document may take over a row that is not its source's, None when it may not."""
    if row.source_id is None:
        adopts = isinstance(declared, TaskDefinition) and declared.adopts
        return Step.ADOPT if adopts and not row.deleting else None
    given = declared.transfer_from is not None and declared.transfer_from == row.source
    return Step.TRANSFER if given and row.sync == "HELD" else None


def _owned(declared: TaskDefinition | Definition, row: Actual) -> tuple[Rule, str, str, str]:
    """Say who owns a row that a document may not take over, and how to come by it."""
    if row.source_id is None and row.deleting:
        message = f'the task "{row.name}" was created through the API, and is being deleted'
        return OWNED_BY_API, message, "it can be created as soon as that is done", _NAME
    if row.source_id is None:
        message = f'the task "{row.name}" is owned by the API'
        hint = f'delete it through the API, choose another name, or adopt it with the annotation {ADOPT}: "true"'
        return OWNED_BY_API, message, hint, _NAME
    noun = f'the {NOUNS[row.kind]} "{row.name}"'
    if declared.transfer_from is not None and declared.transfer_from == row.source:
        message = f'the source "{row.source}" still declares {noun} ({row.path}:{row.line})'
        return (
            NOT_HANDED_OVER,
            message,
            "remove it there: it is taken over then, with its history",
            "/metadata/transferFrom",
        )
    hint = "remove it there first, or choose another name"
    if row.kind not in LAYERS:
        hint += f"; to take it over, write transferFrom: {row.source}"
    return OWNED_BY_SOURCE, f'{noun} is owned by the source "{row.source}" ({row.path})', hint, _NAME


def stay(row: Actual, scene: Scene) -> Action | None:
    """Leave a row as it is: one that its unchanged file declares is in sync, any other is kept."""
    if scene.still_declares(row) and row.path not in scene.read:
        return None
    return keep_good(row, scene)


def keep_good(row: Actual, scene: Scene) -> Action:
    """Keep a row whose declaration does not count; that its own file has it no more is not forgotten meanwhile."""
    return unclaimed(row, scene) if row.sync == "HELD" and scene.held(row) else keep(row)


def keep(row: Actual) -> Action:
    """Leave the last good version in force, and say so."""
    return Action(step=Step.KEEP, kind=row.kind, name=row.name, actual=row)


def unclaimed(row: Actual, scene: Scene) -> Action:
    """Remove what is declared nowhere, unless something holds it."""
    held = scene.held(row)
    return Action(step=Step.HOLD if held else Step.REMOVE, kind=row.kind, name=row.name, actual=row, held=held)


def place(kind: str, declared: TaskDefinition | Definition, commit: Commit, row: Actual | None) -> Action:
    """Put a valid document in force."""
    whole, frees = None, None
    if row is not None and _is_forgotten(declared, row):
        frees = row.uid
        row = None
    if row is None:
        step = Step.CREATE
    elif (whole := hash_of(declared)) != row.spec_hash or row.removed:
        step = Step.RESTORE if row.removed else Step.UPDATE
    else:
        here = (declared.path, declared.document, declared.line, commit.id, "SYNCED")
        there = (row.path, row.document, row.line, row.commit, row.sync)
        step = Step.NOOP if here == there else Step.MOVE
    return Action(
        step=step,
        kind=kind,
        name=declared.name,
        actual=row,
        declared=declared,
        commit=commit,
        compared=whole,
        frees=frees,
    )


def _is_forgotten(declared: TaskDefinition | Definition, row: Actual) -> bool:
    """Tell whether a removed row is not the one that is declared: a new one takes its name."""
    return row.removed and (row.deleting or (isinstance(declared, TaskDefinition) and declared.begins_anew))
