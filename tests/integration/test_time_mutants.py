"""The invariants of time, each with lines of the product that break it and the check that sees it.

I1 each slot once, I2 no zombie, I3 and I4 clocks that are wrong or jump, I5 catch-up as written, I6 edits are never
retroactive, I7 clock changes, I8 a poisoned task is alone, I9 tenants do not starve, I10 overlap under concurrency.
Every check holds for the product as it is; with one line changed, it fails.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest

from cron_observer import scheduler as scheduler_module
from cron_observer.scheduler import Scheduler
from cron_observer.settings import Settings
from integration import (
    test_places_races,
    test_plan_edits,
    test_plan_poison,
    test_plan_races,
    test_scenarios_backfills,
    test_scenarios_cronjobs,
    test_scenarios_schedules,
    test_scheduler,
    test_time_machine,
)
from support.databases import FreshDatabase, Tenant, make_tenant
from support.mutants import Mutant
from support.plans import begin, fires, make_unplanned, plan, plan_of
from support.rows import database_now
from support.scenes import HOUR, MINUTE, Scene
from unit import test_clock, test_schedule_oracle, test_schedule_vectors, test_schedule_walker

MINUTELY = {"cron": "* * * * *"}

Check = Callable[[FreshDatabase, Tenant, pytest.MonkeyPatch], Any]


def check(function: Callable[..., Any], *given: Any, **more: Any) -> Check:
    """Call a test with the fixtures that it takes; positional values come after them."""

    def run(database: FreshDatabase, tenant: Tenant, patch: pytest.MonkeyPatch) -> Any:
        fixtures = {"database": database, "tenant": tenant, "monkeypatch": patch}
        wanted = [name for name in inspect.signature(function).parameters if name not in more]
        if "scene" in wanted:
            fixtures["scene"] = Scene(tenant, patch)
        known = {name: fixtures[name] for name in wanted if name in fixtures}
        rest = dict(zip([name for name in wanted if name not in fixtures], given, strict=True))
        return function(**known, **rest, **more)

    return run


async def a_sleeper_moves_no_plan_back(database: FreshDatabase, tenant: Tenant) -> None:
    """A planner that wakes up with what it read long ago leaves the plan where others have brought it."""
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    read = await test_plan_races.read_due(tenant, now)
    await plan(tenant, now)
    await plan(tenant, now + 30 * MINUTE)
    reached = plan_of(database, uid)["planned_until"]
    for _ in range(20):
        await test_plan_races.write(tenant, read, now)
        assert plan_of(database, uid)["planned_until"] == reached


async def a_host_whose_clock_is_wrong(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A scheduler on a host whose clock is hours off plans as any other: from the database's time, and no further."""
    real = datetime

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return real.now(tz) + hours * HOUR

    monkeypatch.setattr(scheduler_module, "datetime", Wrong)
    uid, now = make_unplanned(tenant), database_now(database)
    begin(tenant, uid, MINUTELY, now)
    result = await Scheduler(database.scheduler, Settings()).tick()
    assert not result.failures
    planned = fires(database, uid)
    assert now + HOUR < planned[-1] < now + 2 * HOUR
    assert len(planned) >= 60


