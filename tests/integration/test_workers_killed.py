"""Real worker processes that are killed and stopped, beside an API and a PostgreSQL that die: what becomes of work.

By default little work and few deaths; ``CRON_OBSERVER_FLEET=20000`` is the full size (a quarter of an hour).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cron_observer.postgres import Server
from cron_observer.postgres.cluster import SUPERUSER
from cron_observer.postgres.launcher import launch
from support import databases
from support.backlogs import EVERY, make_backlog
from support.databases import FreshDatabase, Tenant, make_tenant
from support.fleet import Fleet, fleet
from support.postgres import short_folder, test_provider
from support.processes import until
from support.rows import database_now, make_task

#: Executions of the storm, its faults and the workers that it has.
EXECUTIONS = int(os.environ.get("CRON_OBSERVER_FLEET", "300"))
FULL = EXECUTIONS >= 20_000
FAULTS = max(8, EXECUTIONS // 100)
WORKERS = 16 if FULL else 4

#: Trials of zombies, of how many processes; executions that kill their workers; long leases beside a short one.
TRIALS, ZOMBIES = (1_000, 10) if FULL else (20, 2)
POISON = 100 if FULL else 10
PATIENT = 10_000 if FULL else 4_000

#: Seconds within which a storm is over, on whatever machine.
PATIENCE = max(120.0, EXECUTIONS / 10)


#: Patience for what all trials of zombies take together.
LONG = 600.0 if FULL else 60.0

pytestmark = pytest.mark.timeout(PATIENCE + 2 * LONG)


class Cluster:
    """A durable PostgreSQL that can crash and come back."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._server: Server | None = None

    def start(self) -> str:
        """Start the server, after a crash with what it had; return the URL of its administrator."""
        self._server = self._stack.enter_context(launch(self._folder / "pg", provider=test_provider()))
        return self._server.url(SUPERUSER, "postgres")

    def crash(self) -> None:
        """End the server at once and start it again."""
        assert self._server is not None
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGQUIT)
        self._stack.close()
        self.start()


@contextmanager
def world(folder: Path) -> Iterator[tuple[Fleet, Cluster]]:
    """Run an API on a durable server of its own."""
    with short_folder("co-fleet-") as place, ExitStack() as stack:
        cluster = Cluster(place, stack)
        url = cluster.start()
        with databases.template(url) as template, databases.connect(url) as admin:
            admin.execute(f"CREATE DATABASE fleet TEMPLATE {template}")
        database = FreshDatabase(databases.named(url, "fleet"))
        try:
            with fleet(make_tenant(database), folder) as made:
                yield made, cluster
        finally:
            database.close()


class Storm:
    """Faults one after the other, each when another share of the work is done."""

    def __init__(self, made: Fleet, cluster: Cluster, seed: int) -> None:
        self._made, self._cluster = made, cluster
        self._chance = random.Random(seed)  # noqa: S311  a run that repeats
        self._stopped: set[str] = set()
        kinds = [self.kill, self.stop, self.api_dies, self.database_dies]
        more = self._chance.choices(kinds, [50, 35, 10, 5], k=FAULTS - 8)
        self.plan = [*kinds, self.kill, self.stop, self.kill, self.stop, *more]
        self.done: Counter[str] = Counter()
        self._chance.shuffle(self.plan)

    def go(self) -> None:
        """Let happen what is due by the work that is done; let those that stopped go on when they have lost all."""
        every = EXECUTIONS // (FAULTS + 2)
        finished = self._made.count("FINISHED")
        if self.plan and finished >= every * (FAULTS + 1 - len(self.plan)):
            fault = self.plan.pop()
            self.done[fault.__name__] += 1
            fault()
        self._wake()

    def kill(self) -> None:
        """Kill a worker, and start another."""
        name = self._chance.choice(sorted(self._made.workers.keys() - self._stopped))
        self._made.send(name, signal.SIGKILL)
        self._lost(name)
        self._made.start("steady", 4)

    def stop(self) -> None:
        """Stop a worker, as a machine that sleeps."""
        awake = sorted(self._made.workers.keys() - self._stopped)
        if len(awake) > 1:
            name = self._chance.choice(awake)
            self._made.send(name, signal.SIGSTOP)
            self._stopped.add(name)
            self._lost(name)

    def api_dies(self) -> None:
        """Kill the API and start it again."""
        self._made.kill_api()
        self._made.start_api()

    def database_dies(self) -> None:
        """Let PostgreSQL crash and come back."""
        self._made.database.close()
        self._cluster.crash()

    def _lost(self, name: str) -> None:
        if not FULL:  # nobody waits for a lease to end
            self._made.age(name)

    def _wake(self) -> None:
        query = "SELECT count(*) FROM executions WHERE worker = %s AND status = 'RUNNING'"
        for name in sorted(self._stopped):
            if self._made.count("RUNNING") >= 0 and not self._made.database.value(query, name):
                self._made.send(name, signal.SIGCONT)
                self._stopped.discard(name)


