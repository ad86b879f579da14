"""Sources and their leases: who looks at which, and what it found out.

Whoever looks at a source holds its lease, whose `epoch` rises with every holder. The lease only saves work: what
makes an apply safe is that `end_pass` changes nothing unless epoch, `applied_seq` and `observed_seq` are still those
that the pass left. What the wire shows of all this is read in `source_reads`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.errors import Conflict
from cron_observer.source.address import read_address
from cron_observer.source.spec import SourceSpec
from cron_observer.store.jsonb import to_json
from cron_observer.store.source_reads import AskedBy, request_sync
from cron_observer.store.tenants import project_id, source_id

__all__ = [
    "Judged",
    "Lease",
    "Overtaken",
    "Stale",
    "ask_others",
    "due",
    "end_pass",
    "ensure",
    "give_back",
    "lease",
    "renew",
    "request_sync",
]


class Overtaken(Conflict):
    """Somebody else has taken the source over; nothing of this pass may be written."""

    code = "overtaken"


class Stale(Overtaken):
    """What the plan was made from has changed: plan again."""

    code = "stale"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of a target that was judged: why it is not applied as a whole, and what waits."""

    refused: str | None = None
    plan_hash: str | None = None
    waiting: Sequence[Mapping[str, Any]] = ()
    checked: bool = False  #: all that is known was compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A source as it was when its lease was taken."""

    tenant_id: UUID
    source_id: UUID
    project_id: UUID
    name: str
    project: str
    ref: str | None
    epoch: int
    requested_seq: int
    handled_seq: int
    observed_commit: str | None
    applied_commit: str | None
    applied_seq: int
    validator_version: str | None
    observed_seq: int
    refused: str | None  #: what was judged last and not applied as a whole (`Subject.judgement`)
    plan_hash: str | None  #: what an approval would have to say
    checked_at: datetime | None  #: the last comparison with all that is known
    failures: int
    taken_for: AskedBy | None  #: who asked for the look; None: it is only due
    first_pass_at: datetime | None
    conditions: Mapping[str, Any]
    counts: Mapping[str, int]


_ADD: Final = text("""
    INSERT INTO sources (tenant_id, source_id, project_id, name, kind, url, ref, paths, ignore, environment,
        mode, failure_policy, poll_seconds, next_poll_at, created_at)
    VALUES (:tenant_id, :source_id, :project_id, :name, :kind, :url, :ref, CAST(:paths AS text[]),
        CAST(:ignore AS text[]), :environment, :mode, :failure_policy, :poll_seconds, :now, :now)
    ON CONFLICT DO NOTHING""")

_DESCRIBE: Final = text("""
    UPDATE sources SET project_id = :project_id, kind = :kind, url = :url, paths = CAST(:paths AS text[]),
        ignore = CAST(:ignore AS text[]), environment = :environment, poll_seconds = :poll_seconds,
        next_poll_at = :now, mode = :mode, failure_policy = :failure_policy,
        -- what is read of the repository has changed: nothing that is known of it says what is missing
        validator_version = CASE
            WHEN (project_id, kind, url, paths, ignore) = (:project_id, :kind, :url, CAST(:paths AS text[]),
                CAST(:ignore AS text[])) AND environment IS NOT DISTINCT FROM CAST(:environment AS text)
            THEN validator_version END
    WHERE tenant_id = :tenant_id AND source_id = :source_id""")

_DUE: Final = text("""
    SELECT tenant_id, name FROM sources
    WHERE tenant_id = ANY (CAST(:tenants AS uuid[])) AND (requested_seq > handled_seq OR next_poll_at <= :now)
      AND (lease_until IS NULL OR lease_until <= :now)
      AND (suspended_at IS NULL OR suspended_until <= :now)""")

