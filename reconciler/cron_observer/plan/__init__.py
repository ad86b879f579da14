"""Decide what an apply changes: `plan` compares what a source declares with what is in force. Pure.

What is declared has a kind (Task, Calendar, TaskGroup, Defaults, Project) and is its name inside its project, not its
file: one that moves to another file stays what it is. For every kind and name that is touched there is one action:

======== ==================================================================================================
create   the name is new, or a removed task of that name is to be forgotten
restore  it had been removed and is declared again: same uid, history kept
rename   a task that was called something else: same uid, history and seed
adopt    a task of the API that its manifest may take over: same uid, history and seed
transfer it is another source's, which declares it no more, and its manifest names that source
update   spec, labels or annotations differ, or what a calendar holds: the generation rises
move     only the place or its commit differs: no new generation
noop     nothing differs
keep     it is declared, but not in a way that can be applied: the last good version stays in force
remove   it is declared nowhere any more: a task has no more slots; history is kept
hold     it would be removed, but a guard keeps it in force; `Action.held` says which
======== ==================================================================================================

`actions` holds the words, `terms` what an operator allows, `claims` who has a name, `renames` who takes one over,
`contents` what calendars hold, `references` what tasks refer to, `layers` which Defaults and Project hold, `guards`
what is not removed, `limits` how many tasks there may be.
"""

from __future__ import annotations

from cron_observer.model import DEFAULTS, PROJECT
from cron_observer.plan.actions import (
    CALENDAR,
    GROUP,
    HELD,
    IN_USE,
    LAYERS,
    NOT_HANDED_OVER,
    OUTSIDE,
    OWNED_BY_API,
    OWNED_BY_SOURCE,
    TASK,
    Action,
    Actual,
    DesiredFile,
    Key,
    Plan,
    Refreshed,
    Step,
    canonical,
    spec_hash,
)
from cron_observer.plan.layers import layers_after
from cron_observer.plan.making import at_risk, plan
from cron_observer.plan.references import Reference, references, unknown
from cron_observer.plan.terms import Holder, Terms, approval_hash

__all__ = [
    "CALENDAR",
    "DEFAULTS",
    "GROUP",
    "HELD",
    "IN_USE",
    "LAYERS",
    "NOT_HANDED_OVER",
    "OUTSIDE",
    "OWNED_BY_API",
    "OWNED_BY_SOURCE",
    "PROJECT",
    "TASK",
    "Action",
    "Actual",
    "DesiredFile",
    "Holder",
    "Key",
    "Plan",
    "Reference",
    "Refreshed",
    "Step",
    "Terms",
    "approval_hash",
    "at_risk",
    "canonical",
    "layers_after",
    "plan",
    "references",
    "spec_hash",
    "unknown",
]
