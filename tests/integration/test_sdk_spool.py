"""What is said while the server is away is said once, later: by whoever comes next, whatever happened in between."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import cron_observer_sdk as co
from cron_observer_sdk.client import Client
from cron_observer_sdk.replay import replay
from cron_observer_sdk.segment import Segment
from cron_observer_sdk.spool import Spool
from support.processes import free_port
from support.sdk_cli import arguments, cli, environment, start
from support.sdk_server import TOKEN, Fault, WireServer, serving


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers."""
    with serving() as state:
        yield state


def sh(script: str) -> list[str]:
    """Return the words that run a shell script as the command."""
    return ["run", "ops/backup", "--", "sh", "-c", script]


def entries(path: Path) -> list[dict[str, Any]]:
    """Return what a file of the spool holds."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def kinds(path: Path) -> list[str]:
    """Return what is in a file of the spool, in short; the end may come before the last lines."""
    return [one["kind"] for one in entries(path)]


def test_a_run_without_a_server_is_reported_by_the_next_one() -> None:
    """Command, output, exit code and the true begin arrive with the next run, once, before it begins."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    before = time.time()
    done = cli(*sh("echo out; sleep 0.2; echo err >&2; exit 3"), server=url)
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert b"spooled and will be reported later" in done.stderr
    (path,) = Spool().waiting()
    assert sorted(kinds(path)) == ["end", "head", "line", "line"]
    assert TOKEN.encode() not in path.read_bytes()
    minted = entries(path)[0]["id"]
    with serving(port=port) as server:
        assert cli(*sh("exit 0"), server=server).stderr == b""
        first, second = server.executions.values()
        assert (first["id"], first["status"], first["exit_code"]) == (minted, "FAILED", 3)
        assert second["status"] == "FINISHED"
        assert server.verbs().index("complete") < server.verbs().index("claims")
        out, err, origin = server.logs[minted]
        assert (out["message"], err["message"], err["level"]) == ("out", "err", "WARN")
        assert origin["message"].startswith("reported from the spool, after the server was away; the run ended at 20")
        begun = server.of("create")[0].body["started_at"]
        assert begun >= time.strftime("%Y-%m-%dT%H:%M", time.gmtime(before))
    assert Spool().waiting() == []


def test_a_replay_that_dies_at_any_call_doubles_nothing(server: WireServer) -> None:
    """Whatever reply is lost or refused for a time, the next replay ends with each line and the outcome once."""
    made = Spool().create(_head(server))
    for number in range(5000):
        made.write(
            [b'{"kind":"line","seq":%d,"entry":{"level":"INFO","message":"%d"}}' % (number, number)], durable=False
        )
    made.write(
        [b'{"kind":"end","outcome":{"outcome":"finished","result":7},"at":"2026","next_seq":5000}'], durable=True
    )
    made.close()
    client, rounds = Client(server.url, TOKEN, tries=1), 0
    for verb in ("create", "logs", "logs", "complete"):
        server.fail(verb, Fault(drop=True))
    server.fail("logs", Fault(status=503))
    while Spool().waiting():
        rounds += 1
        assert rounds < 10
        replay(Spool(), client)
    execution = server.only()
    assert (execution["status"], execution["result"]) == ("FINISHED", 7)
    assert server.messages()[:5000] == [str(number) for number in range(5000)]
    assert len(server.messages()) == 5001


def _head(server: WireServer, task: str = "ops/backup") -> dict[str, Any]:
    """Return the head of a file for a server."""
    return {
        "v": 1, "url": server.url, "key": TOKEN[:11], "task": task, "id": co.uuid7(), "worker": "h:1",
        "started_at": "2026-11-21T02:30:00.000Z",
    }  # fmt: skip


def test_processes_share_the_work_and_double_nothing(server: WireServer) -> None:
    """Four processes that flush at once deliver forty runs once each."""
    for _ in range(40):
        made = Spool().create(_head(server))
        made.write([b'{"kind":"line","seq":0,"entry":{"level":"INFO","message":"only"}}'], durable=False)
        made.write([b'{"kind":"end","outcome":{"outcome":"finished"},"at":"2026","next_seq":1}'], durable=True)
        made.close()
    flushing = [start("spool", "flush", server=server) for _ in range(4)]
    told = [one.communicate(timeout=60)[0].decode() for one in flushing]
    assert sum(int(one.split()[1].rstrip(",")) for one in told) == 40
    assert len(server.of("create")) == len(server.of("complete")) == 40
    assert all(len(lines) == 2 for lines in server.logs.values())
    assert Spool().waiting() == []