#: A suspension that has ended by itself is forgotten with the next lease. What an earlier holder left undone counts.
_LEASE: Final = text("""
    UPDATE sources AS s SET lease_owner = :owner, lease_epoch = lease_epoch + 1, lease_until = :until,
        suspended_at = NULL, suspended_until = NULL, suspended_by = NULL, suspend_reason = NULL,
        taken_for = stronger_asker(s.taken_for, s.asked_by), asked_by = NULL
    FROM projects AS p
    WHERE s.tenant_id = :tenant_id AND s.source_id = :source_id
      AND p.tenant_id = :tenant_id AND p.project_id = s.project_id
      AND (s.lease_until IS NULL OR s.lease_until <= :now)
      AND (s.suspended_at IS NULL OR s.suspended_until <= :now)
      AND (s.requested_seq > s.handled_seq OR s.next_poll_at <= :now)
    RETURNING s.tenant_id, s.source_id, s.project_id, s.name, p.name AS project, s.ref, s.lease_epoch AS epoch,
        s.requested_seq, s.handled_seq, s.observed_commit, s.applied_commit, s.applied_seq, s.validator_version,
        s.observed_seq, s.refused, s.plan_hash, s.checked_at, s.failures, s.taken_for, s.first_pass_at,
        s.conditions, s.counts""")

_ASK_OTHERS: Final = text("""
    WITH neighbours AS (
        SELECT source_id FROM sources WHERE tenant_id = :tenant_id AND project_id = :project_id
        ORDER BY source_id FOR UPDATE
    )
    UPDATE sources AS s SET requested_seq = requested_seq + 1, asked_by = stronger_asker(asked_by, 'neighbour')
    FROM neighbours AS n
    WHERE s.tenant_id = :tenant_id AND s.source_id = n.source_id AND s.source_id <> :source_id""")

_RENEW: Final = text("""
    UPDATE sources SET lease_until = :until
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND lease_epoch = :epoch AND lease_until IS NOT NULL""")

_GIVE_BACK: Final = text("""
    UPDATE sources SET lease_until = NULL
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND lease_epoch = :epoch""")

_END_PASS: Final = text("""
    UPDATE sources SET lease_until = NULL, taken_for = NULL, handled_seq = greatest(handled_seq, :handled_seq),
        fetched_bytes = fetched_bytes + :fetched,
        next_poll_at = :next_poll_at, failures = :failures, conditions = CAST(:conditions AS jsonb),
        first_pass_at = coalesce(first_pass_at, :now),
        ref = CASE WHEN :looked THEN CAST(:ref AS text) ELSE ref END,
        observed_commit = CASE WHEN :looked THEN CAST(:commit AS text) ELSE observed_commit END,
        observed_at = CASE WHEN :looked THEN :now ELSE observed_at END,
        applied_commit = CASE WHEN :applied THEN CAST(:commit AS text) ELSE applied_commit END,
        applied_at = CASE WHEN :applied THEN :now ELSE applied_at END,
        applied_seq = applied_seq + CASE WHEN :applied THEN 1 ELSE 0 END,
        validator_version = CASE WHEN :applied THEN CAST(:validator AS text) ELSE validator_version END,
        counts = coalesce(CAST(:counts AS jsonb), counts),
        refused = CASE WHEN :judged THEN CAST(:refused AS text) ELSE refused END,
        plan_hash = CASE WHEN :judged THEN CAST(:plan_hash AS text) ELSE plan_hash END,
        held = CASE WHEN :judged THEN CAST(:held AS jsonb) ELSE held END,
        checked_at = CASE WHEN :checked THEN :now ELSE checked_at END
    WHERE tenant_id = :tenant_id AND source_id = :source_id AND lease_epoch = :epoch AND applied_seq = :applied_seq
      AND observed_seq = :observed_seq AND (NOT :applied OR suspended_at IS NULL)
    RETURNING applied_seq""")


def _key(held: Lease) -> dict[str, Any]:
    return {"tenant_id": held.tenant_id, "source_id": held.source_id}


async def ensure(
    conn: AsyncConnection,
    tenant_id: UUID,
    spec: SourceSpec,
    kind: str,
    now: datetime,
    *,
    mode: str = "enforce",
    failure_policy: str = "isolate",
) -> UUID:
    """Add or change a source as the settings describe it, due at once; return its id.

    Its project must be there. `kind` is git or folder. Credentials in its address are not stored.
    """
    source = source_id(tenant_id, spec.name)
    values = {
        "tenant_id": tenant_id,
        "source_id": source,
        "project_id": project_id(tenant_id, spec.project),
        "name": spec.name,
        "kind": kind,
        "url": read_address(spec.url).url,
        "ref": spec.ref,
        "paths": list(spec.paths),
        "ignore": list(spec.ignore),
        "environment": spec.environment,
        "mode": mode,
        "failure_policy": failure_policy,
        "poll_seconds": spec.poll_seconds,
        "now": now,
    }
    if (await conn.execute(_ADD, values)).rowcount == 0:
        await conn.execute(_DESCRIBE, values)
    return source


