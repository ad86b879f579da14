"""What `cron-observer run` can be asked for beside running a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import free_port
from support.sdk_cli import cli, environment, start
from support.sdk_pings import Ping, PingServer, pinged
from support.sdk_server import TOKEN, WireServer, serving


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers."""
    with serving() as state:
        yield state


def run(*options: str, script: str) -> list[str]:
    """Return the words that run a shell script with options."""
    return ["run", *options, "ops/backup", "--", "sh", "-c", script]


def test_codes_that_count_as_finished(server: WireServer) -> None:
    """A code that is named is a success, 0 is none where it is not; what is returned stays."""
    for words, code, status in (("0,3", 3, "FINISHED"), ("3", 0, "FAILED"), ("0,3", 4, "FAILED")):
        assert cli(*run("--success-codes", words, script=f"exit {code}"), server=server).returncode == code
        execution = list(server.executions.values())[-1]
        assert (execution["status"], execution["exit_code"]) == (status, code)


def test_quiet_output_is_only_reported(server: WireServer) -> None:
    """With --quiet nothing of the output is seen here, and all of it there, in order."""
    done = cli(*run("--quiet", script="echo one; echo two >&2; sleep 0.1; echo three"), server=server)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert sorted(server.messages()) == ["one", "three", "two"]


def test_only_the_end_of_the_output(server: WireServer) -> None:
    """--tail-bytes sends the last lines that fit, after a word about the rest; here everything passes."""
    done = cli(*run("--tail-bytes", "40", script="for n in 1 2 3 4 5 6 7 8 9; do echo line-no-$n; done"), server=server)
    assert done.stdout.count(b"\n") == 9
    word, *lines = server.messages()
    assert lines == ["line-no-6", "line-no-7", "line-no-8", "line-no-9"]
    assert word == "5 lines before these were left out, as --tail-bytes asks"


SECRETS = """
import sys, time
parts = ("password=hu", "nter2 is", " shown\\n", "x" * 70000, "password=hunter2 end\\n", "unended password=hunter2")
for part in parts:
    sys.stdout.write(part)
    sys.stdout.flush()
    time.sleep(0.05)
sys.stderr.write("token: abc\\n")
sys.exit(1)
"""


@pytest.mark.parametrize("away", [False, True])
def test_what_matches_never_leaves(server: WireServer, tmp_path: Path, away: bool) -> None:
    """Matches are hidden in lines that come in pieces, in very long ones and in the last one; in the spool too."""
    words = ["--redact", r"password=\S+", "--redact", "(?i)TOKEN: abc", "a/b", "--", sys.executable, "-c", SECRETS]
    target = f"http://127.0.0.1:{free_port()}" if away else server
    done = cli("run", *words, server=target)
    assert b"password=hunter2 is shown" in done.stdout  # what passes through is the command's own affair
    if away:
        (path,) = Path(os.environ["XDG_STATE_HOME"], "cron-observer/spool").glob("*.ndjson")
        text = path.read_text()
    else:
        text = json.dumps([call.body for call in server.calls])
    assert text.count("***") == 4
    assert "hunter2" not in text
    assert "token: abc" not in text
    assert text.count("xxxxxxxxxx") > 1000


def test_a_line_without_end_is_left_out_where_something_is_hidden(server: WireServer) -> None:
    """A line that cannot be judged whole does not leave; the next one does."""
    script = "head -c 1500000 /dev/zero | tr '\\0' 'x'; echo password=x; echo next"
    cli(*run("--quiet", "--redact", "password=.", script=script), server=server)
    word, line = server.messages()
    assert word.startswith("a line of more than 1048576 bytes was left out")
    assert line == "next"


def test_runs_with_a_lock_do_not_overlap(server: WireServer, tmp_path: Path) -> None:
    """While one run holds the lock, another starts nothing, says so, reports a skip and exits with 75."""
    first = start(*run("--lock", script="echo held; exec sleep 60"), server=server)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    second = cli(*run("--lock", script=f"touch {tmp_path}/started"), server=server)
    assert (second.returncode, second.stdout) == (75, b"")
    assert second.stderr == (
        b"cron-observer: another run of ops/backup is going on on this host: the command was not started\n"
    )
    assert not (tmp_path / "started").exists()
    skipped = list(server.executions.values())[-1]
    assert (skipped["status"], skipped["error"]["type"]) == ("SKIPPED", "Locked")
    assert cli("run", "--lock", "ops/other", "--", "true", server=server).returncode == 0
    assert cli(*run(script="exit 0"), server=server).returncode == 0
    first.terminate()
    first.communicate(timeout=30)
    assert cli(*run("--lock", script="exit 0"), server=server).returncode == 0


