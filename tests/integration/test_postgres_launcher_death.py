"""What the death of a holder, or of its server, leaves behind: nothing that breaks the next start."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.worlds import ROOT, USER, Holder, World, running, until

#: Who may signal whom differs between these two. In the third, what is left lies elsewhere, and is found as in all
#: of test_postgres_launcher_shared.py, where a holder dies too.
pytestmark = pytest.mark.parametrize("ground", [ROOT, USER], indirect=True)


def kill_server(holder: Holder) -> None:
    """End a holder's server as the power would. The process is the holder's child, so its number is still its own."""
    os.kill(holder.facts["pid"], signal.SIGKILL)


def log_of(holder: Holder) -> str:
    """Return what the server has logged."""
    return (Path(holder.facts["data_dir"]) / "postgres.log").read_text()


def commit_until_cut_off(holder: Holder, enough: int, cut: Callable[[], None]) -> list[int]:
    """Insert 1, 2, 3..., a commit each; call `cut` after `enough` of them; return those that were acknowledged."""
    acknowledged: list[int] = []
    with closing(holder.connect()) as connection:
        while True:
            number = len(acknowledged) + 1
            try:
                connection.execute("INSERT INTO numbers VALUES (%s)", (number,))
            except psycopg.OperationalError:
                return acknowledged
            acknowledged.append(number)
            if number == enough:
                cut()


def keep_busy(holder: Holder) -> psycopg.Connection[tuple[Any, ...]]:
    """Return a connection whose process of the server computes for some seconds."""
    connection = holder.connect()
    connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 10000000)")
    active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend'"
    until(lambda: holder.ask(active) == 2, "the query runs")
    return connection


def test_commits_survive_the_killing_of_the_holder(world: World) -> None:
    """kill -9 of the holder amid commits: the server ends by itself, cleanly, and no acknowledged row is lost."""
    first = world.hold(fast_and_unsafe=False)
    first.do("CREATE TABLE numbers (n int PRIMARY KEY)")
    acknowledged = commit_until_cut_off(first, 50, first.kill)
    until(lambda: not running(first.facts["pid"]), "the server ends after its holder")
    assert "database system is shut down" in log_of(first)
    second = world.hold(fast_and_unsafe=False)
    assert not second.facts["attached"]
    stored = second.ask("SELECT array_agg(n ORDER BY n) FROM numbers")
    assert stored[: len(acknowledged)] == acknowledged
    assert len(stored) <= len(acknowledged) + 1  # the one that was under way


def test_a_server_that_outlives_its_holder_would_be_noticed(world: World) -> None:
    """The broken twin, whose kernel sends no signal, is caught by what the test above looks at."""
    first = world.hold(twin="server outlives its holder")
    first.do("CREATE TABLE numbers (n int PRIMARY KEY)")
    first.kill()
    pid = first.facts["pid"]
    assert running(pid)
    assert first.ask("SELECT 1") == 1
    second = world.hold()
    assert second.facts["attached"]  # the next start still finds it
    os.kill(pid, signal.SIGINT)
    until(lambda: not running(pid), "the twin's server ends")


def test_commits_survive_the_killing_of_the_server(world: World) -> None:
    """kill -9 of the server amid commits: the next start recovers them, whoever makes it."""
    first = world.hold(fast_and_unsafe=False)
    first.do("CREATE TABLE numbers (n int PRIMARY KEY)")
    acknowledged = commit_until_cut_off(first, 50, lambda: kill_server(first))
    second = world.hold(fast_and_unsafe=False)
    assert not second.facts["attached"]
    stored = second.ask("SELECT array_agg(n ORDER BY n) FROM numbers")
    assert stored[: len(acknowledged)] == acknowledged
    assert "was not properly shut down" in log_of(second)


def test_the_holder_itself_can_start_again(world: World) -> None:
    """A holder whose server was killed gets a new one by launching again."""
    holder = world.hold()
    kill_server(holder)
    assert holder.relaunch().ask("SELECT 1") == 1
    assert not holder.facts["attached"]


def test_both_killed_at_once(world: World) -> None:
    """kill -9 of the server and then of its holder leaves a cluster that the next start recovers."""
    first = world.hold()
    kill_server(first)
    first.kill()
    assert world.hold().ask("SELECT 1") == 1


def test_a_zombie_is_not_taken_for_a_server(world: World) -> None:
    """A killed server that nobody reaps, as in a container without an init, does not block the next start."""
    first = world.hold()
    first.process.send_signal(signal.SIGSTOP)  # so that it cannot reap its child
    kill_server(first)
    assert Path(f"/proc/{first.facts['pid']}").exists()
    second = world.hold()
    assert second.ask("SELECT 1") == 1
    assert Path(f"/proc/{first.facts['pid']}/stat").read_text().split()[2] == "Z"


def test_believing_pid_files_would_be_noticed(world: World) -> None:
    """The broken twin, which leaves the lock files to PostgreSQL alone, fails on the zombie."""
    first = world.hold()
    first.process.send_signal(signal.SIGSTOP)
    kill_server(first)
    second = world.begin(twin="pid files are believed").listen()
    assert "postmaster.pid" in second.facts["error"]


def test_a_busy_leftover_is_waited_for(world: World) -> None:
    """A process of the killed server that is still at work delays the next start and does not break it."""
    first = world.hold(fast_and_unsafe=False)
    first.do("CREATE TABLE kept AS SELECT 42 AS n")
    with closing(keep_busy(first)) as busy:
        kill_server(first)
        assert running(busy.info.backend_pid)
        second = world.hold(fast_and_unsafe=False)
        assert not running(busy.info.backend_pid)
        assert second.ask("SELECT n FROM kept") == 42


def test_not_waiting_for_leftovers_would_be_noticed(world: World) -> None:
    """The broken twin, which does not mind the lock, is stopped by PostgreSQL's own look at the shared memory."""
    first = world.hold()
    with closing(keep_busy(first)):
        kill_server(first)
        second = world.begin(twin="nobody waits for leftovers").listen()
        assert "shared memory" in second.facts["error"]