async def due(conn: AsyncConnection, tenants: Sequence[UUID], now: datetime) -> list[tuple[UUID, str]]:
    """Return tenant and name of the sources that somebody should look at and nobody does."""
    rows = await conn.execute(_DUE, {"tenants": list(tenants), "now": now})
    return [(row.tenant_id, row.name) for row in rows]


async def lease(
    conn: AsyncConnection, tenant_id: UUID, source_id: UUID, *, owner: str, now: datetime, ttl: timedelta
) -> Lease | None:
    """Take a source that is due, and return it; None when it is not, or somebody else has it."""
    values = {
        "tenant_id": tenant_id,
        "source_id": source_id,
        "owner": owner,
        "now": now,
        "until": now + ttl,
    }
    row = (await conn.execute(_LEASE, values)).mappings().one_or_none()
    return None if row is None else Lease(**row)


async def renew(conn: AsyncConnection, held: Lease, now: datetime, ttl: timedelta) -> bool:
    """Keep a lease for longer; False when it has been lost."""
    values = _key(held) | {"epoch": held.epoch, "until": now + ttl}
    return bool((await conn.execute(_RENEW, values)).rowcount)


async def ask_others(conn: AsyncConnection, held: Lease) -> None:
    """Let the other sources of the project be looked at: what they refer to has come or gone."""
    await conn.execute(_ASK_OTHERS, _key(held) | {"project_id": held.project_id})


async def give_back(conn: AsyncConnection, held: Lease) -> None:
    """End a lease with nothing to tell; one that has been lost is left to its new holder."""
    await conn.execute(_GIVE_BACK, _key(held) | {"epoch": held.epoch})


async def end_pass(
    conn: AsyncConnection,
    held: Lease,
    now: datetime,
    *,
    next_poll_at: datetime,
    conditions: Mapping[str, Any],
    failures: int = 0,
    fetched: int = 0,
    looked: bool = True,
    applied: bool = False,
    ref: str | None = None,
    commit: str | None = None,
    validator: str | None = None,
    counts: Mapping[str, int] | None = None,
    observed_seq: int | None = None,
    judged: Judged | None = None,
) -> int:
    """Give the lease back with what the pass found out, and return `applied_seq`.

    `looked`: the source could be read and stands at `commit`; `applied`: that is what is in force now; `judged`: what
    is remembered of it, None for nothing new. `observed_seq` is the pass's own observation, None when it made none;
    `fetched` are the bytes that it has brought.
    Raises `Overtaken`, so that the transaction is rolled back, when somebody else has leased, observed or applied
    since, has detached a task, or has suspended the source that would be changed.
    """
    values = _key(held) | {
        "epoch": held.epoch,
        "applied_seq": held.applied_seq,
        "handled_seq": held.requested_seq,
        "now": now,
        "next_poll_at": next_poll_at,
        "conditions": to_json(conditions),
        "failures": failures,
        "fetched": fetched,
        "looked": looked,
        "applied": applied,
        "ref": ref,
        "commit": commit,
        "validator": validator,
        "counts": to_json(counts),
        "observed_seq": held.observed_seq if observed_seq is None else observed_seq,
        "judged": judged is not None,
        "refused": None if judged is None else judged.refused,
        "plan_hash": None if judged is None else judged.plan_hash,
        "held": to_json(list(judged.waiting)) if judged is not None and judged.waiting else None,
        "checked": judged is not None and judged.checked,
    }
    row = (await conn.execute(_END_PASS, values)).one_or_none()
    if row is None:
        raise Overtaken(
            f"the source {held.name} was taken over by another reconciler or suspended, or a task of it was detached"
        )
    return int(row.applied_seq)
