"""Random histories through the HTTP API, step by step against the same model of the life cycle.

Time passes by moving everything that is stored into the past, and the model with it: the server's clock is the
database's, and nobody may set that.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from cron_observer.lifecycle import MOVES, Event, Status, decide
from support.api import Api, api
from support.databases import FreshDatabase, Tenant, make_tenant
from support.protocol_model import Exec, Model
from support.rows import database_now, make_task

#: Histories of one run, of forty steps each; the full size is as long as one likes.
HISTORIES = int(os.environ.get("CRON_OBSERVER_HTTP_HISTORIES", "8"))

#: Seconds that pass at once: no sum of a few of them comes near a deadline of the model (5, 10, 30, 60).
PASSES = (7, 7, 7, 100)

_COLUMNS = {
    "executions": (
        "fire_at", "available_at", "claimed_at", "started_at", "finished_at", "lease_until", "run_deadline", "check_at",
        "cancel_requested_at", "cancel_deadline", "start_deadline",
    ),
    "attempts": ("claimed_at", "started_at", "ended_at"),
    "active_runs": ("since",),
}  # fmt: skip

CHOICE = st.tuples(st.sampled_from(["running", "running", "claimed", "any"]), st.integers(0, 2))
OFF = st.sampled_from([0, 0, 0, 0, -1, 1])


def earlier(value: Any, by: timedelta) -> Any:
    """Return a value of the model as it is once time has passed."""
    if isinstance(value, datetime):
        return value - by
    if isinstance(value, dict):
        return {key: earlier(one, by) for key, one in value.items()}
    return tuple(earlier(one, by) for one in value) if isinstance(value, tuple) else value


class Machine(RuleBasedStateMachine):
    """One tenant with two tasks; what the app answers is what the model says."""

    database: FreshDatabase
    runner: asyncio.Runner
    api: Api
    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1
        self.tenant = make_tenant(self.database, f"tenant-{self.made}")
        terms: dict[str, Any] = {"timeout": "60s", "retries": {"max": 1, "backoff": "constant", "initial": "10s"}}
        self.tasks = {
            True: make_task(self.tenant, "exclusive", **terms),
            False: make_task(self.tenant, "free", overlap="allow_all", catchup={"policy": "none"}, **terms),
        }
        self.model = Model()

    @property
    def now(self) -> datetime:
        """The clock of the database."""
        return database_now(self.database)

    def call(self, path: str, body: dict[str, Any], *scopes: str) -> httpx.Response:
        """Send one request."""
        return self.runner.run(self.api.call("POST", path, *scopes, tenant=self.tenant, json=body))

    def say(self, one: Exec, what: str, **body: Any) -> str | None:
        """Report on an execution; return the code of the refusal."""
        reply = self.call(f"/sdk/executions/{one.id}/{what}", body, "report")
        assert reply.status_code < 500, reply.text
        return None if reply.status_code < 400 else str(reply.json()["code"])

    def pick(self, choice: tuple[str, int]) -> Exec:
        """Choose one of those that run, that were claimed, or of all; if there is none, of all."""
        among, number = choice
        every = list(self.model.all.values())
        some = [one for one in every if among == "any" or (one.fence > 0 and (among == "claimed" or one.lease_until))]
        return (some or every)[-1 - number % len(some or every)]

    @rule(seconds=st.sampled_from(PASSES))
    def pass_time(self, seconds: int) -> None:
        for table, columns in _COLUMNS.items():
            moves = ", ".join(f"{column} = {column} - make_interval(secs => {seconds})" for column in columns)
            self.database.do(f"UPDATE {table} SET {moves} WHERE tenant_id = %s", self.tenant.tenant_id)
        by = timedelta(seconds=seconds)
        for one in self.model.all.values():
            for field in dataclasses.fields(one):
                if field.name != "lease":
                    setattr(one, field.name, earlier(getattr(one, field.name), by))

    @precondition(lambda self: sum(one.status == "PENDING" for one in self.model.all.values()) < 5)
    @rule(exclusive=st.booleans(), force=st.booleans())
    def trigger(self, exclusive: bool, force: bool) -> None:
        name = "exclusive" if exclusive else "free"
        reply = self.call(f"/projects/{self.tenant.project}/tasks/{name}/trigger", {"force": force}, "trigger")
        assert reply.status_code == 201, reply.text
        (row,) = self.database.rows("SELECT id, fire_at FROM executions WHERE id = %s", reply.json()["id"])
        self.model.all[row["id"]] = Exec(row["id"], exclusive, row["fire_at"], slot=False, forced=force)

    @rule(wanted=st.sampled_from([1, 10]), lease=st.sampled_from([5, 30]))
    def claim(self, wanted: int, lease: int) -> None:
        body = {"worker": "w", "max": wanted, "lease_seconds": lease}
        reply = self.call("/sdk/claims", body, "report")
        assert reply.status_code == 200, reply.text
        given = {(one["id"], one["fence"]) for one in reply.json()["executions"]}
        self.model.expire(self.now)
        free = {one.id for exclusive in (True, False) for one in self.model.settle(exclusive=exclusive, now=self.now)}
        again = {one.id for one in self.model.due(self.now) if one.fence > 0}
        assert len(given) == min(wanted, len(free | again))
        assert {identity for identity, _ in given} <= {str(one) for one in free | again}
        kept, self.model.all = self.model.all, {
            identity: one for identity, one in self.model.all.items() if str(identity) in {got for got, _ in given}
        }  # fmt: skip
        expected = self.model.claim(wanted, timedelta(seconds=lease), self.now) if given else []
        self.model.all = kept
        assert given == {(str(identity), fence) for identity, fence in expected}

    @rule(outcome=st.sampled_from(["finished", "failed", "failed"]))
    def work(self, outcome: str) -> None:
        """Have something done."""
        self.trigger(False, False)
        self.claim(10, 30)
        self.complete(("running", 0), 0, outcome)

    @precondition(lambda self: self.model.all)
    @rule()
    def lose(self) -> None:
        """Claim what is due, and fall silent until somebody else asks."""
        self.claim(10, 5)
        self.pass_time(7)
        self.claim(1, 30)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=OFF)
    def start(self, choice: tuple[str, int], off: int) -> None:
        one = self.pick(choice)
        fence = max(0, one.fence + off)
        assert self.say(one, "start", fence=fence) == self.model.start(one, fence)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=OFF)
    def beat(self, choice: tuple[str, int], off: int) -> None:
        one = self.pick(choice)
        fence = max(0, one.fence + off)
        assert self.say(one, "heartbeat", fence=fence) == self.model.beat(one, fence, self.now)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=OFF, outcome=st.sampled_from(["finished", "failed", "failed", "cancelled", "skipped"]))
    def complete(self, choice: tuple[str, int], off: int, outcome: str) -> None:
        one = self.pick(choice)
        fence, held = max(0, one.fence + off), one.holds
        refused = self.say(one, "complete", fence=fence, outcome=outcome)
        assert refused == self.model.complete(one, fence, outcome, outcome.encode(), self.now)
        self.model.freed(one, held=held, now=self.now)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=OFF)
    def release(self, choice: tuple[str, int], off: int) -> None:
        one = self.pick(choice)
        fence, held = max(0, one.fence + off), one.holds
        assert self.say(one, "release", fence=fence, reason="x") == self.model.release(one, fence, self.now)
        self.model.freed(one, held=held, now=self.now)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, off=OFF, shift=st.sampled_from([0, 0, -1, 2]), count=st.integers(1, 4))
    def log(self, choice: tuple[str, int], off: int, shift: int, count: int) -> None:
        one = self.pick(choice)
        fence = max(0, one.fence + off)
        first = max(0, one.lines.get(fence, 0) + shift)
        entries = [{"level": "INFO", "message": f"{fence}/{seq}"} for seq in range(first, first + count)]
        refused = self.say(one, "logs", fence=fence, first_seq=first, entries=entries)
        assert refused == self.model.log(one, fence, first, count, self.now)

    @precondition(lambda self: self.model.all)
    @rule(choice=CHOICE, grace=st.sampled_from([0, 5, 30]))
    def cancel(self, choice: tuple[str, int], grace: int) -> None:
        one = self.pick(choice)
        held = one.holds
        reply = self.call(f"/executions/{one.id}/cancel", {"reason": "x", "grace_seconds": grace}, "trigger")
        refused = None if reply.status_code < 400 else reply.json()["code"]
        assert refused == self.model.cancel(one, timedelta(seconds=grace), self.now)
        self.model.freed(one, held=held, now=self.now)

    @invariant()
    def everything_stands_as_the_model_says(self) -> None:
        query = "SELECT id, status, reason, fence, attempt, late FROM executions WHERE tenant_id = %s"
        stored = {row.pop("id"): row for row in self.database.rows(query, self.tenant.tenant_id)}
        assert stored == {
            one.id: {
                "status": one.status, "reason": one.reason, "fence": one.fence, "attempt": one.attempt,
                "late": one.late,
            }
            for one in self.model.all.values()
        }  # fmt: skip

    @invariant()
    def every_event_is_a_legal_move(self) -> None:
        query = "SELECT * FROM execution_events WHERE tenant_id = %s ORDER BY execution_id, seq"
        stands: dict[Any, Status] = {}
        for event in self.database.rows(query, self.tenant.tenant_id):
            before = stands.get(event["execution_id"], Status.PENDING)
            move = MOVES.get(Event(event["type"]))
            assert move is None or before in move.sources
            assert event["status"] == (before if move is None else move.target)
            stands[event["execution_id"]] = Status(event["status"])


@contextmanager
def histories(database: FreshDatabase, *, shrink: bool = True) -> Iterator[None]:
    """Live through the same random histories every time."""
    steps = settings(
        max_examples=HISTORIES, stateful_step_count=40, derandomize=True, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with asyncio.Runner() as runner:
        over = asyncio.Event()
        app, serving = runner.run(_start(make_tenant(database, "first"), over))
        bound = type("Bound", (Machine,), {"database": database, "runner": runner, "api": app, "made": 0})
        try:
            run_state_machine_as_test(bound, settings=steps)
        finally:
            over.set()
            runner.run(_end(serving))
        yield


async def _start(tenant: Tenant, over: asyncio.Event) -> tuple[Api, asyncio.Task[None]]:
    """Serve the app in a task of its own until `over` is set."""
    ready: asyncio.Future[Api] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with api(tenant) as it:
            ready.set_result(it)
            await over.wait()

    serving = asyncio.create_task(serve())
    return await ready, serving


async def _end(serving: asyncio.Task[None]) -> None:
    await serving


def test_random_histories_over_http(database: FreshDatabase) -> None:
    """Whatever is asked for over HTTP, in any order, the answer and what is stored are what the contract says."""
    with histories(database):
        happened = {row["type"] for row in database.rows("SELECT DISTINCT type FROM execution_events")}
    assert happened >= {"claimed", "released", "finished", "failed", "retry_scheduled", "lease_expired", "cancelled"}


def test_a_mutant_is_seen_over_http(database: FreshDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes an old fence leaves the model."""
    real = decide._refuse
    monkeypatch.setattr(decide, "_refuse", lambda run, _fence: real(run, run.fence))
    with pytest.raises(Exception), histories(database, shrink=False):  # noqa: B017, PT011  whichever
        pass
