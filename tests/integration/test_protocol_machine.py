"""Random histories of claims, reports and lost time, step by step against a model of the life cycle."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from cron_observer.lifecycle import MOVES, Completion, Event, Status
from cron_observer.store import logs
from cron_observer.store.engine import Database
from cron_observer.store.executions import (
    AppendLogs,
    Cancel,
    Complete,
    Heartbeat,
    Release,
    Report,
    Seat,
    Start,
    claim_round,
    create_manual,
    expire,
    process,
    settle_waiting,
)
from support.databases import FreshDatabase, make_tenant
from support.protocol_model import Exec, Model
from support.rows import database_now, make_slot, make_task

SECOND = timedelta(seconds=1)

#: Histories of one run, of forty steps each; the full size is as long as one likes.
HISTORIES = int(os.environ.get("CRON_OBSERVER_HISTORIES", "12"))
TERMS: dict[str, Any] = {
    "timeout": "60s",
    "retries": {"max": 1, "backoff": "constant", "initial": "10s"},
}

#: Which execution a report is about: mostly one that runs.
CHOICE = st.tuples(st.sampled_from(["running", "running", "running", "claimed", "any"]), st.integers(0, 2))


class Machine(RuleBasedStateMachine):
    """One tenant with an exclusive task and one that runs beside itself. `database` and `runner` are set below."""

    database: FreshDatabase
    api: Database
    runner: asyncio.Runner
    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        self.tenant = make_tenant(self.database, f"tenant-{self.made}")
        self.tasks = {
            True: make_task(self.tenant, "exclusive", **TERMS),
            False: make_task(self.tenant, "free", overlap="allow_all", catchup={"policy": "none"}, **TERMS),
        }
        self.now = database_now(self.database)
        self.model = Model()
        self.written: dict[tuple[UUID, int], list[str]] = defaultdict(list)

    def run(self, work: Any) -> Any:
        """Do `work` in a transaction of the tenant."""

        async def inside() -> Any:
            async with self.api.transaction([self.tenant.tenant_id]) as conn:
                return await work(conn)

        return self.runner.run(inside())

    def say(self, kind: type[Report], one: Exec, **said: Any) -> str | None:
        """Report as the writer would, and return the code of the refusal."""
        report = kind(tenant_id=self.tenant.tenant_id, id=one.id, **said)
        for _ in range(2):
            (answer,) = self.run(lambda conn: process(conn, [report], trusted=lambda _read: self.now))
            if not answer.again:
                return answer.refusal and answer.refusal.code
        raise AssertionError("a report is asked for twice at most")

    def pick(self, choice: tuple[str, int]) -> Exec:
        """Choose one of those that run, that were claimed, or of all; if there is none, of all."""
        among, number = choice
        every = list(self.model.all.values())
        some = [one for one in every if among == "any" or (one.fence > 0 and (among == "claimed" or one.lease_until))]
        return (some or every)[-1 - number % len(some or every)]

    def waiting(self) -> int:
        """How many wait."""
        return sum(one.status == "PENDING" for one in self.model.all.values())

    @rule(seconds=st.sampled_from([0.5, 1, 3, 6, 11, 31, 61]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds * SECOND

    @precondition(lambda self: len(self.model.all) > 5)
    @rule(minutes=st.sampled_from([2, 14, 16, 70]))
    def pass_much_time(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: self.waiting() < 5)
    @rule(exclusive=st.booleans(), ahead=st.sampled_from([0, 0, 0, 2, 5]))
    def add_slot(self, exclusive: bool, ahead: int) -> None:
        fire_at = self.now + ahead * SECOND + len(self.model.all) * timedelta(milliseconds=1)
        identity = make_slot(self.tenant, self.tasks[exclusive], fire_at)
        self.model.all[identity] = Exec(identity, exclusive, fire_at)

    @precondition(lambda self: self.waiting() < 5)
    @rule(exclusive=st.booleans(), force=st.booleans())
    def trigger(self, exclusive: bool, force: bool) -> None:
        now, task = self.now, self.tasks[exclusive]
        identity = self.run(
            lambda conn: create_manual(conn, self.tenant.tenant_id, task, force=force, actor="me", now=now)
        )
        self.model.all[identity] = Exec(identity, exclusive, now, slot=False, forced=force)

    @rule(wanted=st.sampled_from([1, 2, 10]), lease=st.sampled_from([5, 30, 120]))
    def claim(self, wanted: int, lease: int) -> None:
        seat = Seat(worker="w", queues=("default",), tasks=None, wanted=wanted, lease=lease * SECOND)
        runs = self.run(lambda conn: claim_round(conn, self.tenant.tenant_id, [seat], self.now))
        assert [(run.id, run.fence) for run in runs] == self.model.claim(wanted, lease * SECOND, self.now)

    @rule()
    def tick(self) -> None:
        self.run(lambda conn: expire(conn, self.tenant.tenant_id, self.now))
        self.model.expire(self.now)
        self.run(lambda conn: settle_waiting(conn, self.tenant.tenant_id, self.now, None))
        for exclusive in (True, False):
            self.model.settle(exclusive=exclusive, now=self.now)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=st.sampled_from([0, 0, 0, 0, -1, 1]))
    def start(self, choice: tuple[str, int], off: int) -> None:
        one = self.pick(choice)
        assert self.say(Start, one, fence=one.fence + off) == self.model.start(one, one.fence + off)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=st.sampled_from([0, 0, 0, 0, -1, 1]))
    def beat(self, choice: tuple[str, int], off: int) -> None:
        one = self.pick(choice)
        assert self.say(Heartbeat, one, fence=one.fence + off) == self.model.beat(one, one.fence + off, self.now)

    @precondition(lambda self: self.model.all)
    @rule(
        choice=CHOICE,
        off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        shift=st.sampled_from([0, 0, 0, -1, -3, 2]),
        count=st.integers(1, 4),
    )
    def log(self, choice: tuple[str, int], off: int, shift: int, count: int) -> None:
        one = self.pick(choice)
        fence = one.fence + off
        have = one.lines.get(fence, 0)
        first = max(0, have + shift)
        lines = [f"{fence}/{seq}" for seq in range(first, first + count)]
        encoded = logs.encode({"level": "INFO", "message": line} for line in lines)
        refused = self.say(AppendLogs, one, fence=fence, first_seq=first, lines=encoded)
        assert refused == self.model.log(one, fence, first, count, self.now)
        if refused is None:
            self.written[one.id, fence] += lines[have - first :]

    @precondition(lambda self: self.model.all)
    @rule(
        choice=CHOICE,
        off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        outcome=st.sampled_from(["finished", "failed", "failed", "cancelled", "skipped"]),
    )
    def complete(self, choice: tuple[str, int], off: int, outcome: str) -> None:
        one = self.pick(choice)
        fence, held = one.fence + off, one.holds
        done = Completion(outcome=outcome, fence=fence, digest=outcome.encode())
        refused = self.say(Complete, one, done=done)
        assert refused == self.model.complete(one, fence, outcome, outcome.encode(), self.now)
        self.model.freed(one, held=held, now=self.now)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=st.sampled_from([0, 0, 0, -1]))
    def release(self, choice: tuple[str, int], off: int) -> None:
        one = self.pick(choice)
        fence, held = one.fence + off, one.holds
        assert self.say(Release, one, fence=fence, reason="x") == self.model.release(one, fence, self.now)
        self.model.freed(one, held=held, now=self.now)

    @rule(
        exclusive=st.booleans(),
        outcome=st.sampled_from(["finished", "failed", "skipped"]),
        seconds=st.sampled_from([1, 40, 70]),
    )
    def work(self, exclusive: bool, outcome: str, seconds: int) -> None:
        """Claim what is due and say how it ended after a while, perhaps too late."""
        self.add_slot(exclusive, 0)
        self.pass_time(1)
        self.claim(10, 30)
        self.pass_time(seconds)
        if seconds % 20:
            self.tick()
        self.complete(("claimed", 0), 0, outcome)

    @precondition(lambda self: self.model.all)
    @rule(times=st.sampled_from([1, 1, 4]))
    def lose(self, times: int) -> None:
        """Claim what is due, write a little, and fall silent."""
        for _ in range(times):
            self.claim(10, 5)
            self.log(("running", 0), 0, 0, 2)
            self.pass_time(6)
            self.tick()

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, grace=st.sampled_from([0, 5, 30]))
    def cancel(self, choice: tuple[str, int], grace: int) -> None:
        one = self.pick(choice)
        held = one.holds
        refused = self.say(Cancel, one, reason="x", actor="me", grace=grace * SECOND)
        assert refused == self.model.cancel(one, grace * SECOND, self.now)
        self.model.freed(one, held=held, now=self.now)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return rows of this tenant."""
        return self.database.rows(query, self.tenant.tenant_id)

    @invariant()
    def everything_stands_as_the_model_says(self) -> None:
        columns = "id, status, reason, fence, attempt, lease_losses, late"
        stored = {row.pop("id"): row for row in self.rows(f"SELECT {columns} FROM executions WHERE tenant_id = %s")}
        assert stored == {
            one.id: {
                "status": one.status, "reason": one.reason, "fence": one.fence, "attempt": one.attempt,
                "lease_losses": one.losses, "late": one.late,
            }
            for one in self.model.all.values()
        }  # fmt: skip

    @invariant()
    def every_event_is_a_legal_move(self) -> None:
        seen: dict[UUID, list[dict[str, Any]]] = defaultdict(list)
        for row in self.rows("SELECT * FROM execution_events WHERE tenant_id = %s ORDER BY execution_id, seq"):
            seen[row["execution_id"]].append(row)
        for identity, events in seen.items():
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            assert all(earlier["at"] <= later["at"] for earlier, later in pairwise(events))
            status, fence = Status.PENDING, 0
            for event in events:
                move = MOVES.get(Event(event["type"]))
                if move is None:
                    assert event["status"] == status
                else:
                    assert status in move.sources
                    assert event["status"] == move.target
                rises = event["type"] == "claimed"
                assert event["fence"] == fence + rises, "a fence rises at each claim, and only there"
                status, fence = Status(event["status"]), event["fence"]
            assert status == self.model.all[identity].status

    @invariant()
    def a_place_is_held_by_who_runs_or_is_to_run_again(self) -> None:
        holders = {
            row["execution_id"] for row in self.rows("SELECT execution_id FROM active_runs WHERE tenant_id = %s")
        }
        assert holders == {one.id for one in self.model.all.values() if one.holds}
        assert len(holders) <= 1

    @invariant()
    def attempts_are_what_happened(self) -> None:
        rows = self.rows("SELECT * FROM attempts WHERE tenant_id = %s")
        stored = {(row["execution_id"], row["fence"]): row for row in rows}
        assert stored.keys() == {(one.id, fence) for one in self.model.all.values() for fence in one.tries}
        for (identity, fence), row in stored.items():
            one = self.model.all[identity]
            running = one.status == "RUNNING" and fence == one.fence
            assert (row["outcome"] is None) == (row["ended_at"] is None) == running
            assert row["attempt"] == one.tries[fence]
            assert row["digest"] == one.words.get(fence, (None,))[0]
            assert row["log_lines"] == one.lines[fence] == len(self.written[identity, fence])

    def teardown(self) -> None:
        """Read every log back: each line once, in order, claims of one attempt without a seam."""
        for one in self.model.all.values():
            for attempt in set(one.tries.values()):
                identity = one.id
                items, more = self.run(
                    lambda conn, identity=identity, attempt=attempt: logs.read(
                        conn, self.tenant.tenant_id, identity, attempt=attempt
                    )
                )
                fences = [fence for fence, number in one.tries.items() if number == attempt]
                assert more is None
                assert [item["message"] for item in items] == [
                    line for fence in fences for line in self.written[identity, fence]
                ]
                assert [item["seq"] for item in items] == list(range(len(items)))


def histories(database: FreshDatabase, runner: asyncio.Runner, api: Database, *, shrink: bool = True) -> None:
    """Live through the same random histories every time; a failure that needs no explanation is not shrunk."""
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    steps = settings(
        max_examples=HISTORIES,
        stateful_step_count=40,
        derandomize=True,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    bound = type("Bound", (Machine,), {"database": database, "runner": runner, "api": api, "made": 0})
    run_state_machine_as_test(bound, settings=steps)


def test_random_histories(database: FreshDatabase) -> None:
    """Whatever is claimed, reported, cancelled or lost, in any order, everything stands as the contract says."""
    api = Database(database.url, "cron_observer_api", pool_size=1)
    with asyncio.Runner() as runner:
        try:
            histories(database, runner, api)
        finally:
            runner.run(api.close())
    happened = {row["type"] for row in database.rows("SELECT DISTINCT type FROM execution_events")}
    elsewhere = {"missed", "gave_up", "unknown"}
    assert happened >= {str(event) for event in MOVES} - elsewhere, "the histories reach every move"