async def tenants_take_turns(database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one tenant has far more to plan than a batch holds, every other one is served before it is done."""
    monkeypatch.setattr(scheduler_module, "BATCH", 5)
    now = database_now(database)
    for number in range(60):
        begin(tenant, make_unplanned(tenant, f"task-{number}"), {"cron": f"{number % 60} * * * *"}, now)
    others = [make_tenant(database, f"small-{number}") for number in range(4)]
    small = [make_unplanned(other) for other in others]
    for other, uid in zip(others, small, strict=True):
        begin(other, uid, MINUTELY, now)
    await Scheduler(database.scheduler, Settings()).tick()
    query = "SELECT max(xmin::text::bigint) FROM executions WHERE tenant_id = %s"
    last = database.value(query, tenant.tenant_id)
    assert all(database.value(query, other.tenant_id) < last for other in others)


async def races_for_one_place(database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever races for an exclusive task, one runs, and each slot gets its outcome."""
    race = await test_places_races.raced(database, tenant, monkeypatch, "skip", races=8)
    assert race.lost() == set()


def histories(database: FreshDatabase, monkeypatch: pytest.MonkeyPatch) -> Awaitable[None]:
    """Some random histories of edits and pauses stay with their models."""
    database.partitions(test_time_machine.JUMP - timedelta(days=30), test_time_machine.JUMP + timedelta(days=30))
    stories = STORIES.setdefault("made", test_time_machine.make(40))
    for story in stories:
        story.uid = story.path = None

    async def live() -> None:
        assert await test_time_machine.play(database, stories, monkeypatch) == []

    return live()


#: Histories are made once: they do not depend on the product.
STORIES: dict[str, Any] = {}


class Case(NamedTuple):
    """An invariant, a way to break it, and who sees that."""

    invariant: str
    what: str
    mutant: Mutant
    sees: Check


ADD, GUARD = "_ADD_SLOTS", "AND p.generation = v.generation AND p.planned_until = v.planned_until\n"
WRITE = "    slots = await add_slots(conn, tenant_id, batch.planned, now)\n"
ADVANCE = "    await advance(conn, tenant_id, batch.planned)\n"
COMMIT = (
    "    await conn.exec_driver_sql(f\"SET app.tenant_ids = '{tenant_id}'; COMMIT; BEGIN\", "
    "execution_options={'no_parameters': True})\n"
)
GUARDED = 'await self._guarded(result, {0}, "plan", self._plan_batch(result, {0}, shared))'
TURNS = (
    f"[\n            tenant\n            for tenant in waiting\n            if {GUARDED.format('tenant')}\n        ]"
)
UNTIL_ITS_END = f"waiting if {GUARDED.format('waiting[0]')} else waiting[1:]"
DUE = "e.held_at IS NULL AND e.available_at <= %(now)s"

CASES = [
    Case("I1", "no guard of the generation", Mutant("store.plan_rows", ADD, GUARD, "\n"),
         check(test_plan_races.test_a_planner_with_an_old_generation_inserts_nothing, False)),
    Case("I1", "random ids",
         Mutant("schedule.ids", "_label", 'f"{slot.nominal_local.isoformat()}/{slot.fold}"', "os.urandom(8).hex()"),
         check(test_scenarios_cronjobs.test_a_start_has_a_name_of_its_own)),
    Case("I1", "advances in a commit of its own before it inserts",
         Mutant("store.plan_rows", "write_plans", WRITE + ADVANCE, ADVANCE + COMMIT + WRITE),
         check(test_plan_races.test_a_planner_may_die_anywhere, "add_slots")),
    Case("I1", "what an ending plan owes is not planned",
         Mutant("store.plan_rows", "close", "await _add_in_parts(conn, tenant_id, endings, now)", "pass"),
         check(test_plan_edits.test_an_edit_after_an_absence_keeps_what_fell_due)),
    Case("I2", "a zombie inserts what others have planned",
         Mutant("store.plan_rows", ADD, GUARD, "AND p.generation = v.generation\n"),
         check(test_plan_races.test_a_planner_that_sleeps_past_retention_inserts_nothing, False)),
    Case("I2", "a zombie moves the plan back",
         Mutant("store.plan_rows", "_ADVANCE", GUARD, "AND p.generation = v.generation\n"),
         check(a_sleeper_moves_no_plan_back)),
    *(
        Case("I3", f"plans by the clock of its host, {hours:+} hours",
             Mutant("scheduler", "Scheduler._open", "self._observe(await clock(conn))",
                    "Reading(now=datetime.now().astimezone())"),
             check(a_host_whose_clock_is_wrong, hours))
        for hours in (-3, 3)
    ),
    Case("I3", "offers what is not yet due",
         Mutant("store.executions.candidates", "_DUE_IN_QUEUES", DUE, f"{DUE} + interval '1 hour'"),
         check(test_scenarios_cronjobs.test_a_clock_that_lags_starts_nothing_early)),
    Case("I4", "follows a clock that has jumped ahead",
         Mutant("clock", "ClockGuard.observe", "min(db_now, expected + TOLERANCE)", "db_now"),
         check(test_clock.test_a_frozen_clock_never_runs_ahead)),
    Case("I4", "accuses people while the clock has jumped",
         Mutant("clock", "ClockGuard.observe", "abs(offset) <= TOLERANCE", "True"),
         check(test_scheduler.test_nothing_expires_while_the_clock_has_jumped)),
    Case("I5", "`last` runs all of them",
         Mutant("lifecycle.settle", "_caught", "inside = inside[-1:]", "inside = inside[:]"),
         check(test_scenarios_cronjobs.test_no_number_of_missed_starts_stops_a_task, 1)),
    Case("I5", "`all` without its bound",
         Mutant("lifecycle.settle", "_caught", "inside[-policy.max_runs :]", "inside[:]"),
         check(test_scenarios_schedules.test_the_most_that_are_caught_up)),
    Case("I5", "gives up beyond a hundred missed slots",
         Mutant("forecast", "overdue", "if not due:\n        return slots", "if len(due) > 100:\n        return []"),
         check(test_scenarios_backfills.test_a_day_of_absence, {"policy": "all", "window": None, "maxRuns": 100}, 100)),
    Case("I6", "an edit takes effect in the past",
         Mutant("store.plans", "_effective_from", "(scope.margin if scope else MARGIN)", "timedelta(hours=-1)"),
         check(test_scenarios_schedules.test_an_update_is_never_retroactive)),
    Case("I6", "an edit that changes nothing plans anew",
         Mutant("store.plans", "_changed", "known[uid].inputs != entry.inputs", "True"),
         check(test_plan_edits.test_the_same_again_touches_nothing)),
    Case("I6", "slots of the old plan outlive the edit",
         Mutant("store.plan_rows", "_FORGET", "e.plan_generation < v.generation", "false"), check(histories)),
    Case("I6", "a pause is made up for though nobody asked",
         Mutant("store.pause_slots", "make_up", "ended.on_resume is not OnResume.SKIP and ", ""),
         check(test_scenarios_schedules.test_what_a_pause_says_of_its_end, "skip", [])),
    Case("I6", "what is planned after the pause stays paused",
         Mutant("store.pause_slots", "_WAIT", "AND NOT EXISTS", "AND EXISTS"), check(histories)),
    Case("I6", "a rename is a deletion and a new task",
         Mutant("plan.renames", "renames", "for tasks in wishes.values():", "for tasks in ():"), check(histories)),
    Case("I7", "`shift` fires at the end of the gap",
         Mutant("schedule.evaluate", "swallowed", "nominal if rule is GapRule.SHIFT else ", ""),
         check(test_schedule_walker.test_around_changes_the_engine_does_as_the_clock_shows, "Australia/Lord_Howe")),
    Case("I7", "`skip` fires all the same",
         Mutant("schedule.evaluate", "swallowed", "rule is GapRule.SKIP", "False"),
         check(test_schedule_vectors.test_every_row_is_answered_as_its_suite_states, "generated_modes.jsonl")),
    Case("I7", "a fixed time fires in both passes",
         Mutant("schedule.evaluate", "CronMember._is_slot", "return not piece.fold", "return True"),
         check(test_schedule_vectors.test_every_row_is_answered_as_its_suite_states, "generated_debian.jsonl")),
    Case("I7", "elapsed time fires in one pass only",
         Mutant("schedule.evaluate", "CronMember._is_slot", "self.cron.interval_like or self.overlap is FoldRule.BOTH",
                "self.overlap is FoldRule.BOTH"),
         check(test_schedule_walker.test_elapsed_time_loses_no_instant, "America/St_Johns")),
    Case("I8", "one poisoned schedule spoils the batch",
         Mutant("store.plan_work", "evaluate", "except Exception as error:", "except ZeroDivisionError as error:"),
         check(test_plan_poison.test_a_damaged_schedule_is_put_aside, "oops")),
    Case("I8", "schedules without a date are let in",
         Mutant("schedule.build", "read_crons", "not ever_fires(cron)", "False"),
         check(test_schedule_oracle.test_a_schedule_without_a_date_is_found_out, "0 0 30 2 *")),
    Case("I9", "a tenant is planned to its end before the next",
         Mutant("scheduler", "Scheduler._planner", TURNS, UNTIL_ITS_END), check(tenants_take_turns)),
    Case("I10", "claims without their places",
         Mutant("store.executions.claims", "take_places",
                "lost = await places.occupy(conn, [step.seen.id for step in steps], now)", "lost = set()"),
         check(races_for_one_place)),
    Case("I10", "`skip` that looks at nobody",
         Mutant("lifecycle.settle", "_kept", "list(slots[-1:]) if task.free else []", "list(slots[-1:])"),
         check(test_scenarios_schedules.test_overlap_skip)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    """Let the engine forget what it has compiled, before a line is changed and after it is back."""
    forget_all()
    yield
    forget_all()


def forget_all() -> None:
    """Empty the caches of the engine and of planning."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("cron_observer.schedule", "cron_observer.store.plan_")):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


async def outcome(sees: Check, database: FreshDatabase, tenant: Tenant, patch: pytest.MonkeyPatch) -> None:
    """Do a check, whether it waits for something or not."""
    made = sees(database, tenant, patch)
    if inspect.isawaitable(made):
        async with asyncio.timeout(100):
            await made


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.invariant} {case.what}")
async def test_a_changed_line_is_seen(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """With this line of the product changed, the check fails."""
    case.mutant.apply(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)) as seen:
        await outcome(case.sees, database, tenant, monkeypatch)
    assert not isinstance(seen.value, NameError | SyntaxError | TimeoutError), "the mutant itself is broken"


#: Checks that stand here alone; all others are tests of their own.
OWN: list[Check] = [
    check(a_sleeper_moves_no_plan_back),
    check(a_host_whose_clock_is_wrong, -3),
    check(a_host_whose_clock_is_wrong, 3),
    check(tenants_take_turns),
    check(races_for_one_place),
    check(histories),
]


@pytest.mark.parametrize("number", range(len(OWN)))
async def test_as_it_is_the_checks_hold(
    database: FreshDatabase, tenant: Tenant, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The product as it is passes the checks that stand here alone."""
    await outcome(OWN[number], database, tenant, monkeypatch)


def test_every_invariant_has_its_mutants() -> None:
    """Each of the ten invariants is broken in two places at least."""
    broken = {
        invariant: [case for case in CASES if case.invariant == invariant]
        for invariant in map("I{}".format, range(1, 11))
    }
    assert all(broken.values())