def every_one_of(made: Fleet, count: int, name: str = "export") -> list[str]:
    """Make a task with `count` due executions that may run side by side; return their ids."""
    now = database_now(made.database) - timedelta(minutes=5)
    return [str(one) for one in make_backlog(made.tenant, make_task(made.tenant, name, **EVERY), now, count)]


def test_work_survives_whoever_dies(tmp_path: Path) -> None:
    """Workers are killed and stopped, the API is killed, PostgreSQL crashes: each execution ends well, once, every
    fence had one holder, no lease was taken before its end, and what was answered is what is stored."""
    with world(tmp_path) as (made, cluster):
        every_one_of(made, EXECUTIONS)
        for _ in range(WORKERS):
            made.start("steady", 4)
        storm = Storm(made, cluster, seed=1)

        def over() -> bool:
            storm.go()
            return not storm.plan and made.count("FINISHED") == EXECUTIONS

        until(over, "all is done", PATIENCE)
        assert len(storm.done) == 4
        made.check()
        losses = made.database.value("SELECT sum(lease_losses) FROM executions")
        assert losses > 0, "somebody died at work"
        print(f"{EXECUTIONS} executions, {dict(storm.done)}, {losses} lost leases, {len(made.notes('begin'))} begun")


def test_a_lease_that_ends_early_is_seen(tenant: Tenant, tmp_path: Path) -> None:
    """With leases that the server ends before their time, the audit finds two holders."""
    with fleet(tenant, tmp_path, "leases that end before their time") as made:
        every_one_of(made, 500)
        for _ in range(2):
            made.start("steady", 4)
        until(made.violations, "a lease is taken early")
        with pytest.raises(AssertionError, match="taken before its end"):
            made.check()


#: All that an old fence must not change; what its holder says in the end is kept as evidence beside its attempt.
_KEPT = (
    "SELECT e::text FROM executions e ORDER BY id",
    "SELECT to_jsonb(a) - 'late_outcome' AS a FROM attempts a ORDER BY execution_id, fence",
    "SELECT c::text FROM log_chunks c ORDER BY execution_id, fence, first_seq",
    "SELECT r::text FROM active_runs r ORDER BY 1",
    "SELECT v::text FROM execution_events v ORDER BY execution_id, seq",
)


