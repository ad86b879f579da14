"""An API process and worker processes that tests kill and stop, and what the database says of their leases."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from support.api import make_key
from support.databases import FreshDatabase, Tenant
from support.processes import clean_environment, free_port, until

_TESTS = Path(__file__).resolve().parents[1]

#: Notes every change of a fence or a status, with the lease that was valid until then.
AUDIT = """
CREATE SCHEMA audit;
CREATE TABLE audit.leases (n bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    id uuid, old_fence bigint, fence bigint, old_status text, status text, reason text,
    lease_until timestamptz);
GRANT USAGE ON SCHEMA audit TO PUBLIC;
GRANT INSERT ON audit.leases TO PUBLIC;
CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.fence, OLD.status) IS DISTINCT FROM (NEW.fence, NEW.status) THEN
        INSERT INTO audit.leases (id, old_fence, fence, old_status, status, reason, lease_until)
        VALUES (NEW.id, OLD.fence, NEW.fence, OLD.status, NEW.status, NEW.reason, OLD.lease_until);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER UPDATE ON executions FOR EACH ROW EXECUTE FUNCTION audit.note();
"""

#: A lease that was taken away before it ended; a fence that did not rise by one, or out of something that ran.
VIOLATIONS = """
SELECT a.id, a.old_fence, a.fence, a.old_status, a.status, a.at, a.lease_until FROM audit.leases a
WHERE (a.old_status = 'RUNNING' AND a.reason = 'lease_lost' AND a.lease_until > a.at)
   OR (a.fence <> a.old_fence AND (a.fence <> a.old_fence + 1 OR a.old_status <> 'PENDING' OR a.status <> 'RUNNING'))
"""

_AGE = """
UPDATE executions SET lease_until = now(), check_at = now()
WHERE worker = %s AND status = 'RUNNING'
"""


@dataclass
class Fleet:
    """A database, an API process on a port that stays, workers by name, and the notes that they write."""

    tenant: Tenant
    folder: Path
    twin: str = "none"
    port: int = field(default_factory=free_port)
    token: str = ""
    api: subprocess.Popen[bytes] | None = None
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    made: int = 0

    @property
    def database(self) -> FreshDatabase:
        """The database of the API."""
        return self.tenant.database

    @property
    def url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.port}"

    def start_api(self) -> None:
        """Start the API process. It may take a while until it answers."""
        config = self.folder / "cron-observer.toml"
        config.write_text(
            f'data_dir = "{self.folder / "data"}"\ndatabase_url = "{self.database.url}"\nport = {self.port}\n'
        )
        arguments = [self.twin, "serve", "--config", str(config), "--role", "api"]
        with (self.folder / "api.log").open("ab") as log:
            self.api = self._start("fleet_server", arguments, stdout=log, stderr=log)

    def wait_for_api(self) -> None:
        """Wait until the API answers."""
        until(self._answers, "the API answers")

    def kill_api(self) -> None:
        """End the API process at once."""
        assert self.api is not None
        self.api.kill()
        self.api.wait()

    def start(self, role: str, number: int, *, url: str = "", **pipes: Any) -> str:
        """Start a worker process; return its name."""
        self.made += 1
        name = f"{role}-{self.made}"
        settings = {"CRON_OBSERVER_URL": url or self.url, "CRON_OBSERVER_TOKEN": self.token}
        arguments = [role, name, str(self.folder / "notes"), str(number)]
        with (self.folder / "workers.log").open("ab") as log:
            self.workers[name] = self._start("fleet_worker", arguments, settings, stderr=log, **pipes)
        return name

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a worker; wait for its end if it is killed."""
        self.workers[name].send_signal(number)
        if number == signal.SIGKILL:
            self.workers.pop(name).wait()

    def age(self, name: str) -> None:
        """Let the leases of a worker run out now."""
        self.database.do(_AGE, name)

    def notes(self, what: str) -> list[dict[str, Any]]:
        """Return what workers noted."""
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines) if note["what"] == what]

    def count(self, *statuses: str) -> int:
        """Return how many executions are in one of these states; -1 while the database is away."""
        query = "SELECT count(*) FROM executions WHERE worker IS DISTINCT FROM 'patient' AND status = ANY (%s)"
        try:
            return int(self.database.value(query, list(statuses)))
        except psycopg.OperationalError:
            self.database.close()
            return -1

    def violations(self) -> list[dict[str, Any]]:
        """Return where two workers had a lease of one execution at once."""
        return self.database.rows(VIOLATIONS)

    def check(self) -> None:
        """Check that every attempt had one holder, and that what was answered is what is stored, also while it runs."""
        assert self.violations() == [], "a lease was taken before its end"
        said = {(one["id"], one["fence"]) for one in self.notes("said") if one["status"] == "FINISHED"}
        begun = Counter((one["id"], one["fence"]) for one in self.notes("begin"))
        assert {pair: many for pair, many in begun.items() if many > 1} == {}, "two workers had one fence"
        query = "SELECT execution_id::text, fence, outcome FROM attempts"
        outcomes = {(row["execution_id"], row["fence"]): row["outcome"] for row in self.database.rows(query)}
        assert begun.keys() <= outcomes.keys(), "somebody ran what nobody was given"
        assert {pair: outcomes.get(pair) for pair in said if outcomes.get(pair) != "finished"} == {}, "lost"
        finals = "SELECT execution_id FROM execution_events WHERE status = 'FINISHED' GROUP BY 1 HAVING count(*) > 1"
        assert self.database.rows(finals) == [], "ended twice"
        results = """SELECT e.id FROM executions e JOIN attempts a ON a.execution_id = e.id AND a.outcome = 'finished'
            WHERE e.status = 'FINISHED' AND (e.result ->> 'fence')::bigint <> a.fence"""
        assert self.database.rows(results) == [], "the result of another attempt"

    def _answers(self) -> bool:
        assert self.api is not None
        assert self.api.poll() is None, (self.folder / "api.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _start(
        self, module: str, arguments: list[str], settings: dict[str, str] | None = None, **pipes: Any
    ) -> subprocess.Popen[bytes]:
        found = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
        state = {"XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": found}
        return subprocess.Popen(
            [sys.executable, "-m", f"support.{module}", *arguments],
            cwd=self.folder,
            env=clean_environment(**state, **(settings or {})),
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes},
        )


@contextmanager
def fleet(tenant: Tenant, folder: Path, twin: str = "none") -> Iterator[Fleet]:
    """Run an API process on the database of `tenant`, audited; end it and every worker with the block."""
    tenant.database.admin.execute(AUDIT)
    made = Fleet(tenant, folder, twin)
    made.token = asyncio.run(_key(tenant))
    made.start_api()
    try:
        made.wait_for_api()
        yield made
    finally:
        for process in [*made.workers.values(), *([made.api] if made.api else [])]:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


async def _key(tenant: Tenant) -> str:
    """Make a key that may report."""
    token = await make_key(tenant, "report")
    await tenant.database.aclose()
    return token
