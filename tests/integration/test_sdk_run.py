"""``cron-observer run`` is a window pane: the command behaves as it would without it, and is reported."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import free_port
from support.sdk_cli import arguments, cli, environment
from support.sdk_server import Fault, WireServer, serving


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers."""
    with serving() as state:
        yield state


def sh(script: str) -> list[str]:
    """Return the words that run a shell script as the command."""
    return ["run", "ops/backup", "--", "sh", "-c", script]


@pytest.mark.parametrize(
    ("script", "code", "status"),
    [("exit 0", 0, "FINISHED"), ("exit 3", 3, "FAILED"), ("exit 255", 255, "FAILED")],
)
def test_exit_codes_come_back_unchanged(server: WireServer, script: str, code: int, status: str) -> None:
    """The wrapper exits as the command does, and reports the number; it says nothing itself."""
    done = cli(*sh(script), server=server)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")
    assert (server.only()["status"], server.only()["exit_code"]) == (status, code)
    assert server.of("create")[0].body["task"] == "ops/backup"


@pytest.mark.parametrize(("name", "number"), [("KILL", 9), ("TERM", 15), ("SEGV", 11)])
def test_a_signal_is_128_and_its_number(server: WireServer, name: str, number: int) -> None:
    """A command that a signal ended gives the shell's number, and the signal's name is told."""
    done = cli(*sh(f"kill -{name} $$"), server=server)
    assert done.returncode == 128 + number
    assert server.only()["exit_code"] == 128 + number
    assert server.only()["error"]["message"] == f"ended by SIG{name}"


def test_what_cannot_be_started_gives_the_numbers_of_sh(server: WireServer, tmp_path: Path) -> None:
    """127 for what is not found, 126 for what is not runnable; each is reported as a failure."""
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    script = tmp_path / "no-interpreter"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    for command, code in (
        ("no-such-command-anywhere", 127),
        (str(tmp_path / "missing"), 127),
        (str(plain / "below"), 127),
        (str(script), 127),
        (str(plain), 126),
        (str(tmp_path), 126),
    ):
        done = cli("run", "ops/backup", "--", command, server=server)
        assert done.returncode == code, command
        assert done.stderr.startswith(f"cron-observer: {command}: ".encode())
        shell = subprocess.run(["sh", "-c", '"$0"', command], capture_output=True)
        assert shell.returncode == code, command
    assert {execution["status"] for execution in server.executions.values()} == {"FAILED"}
    assert sorted(e["exit_code"] for e in server.executions.values()) == [126, 126, 127, 127, 127, 127]


def test_a_script_without_an_interpreter_line_runs_as_in_a_shell(server: WireServer, tmp_path: Path) -> None:
    """An executable text without ``#!`` is given to sh, as execvp does."""
    script = tmp_path / "work"
    script.write_text('echo "ran with $1"\n')
    script.chmod(0o755)
    assert cli("run", "ops/backup", "--", str(script), "x", server=server).stdout == b"ran with x\n"


def test_streams_pass_byte_for_byte_and_apart(server: WireServer, tmp_path: Path) -> None:
    """Binary, line ends and missing line ends come out as they went in, each on its stream."""
    out, err = os.urandom(300_000) + b"\r\n\x00last", os.urandom(100_000) + b"\n\n\n"
    (tmp_path / "out").write_bytes(out)
    (tmp_path / "err").write_bytes(err)
    done = cli(*sh(f"cat {tmp_path}/out & cat {tmp_path}/err >&2; wait"), server=server)
    assert (done.stdout, done.stderr) == (out, err)


