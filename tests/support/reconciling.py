"""Reconcilers in processes of their own, which a test can kill or halt; and what they leave, to be compared."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from cron_observer.reconcile.steps import KILL_VARIABLE
from cron_observer.settings import Settings, SourceSettings
from cron_observer.store import engine
from cron_observer.store.engine import Database
from support.databases import FreshDatabase

#: Seconds between two looks of such a process.
POLL_SECONDS = 0.2

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["cron_observer.reconcile", "cron_observer.store.engine", "git"])


def _reconcile(database_url: str, repository: str, data_dir: str, kill: str | None, source: dict[str, Any]) -> None:
    """Follow a repository as the source ``main`` until this process is told to stop."""
    from cron_observer.reconcile import Reconciler

    if kill is not None:
        os.environ[KILL_VARIABLE] = kill
        engine.IDLE_LIMIT = "1s"  # type: ignore[misc]  a test cannot wait for minutes

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        database = Database(database_url, "cron_observer_reconciler")
        one = SourceSettings(name="main", url=repository, **{"poll_seconds": POLL_SECONDS, **source})
        try:
            await Reconciler(database, Settings(data_dir=Path(data_dir), sources=(one,))).run(stop, every=0.1)
        finally:
            await database.close()

    asyncio.run(run())


@contextmanager
def reconciling(
    database: FreshDatabase, repository: Path, data_dir: Path, *, kill: str | None = None, **source: Any
) -> Iterator[ForkServerProcess]:
    """Run a reconciler in a process of its own; `kill` names a point at which it dies, or halts (``point:STOP``)."""
    process = _FORKS.Process(target=_reconcile, args=(database.url, str(repository), str(data_dir), kill, source))
    process.start()
    try:
        yield process
    finally:
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.kill(process.pid or 0, signal.SIGCONT)
            process.terminate()
            process.join(20)
            if process.is_alive():
                process.kill()
                process.join()


def is_halted(process: ForkServerProcess) -> bool:
    """Tell whether a process has been stopped by a signal."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


#: What must be the same however a commit came to be in force: without ids of rows, times and what counts passes.
_STATES = {
    "tasks": "name, owner, seed, path, document, line, commit, author, subject, spec, labels, annotations, sync, "
    "encode(spec_hash, 'hex') AS hash",
    "calendars": "name, path, document, line, commit, spec, digest, sync",
    "task_groups": "name, path, document, line, commit, spec, sync",
    "layers": "kind, name, path, document, line, commit, spec, sync",
}


def state(database: FreshDatabase) -> dict[str, Any]:
    """Return all that is in force, and all that is known of files, in a form that compares."""
    found: dict[str, Any] = {
        table: database.rows(f"SELECT {columns} FROM {table} WHERE removed_at IS NULL ORDER BY name")
        for table, columns in _STATES.items()
    }
    found["files"] = database.rows("SELECT * FROM manifest_files ORDER BY path")
    found["findings"] = [
        {name: value for name, value in row.items() if name != "run_id"}
        for row in database.rows("SELECT * FROM sync_findings ORDER BY path, n")
    ]
    found["source"] = database.rows("SELECT applied_commit, validator_version, counts FROM sources")
    found["plans"] = database.rows(
        "SELECT t.name, p.active FROM task_plan p JOIN tasks t USING (tenant_id, task_uid) WHERE t.removed_at IS NULL "
        "ORDER BY t.name"
    )
    return found
