"""What comes of names that change, and of what changes hands: the audit log, and what is over for the owner before."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.model import Commit
from cron_observer.plan import GROUP, HELD, TASK, Action, Plan, Step
from cron_observer.store import audit
from cron_observer.store.sources import Lease

#: What the log calls a kind.
_NOUNS: Final = {TASK: "task", GROUP: "group"}

#: The source before said that it holds them.
_FORGET_FINDINGS: Final = text("""
    DELETE FROM sync_findings AS f
    USING unnest(CAST(:sources AS uuid[]), CAST(:kinds AS text[]), CAST(:names AS text[])) AS v (source_id, kind, name)
    WHERE f.tenant_id = :tenant_id AND f.source_id = v.source_id AND f.code = :code AND f.kind = v.kind
      AND f.name = v.name""")


async def record(conn: AsyncConnection, held: Lease, plan: Plan, now: datetime) -> None:
    """Write down what a plan renames, adopts and takes over, of every kind; it has been carried out."""
    taken = [action for action in plan.actions if action.step is Step.TRANSFER]
    for action in plan.actions:
        if action.step in (Step.RENAME, Step.ADOPT, Step.TRANSFER):
            await _audit(conn, held, action, now)
    if taken:
        values = {
            "tenant_id": held.tenant_id,
            "sources": [action.actual.source_id for action in taken if action.actual],
            "kinds": [action.kind for action in taken],
            "names": [action.name for action in taken],
            "code": HELD.code,
        }
        await conn.execute(_FORGET_FINDINGS, values)


async def _audit(conn: AsyncConnection, held: Lease, action: Action, now: datetime) -> None:
    old, commit = action.actual, action.commit or Commit(id=None)
    before = None if old is None else old.name
    if action.step is not Step.RENAME:
        before = "api" if old is None or old.source is None else f"source:{old.source}"
    noun = _NOUNS.get(action.kind, action.kind.lower())
    await audit.record(
        conn,
        held.tenant_id,
        actor=f"source:{held.name}",
        action=f"{noun}.{action.step.value}",
        target=f"{noun}:{held.project}/{action.name}",
        now=now,
        data={"from": before, "commit": commit.id, "author": commit.author},
    )
