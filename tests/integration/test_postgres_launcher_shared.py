"""Several processes on one data directory: one holds the server, the others attach."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import erase, launch
from support import postgres
from support.worlds import World, running, until


def test_the_second_attaches_and_never_stops_it(world: World) -> None:
    """A later process uses the server of the first, and leaves it running when it goes."""
    first = world.hold()
    second = world.hold()
    assert (first.facts["attached"], second.facts["attached"]) == (False, True)
    for fact in ("data_dir", "socket_dir", "libpq", "url", "version"):
        assert second.facts[fact] == first.facts[fact]
    assert second.stop() == 0
    assert first.ask("SELECT 1") == 1


def test_many_cold_starts_at_once_make_one_server(world: World) -> None:
    """Of several processes that launch a new data directory together, exactly one holds the server."""
    holders = [world.begin() for _ in range(4)]
    for holder in holders:
        holder.listen()
    assert sorted(holder.facts["attached"] for holder in holders) == [False, True, True, True]
    assert len({holder.ask("SELECT system_identifier FROM pg_control_system()") for holder in holders}) == 1


def test_the_attached_lose_it_with_its_holder_and_may_launch_again(world: World) -> None:
    """After kill -9 of the holder an attached process meets a lost connection; one of them becomes the holder."""
    first, *attached = [world.hold(fast_and_unsafe=False) for _ in range(3)]
    first.do("CREATE TABLE kept AS SELECT 42 AS n")
    with attached[0].connect() as connection:
        first.kill()
        until(lambda: not running(first.facts["pid"]), "the server ends after its holder")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
    relaunched = [holder.relaunch() for holder in attached]
    assert sorted(holder.facts["attached"] for holder in relaunched) == [False, True]
    assert [holder.ask("SELECT n FROM kept") for holder in relaunched] == [42, 42]


def test_a_launch_while_the_server_stops_waits_and_starts_anew(world: World) -> None:
    """A server that no longer takes connections is not attached to; its end is waited for."""
    first = world.hold()
    with first.connect() as connection:
        os.kill(first.facts["pid"], signal.SIGTERM)  # smart shutdown: it goes on while this connection lasts
        with pytest.raises(psycopg.OperationalError, match="shutting down"):
            until(lambda: first.ask("SELECT 1") != 1, "no more connections")
        second = world.begin()
        until(lambda: "start.lock" in _locks_of(second.process.pid), "the second start is under way")
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert second.listen().facts["attached"] is False
    assert second.ask("SELECT 1") == 1


def _locks_of(pid: int) -> set[str]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(descriptor.readlink().name)
        except FileNotFoundError:
            continue
    return found


def test_alive_follows_the_server() -> None:
    """Holder and attached alike see whether the server still runs; a stop may be repeated."""
    with postgres.short_folder() as folder:
        programs = postgres.test_provider()
        with launch(folder / "pg", provider=programs) as held, launch(folder / "pg") as attached:
            assert held.alive()
            assert attached.alive()
            assert attached.pid is None
            attached.stop()
            assert held.alive()
            held.stop()
            assert not held.alive()
            assert not attached.alive()
            held.stop()


def test_data_is_erased_only_when_nobody_uses_it() -> None:
    """Erasing under a running server is refused; afterwards the next launch starts empty."""
    with postgres.short_folder() as folder:
        data_dir = folder / "pg"
        erase(data_dir)  # there is nothing yet, and nothing is made
        assert not data_dir.exists()
        with launch(data_dir, provider=postgres.test_provider(), fast_and_unsafe=True) as server:
            with psycopg.connect(server.libpq("cron_observer_admin", "postgres")) as connection:
                connection.execute("CREATE TABLE kept (n int)")
            with pytest.raises(DatabaseError, match="a PostgreSQL server runs"):
                erase(data_dir)
            assert server.alive()
        erase(data_dir)
        assert sorted(path.name for path in data_dir.iterdir()) == ["server.lock", "start.lock"]
        with (
            launch(data_dir, provider=postgres.test_provider(), fast_and_unsafe=True) as server,
            psycopg.connect(server.libpq("cron_observer_admin", "postgres")) as connection,
        ):
            assert connection.execute("SELECT to_regclass('kept')").fetchone() == (None,)


def test_a_fork_of_the_holder_does_not_stop_the_server() -> None:
    """A child process that leaves the block by chance leaves the server to its holder."""
    script = (
        "import os, sys, psycopg; from pathlib import Path; from cron_observer.postgres import launch\n"
        "with launch(Path(sys.argv[1]), fast_and_unsafe=True) as server:\n"
        "    if os.fork() == 0: sys.exit()\n"
        "    os.wait()\n"
        "    psycopg.connect(server.libpq('cron_observer_admin', 'postgres')).close()\n"
    )
    with postgres.short_folder() as folder:
        subprocess.run([sys.executable, "-c", script, folder / "pg"], check=True)
