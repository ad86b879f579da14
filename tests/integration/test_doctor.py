"""`cron-observer doctor` against real databases, repositories and folders."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cron_observer.settings import SourceSettings
from cron_observer.store import doctor as ask
from cron_observer.store.migrate import head
from support.databases import FreshDatabase, named
from support.processes import COMMAND, Repository, clean_environment, free_port


def examined(folder: Path, *arguments: str, **environment: str) -> tuple[int, dict[str, dict[str, Any]], str]:
    """Run `doctor` in `folder`; return its exit code, its checks by name, and all that it printed."""
    done = subprocess.run(
        [*COMMAND, "doctor", "--format", "json", *arguments],
        cwd=folder,
        env=clean_environment(CRON_OBSERVER_PORT=str(free_port()), **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    said = json.loads(done.stdout)
    assert said["ok"] is (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in said["checks"]}, done.stdout + done.stderr


def settings_file(folder: Path, sources: dict[str, str]) -> Path:
    """Write a settings file with these sources."""
    path = folder / "settings.toml"
    path.write_text("".join(f'[[sources]]\nname = "{name}"\nurl = "{url}"\n' for name, url in sources.items()))
    return path


def test_a_machine_that_is_well(database: FreshDatabase, tmp_path: Path) -> None:
    """With a migrated database and sources that answer, nothing is to be mended and the exit code is 0."""
    repository = Repository(tmp_path)
    commit = repository.push("Say hello", {"hello.txt": "hello"})
    (tmp_path / "plain").mkdir()
    config = settings_file(tmp_path, {"main": str(repository.bare), "plain": "plain"})
    code, checks, _ = examined(tmp_path, "--config", str(config), CRON_OBSERVER_DATABASE_URL=database.url)

    assert code == 0, checks
    assert [name for name, check in checks.items() if check["status"] == "error"] == []
    assert checks["Schema"]["detail"] == f"at {head()}"
    assert checks["Roles"]["detail"] == "api, reconciler, scheduler"
    assert f"refs/heads/main at {commit[:12]}" in checks["Source main"]["detail"]
    assert "a plain folder" in checks["Source plain"]["detail"]


def test_a_database_without_schema(server_url: str, tmp_path: Path) -> None:
    """An empty database is reachable, and the command that makes its schema is named."""
    code, checks, _ = examined(tmp_path, CRON_OBSERVER_DATABASE_URL=named(server_url, "template1"))

    assert code == 1
    assert checks["Schema"]["mend"] == "run cron-observer db migrate"
    assert "Roles" not in checks


def test_no_secret_is_said(tmp_path: Path) -> None:
    """A database and a source that do not answer are said without the passwords of their addresses."""
    gone = free_port()
    config = settings_file(tmp_path, {"main": f"http://ada:hunter2@127.0.0.1:{gone}/crons.git"})
    url = f"postgresql://ada:hunter2@127.0.0.1:{gone}/crons"
    code, checks, said = examined(tmp_path, "--config", str(config), CRON_OBSERVER_DATABASE_URL=url)

    assert code == 1
    assert (checks["PostgreSQL"]["status"], checks["Source main"]["status"]) == ("error", "error")
    assert all(check["mend"] for check in checks.values() if check["status"] != "ok")
    assert "hunter2" not in said


def test_a_source_that_is_gone(tmp_path: Path) -> None:
    """A repository that is not there, and a branch that it does not have, are errors with a mend."""
    from cron_observer.cli.doctor import sources

    repository = Repository(tmp_path)
    repository.push("Say hello", {"hello.txt": "hello"})
    gone, branch, empty = sources(
        [
            SourceSettings(name="gone", url=str(tmp_path / "nowhere.git")),
            SourceSettings(name="branch", url=str(repository.bare), ref="mian"),
            SourceSettings(name="empty", url=str(_empty(tmp_path / "empty.git"))),
        ]
    )

    assert (gone.status, "does not exist" in gone.detail) == ("error", True)
    assert (branch.status, branch.mend) == ("error", "it has main")
    assert (empty.status, "no commits yet" in empty.detail) == ("ok", True)


def test_a_source_whose_files_cannot_be_read(tmp_path: Path) -> None:
    """Keys, authorities and credentials that are not to be had are errors that name the file and what mends it."""
    from cron_observer.cli.doctor import sources

    repository = Repository(tmp_path)
    repository.push("Say hello", {"hello.txt": "hello"})
    local, https, ssh, none = (
        str(repository.bare),
        "https://127.0.0.1:9/x.git",
        "ssh://git@127.0.0.1:9/x.git",
        tmp_path / "none",
    )
    (tmp_path / "open").write_text("a key that everybody may read")
    (tmp_path / "open").chmod(0o644)
    cases = (
        (
            SourceSettings(name="signers", url=local, verify="head", allowed_signers=none),
            f"allowed_signers names {none}",
        ),
        (SourceSettings(name="keys", url=local, verify="range", gpg_keys=none), f"gpg_keys names {none}"),
        (SourceSettings(name="nobody", url=local, verify="head"), "no keys are named"),
        (SourceSettings(name="authority", url=https, ca_file=none), f"ca_file names {none}"),
        (
            SourceSettings(name="token", url=https, credentials_ref=f"file:{none}"),
            f"the secret file:{none} cannot be read",
        ),
        (
            SourceSettings(name="variable", url=https, credentials_ref="env:NO_SUCH_TOKEN"),
            "env:NO_SUCH_TOKEN is not set",
        ),
        (SourceSettings(name="key", url=ssh, ssh_key=none), f"ssh_key names {none}"),
        (SourceSettings(name="open", url=ssh, ssh_key=tmp_path / "open"), "which others may read"),
        (SourceSettings(name="hosts", url=ssh, known_hosts=none), f"known_hosts names {none}"),
    )
    for check, (settings, said) in zip(sources([one for one, _ in cases]), cases, strict=True):
        assert check.name == f"Source {settings.name}"
        assert (check.status, said in check.detail, bool(check.mend)) == ("error", True, True), check


def _empty(folder: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)], check=True)
    return folder


async def test_a_clock_that_is_off(database: FreshDatabase) -> None:
    """The distance of the clocks is measured against this machine's, with what the question itself took."""
    facts = await ask.look(database.url, lambda: datetime.now(UTC) - timedelta(hours=1))

    assert abs(facts.ahead - timedelta(hours=1)) <= facts.unsure + timedelta(seconds=1)
    assert facts.revision == head()


