"""A task that a manifest owns, as the reconciler leaves it, with the repository that it came from."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from cron_observer import manifest
from cron_observer.plan import spec_hash
from support.databases import Tenant
from support.rows import database_now

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/local/bin",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


def git(folder: Path, *arguments: str, stdin: str | None = None) -> str:
    """Run git in a folder and return what it prints."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Owned:
    """A manifest-owned task: its row's uid, and the checkout with its file."""

    uid: UUID
    name: str
    checkout: Path
    path: str
    commit: str

    def apply(self, patch: str) -> dict[str, Any] | None:
        """Apply a patch with the real git; return the task's effective body, None when its document is gone."""
        git(self.checkout, "apply", "--index", "-", stdin=patch)
        file = self.checkout / self.path
        if not file.exists():
            return None
        parsed = manifest.parse(self.path, file.read_bytes())
        assert not parsed.findings
        task = next((one for one in parsed.tasks if one.name == self.name), None)
        return None if task is None else {"name": task.name, "labels": dict(task.labels), **task.spec}


def make_owned(tenant: Tenant, folder: Path, text: str, *, path: str = "tasks/export.yaml") -> Owned:
    """Commit `text` to a repository and insert what applying it leaves in the database; its first task is meant."""
    git(folder, "init", "-q", "-b", "main")
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Add tasks")
    commit = git(folder, "rev-parse", "HEAD")
    now = database_now(tenant.database)
    source = uuid4()
    base = {"tenant_id": tenant.tenant_id}
    tenant.database.insert(
        "sources",
        [
            base
            | {
                "source_id": source,
                "project_id": tenant.project_id,
                "name": "main",
                "kind": "git",
                "url": "https://user:secret@github.com/acme/tasks.git",
                "ref": "refs/heads/main",
                "poll_seconds": 30,
                "next_poll_at": now,
                "observed_at": now,
                "observed_commit": commit,
                "applied_commit": commit,
                "applied_at": now,
                "first_pass_at": now,
                "created_at": now,
            }
        ],
    )
    parsed = manifest.parse(path, text.encode())
    assert not parsed.findings
    tenant.database.insert(
        "manifest_files",
        [
            base
            | {
                "source_id": source,
                "path": path,
                "blob": "-",
                "state": "ok",
                "documents": parsed.documents,
                "commit": commit,
                "good_blob": "-",
                "good_text": text,
                "good_commit": commit,
            }
        ],
    )
    uids = [_insert(tenant, source, one, commit, now) for one in parsed.tasks]
    return Owned(uids[0], parsed.tasks[0].name, folder, path, commit)


def _insert(tenant: Tenant, source: UUID, task: Any, commit: str, now: Any) -> UUID:
    uid = uuid4()
    base = {"tenant_id": tenant.tenant_id, "task_uid": uid}
    common = {"owner": "manifest", "spec": dict(task.spec), "commit": commit, "author": "Ada", "path": task.path}
    tenant.database.insert(
        "tasks",
        [
            base
            | common
            | {
                "project_id": tenant.project_id,
                "name": task.name,
                "seed": f"{tenant.project}/{task.name}",
                "source_id": source,
                "document": task.document,
                "line": task.line,
                "spec_hash": spec_hash(task.spec, task.labels, task.annotations),
                "generation": 1,
                "labels": dict(task.labels),
                "sync": "SYNCED",
                "created_at": now,
                "updated_at": now,
            }
        ],
    )
    revision = base | common | {"generation": 1, "action": "create", "source": "main", "line": task.line}
    tenant.database.insert("task_revisions", [revision | {"created_at": now}])
    tenant.database.insert(
        "task_plan",
        [
            base
            | {
                "project_id": tenant.project_id,
                "owner": "manifest",
                "generation": 1,
                "active": True,
                "schedule": task.spec["schedule"],
                "queue": task.spec["queue"],
                "priority": task.spec["priority"],
                "effective_from": now,
                "planned_until": now,
            }
        ],
    )
    return uid
