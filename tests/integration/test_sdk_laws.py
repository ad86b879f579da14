"""The laws of the SDK: the work always wins, whatever is wrong, and settings that are wrong are said."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import cron_observer_sdk as co
from cron_observer_sdk import notice
from support.machine import Stopwatch
from support.processes import free_port
from support.sdk_cli import environment
from support.sdk_server import TOKEN, Fault, WireServer, serving

#: Seconds that all of the SDK may cost the work, with those that computing takes.
COST = 2.0 + 0.6


@pytest.fixture(autouse=True)
def _fresh_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was said in this process before."""
    fresh = notice.Notices()
    monkeypatch.setattr("cron_observer_sdk.own_run.PROCESS", fresh)
    monkeypatch.setattr("cron_observer_sdk.observe.PROCESS", fresh)


@contextmanager
def accepting(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Accept connections and let a function deal with each; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as held:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                held.callback(connection.close)
                answer(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


def rubbish(connection: socket.socket) -> None:
    """Answer what is no HTTP."""
    connection.sendall(b"\x16\x03\x01 what?\r\n\r\n" * 3)
    reset(connection)


@contextmanager
def trouble(kind: str) -> Iterator[str]:
    """Give the address of a server that is broken in a way of its own."""
    with ExitStack() as stack:
        if kind == "refuses":
            yield f"http://127.0.0.1:{free_port()}"
        elif kind == "has no name":
            yield "http://no-such-host.invalid:8475"
        elif kind == "resets":
            yield f"http://{stack.enter_context(accepting(reset))}"
        elif kind == "says rubbish":
            yield f"http://{stack.enter_context(accepting(rubbish))}"
        elif kind == "hangs":
            yield f"http://{stack.enter_context(accepting(lambda _: None))}"
        elif kind == "hangs in TLS":
            yield f"https://{stack.enter_context(accepting(lambda _: None))}"
        elif kind == "speaks no TLS":
            yield f"https://{stack.enter_context(accepting(rubbish))}"
        else:
            state = stack.enter_context(serving())
            faults = {
                "fails": Fault(status=500, problem={"code": "internal", "detail": "a bug"}),
                "is overloaded": Fault(status=503, headers={"Retry-After": "30"}),
                "answers no JSON": Fault(raw=b"<html>hello</html>"),
                "answers other JSON": Fault(raw=b'{"executions": [{"id": 3}]}'),
                "drips": Fault(drip=0.2),
            }
            state.always.update(dict.fromkeys(("claims", "create", "start", "logs", "complete"), faults[kind]))
            yield state.url


KINDS = [
    "refuses", "has no name", "resets", "says rubbish", "hangs", "hangs in TLS", "speaks no TLS", "fails",
    "is overloaded", "answers no JSON", "answers other JSON", "drips",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_server_changes_nothing_and_costs_two_seconds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value, exception and order are those of the work; begin and end together cost it two seconds at most."""
    with trouble(kind) as url:
        monkeypatch.setenv("CRON_OBSERVER_URL", url)
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)

        @co.task("a/b")
        def work() -> int:
            co.current().log("hello")
            co.current().progress(0.5)
            return 42

        taken = Stopwatch()
        assert work() == 42
        assert taken.seconds < COST


def test_a_server_that_goes_mad_after_the_claim_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs only at the end costs no more, and the exception of the work passes on unchanged."""
    with serving() as server:
        monkeypatch.setenv("CRON_OBSERVER_URL", server.url)
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
        error = RuntimeError("the work's own")
        server.always.update(dict.fromkeys(("logs", "complete", "heartbeat", "start"), Fault(hang=60)))
        taken = Stopwatch()
        with pytest.raises(RuntimeError) as raised, co.task("a/b"):
            raise error
        assert raised.value is error
        assert taken.seconds < COST


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_ends_a_process_is_never_swallowed(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """They pass through blocks and decorators, reported or not."""
    monkeypatch.setenv("CRON_OBSERVER_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
    with pytest.raises(type(error)) as raised, co.execution("a/b"):
        raise error
    assert raised.value is error


INTERRUPTED = """
import signal
import cron_observer_sdk as co
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
try:
    with co.task("a/b"):
        print("never")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_while_the_sdk_waits_is_the_works() -> None:
    """Ctrl-C during the begin reaches the program at once, and the program alone."""
    asked = threading.Event()
    with accepting(lambda _: asked.set()) as place:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED],
            env=environment(f"http://{place}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert asked.wait(60)  # from here on it waits for an answer, for a second
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "interrupted\n"
        assert process.wait(30) == 0
        assert process.stderr is not None
        process.stderr.close()
        process.stdout.close()


FORKED = """
import os, threading
import cron_observer_sdk as co

with co.task("a/b") as run:
    run.log("parent")
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            run.log("never")
            run.progress(1.0)
            with co.task("a/child") as own:
                own.log(f"child {number}")
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    threads = [threading.Thread(target=lambda: run.log("thread")) for _ in range(4)]
    [one.start() for one in threads]
    [one.join() for one in threads]
"""


def test_forks_and_threads_are_safe() -> None:
    """A child reports what it begins itself and nothing of its parent's; threads share a run."""
    with serving() as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED], env=environment(server),
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        told = {key: [entry["message"] for entry in lines] for key, lines in server.logs.items()}
        assert sorted(map(sorted, told.values())) == [
            ["child 0"], ["child 1"], ["child 2"], ["parent", "thread", "thread", "thread", "thread"]
        ]  # fmt: skip


def test_importing_and_decorating_starts_nothing() -> None:
    """Neither threads nor folders before the first execution."""
    program = "import threading, os, asyncio\nimport cron_observer_sdk as co\nco.task('a/b')(print)\nco.Worker()\n\
co.AsyncClient()\n[getattr(co, name) for name in co.__all__]\n\
assert threading.active_count() == 1\nassert not os.path.exists(os.environ['XDG_STATE_HOME'])"
    done = subprocess.run([sys.executable, "-c", program], env=environment("http://127.0.0.1:1"), timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("what", ["nothing", "no address", "wrong token", "unknown task"])
def test_wrong_settings_are_loud_where_that_is_asked_for(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With CRON_OBSERVER_STRICT=1 they raise before the work begins; without it they are one warning."""
    ran: list[Any] = []

    @co.task("a/b")
    def work() -> None:
        ran.append(1)

    with serving() as server:
        _set(what, server, monkeypatch)
        monkeypatch.setenv("CRON_OBSERVER_STRICT", "1")
        with pytest.raises(co.CronObserverError):
            work()
        assert ran == []
        caplog.clear()
        monkeypatch.delenv("CRON_OBSERVER_STRICT")
        work()
        assert ran == [1]
        assert len([one for one in caplog.records if one.name == "cron_observer_sdk"]) == 1


def _set(what: str, server: WireServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the settings wrong."""
    for name in ("CRON_OBSERVER_URL", "CRON_OBSERVER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if what == "no address":
        monkeypatch.setenv("CRON_OBSERVER_URL", "cron.example")
    elif what != "nothing":
        monkeypatch.setenv("CRON_OBSERVER_URL", server.url)
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", "co_wrong" if what == "wrong token" else TOKEN)
        server.unknown_tasks.add("a/b")
