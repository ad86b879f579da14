"""What keeps a removal from being carried out, judged by what is in force. Pure.

Some guards know by the name alone (`claims.Scene.held`). The others look at a whole plan: what is still used stays,
and what is too much at once waits for an approval. A plan is made again whenever they hold something, because what
stays in force may be referred to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from cron_observer.model import Definition, Finding, TaskDefinition
from cron_observer.plan.actions import (
    CALENDAR,
    GROUP,
    HELD,
    IN_USE,
    LAYERS,
    NOUNS,
    Action,
    Actual,
    Findings,
    Key,
    Plan,
    Step,
)
from cron_observer.plan.references import references
from cron_observer.plan.terms import Holder, Terms, approval_hash

#: What holds a removal until somebody approves it.
APPROVABLE: Final = ("confirm", "too_many", "all_of_kind", "empty_tree")

#: Holders that a finding names; of more it gives the number.
_NAMED: Final = 3

#: Why a removal waits, in words, and how that is mended.
_WHY: Final = {
    "unparseable": ("a file that cannot be parsed may declare it", "mend that file"),
    "prune_off": ("nothing of this source is removed", "declare it again, or set prune = true for the source"),
    "disabled": (
        "its lifecycle says prune: disabled",
        "declare it again; to remove it, push another lifecycle.prune first",
    ),
    "handed_over": ("another source is about to take it over", "that source takes it at its next look"),
    "confirm": ("its lifecycle says prune: confirm", ""),
    "too_many": ("so many removals at once need an approval", ""),
    "all_of_kind": ("removing all of a kind needs an approval", ""),
    "empty_tree": ("the source holds no manifest any more, which needs an approval", ""),
}


def why_held(reason: str | None) -> str:
    """Say in words what a removal waits for: `Action.held`."""
    return "it is still used" if reason == "in_use" else _WHY[reason or "unparseable"][0]


#: Makes the plan that leaves some rows in force, each for a reason.
Attempt = Callable[[Mapping[UUID, str]], Plan]


def guarded(attempt: Attempt, terms: Terms) -> Plan:
    """Return the plan that removes nothing which a guard holds, unless it has been approved."""
    holds: dict[UUID, str] = {}
    free = _without_used(attempt, holds, terms)
    asking = _asking(free, terms)
    if not asking:
        return free
    held = _without_used(attempt, holds | asking, terms)
    waiting = [(one.kind, one.actual.uid) for one in held.held if one.actual and one.held in APPROVABLE]
    plan_hash = approval_hash(terms.target, waiting)
    if plan_hash in terms.approved:
        return replace(free, approved=plan_hash)
    return replace(held, plan_hash=plan_hash)


def _without_used(attempt: Attempt, holds: dict[UUID, str], terms: Terms) -> Plan:
    """Plan again until nothing is removed that is still used by what stays; `holds` grows by what is."""
    made = attempt(holds)
    while used := _used(made, terms):
        holds |= used
        made = attempt(dict(holds))
    return made


def _used(made: Plan, terms: Terms) -> dict[UUID, str]:
    """Return the removals of what is still used. What only waiting removals use waits with them."""
    removed = [one for kind in (CALENDAR, GROUP) for one in made.of(Step.REMOVE, kind=kind) if one.actual]
    if not removed or not terms.holders:
        return {}
    done = _done(made)
    found = {}
    for action in removed:
        assert action.actual is not None  # noqa: S101  it is removed
        key = (action.kind, action.name)
        reasons = [_kept(holder, key, done) for holder in terms.holders.get(key, ())]
        left = sorted(reason for reason in reasons if reason)
        if left:
            found[action.actual.uid] = "in_use" if "in_use" in left else left[0]
    return found


def _done(made: Plan) -> dict[Key, Action]:
    """Return what is done about each row, by the name that it had."""
    return {(one.kind, one.actual.name): one for one in made.actions if one.actual is not None}


def _kept(holder: Holder, key: Key, done: Mapping[Key, Action]) -> str | None:
    """Say for what reason `holder` still uses `key` after a plan; None when it does not."""
    action = done.get((holder.kind, holder.name))
    if action is None or action.step is Step.KEEP:
        return "in_use"
    if action.step is Step.REMOVE:
        return None
    if action.step is Step.HOLD:
        return action.held if action.held in APPROVABLE else "in_use"
    return "in_use" if key in _references(action) else None


def _references(action: Action) -> set[Key]:
    declared = action.declared
    if isinstance(declared, TaskDefinition):
        return {(one.kind, one.name) for one in references(declared.spec)}
    if isinstance(declared, Definition) and declared.kind == CALENDAR:
        return {(CALENDAR, name) for name in declared.spec.get("base") or ()}
    return set()


def _asking(made: Plan, terms: Terms) -> dict[UUID, str]:
    """Return the removals that need an approval, each with the reason."""
    rows = [one.actual for one in made.actions if one.step is Step.REMOVE and one.actual and one.kind not in LAYERS]
    reason = _too_much(rows, terms)
    found = {row.uid: "confirm" if row.prune == "confirm" else reason for row in rows}
    return {uid: why for uid, why in found.items() if why is not None}


def _too_much(rows: Sequence[Actual], terms: Terms) -> str | None:
    """Say what is alarming about a set of removals as a whole; None when nothing is."""
    if not rows:
        return None
    if terms.empty:
        return "empty_tree"
    owned = {kind: number for kind, number in terms.owned.items() if kind not in LAYERS}
    counts = Counter(row.kind for row in rows)
    if any(number >= 2 and number >= owned.get(kind, number + 1) for kind, number in counts.items()):
        return "all_of_kind"
    share = 100.0 * len(rows) / max(sum(owned.values()), len(rows)) if owned else 0.0
    return "too_many" if len(rows) > terms.max_deletes and share > terms.max_percent else None


def told(made: Plan, rows: Sequence[Actual], source_id: UUID, terms: Terms) -> dict[str, list[Finding]]:
    """Return the findings of a plan with those of its held removals, and an entry for what was held until now."""
    findings = Findings()
    findings.by_path = {path: list(several) for path, several in made.findings.items()}
    for row in rows:
        if row.sync == "HELD" and row.source_id == source_id and row.path is not None:
            findings.by_path.setdefault(row.path, [])
    done = _done(made)
    for action in made.held:
        if action.actual is not None:
            _tell(action, action.actual, done, made.plan_hash, terms, findings)
    return findings.by_path


def _tell(
    action: Action, row: Actual, done: Mapping[Key, Action], plan_hash: str | None, terms: Terms, findings: Findings
) -> None:
    noun = f'the {NOUNS[row.kind]} "{row.name}"'
    if action.held == "in_use":
        key = (row.kind, row.name)
        holders = [holder for holder in terms.holders.get(key, ()) if _kept(holder, key, done)]
        named = [f'the {NOUNS[one.kind]} "{one.name}" ({one.place})' for one in holders[:_NAMED]]
        more = f" and {len(holders) - _NAMED:,} more" if len(holders) > _NAMED else ""
        message = f"{noun} is declared nowhere any more, but still used by {', '.join(named)}{more}"
        findings.tell(row, IN_USE, message, "let go of it there first, or in the same commit; it stays until then")
        return
    why, hint = _WHY[action.held or "unparseable"]
    if action.held in APPROVABLE:
        hint = f"declare it again, or approve: cron-observer sources approve {terms.source or 'SOURCE'} {plan_hash}"
    findings.tell(row, HELD, f"{noun} is declared nowhere any more and stays in force: {why}", hint)
