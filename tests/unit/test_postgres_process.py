"""Children that die with their parent, and what they inherit."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import process
from cron_observer.postgres.process import Account, account_for, clean_environment, die_with_parent

#: A parent that starts a child, prints its number and waits.
PARENT = """
import signal, subprocess, sys
from cron_observer.postgres import die_with_parent
child = subprocess.Popen(["sleep", "600"], preexec_fn=die_with_parent(signal.SIGTERM))
print(child.pid, flush=True)
sys.stdin.read()
"""

#: A process that arms itself for a parent which is not its own.
ORPHAN = """
import os
from cron_observer.postgres import die_with_parent
arm = die_with_parent()
child = os.fork()
if child == 0:
    if os.fork() == 0:
        arm()
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_killed_parent_takes_its_child_along() -> None:
    """kill -9 of the parent ends the child by the signal that was asked for."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert _ended(child)


def _ended(pidfd: int) -> bool:
    try:
        return bool(select.select([pidfd], [], [], 30)[0])
    finally:
        os.close(pidfd)


def test_a_parent_that_died_before_the_child_was_armed_is_noticed() -> None:
    """The kernel sends nothing for a death that is past, so the child looks for its parent and ends."""
    orphan = subprocess.run([sys.executable, "-c", ORPHAN], check=False)
    assert orphan.returncode == 128 + signal.SIGTERM


def test_only_the_main_thread_may_arm_a_child() -> None:
    """Linux sends the signal when the thread that started the child ends."""
    met: list[str] = []

    def run() -> None:
        try:
            die_with_parent()
        except RuntimeError as error:
            met.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "main thread" in met[0]


def test_children_do_not_inherit_what_steers_postgresql() -> None:
    """PG* and locale variables are left out, everything else stays."""
    given = {"PGDATA": "/x", "PGPORT": "1", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "PATH": "/bin"}
    assert clean_environment(given) == {"PATH": "/bin", "LC_ALL": "C"}


def test_an_ordinary_user_gets_no_other_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who is not root runs the server as themselves."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert account_for(tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses an account")
def test_root_without_any_known_account_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None is created."""
    monkeypatch.setattr(process, "ACCOUNTS", ("no-such-account",))
    with pytest.raises(DatabaseError, match="no-such-account"):
        account_for(tmp_path / "cluster")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses an account")
def test_an_account_enters_what_its_mode_allows(tmp_path: Path) -> None:
    """A folder is tried as the account, with no rights of root left."""
    stranger = Account("stranger", 54321, 54321)
    assert stranger.may_enter(Path("/"))
    assert not stranger.may_enter(Path("/nonexistent"))
    tmp_path.chmod(0o700)
    assert not stranger.may_enter(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can lose the right to become another")
def test_a_root_that_may_not_become_another_is_told(tmp_path: Path) -> None:
    """In a container without SETUID the error says so."""
    script = (
        "import sys; from pathlib import Path; from cron_observer.errors import DatabaseError\n"
        "from cron_observer.postgres.process import account_for\n"
        "try: account_for(Path(sys.argv[1]))\n"
        "except DatabaseError as error: print(error.message, error.hint)\n"
    )
    bounded = ["setpriv", "--bounding-set", "-setuid,-setgid", sys.executable, "-c", script, str(tmp_path / "x")]
    printed = subprocess.run(bounded, capture_output=True, text=True, check=True).stdout
    assert "may not become" in printed
    assert "SETUID" in printed