def zombies_come_back(made: Fleet) -> list[dict[str, Any]]:
    """Stop workers until others have taken their work over, wake them; return what they were answered."""
    each = TRIALS // ZOMBIES
    every_one_of(made, TRIALS)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    names = [made.start("zombie", each, **pipes) for _ in range(ZOMBIES)]
    for name in names:
        output = made.workers[name].stdout
        assert output is not None
        assert len(json.loads(output.readline())) == each
        made.send(name, signal.SIGSTOP)
        made.age(name)
    # One in two has been finished by its next holder, the other is still at work.
    holder = made.start("zombie", TRIALS // 2, **pipes)
    reading = made.workers[holder].stdout
    assert reading is not None
    assert len(json.loads(reading.readline())) == TRIALS // 2
    steady = made.start("steady", 4)
    until(lambda: made.count("FINISHED") == TRIALS - TRIALS // 2, "others have finished the rest", LONG)
    made.send(steady, signal.SIGKILL)
    before = [made.database.rows(query) for query in _KEPT]
    for name in names:
        made.send(name, signal.SIGCONT)
        pipe = made.workers[name].stdin
        assert pipe is not None
        pipe.write(b"\n")
        pipe.flush()
    until(lambda: len(made.notes("answers")) == TRIALS, "the zombies have tried", LONG)
    assert [made.database.rows(query) for query in _KEPT] == before, "a zombie changed it"
    return made.notes("answers")


def test_zombies_change_nothing(tenant: Tenant, tmp_path: Path) -> None:
    """Whoever comes back after others took over is refused whatever it reports, and no byte of theirs is touched."""
    with fleet(tenant, tmp_path) as made:
        answers = zombies_come_back(made)
    heard = Counter(one[verb] for one in answers for verb in ("start", "heartbeat", "logs", "complete", "release"))
    assert heard == {"409 lease_lost": 5 * TRIALS}


def test_an_old_fence_that_is_taken_is_seen(tenant: Tenant, tmp_path: Path) -> None:
    """With a server that takes any fence, zombies change what is their successors'."""
    with (
        fleet(tenant, tmp_path, "an old fence that is taken") as made,
        pytest.raises(AssertionError, match="a zombie changed it"),
    ):
        zombies_come_back(made)


_WORK_FOR_LONG = """
WITH long AS (
    UPDATE executions SET status = 'RUNNING', worker = 'patient', fence = 1, attempt = 1, generation = 1,
        event_seq = 1, protocol = 'lease', claimed_at = now(), lease_seconds = 3600,
        lease_until = now() + interval '1 hour', run_deadline = now() + interval '1 hour',
        check_at = now() + make_interval(secs => 3600 * (random() > 0.5)::int)
    WHERE status = 'PENDING'
    RETURNING tenant_id, id
)
INSERT INTO attempts (tenant_id, execution_id, fence, attempt, worker, claimed_at)
SELECT tenant_id, id, 1, 1, 'patient', now() FROM long
"""


#: How long after the end of a lease its execution was given to the next worker.
_AFTER = """
SELECT extract(epoch FROM given.at - lost.lease_until)::float AS after
FROM audit.leases lost JOIN audit.leases given USING (id)
WHERE lost.reason = 'lease_lost' AND lost.old_fence = 1 AND given.old_fence = 1 AND given.fence = 2
"""


def offered_again(made: Fleet, runs: int, patience: float) -> list[float]:
    """Kill a worker with `runs` runs beside many long leases, half of which have been renewed since they were looked
    at; return how many seconds after its lease each run was given to somebody else, by the database's clock."""
    every_one_of(made, PATIENT, "long")
    made.database.do(_WORK_FOR_LONG)
    every_one_of(made, runs)
    name = made.start("mortal", runs)
    until(lambda: made.workers[name].poll() is not None, "the worker is dead")
    if not FULL:
        made.age(name)
    made.start("steady", 4)
    found = until(
        lambda: rows if len(rows := made.database.rows(_AFTER)) == runs else None, "all are offered again", patience
    )
    return [row["after"] for row in found]


def test_a_dead_workers_work_is_offered_in_time(tenant: Tenant, tmp_path: Path) -> None:
    """Nobody reports for a worker that was killed: its runs go to others within two sweeps of their leases' ends,
    however many long leases began before."""
    with fleet(tenant, tmp_path) as made:
        after = offered_again(made, POISON, 60)
        made.check()
    print(f"offered again {min(after):.2f} to {max(after):.2f} s after the end of the lease")
    assert min(after) >= 0
    assert max(after) <= 10


@pytest.mark.parametrize("twin", ["leases that never end", "renewed leases that hide dead workers"])
def test_a_lease_that_never_ends_is_seen(tenant: Tenant, tmp_path: Path, twin: str) -> None:
    """With a server that ends no lease, or looks at a hundred at a time, the work is offered to nobody for long."""
    with (
        fleet(tenant, tmp_path, twin) as made,
        pytest.raises(AssertionError, match="all are offered again"),
    ):
        offered_again(made, 2, 3)


def everyone_dies_of_it(made: Fleet) -> None:
    """Let work kill its workers until it is offered no more, and check that it ended."""
    ids = every_one_of(made, POISON)
    for death in range(1, 5):
        name = made.start("mortal", POISON)
        until(lambda: made.workers[name].poll() is not None, "the worker is dead")  # noqa: B023
        made.workers.pop(name)
        assert len(made.notes("begin")) == death * POISON
        if not FULL:
            made.age(name)
    name = made.start("steady", 4)
    until(lambda: made.count("FAILED") == POISON or made.notes("said"), "it has ended")
    begun = Counter(one["id"] for one in made.notes("begin"))
    assert begun == dict.fromkeys(ids, 4), "tried more often, or less"
    query = "SELECT status, reason, lease_losses, fence FROM executions GROUP BY 1, 2, 3, 4"
    assert made.database.rows(query) == [{"status": "FAILED", "reason": "lease_lost", "lease_losses": 3, "fence": 4}]
    told = made.database.rows("SELECT execution_id FROM execution_events WHERE type = 'failed'")
    assert len(told) == POISON
    made.check()


def test_what_kills_its_workers_ends(tenant: Tenant, tmp_path: Path) -> None:
    """An execution that nobody survives is tried four times, fails of it once, and is offered no more."""
    with fleet(tenant, tmp_path) as made:
        everyone_dies_of_it(made)


def test_work_that_is_offered_for_ever_is_seen(tenant: Tenant, tmp_path: Path) -> None:
    """With leases that may be lost for ever, it is offered a fifth time."""
    with (
        fleet(tenant, tmp_path, "leases that are lost for ever again") as made,
        pytest.raises(AssertionError, match="tried more often"),
    ):
        everyone_dies_of_it(made)