def test_jitter_begins_later_and_can_be_interrupted(server: WireServer) -> None:
    """The command starts at some time up to the jitter; a signal before that starts nothing and reports nothing."""
    begun = time.monotonic()
    assert cli(*run("--jitter", "300ms", script="exit 0"), server=server).returncode == 0
    assert time.monotonic() - begun < 30
    server.calls.clear()
    waiting = start(*run("--jitter", "1h", script="echo started"), server=server)
    time.sleep(0.6)  # long enough for it to sleep; a signal that is too early ends it as well
    waiting.terminate()
    out, _ = waiting.communicate(timeout=30)
    assert (out, waiting.returncode in {143, -15}) == (b"", True)
    assert server.calls == []


def test_a_file_of_variables_is_for_the_command_and_for_us(server: WireServer, tmp_path: Path) -> None:
    """URL and token may come from the file; the command gets the rest of it, and never our key."""
    file = tmp_path / "job.env"
    file.write_text(f"CRON_OBSERVER_URL={server.url}\nCRON_OBSERVER_TOKEN='{TOKEN}'\nGREETING=\"hello there\"\n")
    script = 'echo "$GREETING ${CRON_OBSERVER_TOKEN-none} $CRON_OBSERVER_URL"'
    done = cli(*run("--env-from-file", str(file), script=script))
    assert done.stdout.decode() == f"hello there none {server.url}\n"
    assert server.only()["status"] == "FINISHED"


def test_the_command_gets_a_token_of_its_own(server: WireServer) -> None:
    """What the server gives for this run is handed on with id and fence; our key only where that is asked for."""
    server.add_due("ops/backup", run_token="crt_only-this-run")
    script = "env | grep -E '^CRON_OBSERVER_(RUN_TOKEN|TOKEN|EXECUTION_FENCE)=' | sort"
    done = cli(*run(script=script), server=server, env={"CRON_OBSERVER_RUN_TOKEN": "crt_of-somebody-else"})
    assert done.stdout == b"CRON_OBSERVER_EXECUTION_FENCE=1\nCRON_OBSERVER_RUN_TOKEN=crt_only-this-run\n"
    kept = cli(*run("--keep-token", script=script), server=server, env={"CRON_OBSERVER_RUN_TOKEN": "crt_old"})
    assert kept.stdout.decode() == f"CRON_OBSERVER_EXECUTION_FENCE=1\nCRON_OBSERVER_TOKEN={TOKEN}\n"


def test_a_file_becomes_the_result(server: WireServer, tmp_path: Path) -> None:
    """JSON that the command writes is its result; what is missing, old, broken or too large is a word in the log."""
    file = tmp_path / "out.json"
    scripts = (
        ('echo \'{"rows": 3}\' > "$CRON_OBSERVER_RESULT_FILE"', {"rows": 3}, ""),
        ("true", None, "is from before this run"),
        (f"echo '{{' > {file}", None, "cannot be read as JSON"),
        (f"head -c 70000 /dev/zero > {file}", None, "has more than 65536 bytes"),
        (f"rm {file}", None, "the command did not write"),
    )
    for script, result, word in scripts:
        assert cli(*run("--result-file", str(file), script=script), server=server).returncode == 0
        key, execution = list(server.executions.items())[-1]
        assert (execution["status"], execution.get("result")) == ("FINISHED", result)
        assert word in "".join(server.messages(key))


def test_settings_that_are_wrong_are_loud_where_that_is_asked_for(server: WireServer) -> None:
    """With CRON_OBSERVER_STRICT=1 a missing URL, a wrong token and an unknown task start nothing and exit with 64."""
    server.unknown_tasks.add("ops/backup")
    for target, more in (
        (None, {}),
        ("no address", {}),
        (server, {"CRON_OBSERVER_TOKEN": "co_00000000_x"}),
        (server, {}),
    ):
        done = cli(*run(script="echo started"), server=target, env={"CRON_OBSERVER_STRICT": "1", **more})
        assert (done.returncode, done.stdout) == (64, b"")
        assert done.stderr
    assert cli(*run(script="echo started"), server=server, env={"CRON_OBSERVER_STRICT": "0"}).stdout == b"started\n"


@pytest.fixture
def pings() -> Iterator[PingServer]:
    """A server that takes pings."""
    with pinged() as state:
        yield state