def test_a_server_that_goes_away_in_the_middle_gets_the_rest(server: WireServer) -> None:
    """Lines that were stored are not sent twice, those that were not follow, and the outcome closes it."""
    with co.task("a/b", client=Client(server.url, TOKEN)) as run:
        run.log("before")
        server.wait_for(lambda: server.logs and server.messages() == ["before"])
        server.always.update(dict.fromkeys(("logs", "heartbeat", "complete", "claims"), Fault(status=503)))
        run.log("after")
    (path,) = Spool().waiting()
    assert {(one["kind"], one.get("seq")) for one in entries(path)} == {
        ("head", None), ("bound", None), ("line", 1), ("end", None)
    }  # fmt: skip
    server.always.clear()
    _until(lambda: replay(Spool(), Client(server.url, TOKEN)).idle and not Spool().waiting())
    assert server.messages()[:2] == ["before", "after"]
    assert server.only()["status"] == "FINISHED"
    assert len(server.of("create")) == 1


def _until(condition: Any) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_lines_of_an_outage_reach_a_server_that_comes_back(server: WireServer) -> None:
    """While the work runs, what was written to the spool is read back and sent in order, and the file goes away."""
    with co.task("a/b", client=Client(server.url, TOKEN)) as run:
        run.log("0")
        server.wait_for(lambda: server.logs and server.messages() == ["0"])
        server.always["logs"] = Fault(status=503)
        for number in range(1, 300):
            run.log(str(number))
        _until(lambda: Spool().waiting() and len(entries(Spool().waiting()[0])) == 301)
        run.log("300")
        del server.always["logs"]
        server.wait_for(lambda: len(server.messages()) == 301)
        run.log("301")
    assert server.messages() == [str(number) for number in range(302)]
    assert server.only()["status"] == "FINISHED"
    assert Spool().waiting() == []


def test_a_process_that_is_killed_while_the_server_is_away_is_told_of() -> None:
    """Begin and lines are on the disk while it runs; what killed it is reported as a failure of its own kind."""
    port = free_port()
    process = start(*sh("echo one; echo two; exec sleep 60"), server=f"http://127.0.0.1:{port}", start_new_session=True)
    _until(lambda: Spool().waiting() and len(entries(Spool().waiting()[0])) == 3)
    process.kill()
    process.communicate()
    with serving(port=port) as server:
        flushed = cli("spool", "flush", server=server)
        assert (flushed.returncode, flushed.stdout) == (0, b"delivered 1, refused 0, left 0\n")
        execution = server.only()
        assert (execution["status"], execution["error"]["type"]) == ("FAILED", "ProcessDied")
        assert server.messages()[:2] == ["one", "two"]


