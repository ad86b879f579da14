"""Where data and sockets are put."""

from __future__ import annotations

from pathlib import Path

import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import places
from cron_observer.postgres.places import Home


@pytest.mark.parametrize(
    ("folder", "answer"),
    [
        ("/short/socket", True),
        ("/" + "a" * (107 - len("/.s.PGSQL.5432") - 1), True),
        ("/" + "a" * (108 - len("/.s.PGSQL.5432") - 1), False),
        ("/with space", False),
        ("/a,b", False),
        ("/user@host", False),
        ("/größe", False),
    ],
)
def test_only_plain_and_short_paths_fit_a_socket(folder: str, answer: bool) -> None:
    """107 bytes with the socket's name, and nothing that a URL or a list of folders would have to quote."""
    assert places.fits(Path(folder)) is answer


def test_a_long_path_gets_the_same_short_folder_each_time(tmp_path: Path) -> None:
    """The short name is a digest of the home, so it is found again."""
    home = Home(tmp_path / ("a" * 120))
    first = places.socket_dir_for(home, None, tmp_path)
    assert first.parent == tmp_path
    assert first.stat().st_mode & 0o777 == 0o700
    first.chmod(0o2700)  # as below a folder with that bit
    assert places.socket_dir_for(home, None, tmp_path) == first


@pytest.mark.parametrize("what", ["open folder", "file", "link"])
def test_a_short_folder_that_is_not_ours_alone_is_left_alone(tmp_path: Path, what: str) -> None:
    """What somebody has put in its place is neither used nor changed."""
    home = Home(tmp_path / ("a" * 120))
    taken = places.socket_dir_for(home, None, tmp_path)
    taken.rmdir()
    if what == "open folder":
        taken.mkdir()
        taken.chmod(0o777)
    elif what == "file":
        taken.write_text("")
    else:
        (tmp_path / "theirs").mkdir(mode=0o700)
        taken.symlink_to(tmp_path / "theirs")
    before = taken.lstat()
    made = places.socket_dir_for(home, None, tmp_path)
    assert made != taken
    assert made.stat().st_mode & 0o777 == 0o700
    assert taken.lstat() == before


def test_folders_that_are_made_let_everybody_pass(tmp_path: Path) -> None:
    """A strict umask does not lock out the server's account; folders that were there keep their mode."""
    there = tmp_path / "there"
    there.mkdir(mode=0o700)
    places.make_folder(there / "new" / "pg")
    assert there.stat().st_mode & 0o777 == 0o700
    assert (there / "new").stat().st_mode & 0o777 == 0o755
    assert (there / "new" / "pg").stat().st_mode & 0o777 == 0o755


def test_a_link_or_a_writable_folder_is_not_ours(tmp_path: Path) -> None:
    """The shared place must be a real folder, ours and closed to others' writing, and so must the one above."""
    good = tmp_path / "good" / "pg"
    places.make_folder(good)
    places.check_ours(good)
    (tmp_path / "link").symlink_to(good)
    with pytest.raises(DatabaseError, match="only root can write"):
        places.check_ours(tmp_path / "link")
    good.parent.chmod(0o775)
    with pytest.raises(DatabaseError, match="only root can write"):
        places.check_ours(good)


@pytest.mark.parametrize("content", [b"", b"../../etc", b"0123456789abcdeg", b"0123456789abcdef\n/x", b"\xff\xfe"])
def test_a_damaged_id_is_not_followed(tmp_path: Path, content: bytes) -> None:
    """An id that we could not have written names no place."""
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "id").write_bytes(content)
    assert places.existing_home(tmp_path, tmp_path / "shared") == Home(tmp_path)