def test_output_becomes_the_log_in_order(server: WireServer) -> None:
    """Both streams are in the log in the order of their arrival, told apart by level and field."""
    done = cli(
        *sh("for n in 1 2 3; do echo out $n; sleep 0.1; echo err $n >&2; sleep 0.1; done; printf end"), server=server
    )
    assert (done.stdout, done.stderr) == (b"out 1\nout 2\nout 3\nend", b"err 1\nerr 2\nerr 3\n")
    (entries,) = server.logs.values()
    assert [(entry["level"], entry["message"]) for entry in entries] == [
        ("INFO", "out 1"), ("WARN", "err 1"), ("INFO", "out 2"), ("WARN", "err 2"),
        ("INFO", "out 3"), ("WARN", "err 3"), ("INFO", "end"),
    ]  # fmt: skip
    assert [entry.get("fields") for entry in entries[:2]] == [None, {"stream": "stderr"}]


def test_output_is_live(server: WireServer) -> None:
    """A line is on our stdout and in the log while the command still runs."""
    process = subprocess.Popen(
        arguments(*sh("echo first; read line; echo $line")),
        env=environment(server), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"first\n"
    server.wait_for(lambda: server.logs and server.messages() == ["first"])
    process.stdin.write(b"second\n")
    process.stdin.close()
    assert process.stdout.read() == b"second\n"
    process.stdout.close()
    assert process.wait() == 0


def test_a_great_deal_of_output_arrives_whole(server: WireServer) -> None:
    """Twenty megabytes pass through unchanged; the log holds every line, or says how many were dropped."""
    text = "x" * 71
    done = cli(*sh(f"seq -f '%08.0f{text}' 1 250000"), server=server)
    assert done.returncode == 0
    expected = [f"{number:08}{text}" for number in range(1, 250_001)]
    assert done.stdout.decode() == "\n".join(expected) + "\n"
    (entries,) = server.logs.values()
    dropped = [int(e["message"].split()[0]) for e in entries if "lines were dropped here" in e["message"]]
    lines = [e["message"] for e in entries if "lines were dropped here" not in e["message"]]
    assert lines == sorted(lines)
    assert set(lines) <= set(expected)
    assert lines[-1] == expected[-1]
    assert len(lines) + sum(dropped) == 250_000


def test_a_reader_that_goes_away_ends_the_command(server: WireServer) -> None:
    """``run … -- yes | head -1`` ends as ``yes | head -1`` does: by SIGPIPE."""
    process = subprocess.Popen(
        arguments("run", "ops/backup", "--", "yes"), env=environment(server), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=30) == 128 + 13


def test_standard_input_and_other_files_are_the_commands(server: WireServer, tmp_path: Path) -> None:
    """The command reads our stdin, and inherits descriptors that the caller opened for it."""
    assert cli("run", "ops/backup", "--", "cat", server=server, input=b"hello").stdout == b"hello"
    opened = os.open(tmp_path / "three", os.O_CREAT | os.O_RDWR)
    done = cli(*sh(f"echo more >/dev/fd/{opened}"), server=server, pass_fds=[opened])
    os.close(opened)
    assert (done.returncode, (tmp_path / "three").read_text()) == (0, "more\n")


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&- 2>&-", ">&-", "2>&-"])
def test_closed_streams_break_nothing(server: WireServer, closed: str) -> None:
    """Started with closed standard streams, the command runs and is reported."""
    line = " ".join(f"'{word}'" for word in arguments(*sh("echo out; echo err >&2; exit 4")))
    done = subprocess.run(["sh", "-c", f"{line} {closed}"], env=environment(server))
    assert done.returncode == 4
    assert sorted(server.messages()) == ["err", "out"]
    assert (server.malformed, server.connections) == (0, 1)


def test_what_is_left_in_the_background_does_not_hold_the_end(server: WireServer) -> None:
    """A daemon that keeps the streams open is given two seconds, then the wrapper goes."""
    begun = time.monotonic()
    done = cli(*sh("(sleep 1; echo late) & sleep 60 & echo early"), server=server)
    assert 1.5 < time.monotonic() - begun < 30
    assert (done.returncode, done.stdout) == (0, b"early\nlate\n")
    assert server.messages() == ["early", "late"]


def test_the_command_learns_about_its_execution(server: WireServer) -> None:
    """Id, task, attempt, slot and payload of the execution are in the command's environment."""
    due = server.add_due("ops/backup", payload={"table": "käse"})
    done = cli(*sh("env | grep ^CRON_OBSERVER_EXECUTION_ | sort"), server=server)
    assert done.stdout.decode().splitlines() == [
        "CRON_OBSERVER_EXECUTION_ATTEMPT=1",
        "CRON_OBSERVER_EXECUTION_FENCE=1",
        f"CRON_OBSERVER_EXECUTION_ID={due['id']}",
        'CRON_OBSERVER_EXECUTION_PAYLOAD={"table":"käse"}',
        "CRON_OBSERVER_EXECUTION_SCHEDULED_FOR=2026-03-29T01:30:00.000Z",
        "CRON_OBSERVER_EXECUTION_TASK=ops/backup",
    ]
    assert server.of("create") == []
    assert server.only()["status"] == "FINISHED"


def test_output_can_be_kept_private(server: WireServer) -> None:
    """With --no-output only the outcome is reported."""
    done = cli("run", "--no-output", "ops/backup", "--", "echo", "secret", server=server)
    assert done.stdout == b"secret\n"
    assert server.of("logs") == []
    assert server.only()["status"] == "FINISHED"


@pytest.mark.parametrize("where", ["refusing", "hanging", "unset", "broken", "wrong token"])
def test_the_work_always_wins(server: WireServer, where: str) -> None:
    """Whatever is wrong with the server: the command runs, exits as it does, and one warning is printed.

    A server that is away is also the reason for a word about where the report is kept.
    """
    env: dict[str, str] = {}
    target: WireServer | str | None = server
    if where == "refusing":
        target = f"http://127.0.0.1:{free_port()}"
    elif where == "hanging":
        server.always["claims"] = Fault(hang=60)
    elif where == "unset":
        target = None
    elif where == "broken":
        target = "no address"
    else:
        env["CRON_OBSERVER_TOKEN"] = "co_00000000_wrong"
    begun = time.monotonic()
    done = cli(*sh("echo out; echo err >&2; exit 5"), server=target, env=env)
    assert (done.returncode, done.stdout) == (5, b"out\n")
    away = where in {"refusing", "hanging"}
    assert done.stderr.count(b"cron-observer: ") == 1 + away
    assert done.stderr.endswith(b"the outcome is spooled and will be reported later\n") == away
    assert b"err\n" in done.stderr
    assert time.monotonic() - begun < 30


def test_a_server_that_dies_meanwhile_changes_nothing(tmp_path: Path) -> None:
    """The server stops while the command runs: the same output and exit code, a warning, and a spooled report."""
    flag = tmp_path / "go"
    with serving() as server:
        process = subprocess.Popen(
            arguments(*sh(f"echo one; until test -e {flag}; do sleep 0.05; done; echo two; exit 6")),
            env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        server.wait_for(lambda: server.logs and server.messages() == ["one"])
    flag.touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (6, b"one\ntwo\n")
    assert err.count(b"cron-observer: ") == 2
    assert err.endswith(b"the outcome is spooled and will be reported later\n")


class Watching(WireServer):
    """A server whose tasks are check-ins."""

    def new(self, key: str, task: str, **facts: Any) -> dict[str, Any]:
        """Make an execution that somebody else runs."""
        return super().new(key, task, queue="@checkin", **facts)


def test_a_run_of_a_check_in_says_that_its_slots_wait_for_pings() -> None:
    """It is reported all the same, and once it is said why the slot will be missed."""
    with serving(Watching()) as server:
        done = cli(*sh("echo done"), server=server)
        assert (done.returncode, done.stdout) == (0, b"done\n")
        assert done.stderr.count(b"waits for pings") == 1
        assert server.only()["status"] == "FINISHED"