async def test_a_role_that_may_not_be_assumed(database: FreshDatabase) -> None:
    """Whoever cannot act as one of the product's roles is told why."""
    role = f"stranger_{database.value('SELECT current_database()')}"
    database.do(f"CREATE ROLE {role} LOGIN")
    try:
        url = database.url.replace("cron_observer_admin", role).replace("postgresql+psycopg", "postgresql")
        secret = url.replace(f"{role}@", f"{role}:x@")  # with a password it counts as somebody else's server
        assert await ask.refusal(database.url, "cron_observer_api") is None
        why = await ask.refusal(secret, "cron_observer_api")
    finally:
        database.do(f"DROP ROLE {role}")

    assert why is not None
    assert "permission denied to set role" in why


@pytest.mark.parametrize("style", ["table", "json"])
def test_without_a_database(tmp_path: Path, style: str) -> None:
    """Where none is set and none runs, the programs that ./start would use are named, and nothing fails."""
    done = subprocess.run(
        [*COMMAND, "doctor", "--format", style],
        cwd=tmp_path,
        env=clean_environment(CRON_OBSERVER_PORT=str(free_port())),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "./start, or set CRON_OBSERVER_DATABASE_URL" in done.stdout
    assert list(tmp_path.iterdir()) == [], "looking changes nothing"
