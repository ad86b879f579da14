"""Other PostgreSQL versions than the wheel's: Debian's 15 runs, and no version touches another's data."""

from __future__ import annotations

import shlex
from pathlib import Path

import psycopg
import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import Provider, launch, providers
from support import postgres

DEBIANS = Path("/usr/lib/postgresql/15/bin")

needs_debians = pytest.mark.skipif(
    not DEBIANS.exists(), reason="needs Debian's PostgreSQL 15: apt-get install -y postgresql-15"
)


def debians() -> Provider:
    """Return Debian's PostgreSQL 15."""
    found = providers.at(DEBIANS, "system")
    assert found is not None
    return found


@needs_debians
def test_debians_postgresql_15_runs() -> None:
    """A system PostgreSQL is initialised, started, attached to, stopped and started again like the wheel's."""
    with postgres.short_folder() as folder:
        with launch(folder / "pg", provider=debians()) as server, launch(folder / "pg") as attached:
            assert server.version.startswith("15.")
            assert attached.attached
            with psycopg.connect(attached.libpq("cron_observer_admin", "postgres")) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
                locale = connection.execute("SELECT datcollate FROM pg_database LIMIT 1").fetchone()
                assert locale == ("C.UTF-8",)
        with (
            launch(folder / "pg", provider=debians()) as server,
            psycopg.connect(server.libpq("cron_observer_admin", "postgres")) as connection,
        ):
            assert connection.execute("SELECT n FROM kept").fetchone() == (42,)


def refusal(data_dir: Path, provider: Provider) -> DatabaseError:
    """Launch, which must fail, and return the error."""
    with pytest.raises(DatabaseError) as refused, launch(data_dir, provider=provider):
        pass
    return refused.value


@needs_debians
def test_data_of_another_major_version_is_refused_with_the_command_that_helps() -> None:
    """The data stays as it is, and the hint's command, taken at its word, runs it."""
    with postgres.short_folder() as folder:
        with (
            launch(folder / "pg", provider=debians()) as server,
            psycopg.connect(server.libpq("cron_observer_admin", "postgres")) as connection,
        ):
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
        error = refusal(folder / "pg", providers.find({}))
        assert "belongs to PostgreSQL 15" in error.message
        command = shlex.split(str(error.hint).splitlines()[0].partition(": ")[2])
        assert command[1:] == ["./start"]
        name, _, value = command[0].partition("=")
        with (
            launch(folder / "pg", provider=providers.find({name: value})) as server,
            psycopg.connect(server.libpq("cron_observer_admin", "postgres")) as connection,
        ):
            assert connection.execute("SELECT n FROM kept").fetchone() == (42,)


@pytest.mark.parametrize(("made_by", "hint"), [("99", "install PostgreSQL 99"), ("14", "--reset")])
def test_data_of_a_version_that_is_not_here_is_refused(made_by: str, hint: str) -> None:
    """Without programs of that version, the hint says which to get, or what is left where none will do."""
    with postgres.short_folder() as folder:
        programs = postgres.test_provider()
        with launch(folder / "pg", provider=programs, fast_and_unsafe=True) as server:
            version = server.data_dir / "cluster" / "PG_VERSION"
        version.write_text(f"{made_by}\n")
        error = refusal(folder / "pg", programs)
        assert f"belongs to PostgreSQL {made_by}" in error.message
        assert hint in str(error.hint)
        assert version.read_text() == f"{made_by}\n"


def test_a_folder_that_is_no_cluster_is_refused() -> None:
    """What we did not make is not overwritten."""
    with postgres.short_folder() as folder:
        (folder / "pg" / "cluster").mkdir(parents=True)
        (folder / "pg" / "cluster" / "mine.txt").write_text("keep me")
        error = refusal(folder / "pg", postgres.test_provider())
        assert "not a PostgreSQL data directory" in error.message
        assert (folder / "pg" / "cluster" / "mine.txt").read_text() == "keep me"
