"""The product on a PostgreSQL of yours: migrated by hand, its roles served by several processes."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from cron_observer.store.tenants import project_id, tenant_id
from support.databases import FreshDatabase, Tenant, connect, named
from support.postgres import test_provider as tested_programs
from support.processes import COMMAND, Product, Repository, clean_environment, free_port, manifest, until
from support.rows import database_now, make_slot, make_task

ROLES = "cron_observer_owner, cron_observer_api, cron_observer_reconciler, cron_observer_scheduler"


@pytest.fixture
def own_database(server_url: str, template_database: str) -> Iterator[str]:
    """URL of an empty database whose owner is no superuser; with a password, as on a server over the network."""
    name = f"own_{secrets.token_hex(6)}"
    with connect(named(server_url, "postgres")) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN CREATEROLE")
        # on a server of one's own this user makes the roles; here the fixtures of other tests already have
        admin.execute(f"GRANT {ROLES} TO {name} WITH ADMIN OPTION")
        admin.execute(f"CREATE DATABASE {name} OWNER {name}")
        try:
            url = named(server_url, name).replace("postgresql+psycopg", "postgresql")
            yield url.replace("cron_observer_admin@", f"{name}:secret@")
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
            admin.execute(f"DROP OWNED BY {name}")
            admin.execute(f"DROP ROLE {name}")


def command(folder: Path, url: str, *arguments: str, **environment: str) -> str:
    """Run one command that must succeed and return what it printed."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environment(CRON_OBSERVER_DATABASE_URL=url, **environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@contextmanager
def serving(folder: Path, url: str, *roles: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``serve`` with these roles until the block ends."""
    arguments = [part for role in roles for part in ("--role", role)]
    log = folder / f"{'-'.join(roles)}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--config", "cron-observer.toml", "--port", str(port), *arguments],
            cwd=folder,
            env=clean_environment(CRON_OBSERVER_DATABASE_URL=url),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def test_migrate_serve_claim(own_database: str, tmp_path: Path) -> None:
    """`db migrate` and `serve` are all that a database of yours needs, also with an owner who is no superuser."""
    repository = Repository(tmp_path)
    repository.push("Say hello", {"hello.yaml": manifest("hello", "every: 2s")})
    (tmp_path / "cron-observer.toml").write_text(f'[[sources]]\nname = "main"\nurl = "{repository.bare}"\n')
    assert (
        command(tmp_path, own_database, "db", "migrate")
        == "applied 0001, 0002, 0003, 0004, 0005, 0006, 0007, 0008, 0009"
    )
    assert command(tmp_path, own_database, "db", "migrate") == "the schema is up to date"
    token = command(tmp_path, own_database, "token", "create", "--name", "worker", "--scope", "report")
    port = free_port()
    with ExitStack() as stack:
        api = stack.enter_context(serving(tmp_path, own_database, "api", port=port))
        stack.enter_context(serving(tmp_path, own_database, "reconciler", "scheduler", port=port))
        product = Product(f"http://127.0.0.1:{port}", tmp_path, api, tmp_path / "api.log")

        def claimed() -> Any:
            try:
                reply = product.ask("POST", "sdk/claims", {"worker": "w", "wait_seconds": 5}, token=token)
            except OSError:
                return None
            assert reply.status in {200, 503}, reply
            return reply.body["executions"] if reply.status == 200 else None

        (execution,) = until(claimed, "a claim")
        body = {"fence": execution["fence"], "outcome": "finished"}
        done = product.ask("POST", f"sdk/executions/{execution['id']}/complete", body, token=token)
        assert (done.status, done.body["status"]) == (200, "FINISHED")
        assert product.ask("GET", "/readyz", token=None).status == 200
    said = command(tmp_path, own_database, "doctor", "--config", "cron-observer.toml")
    assert "✕" not in said, said


def test_backup_by_an_owner_who_is_no_superuser(own_database: str, server_url: str, tmp_path: Path) -> None:
    """A backup holds every tenant's rows although row-level security holds for who makes it; it is not overwritten."""
    programs = tested_programs().bin_dir  # a dump goes back into the version that it came from
    theirs = {"CRON_OBSERVER_PG_BIN": str(programs)}
    for environment in ({}, {"CRON_OBSERVER_TENANT": "other"}):
        command(tmp_path, own_database, "db", "migrate", **environment)
        command(tmp_path, own_database, "token", "create", "--name", "x", "--scope", "read", **environment)
    database = FreshDatabase(named(server_url, own_database.partition("?")[0].rpartition("/")[2]))
    try:
        for name in ("default", "other"):
            tenant = Tenant(database, tenant_id(name), project_id(tenant_id(name), "default"), name)
            make_slot(tenant, make_task(tenant), database_now(database))
    finally:
        database.close()
    assert "restore with pg_restore" in command(tmp_path, own_database, "db", "backup", "all.dump", **theirs)
    again = subprocess.run(
        [*COMMAND, "db", "backup", "all.dump"],
        cwd=tmp_path,
        env=clean_environment(CRON_OBSERVER_DATABASE_URL=own_database, **theirs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (again.returncode, "never overwritten" in again.stderr) == (1, True)

    restored = f"restored_{secrets.token_hex(6)}"
    with connect(named(server_url, "postgres")) as admin:
        admin.execute(f"CREATE DATABASE {restored}")
        try:
            url = named(server_url, restored).replace("postgresql+psycopg", "postgresql")
            subprocess.run([str(programs / "pg_restore"), "--single-transaction", f"--dbname={url}", "all.dump"],
                           cwd=tmp_path, check=True)  # fmt: skip
            with connect(named(server_url, restored)) as copy:
                for table in ("api_keys", "tasks", "executions"):
                    held = copy.execute(f"SELECT count(DISTINCT tenant_id) AS tenants FROM {table}").fetchall()
                    assert held == [{"tenants": 2}], table
        finally:
            admin.execute(f"DROP DATABASE {restored} WITH (FORCE)")
