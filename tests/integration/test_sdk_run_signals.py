"""Signals, time limits and cancellation reach the command and everything that it started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sdk_cli import arguments, cli, environment, start
from support.sdk_server import Fault, WireServer, serving

#: Says that it is ready, then what signals it gets, until it is killed.
TALKER = """
import signal
names = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")
numbers = {getattr(signal, "SIG" + name): name for name in names}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
while True:
    print("got", numbers[signal.sigwait(numbers)], flush=True)
"""


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Let signals mean what they mean by default: under nohup, or in a shell's background, some are ignored."""
    before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)}
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers, with a fast pace for heartbeats."""
    with serving() as state:
        state.pace = 1.0
        yield state


def sh(script: str, *options: str) -> list[str]:
    """Return the words that run a shell script as the command."""
    return ["run", *options, "ops/backup", "--", "sh", "-c", script]


def alive(pid: int) -> bool:
    """Say whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Read a line of the command's output."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_signals_are_handed_on(server: WireServer) -> None:
    """INT, TERM, HUP, QUIT, USR1 and USR2 reach the command; what it does with them is its own affair."""
    process = start("run", "ops/backup", "--", sys.executable, "-c", TALKER, server=server)
    assert first_line(process) == b"ready\n"
    for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2"):
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert first_line(process) == f"got {name}\n".encode()
    server.wait_for(lambda: server.logs and "got USR2" in server.messages())
    process.kill()
    process.communicate()
    pid = int(server.of("create")[0].body["worker"].rpartition(":")[2])
    assert pid == process.pid


def test_a_command_that_dies_of_our_sigterm_gives_143(server: WireServer) -> None:
    """SIGTERM to the wrapper ends the command, and both are told apart from a cancellation."""
    process = start(*sh("echo ready; exec sleep 60"), server=server)
    assert first_line(process) == b"ready\n"
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert (server.only()["status"], server.only()["exit_code"]) == ("FAILED", 143)


def test_a_signal_before_the_command_starts_gives_the_run_back(server: WireServer) -> None:
    """Stopped while it asks the server, the wrapper starts nothing, and what it claimed is offered again."""
    server.add_due("ops/backup")
    server.fail("claims", Fault(hang=60))
    process = start(*sh("echo started"), server=server)
    server.wait_for(lambda: server.of("claims"))
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (143, b"")
    assert server.only()["status"] == "PENDING"


@pytest.mark.parametrize("grace", ["300ms", "60s"])
def test_a_time_limit_ends_the_whole_group(server: WireServer, tmp_path: Path, grace: str) -> None:
    """After --timeout comes SIGTERM, after --grace SIGKILL, for grandchildren as well."""
    pids = tmp_path / "pids"
    stubborn = "trap : TERM;" if grace == "300ms" else ""
    work = f"{stubborn} echo $$ >> {pids}; while :; do sleep 0.1; done"
    script = f"sh -c '{work}' & {work}"
    begun = time.monotonic()
    done = cli(*sh(script, "--timeout", "1s", "--grace", grace), server=server)
    assert time.monotonic() - begun < 30
    assert done.returncode == 128 + (9 if stubborn else 15)
    assert server.only()["status"] == "FAILED"
    assert server.only()["error"] == {"type": "Timeout", "message": "still running after 1 s: ended", "traceback": ""}
    numbers = [int(line) for line in pids.read_text().split()]
    assert len(numbers) == 2
    assert not any(alive(pid) for pid in numbers)


def test_a_command_may_end_well_within_the_grace(server: WireServer) -> None:
    """What a command does at SIGTERM decides the exit code; for the server it has timed out all the same."""
    done = cli(*sh("trap 'echo bye; exit 0' TERM; while :; do sleep 0.05; done", "--timeout", "500ms"), server=server)
    assert (done.returncode, done.stdout) == (0, b"bye\n")
    assert server.only()["status"] == "FAILED"


def test_cancellation_ends_a_command_that_ignores_sigterm(server: WireServer) -> None:
    """A wish to cancel comes with a heartbeat: SIGTERM, then SIGKILL, and the outcome is cancelled."""
    process = start(*sh("trap '' TERM; echo ready; while :; do sleep 0.05; done", "--grace", "500ms"), server=server)
    assert first_line(process) == b"ready\n"
    server.cancel_requested = True
    process.communicate(timeout=30)
    assert process.returncode == 137
    assert (server.only()["status"], server.only()["exit_code"]) == ("CANCELLED", 137)


def test_a_run_that_was_given_to_somebody_else_is_ended(server: WireServer) -> None:
    """When a good lease is taken away, two would run at once: the command is ended and nothing is reported."""
    process = start(*sh("echo ready; exec sleep 60"), server=server)
    assert first_line(process) == b"ready\n"
    server.always["heartbeat"] = Fault(status=409, problem={"code": "lease_lost", "detail": "fenced"})
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert server.of("complete") == []
    assert b"the outcome is not reported: fenced" in err


def test_nohup_stays_nohup(server: WireServer) -> None:
    """A signal that was ignored when we started stays ignored, by us and by the command."""
    line = [*arguments(*sh("echo ready; read line; echo done"))]
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$0" "$@"', *line],
        env=environment(server), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert first_line(process) == b"ready\n"
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(b"go\n", timeout=30)
    assert (process.returncode, out) == (0, b"done\n")


def test_an_ignored_sigchld_costs_no_exit_code(server: WireServer) -> None:
    """Some daemons start commands with SIGCHLD ignored; the exit code is still the command's."""
    done = subprocess.run(
        [
            arguments("x")[0],
            "-c",
            "import os, signal as s, sys; s.signal(s.SIGCHLD, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])",
            *arguments(*sh("exit 9")),
        ],
        env=environment(server),
    )
    assert done.returncode == 9


def test_an_impatient_signal_ends_the_reporting(server: WireServer) -> None:
    """While the end is being reported, a signal ends the waiting; the exit code stays the command's."""
    server.always["complete"] = Fault(hang=60)
    process = start(*sh("exit 7"), server=server)
    server.wait_for(lambda: server.of("complete"))
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (7, b""), "whoever waits to the end says that nobody answered"


def _can_make_a_pid_namespace() -> bool:
    """Say whether this host lets us be process 1 of something."""
    return bool(shutil.which("unshare")) and (
        subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _can_make_a_pid_namespace(), reason="needs `unshare --pid`: run as root")
def test_process_1_reaps_orphans_and_hears_signals(server: WireServer) -> None:
    """As a container's first process it reaps what others leave behind, and SIGTERM still ends the command."""
    script = (
        "for n in 1 2 3 4 5; do (sleep 0.2 &) ; done; sleep 1; ps -e -o stat= | grep -c Z; echo ready; exec sleep 60"
    )
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *arguments(*sh(script))],
        env=environment(server), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert first_line(process) == b"0\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGTERM)
    process.communicate(timeout=30)
    assert server.only()["exit_code"] == 143
