"""Write verdicts: the executions, their events, the ends of their attempts and their places, in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from msgspec import structs
from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer.lifecycle import FINAL, Event, Run, Status, Verdict, written_at
from cron_observer.store.engine import fetch
from cron_observer.store.jsonb import to_json


class Step(NamedTuple):
    """One execution before and after."""

    seen: Run
    verdict: Verdict


class Rest(NamedTuple):
    """What a moved execution has beside its `Run`, as it was written: the rest of what the wire shows."""

    nominal_at: datetime | None
    nominal_local: datetime | None
    nominal_fold: int | None
    timezone: str | None
    repeats: UUID | None
    payload: Any
    checkpoint: Any
    result: Any
    error: Any


#: What was written, by tenant and id; with what was moved, the rest of it.
Done = dict[tuple[UUID, UUID], Rest | None]

#: Member of the statement's input, one JSON text for all steps, and its PostgreSQL type. Arrays, one for each column,
#: take three times as long to write.
_INPUT: Final = {
    "tenant_id": "uuid",
    "id": "uuid",
    "seen_seq": "int",
    "seen_fence": "bigint",
    "seen_status": "text",
    "status": "text",
    "reason": "text",
    "trigger": "text",
    "available_at": "timestamptz",
    "start_deadline": "timestamptz",
    "closes_at": "timestamptz",
    "held_at": "timestamptz",
    "generation": "int",
    "attempt": "int",
    "fence": "bigint",
    "lease_losses": "int",
    "event_seq": "int",
    "worker": "text",
    "protocol": "text",
    "claimed_at": "timestamptz",
    "started_at": "timestamptz",
    "finished_at": "timestamptz",
    "lease_until": "timestamptz",
    "lease_seconds": "double precision",
    "run_deadline": "timestamptz",
    "check_at": "timestamptz",
    "late": "boolean",
    "cancel_requested_at": "timestamptz",
    "cancel_by": "text",
    "cancel_reason": "text",
    "cancel_deadline": "timestamptz",
    "progress": "double precision",
    "message": "text",
    "exit_code": "int",
    "result": "text",
    "error": "text",
    "checkpoint": "text",
    "at": "timestamptz",
    "event": "text",
    "actor": "text",
    "data": "text",
    "ends": "boolean",
    "begins": "boolean",
    "frees": "boolean",
}

#: The events that begin an attempt.
_BEGINS: Final = frozenset({Event.CLAIMED, Event.LATE_STARTED})

#: Columns that are taken over as they are.
_PLAIN: Final = tuple(
    column for column in _INPUT if column in Run.__struct_fields__ and column not in {"tenant_id", "id", "event_seq"}
)

#: What becomes of an execution's attempt, looked up by its id. It is no table to be joined: of one that was never
#: counted the planner thinks that it has a row, and then goes through all of another for each row that it really has.
_END: Final = "(%(ends)s::jsonb -> a.execution_id::text)"

_APPLY: Final = f"""
WITH v AS (
    SELECT * FROM json_to_recordset(%(steps)s::json)
        AS v ({", ".join(f"{name} {kind}" for name, kind in _INPUT.items())})
), moved AS (
    UPDATE executions e SET
        {", ".join(f"{column} = v.{column}" for column in _PLAIN)},
        event_seq = v.event_seq,
        result = CASE WHEN v.begins OR v.ends THEN v.result::jsonb ELSE e.result END,
        checkpoint = COALESCE(v.checkpoint::jsonb, e.checkpoint),
        error = CASE WHEN v.begins OR v.ends THEN v.error::jsonb ELSE e.error END
    FROM v
    WHERE e.tenant_id = v.tenant_id AND e.id = v.id AND e.id BETWEEN %(low)s AND %(high)s
      AND e.event_seq = v.seen_seq AND e.fence = v.seen_fence AND e.status = v.seen_status
    RETURNING v.*, {", ".join(f"e.{column} AS now_{column}" for column in Rest._fields)}
), logged AS (
    INSERT INTO execution_events (tenant_id, execution_id, seq, at, type, attempt, fence, status, reason, actor, data)
    SELECT tenant_id, id, event_seq, at, event, attempt, fence, status, reason, actor, data::jsonb
    FROM moved WHERE event IS NOT NULL
), begun AS (
    INSERT INTO attempts (tenant_id, execution_id, fence, attempt, worker, claimed_at, started_at, log_base)
    SELECT m.tenant_id, m.id, m.fence, m.attempt, m.worker, m.claimed_at, m.started_at, COALESCE((
        SELECT sum(a.log_lines) FROM attempts a
        WHERE a.tenant_id = m.tenant_id AND a.execution_id = m.id AND a.attempt = m.attempt AND a.fence < m.fence
          AND a.execution_id BETWEEN %(low)s AND %(high)s
    ), 0)
    FROM moved m WHERE m.begins
), ended AS (
    UPDATE attempts a SET
        started_at = COALESCE(a.started_at, ({_END} ->> 'started_at')::timestamptz),
        ended_at = COALESCE(({_END} ->> 'ended_at')::timestamptz, a.ended_at),
        outcome = COALESCE({_END} ->> 'outcome', a.outcome),
        reason = CASE WHEN {_END} ? 'outcome' THEN {_END} ->> 'reason' ELSE a.reason END,
        exit_code = COALESCE(({_END} ->> 'exit_code')::int, a.exit_code),
        error = COALESCE({_END} -> 'error', a.error),
        digest = COALESCE(decode({_END} ->> 'digest', 'hex'), a.digest)
    WHERE a.execution_id = ANY (ARRAY(SELECT m.id FROM moved m WHERE NOT m.begins))
      AND a.execution_id BETWEEN %(low)s AND %(high)s
      AND a.tenant_id = ({_END} ->> 'tenant_id')::uuid AND a.fence = ({_END} ->> 'fence')::bigint
      AND ({_END} ? 'outcome' OR (a.started_at IS NULL AND {_END} ? 'started_at'))
), freed AS (
    DELETE FROM active_runs r USING moved m
    WHERE r.tenant_id = m.tenant_id AND r.execution_id = m.id AND m.frees
)
SELECT tenant_id, id, {", ".join(f"now_{column}" for column in Rest._fields)} FROM moved
"""

#: What a sign of life changes: no status, no event, no end, and nothing that an index covers.
_SIGNS: Final = ("started_at", "lease_until", "lease_seconds", "check_at", "progress", "message")

_RENEWED: Final = ("tenant_id", "id", "seen_seq", "seen_fence", *_SIGNS, "checkpoint")

_RENEW: Final = f"""
UPDATE executions e SET
    {", ".join(f"{column} = v.{column}" for column in _SIGNS)},
    checkpoint = COALESCE(v.checkpoint::jsonb, e.checkpoint)