KILLED = """
import sys, threading
from cron_observer_sdk.journal import Journal
from cron_observer_sdk.notice import Notices

number = 0
while True:
    journal = Journal({"v": 1, "task": "a/b", "id": str(number)}, Notices())
    journal.open()
    journal.append(0, [b'{"level":"INFO","message":"%s"}' % (b"x" * 3000)] * 3)
    if journal.end({"outcome": "finished"}, 0.0, 3):
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
    journal.close()
    number += 1
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_acknowledged() -> None:
    """Whenever the writer is killed, every file can be read, and every end that was acknowledged is there."""
    chance = random.Random(7)  # noqa: S311  no secret is drawn from it
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED], env=environment(None), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged = {process.stdout.readline().strip()}
        timer = threading.Timer(chance.uniform(0, 0.04), process.kill)
        timer.start()
        acknowledged |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.wait()
        ended, spool = set(), Spool()
        for path in spool.waiting():
            segment = Segment.take(path)
            assert segment is not None
            whole = list(segment.entries())
            if segment.head() is not None and getattr(whole[-1], "kind", "") == "end":
                ended.add(segment.head()["id"])  # type: ignore[index]
                assert len(whole) == 5
            segment.delete()
        assert acknowledged <= ended


def test_what_is_refused_for_good_is_set_aside(server: WireServer) -> None:
    """An unknown task and a lost lease are kept with the reason, and are not sent again until somebody asks."""
    server.unknown_tasks.add("no/such")
    for task, more in (("no/such", b""), ("a/b", b'{"kind":"bound","id":"%s","fence":1}\n')):
        made = Spool().create(_head(server, task))
        if more:
            due = server.add_due(task)
            made.write([(more % due["id"].encode()).strip()], durable=False)
        made.write([b'{"kind":"end","outcome":{"outcome":"finished"},"at":"2026","next_seq":0}'], durable=True)
        made.close()
    gone = {"code": "lease_lost", "detail": "the execution was claimed again since", "hint": "stop"}
    server.always.update(dict.fromkeys(("logs", "complete"), Fault(status=409, problem=gone)))
    flushed = cli("spool", "flush", server=server)
    assert (flushed.returncode, flushed.stdout) == (1, b"delivered 0, refused 2, left 0\n")
    assert b"no/such: there is no such task" in flushed.stderr
    listed = json.loads(cli("spool", "list", "--format", "json").stdout)["items"]
    assert [(one["state"], one["what"], one["reason"].partition(" (")[0]) for one in listed] == [
        ("refused", "no/such", "there is no such task"),
        ("refused", "a/b", "the execution was claimed again since"),
    ]
    calls = len(server.calls)
    assert cli("spool", "flush", server=server).stdout == b"delivered 0, refused 0, left 0\n"
    assert len(server.calls) == calls
    server.always.clear()
    server.unknown_tasks.clear()
    assert cli("spool", "flush", "--refused", server=server).stdout == b"delivered 2, refused 0, left 0\n"


def test_a_lease_that_is_over_does_not_cost_the_log(server: WireServer) -> None:
    """Lines are refused, the late end is accepted: then the log is open again, and the lines follow."""
    due = server.add_due("a/b")
    made = Spool().create(_head(server, "a/b"))
    made.write([b'{"kind":"bound","id":"%s","fence":1}' % due["id"].encode()], durable=False)
    made.write([b'{"kind":"line","seq":0,"entry":{"level":"INFO","message":"late"}}'], durable=False)
    made.write([b'{"kind":"end","outcome":{"outcome":"finished"},"at":"2026","next_seq":1}'], durable=True)
    made.close()
    server.fail("logs", Fault(status=409, problem={"code": "lease_lost", "detail": "offered again"}))
    assert replay(Spool(), Client(server.url, TOKEN)).delivered == 1
    assert list(dict.fromkeys(server.verbs()[1:])) == ["complete", "logs"]
    assert server.messages()[0] == "late"


def test_other_servers_and_other_keys_keep_theirs(server: WireServer) -> None:
    """A run is told to the server that it was for; a task that another key knows is left to that key."""
    elsewhere = Spool().create({**_head(server), "url": "http://127.0.0.1:1"})
    elsewhere.close()
    theirs = Spool().create({**_head(server, "their/task"), "key": "co_87654321"})
    theirs.close()
    server.unknown_tasks.add("their/task")
    tally = replay(Spool(), Client(server.url, TOKEN))
    assert (tally.delivered, tally.refused, tally.left) == (0, 0, 1)
    assert len(Spool().waiting()) == 2


@pytest.mark.parametrize("limit", [0, 300, 2000])
def test_a_full_disk_costs_the_command_nothing(limit: int) -> None:
    """However little the disk takes: same output, same exit code; and an end that was acknowledged is there."""
    words = arguments(*sh("for n in 1 2 3 4 5 6 7 8 9; do echo 'line of some length'; done; exit 4"))
    program = f"import resource,signal,os,sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n\
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\nos.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, *words], env=environment(f"http://127.0.0.1:{free_port()}"),
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, b"line of some length\n" * 9)
    acknowledged = b"is spooled" in done.stderr
    ended = [path for path in Spool().waiting() if "end" in kinds(path)]
    assert acknowledged == bool(ended) == (limit > 300)


@contextmanager
def _at_work(server: WireServer, work: Callable[[Any], Any]) -> Iterator[None]:
    """Run a worker beside the block, and stop it whatever becomes of that."""
    worker = co.Worker(Client(server.url, TOKEN), wait_seconds=0)
    thread = threading.Thread(target=worker.run, args=({"x/y": work},))
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join(30)


def test_a_worker_replays_when_it_has_nothing_to_do(server: WireServer) -> None:
    """A claim that brought nothing is an occasion."""
    made = Spool().create(_head(server))
    made.write([b'{"kind":"end","outcome":{"outcome":"skipped"},"at":"2026","next_seq":0}'], durable=True)
    made.close()
    with _at_work(server, print):
        server.wait_for(lambda: server.of("complete"))
    assert server.only()["status"] == "SKIPPED"


def test_a_worker_spools_an_end_that_nobody_takes(server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of handed out work is kept, and a restarted worker reports it under the same fence."""
    monkeypatch.setattr("cron_observer_sdk.shift.OUTCOME_SECONDS", 0.3)
    monkeypatch.setattr("cron_observer_sdk.shift.LOG_QUIET_SECONDS", 0.2)
    server.add_due("x/y")
    server.always.update(dict.fromkeys(("logs", "complete"), Fault(status=503)))
    with _at_work(server, lambda run: run.log("done") or {"n": 1}):
        _until(lambda: any("end" in kinds(path) for path in Spool().waiting()))
        server.always.clear()
        server.wait_for(lambda: server.only()["status"] == "FINISHED")
    assert server.only()["result"] == {"n": 1}
    assert server.messages()[0] == "done"