def test_a_ping_of_each_kind(pings: PingServer) -> None:
    """Address, method, run id and body are those of the protocol."""
    rid = "6b2f7a52-3c0e-4d0b-8f0a-3b1f0c9a9d01"
    check = "0c8d5b0e-7a2c-4a55-9f0d-0f6d3c1b2a19"
    env = {"CRON_OBSERVER_URL": pings.url}
    assert cli("ping", f"{pings.url}/ping/{check}/").returncode == 0
    assert cli("ping", check, "--start", "--rid", rid, env=env).returncode == 0
    assert cli("ping", "key/slug", "--exit", "3", "--body", "-", env=env, input=b"x" * 100_001 + b"!").returncode == 0
    assert cli("ping", "key/slug", "--fail", env=env).returncode == 0
    assert cli("ping", "key/slug", "--log", "--body", "/etc/hostname", env=env).returncode == 0
    assert [(one.method, one.path) for one in pings.got] == [
        ("GET", f"/ping/{check}"),
        ("GET", f"/ping/{check}/start?rid={rid}"),
        ("POST", "/ping/key/slug/3"),
        ("GET", "/ping/key/slug/fail"),
        ("POST", "/ping/key/slug/log"),
    ]
    assert pings.got[2].body == b"x" * 99_999 + b"!"


def test_a_ping_is_tried_again_and_refusals_are_not(pings: PingServer) -> None:
    """503 and a cut connection are tried again within the deadline; 404 is said at once; nobody at all is 1."""
    pings.script.extend([503, 0, 429])
    assert cli("ping", f"{pings.url}/ping/k/s").returncode == 0
    assert len(pings.got) == 4
    pings.script.append(404)
    refused = cli("ping", f"{pings.url}/ping/k/s")
    assert (refused.returncode, refused.stderr.count(b"answered 404")) == (1, 1)
    assert len(pings.got) == 5
    unread = cli("ping", "http://127.0.0.1:1/ping/k/s", "--body", "hello")
    assert (unread.returncode, b"--body: cannot read hello" in unread.stderr) == (64, True)
    nobody = cli("ping", f"http://127.0.0.1:{free_port()}/ping/k/s", "--timeout", "300ms")
    assert (nobody.returncode, b"cannot reach" in nobody.stderr) == (1, True)


@pytest.mark.parametrize(
    "words", [["not-a-place"], ["k/s"], ["k/s", "--exit", "256"], ["k/s", "--start", "--fail"], ["k/s", "--rid", "1"]]
)
def test_a_wrong_ping_is_64(words: list[str]) -> None:
    """What cannot be a ping is said, with the usage."""
    done = cli("ping", *words)
    assert done.returncode == 64
    assert b"usage: cron-observer ping" in done.stderr


def test_a_spooled_ping_is_sent_later(pings: PingServer) -> None:
    """What was left to the spool goes to its own address with the next flush, body and all, without any setting."""
    pings.script.extend([503] * 6)
    words = ("--exit", "1", "--body", "-", "--spool", "--timeout", "300ms")
    done = cli("ping", f"{pings.url}/ping/k/s", *words, input=b"why")
    assert (done.returncode, done.stderr.endswith(b"; spooled\n")) == (0, True)
    pings.got.clear()
    pings.script.clear()
    assert cli("spool", "flush").stdout == b"delivered 1, refused 0, left 0\n"
    assert pings.got == [Ping("POST", "/ping/k/s/1", b"why")]


def test_a_command_reported_by_pings(pings: PingServer) -> None:
    """One ping at the start, one with exit code and output, of one run id; its token is not needed."""
    done = cli("run", "--ping", f"{pings.url}/ping/k/s", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    begin, end = pings.got
    assert (begin.method, begin.path.partition("?")[0]) == ("GET", "/ping/k/s/start")
    assert (end.method, end.path.partition("?")[0]) == ("POST", "/ping/k/s/3")
    assert begin.path.partition("rid=")[2] == end.path.partition("rid=")[2] != ""
    assert sorted(end.body.split()) == [b"err", b"out"]


def test_a_command_reported_by_pings_does_not_need_the_server() -> None:
    """Nobody answers: the command runs, and its end waits in the spool."""
    begun = time.monotonic()
    done = cli("run", "--ping", f"http://127.0.0.1:{free_port()}/ping/k/s", "--", "sh", "-c", "exit 4")
    assert done.returncode == 4
    assert time.monotonic() - begun < 5
    listed = subprocess.run(
        [sys.executable, "-m", "cron_observer_sdk", "spool", "list", "--format", "json"],
        env=environment(None), capture_output=True, text=True,
    )  # fmt: skip
    assert [one["what"] for one in json.loads(listed.stdout)["items"]] == ["ping"]