FROM json_to_recordset(%(steps)s::json) AS v ({", ".join(f"{name} {_INPUT[name]}" for name in _RENEWED)})
WHERE e.tenant_id = v.tenant_id AND e.id = v.id AND e.id BETWEEN %(low)s AND %(high)s
  AND e.event_seq = v.seen_seq AND e.fence = v.seen_fence AND e.status = 'RUNNING'
RETURNING e.tenant_id, e.id
"""

_STARTED: Final = """
UPDATE attempts a SET started_at = v.started_at
FROM json_to_recordset(%(steps)s::json) AS v (tenant_id uuid, id uuid, seen_fence bigint, started_at timestamptz)
WHERE a.tenant_id = v.tenant_id AND a.execution_id = v.id AND a.fence = v.seen_fence AND a.started_at IS NULL
  AND a.execution_id BETWEEN %(low)s AND %(high)s
"""

#: Evidence goes to the attempt that it belongs to, which need not be the execution's current one.
_EVIDENCE: Final = """
UPDATE attempts a SET late_outcome = v.late_outcome::jsonb
FROM unnest(%(tenant)s::uuid[], %(id)s::uuid[], %(fence)s::bigint[], %(late)s::text[])
    AS v (tenant_id, execution_id, fence, late_outcome)
WHERE a.tenant_id = v.tenant_id AND a.execution_id = v.execution_id AND a.fence = v.fence
  AND a.execution_id BETWEEN %(low)s AND %(high)s AND a.late_outcome IS NULL