def test_the_commands_show_and_drop(server: WireServer) -> None:
    """`list`, `show` and `drop` tell what there is; what a ping's address says stays hidden."""
    assert cli("spool", "list").stdout == b"the spool is empty\n"
    made = Spool().create(_head(server))
    made.write([b'{"kind":"line","seq":0,"entry":{"level":"INFO","message":"hello"}}'], durable=False)
    made.close()
    pinged = cli("ping", f"http://127.0.0.1:{free_port()}/ping/secret-key/slug", "--spool", "--timeout", "200ms")
    assert (pinged.returncode, pinged.stderr.endswith(b"; spooled\n")) == (0, True)
    shown = cli("spool", "list").stdout.decode().splitlines()
    assert [line.split()[1:3] for line in shown] == [["STATE", "TASK"], ["waiting", "ops/backup"], ["waiting", "ping"]]
    for path in Spool().waiting():
        told = cli("spool", "show", path.stem).stdout.decode()
        assert "secret-key" not in told
        assert all(json.loads(line) for line in told.splitlines())
    assert cli("spool", "show", "nothing").returncode == 1
    assert cli("spool", "drop").returncode == 64
    assert cli("spool", "drop", *(path.name for path in Spool().waiting())).returncode == 0
    assert Spool().waiting() == []
    assert Spool().dropped()["files"] == 2


def test_a_home_that_cannot_be_written_is_no_trouble(tmp_path: Path) -> None:
    """Without a place for the spool the command runs and the loss is said."""
    place = tmp_path / "file"
    place.write_text("")
    done = cli(*sh("exit 2"), server=f"http://127.0.0.1:{free_port()}", env={"XDG_STATE_HOME": str(place)})
    assert done.returncode == 2
    assert b"the spool cannot be used" in done.stderr
    assert b"the outcome is not reported" in done.stderr


def test_an_answer_that_comes_after_the_end_was_spooled_doubles_nothing(server: WireServer) -> None:
    """The claim is answered when the work is over: the spooled run takes the claimed slot, and is reported once."""
    due = server.add_due("a/b")
    gate = threading.Event()
    claims = server.do_claims
    server.do_claims = lambda call: claims(call) if gate.wait(30) else (503, {})  # type: ignore[method-assign]
    with co.task("a/b", client=Client(server.url, TOKEN)) as run:
        run.log("only once")
        run.result = 5
    (path,) = Spool().waiting()
    assert "end" in kinds(path)
    gate.set()
    _until(lambda: not Spool().waiting())
    assert (due["status"], due["result"]) == ("FINISHED", 5)
    assert server.messages()[0] == "only once"
    assert server.of("create") == []
