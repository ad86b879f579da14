"""Real Git repositories and folders of manifests, and a reconciler that follows them."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cron_observer.reconcile import Reconciler
from cron_observer.settings import Settings, SourceSettings
from cron_observer.source import SourceSpec, open_source
from support.databases import FreshDatabase, Tenant

AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada Lovelace",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Grace Hopper",
    "GIT_COMMITTER_EMAIL": "grace@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


def git(folder: Path, *arguments: str, **environment: str) -> str:
    """Run git in `folder` as a person would; return what it wrote."""
    ran = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **AUTHOR, **environment},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def manifest(name: str, cron: str = "0 4 * * *", *, labels: str = "", **spec: str) -> str:
    """Write the manifest of a task; `spec` are further fields of it, as YAML."""
    extra = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    labelled = f"  labels: {{{labels}}}\n" if labels else ""
    return (
        f"apiVersion: cron-observer/v1\nkind: Task\nmetadata:\n  name: {name}\n{labelled}"
        f'spec:\n{extra}  schedule:\n    cron: "{cron}"\n'
    )


@dataclass
class Repository:
    """A checked-out repository that pushes to a bare one, which the source reads."""

    work: Path
    bare: Path

    @classmethod
    def make(cls, folder: Path, *arguments: str) -> Repository:
        """Make both, empty, with the branch ``main``."""
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", *arguments, "tasks.git")
        git(folder, "init", "--quiet", "--initial-branch=main", *arguments, "work")
        git(folder / "work", "remote", "add", "origin", str(folder / "tasks.git"))
        return cls(folder / "work", folder / "tasks.git")

    def write(self, files: Mapping[str, str | bytes | None]) -> None:
        """Write files of the work tree; None removes one."""
        for path, content in files.items():
            target = self.work / path
            if content is None:
                target.unlink()
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, files: Mapping[str, str | bytes | None] | None = None, subject: str = "change") -> str:
        """Commit everything, after writing `files`; return the commit."""
        self.write(files or {})
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "--message", subject)
        return self.head()

    def push(
        self, files: Mapping[str, str | bytes | None] | None = None, subject: str = "change", force: bool = False
    ) -> str:
        """Commit and push to ``main``; return the commit."""
        commit = self.commit(files, subject)
        git(self.work, "push", "--quiet", *(["--force"] if force else []), "origin", "HEAD:refs/heads/main")
        return commit

    def head(self) -> str:
        """Return the commit that is checked out."""
        return git(self.work, "rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        """Run git in the work tree."""
        return git(self.work, *arguments)


@dataclass
class Following:
    """A reconciler over one source called ``main``, and what it did, as rows."""

    database: FreshDatabase
    tenant: Tenant
    reconciler: Reconciler
    settings: Settings
    others: list[Reconciler] = field(default_factory=list)

    async def sync(self) -> str:
        """Ask for a pass and wait until it has ended; return its outcome."""
        self.database.do("UPDATE sources SET requested_seq = requested_seq + 1, asked_by = 'manual'")
        outcome = (await self.reconciler.tick()).get("main")
        assert outcome is not None, "no pass was made"
        return outcome

    async def poll(self) -> dict[str, str]:
        """Let the source be due by its poll interval, and tick."""
        self.database.do("UPDATE sources SET next_poll_at = now() - interval '1 second'")
        return await self.reconciler.tick()

    def task(self, name: str) -> dict[str, Any]:
        """Return the row of a task."""
        (row,) = self.database.rows("SELECT * FROM tasks WHERE name = %s", name)
        return row

    def names(self, where: str = "removed_at IS NULL") -> list[str]:
        """Return the names of tasks, of living ones by default."""
        return [row["name"] for row in self.database.rows(f"SELECT name FROM tasks WHERE {where} ORDER BY name")]

    def source(self) -> dict[str, Any]:
        """Return the row of the source."""
        (row,) = self.database.rows("SELECT * FROM sources WHERE name = 'main'")
        return row

    def conditions(self) -> dict[str, str]:
        """Return status and reason of each condition of the source."""
        return {name: f"{one['status']} {one['reason']}" for name, one in self.source()["conditions"].items()}

    def findings(self) -> list[dict[str, Any]]:
        """Return the findings, by file."""
        return self.database.rows("SELECT * FROM sync_findings ORDER BY path, n")

    def runs(self) -> list[dict[str, Any]]:
        """Return the sync runs, newest first."""
        return self.database.rows("SELECT * FROM sync_runs ORDER BY run_id DESC")

    def plan(self, name: str) -> dict[str, Any]:
        """Return the planning row of a task."""
        query = "SELECT p.* FROM task_plan p JOIN tasks t USING (tenant_id, task_uid) WHERE t.name = %s"
        (row,) = self.database.rows(query, name)
        return row

    def another(self) -> Reconciler:
        """Return a second reconciler of the same settings, as another process would have."""
        self.others.append(Reconciler(self.database.reconciler, self.settings, patience=60, listen=False))
        return self.others[-1]


@asynccontextmanager
async def following(
    tenant: Tenant, url: Path | str, data_dir: Path, *, listen: bool = False, patience: float = 60, **source: Any
) -> AsyncIterator[Following]:
    """Follow a source called ``main``; no pass has been made yet. Nothing is polled by itself within a test."""
    one = SourceSettings(name="main", url=str(url), **{"poll_seconds": 3600.0, **source})
    settings = Settings(data_dir=data_dir, sources=(one,))
    database = tenant.database
    reconciler = Reconciler(database.reconciler, settings, patience=patience, listen=listen)
    made = Following(database, tenant, reconciler, settings)
    try:
        yield made
    finally:
        for each in (*made.others, reconciler):
            await each.close()


async def until(condition: Any, what: str, seconds: float = 60.0) -> Any:
    """Return the first true value of `condition`, or fail the test saying that `what` never happened."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (value := condition()):
        assert loop.time() < deadline, f"never happened: {what}"
        await asyncio.sleep(0.01)
    return value


def source_of(url: Path | str, cache: Path, **settings: Any) -> Any:
    """Open a source by itself, without reconciler or database."""
    return open_source(SourceSpec(name="main", url=str(url), **settings), cache, "key")