def test_bystanders_with_the_servers_number_live_on(world: World) -> None:
    """A process whose number stands in the files of a dead server neither blocks a start nor gets a signal."""
    first = world.hold()
    kill_server(first)
    first.kill()
    home = Path(first.facts["data_dir"])
    with world.bystander() as bystander:
        try:
            for name in ("cluster/postmaster.pid", "socket/.s.PGSQL.5432.lock"):
                lines = (home / name).read_text().splitlines(keepends=True)
                (home / name).write_text("".join([f"{bystander.pid}\n", *lines[1:]]))
            runtime = (home / "runtime.json").read_text().replace(str(first.facts["pid"]), str(bystander.pid))
            (home / "runtime.json").write_text(runtime)
            second = world.hold()
            assert second.ask("SELECT 1") == 1
            assert second.stop() == 0
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_damaged_lock_files_do_not_block_a_start(world: World) -> None:
    """What a crash amid writing them may leave is overcome."""
    holder = world.hold()
    home = Path(holder.facts["data_dir"])
    for rubbish in ("", "garbage\n", "0\n"):
        holder.stop()
        for name in ("cluster/postmaster.pid", "socket/.s.PGSQL.5432.lock", "runtime.json"):
            (home / name).write_text(rubbish)
        if os.geteuid() == 0:
            owner = (home / "cluster").stat()
            os.chown(home / "cluster" / "postmaster.pid", owner.st_uid, owner.st_gid)
        holder = world.hold()
        assert holder.ask("SELECT 1") == 1


def test_a_half_made_cluster_is_made_anew(world: World) -> None:
    """kill -9 amid initdb leaves no cluster, and the next start makes one and clears the ruins."""
    first = world.begin()
    half = until(lambda: list(world.folder.parents[1].rglob("init-*/base")), "initdb has begun")
    first.kill()
    home = half[0].parents[1]
    assert not (home / "cluster").exists()
    second = world.hold()
    assert second.ask("SELECT 1") == 1
    assert not list(home.glob("init-*"))
