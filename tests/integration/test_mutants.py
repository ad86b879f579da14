"""The checks of the heart can fail: each line below breaks the product in one place, and a check must see it.

Broken twins of planners, edits and of the writer's batches stand beside their own checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from cron_observer import lifecycle
from cron_observer.lifecycle import Status, decide
from cron_observer.store import logs
from cron_observer.store.engine import Database, clock
from cron_observer.store.executions import (
    apply,
    bounds,
    candidates,
    claims,
    places,
    repeats,
    reports,
    rows,
    settling,
)
from cron_observer.store.logs import storing
from cron_observer_api import claimer as claimer_module
from integration import (
    test_claimer_clients,
    test_claims,
    test_claims_fair,
    test_places,
    test_places_races,
    test_protocol_machine,
    test_reports,
    test_reports_edges,
)
from support.claims import SECOND, claimed
from support.databases import FreshDatabase, Tenant
from support.rows import database_now, make_slot, make_task, state

Break = Callable[[pytest.MonkeyPatch], None]
Check = Callable[[FreshDatabase, Tenant, pytest.MonkeyPatch], Awaitable[object]]


def text(module: Any, name: str, old: str, new: str = "") -> Break:
    """Break a statement: every `old` in it becomes `new`."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        statement: str = getattr(module, name)
        assert old in statement, f"{name} does not say so"
        patch.setattr(module, name, statement.replace(old, new))

    return broken


def column(name: str, value: str) -> Break:
    """Break what is written to a column of executions."""
    return text(apply, "_APPLY", f" {name} = v.{name},", f" {name} = {value},")


def instead(module: Any, name: str, value: Any) -> Break:
    """Break a function or a number: `value` stands in for it."""
    return lambda patch: patch.setattr(module, name, value)


def all_of(*breaks: Break) -> Break:
    """Break several places that cover for each other."""

    def broken(patch: pytest.MonkeyPatch) -> None:
        for one in breaks:
            one(patch)

    return broken


def keeping(module: Any, name: str, **changed: Any) -> Break:
    """Break a caller: the function is called with other named arguments."""
    real = getattr(module, name)
    return lambda patch: patch.setattr(module, name, lambda *given, **more: real(*given, **{**more, **changed}))


async def nothing(*_given: Any, **_more: Any) -> Any:
    """Do nothing, and report that nothing was done."""
    return 0


async def no_ids(*_given: Any, **_more: Any) -> set[Any]:
    """Name nobody."""
    return set()


def forgetting(name: str) -> Break:
    """Break what settling is told: it never learns this of what waits."""
    real = lifecycle.settle

    def settle(waiting: Any, **more: Any) -> Any:
        return real([replace(one, **{name: False}) for one in waiting], **more)

    return instead(lifecycle, "settle", settle)


async def none_found(*_given: Any, **_more: Any) -> Any:
    """Find nothing."""
    return {}


def check(function: Any) -> Check:
    """Call a test with the fixtures that it takes."""
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]

    async def run(database: FreshDatabase, tenant: Tenant, patch: pytest.MonkeyPatch) -> None:
        given = {"database": database, "tenant": tenant, "monkeypatch": patch}
        await function(**{name: given[name] for name in wanted})

    return run


def raced(setup: str) -> Check:
    """Race for places a few times."""

    async def run(database: FreshDatabase, tenant: Tenant, patch: pytest.MonkeyPatch) -> None:
        race = await test_places_races.raced(database, tenant, patch, setup, races=12)
        assert race.lost() == set()

    return run


async def a_step_from_an_older_state_has_no_effect(
    database: FreshDatabase, tenant: Tenant, _patch: pytest.MonkeyPatch
) -> None:
    """What was decided on a state that is gone changes nothing, even if the lock was lost."""
    slot = make_slot(tenant, make_task(tenant), database_now(database) - SECOND)
    (run,) = await claimed(database.api, tenant)
    async with database.api.transaction([tenant.tenant_id]) as conn:
        now = await clock(conn)
        waiting = structs.replace(run, status=Status.PENDING, fence=0, attempt=0, event_seq=0)
        stale = lifecycle.end_unclaimed(waiting, lifecycle.Event.SKIPPED, lifecycle.Reason.OVERLAP, now)
        assert await apply.write(conn, [apply.Step(waiting, stale)], now) == {}
    assert state(database, slot) == ("RUNNING", None)