"""


def _input(step: Step, checkpoint: Any, now: datetime) -> dict[str, Any]:
    seen, verdict, run = step.seen, step.verdict, step.verdict.run
    values: dict[str, Any] = {column: getattr(run, column) for column in _PLAIN}
    values |= {
        "tenant_id": run.tenant_id,
        "id": run.id,
        "event_seq": run.event_seq,
        "seen_seq": seen.event_seq,
        "seen_fence": seen.fence,
        "seen_status": seen.status.value,
        "result": to_json(verdict.result),
        "error": to_json(verdict.error),
        "checkpoint": to_json(checkpoint),
        "at": written_at(run, now),
        "event": verdict.event,
        "actor": verdict.actor,
        "data": to_json(verdict.data),
        "ends": verdict.ending is not None,
        "begins": verdict.event in _BEGINS,
        "frees": run.status in FINAL and (seen.fence > 0 or seen.status is Status.RUNNING),
    }
    return values


def _end(step: Step, now: datetime) -> dict[str, Any]:
    """Return what becomes of an attempt; what stays as it is is left out."""
    run, ending = step.verdict.run, step.verdict.ending
    values: dict[str, Any] = {"tenant_id": run.tenant_id, "fence": run.fence, "started_at": run.started_at}
    if ending is not None:
        values |= {
            "ended_at": written_at(run, now),
            "outcome": ending.outcome,
            "reason": ending.reason,
            "exit_code": ending.exit_code,
            "error": None if ending.error is None else msgspec.Raw(str(to_json(ending.error)).encode()),
            "digest": None if ending.digest is None else ending.digest.hex(),
        }
    return {name: value for name, value in values.items() if value is not None}


async def write(
    conn: AsyncConnection, steps: Sequence[Step], now: datetime, *, checkpoints: dict[UUID, Any] | None = None
) -> Done:
    """Carry out verdicts on executions of any of the transaction's tenants and return which took effect.

    Each is guarded by status, fence and event number as they were seen; the caller holds the locks, so that a
    missing one means that it did not. At most one step for an execution.
    """
    checkpoints = checkpoints or {}
    signs: list[Step] = []
    moves: list[Step] = []
    for step in steps:
        (signs if _is_sign(step) else moves).append(step)
    done = await _renew(conn, signs, checkpoints)
    if moves:
        inputs = [_input(step, checkpoints.get(step.seen.id), now) for step in moves]
        ends = {str(step.seen.id): _end(step, now) for step in moves}
        parameters = {**_within(moves, inputs), "ends": msgspec.json.encode(ends).decode()}
        done |= {(tenant, one): Rest(*rest) for tenant, one, *rest in await fetch(conn, _APPLY, parameters)}
    return done


def _within(steps: Sequence[Step], inputs: Sequence[Any]) -> dict[str, Any]:
    """Return the parameters of a statement about `steps`: `inputs` as one text, and the bounds of the ids."""
    ids = [step.seen.id for step in steps]
    return {"steps": msgspec.json.encode(inputs).decode(), "low": min(ids), "high": max(ids)}


def _is_sign(step: Step) -> bool:
    """Say whether a step is no more than a sign of life."""
    seen, verdict = step
    if verdict.event is not None or verdict.ending is not None or seen.status is not Status.RUNNING:
        return False
    run = verdict.run
    return run == structs.replace(seen, **{column: getattr(run, column) for column in _SIGNS})


async def _renew(conn: AsyncConnection, signs: Sequence[Step], checkpoints: Mapping[UUID, Any]) -> Done:
    """Write signs of life: the commonest report takes the cheapest statement."""
    if not signs:
        return {}
    inputs = [
        {
            "tenant_id": seen.tenant_id,
            "id": seen.id,
            "seen_seq": seen.event_seq,
            "seen_fence": seen.fence,
            "started_at": verdict.run.started_at,
            "lease_until": verdict.run.lease_until,
            "lease_seconds": verdict.run.lease_seconds,
            "check_at": verdict.run.check_at,
            "progress": verdict.run.progress,
            "message": verdict.run.message,
            "checkpoint": to_json(checkpoints.get(seen.id)),
        }
        for seen, verdict in signs
    ]
    done: Done = dict.fromkeys(await fetch(conn, _RENEW, _within(signs, inputs)))
    first = [step for step in signs if step.seen.started_at is None and step.verdict.run.started_at is not None]
    if first:
        begun = [
            {"tenant_id": one.tenant_id, "id": one.id, "seen_fence": one.fence, "started_at": one.started_at}
            for one in (step.verdict.run for step in first)
            if (one.tenant_id, one.id) in done
        ]
        await fetch(conn, _STARTED, _within(first, begun))
    return done


async def keep_evidence(conn: AsyncConnection, evidence: Sequence[tuple[UUID, UUID, int, Any]]) -> None:
    """Keep late outcomes, given as (tenant, execution, fence, outcome), with the attempts that they speak of."""
    if not evidence:
        return
    await fetch(
        conn,
        _EVIDENCE,
        {
            "tenant": [one[0] for one in evidence],
            "id": [one[1] for one in evidence],
            "fence": [one[2] for one in evidence],
            "late": [to_json(one[3]) for one in evidence],
            "low": min(one[1] for one in evidence),
            "high": max(one[1] for one in evidence),
        },
    )
