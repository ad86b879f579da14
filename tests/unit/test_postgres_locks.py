"""Waiting for others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import locks
from cron_observer.postgres.locks import Waiting, locked, open_lock, try_lock


def test_a_wait_reports_and_ends_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every few seconds it says what it waits for, and after its cap it gives up."""
    monkeypatch.setattr(locks, "_REPORT_EVERY", 0.02)
    said: list[str] = []
    waiting = Waiting("the server recovers", 0.1, said.append, lambda: "redo in progress")

    def wait_for_ever() -> None:
        while True:
            waiting.pause()

    with pytest.raises(DatabaseError, match=r"the server recovers \(0 s\)\. redo in progress"):
        wait_for_ever()
    assert 2 <= len(said) <= 5
    assert set(said) == {"the server recovers (0 s). redo in progress"}


def test_a_lock_is_held_by_one_and_passed_on(tmp_path: Path) -> None:
    """Who comes second waits until the first has gone."""
    path = tmp_path / "lock"
    with locked(path, "first", lambda _: None):
        second = open_lock(path)
        assert not try_lock(second)
    assert try_lock(second)
    os.close(second)


def test_a_lock_lives_as_long_as_a_process_that_inherited_it(tmp_path: Path) -> None:
    """The holder may close it or die: while a child has it, it is held; then it is free."""
    path = tmp_path / "lock"
    first = open_lock(path)
    assert try_lock(first)
    child = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(first,), stdin=subprocess.PIPE)
    os.close(first)
    second = open_lock(path)
    assert not try_lock(second)
    child.communicate(b"\n")
    assert try_lock(second)
    os.close(second)


def test_a_file_system_without_locks_is_told() -> None:
    """Where flock does not work, nothing is started unprotected."""
    descriptor = os.open("/", os.O_PATH)  # one of the few things here that cannot be locked
    try:
        with pytest.raises(DatabaseError, match="knows no locks"):
            try_lock(descriptor)
    finally:
        os.close(descriptor)


def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    """A lock is not opened through a link, which could lead anywhere."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatabaseError, match="cannot be opened"):
        open_lock(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