async def lines_come_once(database: FreshDatabase, tenant: Tenant, _patch: pytest.MonkeyPatch) -> None:
    """Two writers that both found the log empty store its first lines once."""
    slot = make_slot(tenant, make_task(tenant), database_now(database) - SECOND)
    await claimed(database.api, tenant)
    chunk = logs.pack(0, [{"level": "INFO", "message": "x"}])
    later = logs.pack(1, [{"level": "INFO", "message": "y"}])
    async with database.api.transaction([tenant.tenant_id]) as conn:
        now = await clock(conn)
        for wanted, part in ((1, chunk), (0, replace(later, first_seq=5)), (1, later)):
            assert len(await logs.append(conn, [(tenant.tenant_id, slot, 1, part)], now)) == wanted


#: What is broken, how, and the check that sees it.
MUTANTS: dict[str, tuple[Break, Check]] = {
    "a step without its guard": (
        text(apply, "_APPLY", "AND e.event_seq = v.seen_seq AND e.fence = v.seen_fence AND e.status = v.seen_status"),
        a_step_from_an_older_state_has_no_effect,
    ),
    "lines without their number": (text(storing, "_APPEND", "AND a.log_lines = v.first_seq"), lines_come_once),
    "a round that lets no lease run out": (
        instead(claims, "expire", nothing), check(test_claims.test_a_lapsed_lease_is_offered_again),
    ),
    "a place that two can hold": (
        text(places, "_TAKE_PLACES", "w.scope, w.n,", "w.scope, floor(random() * 1e9)::int,"),
        check(test_claims.test_two_claimers_run_one),
    ),
    "a claim without its places": (instead(places.Places, "occupy", no_ids), raced("allow_all")),
    "a lost race that keeps half of its places": (
        text(places, "_GIVE_BACK", "r.scope = v.scope", "false"), raced("group"),
    ),
    "a group without its places": (
        text(places, "_GROUPS", "g.name = wanted.name", "false"), check(test_places.test_a_group_has_so_many_places),
    ),
    "a place of a group that is kept for ever": (
        text(apply, "_APPLY", "AND m.frees", "AND m.frees AND starts_with(r.scope, 'task:')"),
        check(test_places.test_a_group_has_so_many_places),
    ),
    "a backfill that runs beside itself without bounds": (
        text(places, "_BACKFILLS", "b.max_parallel", "1000"),
        check(test_places.test_a_backfill_runs_beside_itself_so_often),
    ),
    "a buffer that is not written down": (
        instead(settling, "_HOLD", "SELECT 1 WHERE false"), check(test_places.test_a_buffer_outlives_catch_up),
    ),
    "catch-up that judges what is held": (
        forgetting("held"), check(test_places.test_a_buffer_outlives_catch_up),
    ),
    "a buffer that is never looked at again": (
        instead(claims, "unblocked", no_ids), check(test_places.test_buffer_all_runs_one_after_the_other),
    ),
    "what is held in the way of all else": (
        text(candidates, "_DUE_IN_QUEUES", "e.held_at IS NULL AND "),
        check(test_places.test_a_full_group_hides_nothing),
    ),
    "a run that is replaced and goes on": (
        instead(lifecycle, "terminate", lambda run, *_given: lifecycle.Verdict(run=run)),
        check(test_places.test_terminate_other),
    ),
    "a newer slot that nobody hears of": (
        instead(reports, "_stops", none_found),
        lambda database, tenant, _patch: test_places.test_replies_ask_to_stop(database, tenant, "beat"),
    ),
    "a request to stop that is not written": (
        instead(claims, "ask_to_stop", nothing), check(test_places.test_cancel_other),
    ),
    "a window that never closes": (
        instead(decide, "shut", lambda *_given: False), check(test_places.test_a_window_closes),
    ),
    "a pause that nobody heeds": (
        instead(settling.pauses, "in_force", none_found), check(test_places.test_a_paused_task_starts_no_slot),
    ),
    "a place that is kept for ever": (
        text(apply, "_APPLY", "AND m.frees", "AND false"), check(test_reports.test_a_completion_ends_it),
    ),
    "slots of any plan": (
        all_of(
            text(candidates, "_DUE_IN_QUEUES", bounds.CURRENT.strip(), "true"),
            text(settling, "_BACKLOG_WITHOUT_HELD", bounds.CURRENT.strip(), "true"),
        ),
        check(test_claims.test_an_obsolete_slot_is_not_claimed),
    ),
    "a claim_id that means nothing": (
        text(repeats, "_REPEATED", "c.expires_at > %(now)s", "false"), check(test_claims.test_a_claim_can_be_repeated),
    ),
    "a claim that is not remembered": (
        text(repeats, "_REMEMBER", "ORDER BY g.claim_id", "WHERE false"),
        check(test_claims.test_a_claim_can_be_repeated),
    ),
    "a claimer that keeps what nobody received": (
        instead(claimer_module.Claimer, "_release", lambda *_given: None),
        lambda database, tenant, patch: test_claimer_clients.test_a_cancelled_request_gives_back(
            database, tenant, patch, None
        ),
    ),
    "a digest that is not compared": (
        keeping(lifecycle, "complete", seen_digest=None),
        check(test_reports.test_a_repeat_is_answered_and_another_outcome_refused),
    ),
    "a batch that waits for every lock": (
        text(rows, "_LOCK", "SKIP LOCKED", "NOWAIT"), check(test_reports_edges.test_a_locked_execution_is_busy),
    ),
    "the oldest of a backlog instead of the newest": (
        instead(claims, "lock_free", none_found), check(test_claims_fair.test_a_vast_backlog_is_put_away_in_parts),
    ),
    "one look only": (
        instead(claims, "_LOOKS", 1), check(test_claims_fair.test_what_is_skipped_hides_nothing),
    ),
    "an end that settles nothing": (
        instead(reports, "_settle", nothing), check(test_reports_edges.test_what_fell_due_beside_a_run),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_mutant_is_caught(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """With the product broken in this place, the check fails."""
    broken, sees = MUTANTS[name]
    broken(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017, PT011  a mutant may be caught by a refusal or an assertion
        async with asyncio.timeout(30):
            await sees(database, tenant, monkeypatch)


@pytest.mark.parametrize("sees", [a_step_from_an_older_state_has_no_effect, lines_come_once])
async def test_unbroken_it_holds(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, sees: Check
) -> None:
    """The checks that stand here alone hold for the product as it is."""
    await sees(database, tenant, monkeypatch)


#: What the machine of random histories has to see.
SEEN_BY_HISTORIES: dict[str, Break] = {
    "an old fence that is taken": instead(
        decide, "_refuse", lambda run, _fence, real=decide._refuse: real(run, run.fence)
    ),
    "a run deadline that never comes": column("run_deadline", "'infinity'"),
    "a lost lease that costs an attempt": column("attempt", "v.attempt + v.lease_losses"),
    "a cancellation that is forgotten": column("cancel_deadline", "NULL"),
    "a log that begins anew after a lost lease": text(apply, "_APPLY", "COALESCE((", "0 * COALESCE(("),
    "leases that are lost for ever again": instead(decide, "LEASE_LOSSES_MAX", 4),
    "an event that is not written": text(apply, "_APPLY", "event IS NOT NULL", "event <> 'released'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN_BY_HISTORIES)
def test_histories_see_a_mutant(database: FreshDatabase, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With the life cycle broken in this place, a random history leaves the model."""
    SEEN_BY_HISTORIES[name](monkeypatch)
    api = Database(database.url, "cron_observer_api", pool_size=1)
    with asyncio.Runner() as runner:
        try:
            with pytest.raises(Exception):  # noqa: B017, PT011  whichever invariant it is
                test_protocol_machine.histories(database, runner, api, shrink=False)
        finally:
            runner.run(api.close())
