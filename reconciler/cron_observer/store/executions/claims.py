"""Handing out due executions.

A round serves all waiting workers of one tenant in one transaction. It reads what is due, lets `lifecycle.settle`
decide about every task that it touches, takes the places that executions need by ``INSERT … ON CONFLICT DO NOTHING``,
and moves only what it got. Nothing that is locked by another round is acted upon.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from cron_observer import lifecycle
from cron_observer.lifecycle import Event, Reason, Run
from cron_observer.model import Overlap, Policy
from cron_observer.store.executions.apply import Step, write
from cron_observer.store.executions.bounds import due_bounds
from cron_observer.store.executions.candidates import LOOK_MAX, Seat, candidates, unblocked
from cron_observer.store.executions.deadlines import expire
from cron_observer.store.executions.places import Need, Places
from cron_observer.store.executions.rows import lock, policies
from cron_observer.store.executions.settling import (
    Settled,
    anything_held,
    ask_to_stop,
    end,
    hold,
    lock_free,
    settlements,
    to_hold,
)
from cron_observer.turns import Turns

#: Looks of one round. Each sees twice as much as the one before, so that what only stands in the way (slots that
#: are skipped as soon as they are looked at) hides what can be claimed from nobody.
_LOOKS: Final = 8


async def claim_round(
    conn: AsyncConnection,
    tenant_id: UUID,
    seats: Sequence[Seat],
    now: datetime,
    *,
    expiring: bool = True,
    turns: Turns | None = None,
    beyond: bool = True,
) -> list[Run]:
    """Give due executions to waiting workers, in the order of their arrival; fill each seat's `got`.

    `turns` says which tasks have had theirs; `beyond` whether to look behind a backlog for other tasks' executions.

    Expires deadlines of the tenant first, so that dead workers are replaced while no scheduler runs (`expiring`
    False while the clock is not to be trusted). Returns all executions that were claimed. Never are more runs of a
    task, a group or a backfill active than may be, whoever else claims. A seat's `more` says that another round at
    once is worth while.
    """
    if expiring:
        await expire(conn, tenant_id, now, recent=True)
    waiting = [seat for seat in seats if seat.room > 0]
    for look in range(_LOOKS):
        locked = await candidates(conn, tenant_id, waiting, now, look, beyond=beyond) if waiting else {}
        given, others = await _hand_out(conn, tenant_id, waiting, now, locked, turns or Turns())
        for seat in waiting:
            seat.more = others > 0 and seat.room > 0
        # Places are taken once in a transaction, so that no two rounds wait for each other.
        if given or not others:
            return given
    return []


@dataclass(frozen=True, slots=True)
class _Choice:
    """A worker for an execution, and the executions whose places it takes."""

    seat: Seat
    step: Step
    instead_of: tuple[UUID, ...] = ()


async def _hand_out(
    conn: AsyncConnection,
    tenant_id: UUID,
    seats: Sequence[Seat],
    now: datetime,
    locked: dict[UUID, Run],
    turns: Turns,
) -> tuple[list[Run], int]:
    """Hand out what is due and `locked`; return what was claimed, and how many others something was done with."""
    if not seats:
        return [], 0
    uids = {run.task_uid for run in locked.values()}
    held = await anything_held(conn, tenant_id, due_bounds(now))
    if held:
        uids |= await unblocked(conn, tenant_id, seats, now)
    if not uids:
        return [], 0
    seen = locked.values()
    settled = await settlements(conn, tenant_id, uids, now, due_bounds(now), seen=seen, held=held, claiming=True)
    others = await end(conn, tenant_id, settled, locked, now)
    others += await ask_to_stop(conn, tenant_id, settled, now)
    locked |= await lock_free(conn, tenant_id, _behind(settled, locked, sum(seat.room for seat in seats)))
    over = [run for run in locked.values() if run.fence > 0 and _over(run, settled, now)]
    others += await _give_up(conn, over, settled, now)
    may_run = {identity for one in settled.verdicts.values() for identity in one.run}
    may_run |= {run.id for run in locked.values() if run.fence > 0} - {run.id for run in over}
    ready = turns.order(run for run in locked.values() if run.id in may_run)
    rules = await _rules(conn, tenant_id, ready, settled)
    await settled.places.learn(conn, [Need.of(run, rules[run.id]) for run in ready])
    victims = await _victims(conn, tenant_id, settled, locked)
    chosen, blocked = _assign(ready, seats, rules, settled, victims, now)
    given = await _carry_out(conn, chosen, settled.places, victims, now)
    others += await hold(conn, tenant_id, [*to_hold(settled), *blocked], now)
    return given, others + len(chosen) - len(given)


def _behind(settled: Settled, locked: Mapping[UUID, Run], room: int) -> list[UUID]:
    """Return what may run and was not found: the newest of a long backlog, the first in line of a buffer.

    Of a task of which enough was found to fill all the `room` there is, nothing more is wanted.
    """
    behind: list[UUID] = []
    for settlement in settled.verdicts.values():
        missing = [identity for identity in settlement.run if identity not in locked]
        behind += missing[: max(0, room - len(settlement.run) + len(missing))]
    return behind[:LOOK_MAX]


def _over(run: Run, settled: Settled, now: datetime) -> bool:
    """Say whether what waits for another try is not to have it."""
    return run.task_uid in settled.removed or lifecycle.shut(run, now)


async def _give_up(conn: AsyncConnection, runs: Sequence[Run], settled: Settled, now: datetime) -> int:
    """End what waits for another try of a task that is gone, or past the window of its group."""
    steps = []
    for run in runs:
        why = Reason.TASK_DELETED if run.task_uid in settled.removed else Reason.WINDOW
        steps.append(Step(run, lifecycle.give_up(run, Event.SKIPPED, why, now)))
    return len(await write(conn, steps, now))


async def _rules(conn: AsyncConnection, tenant_id: UUID, runs: Sequence[Run], settled: Settled) -> dict[UUID, Policy]:
    """Return the policy that each execution obeys: of the definition that it pinned, else of its task as it is now."""
    keys = {run.id: (run.task_uid, run.generation) for run in runs if run.generation is not None}
    pinned = await policies(conn, tenant_id, keys.values())
    return {run.id: pinned[keys[run.id]] if run.id in keys else settled.rules[run.task_uid] for run in runs}


async def _victims(
    conn: AsyncConnection, tenant_id: UUID, settled: Settled, locked: Mapping[UUID, Run]
) -> dict[UUID, list[Run]]:
    """Lock what newer slots take the places of; return it by slot, without slots for which not all could be locked."""
    wanted: dict[UUID, list[UUID]] = {}
    for one, slot in settled.stops(Overlap.TERMINATE_OTHER).items():
        if slot in locked:
            wanted.setdefault(slot, []).append(one)
    if not wanted:
        return {}
    runs = (await lock(conn, tenant_id, [one for some in wanted.values() for one in some])).runs
    return {slot: [runs[one] for one in some] for slot, some in wanted.items() if all(one in runs for one in some)}


def _assign(
    ready: Sequence[Run],
    seats: Sequence[Seat],
    rules: Mapping[UUID, Policy],
    settled: Settled,
    victims: Mapping[UUID, Sequence[Run]],
    now: datetime,
) -> tuple[list[_Choice], list[UUID]]:
    """Choose a worker for each execution, as far as there are workers and places; return also what lacks a place.

    Who has waited longest chooses first.
    """
    chosen: list[_Choice] = []
    blocked: list[UUID] = []
    room = {id(seat): seat.room for seat in seats}
    waiting = list(seats)
    places = settled.places
    for run in ready:
        if not waiting:
            break
        if run.start_deadline is not None and run.start_deadline <= now:
            continue
        seat = next((seat for seat in waiting if seat.takes(run)), None)
        if seat is None:
            continue
        need = Need.of(run, rules[run.id])
        instead_of = tuple(one.id for one in victims.get(run.id, ()))
        if not places.take(run.id, places.needed(need), instead_of):
            if run.held_at is None:
                blocked.append(run.id)
            continue
        verdict = lifecycle.claim(
            run,
            need.policy,
            generation=settled.generations.get(run.task_uid, 0),
            worker=seat.worker,
            lease=seat.lease,
            now=now,
            cut=places.cut(need),
        )
        chosen.append(_Choice(seat, Step(run, verdict), instead_of))
        room[id(seat)] -= 1
        if not room[id(seat)]:
            waiting.remove(seat)
    return chosen, blocked


async def _carry_out(
    conn: AsyncConnection,
    chosen: Sequence[_Choice],
    places: Places,
    victims: Mapping[UUID, Sequence[Run]],
    now: datetime,
) -> list[Run]:
    """End what is replaced, take the places, and move what got all of its own."""
    replaced = [
        Step(one, lifecycle.terminate(one, choice.step.seen.id, now))
        for choice in chosen
        if choice.instead_of
        for one in victims[choice.step.seen.id]
    ]
    await write(conn, [step for step in replaced if step.verdict.event is not None], now)
    steps = await take_places(conn, [choice.step for choice in chosen], places, now)
    done = {identity: rest for (_, identity), rest in (await write(conn, steps, now)).items()}
    given = []
    for choice in chosen:
        rest = done.get(choice.step.seen.id)
        if rest is not None:
            choice.seat.got.append(choice.step.verdict.run)
            choice.seat.rests[choice.step.seen.id] = rest
            given.append(choice.step.verdict.run)
    return given


async def take_places(conn: AsyncConnection, steps: Collection[Step], places: Places, now: datetime) -> list[Step]:
    """Return the claims that may go on: those that got, or still hold, all the places that were set aside for them."""
    lost = await places.occupy(conn, [step.seen.id for step in steps], now)
    return [step for step in steps if step.seen.id not in lost]
