"""A worker runs what is due, keeps its leases, and stops without losing or doubling any run."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

import cron_observer_sdk as co
from support.processes import free_port
from support.sdk_cli import environment
from support.sdk_server import TOKEN, Fault, WireServer, serving


@pytest.fixture
def server() -> Iterator[WireServer]:
    """A server that answers."""
    with serving() as state:
        yield state


def client(server: WireServer) -> co.Client:
    """A client of that server."""
    return co.Client(server.url, TOKEN, timeout=5)


@contextmanager
def working(server: WireServer, handlers: dict[str, Callable[..., Any]], **options: Any) -> Iterator[co.Worker]:
    """Run a worker in a thread until the end of the block; fail if it does not stop."""
    worker = co.Worker(client(server), **{"name": "w1", "grace_seconds": 5, **options})
    failures: list[BaseException] = []

    def run() -> None:
        try:
            worker.run(handlers)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def test_due_executions_are_claimed_run_and_completed(server: WireServer) -> None:
    """Handlers get their executions; value, log and outcome go back with the fence of the claim."""

    def export(run: co.Execution) -> dict[str, Any]:
        assert co.current() is run
        run.log(f"exporting as {run.payload['format']}")
        return {"rows": 3}

    due = server.add_due("billing/export", payload={"format": "csv"})
    with working(server, {"billing/export": export}):
        server.wait_for(lambda: due["status"] == "FINISHED")
    claim, start, complete = server.of("claims")[0], server.of("start")[0], server.of("complete")[0]
    assert claim.body["worker"] == "w1"
    assert claim.body["tasks"] == ["billing/export"]
    assert (claim.body["wait_seconds"], claim.body["lease_seconds"], claim.body["max"]) == (30, 30, 1)
    assert start.body == {"fence": 1}
    assert complete.body == {"fence": 1, "outcome": "finished", "result": {"rows": 3}}
    assert server.messages(due["id"]) == ["exporting as csv"]


def test_every_kind_of_end_has_its_outcome(server: WireServer) -> None:
    """Exceptions fail, Skip skips, Fail may forbid the retry, exits have codes; the worker survives them all."""

    async def fine() -> str:
        return "async"

    def bug(run: co.Execution) -> None:
        raise KeyError("row")

    def skip(run: co.Execution) -> None:
        raise co.Skip("holiday")

    def fail(run: co.Execution) -> None:
        raise co.Fail("disk full", retryable=False)

    def leave(run: co.Execution) -> None:
        sys.exit(3)

    handlers: dict[str, Callable[..., Any]] = {"t/fine": fine, "t/bug": bug, "t/skip": skip, "t/fail": fail, "*": leave}
    due = {name: server.add_due(name) for name in ("t/fine", "t/bug", "t/skip", "t/fail", "t/leave")}
    with working(server, handlers):
        server.wait_for(lambda: len(server.of("complete")) == 5)
    assert {name: execution["status"] for name, execution in due.items()} == {
        "t/fine": "FINISHED", "t/bug": "FAILED", "t/skip": "SKIPPED", "t/fail": "FAILED", "t/leave": "FAILED",
    }  # fmt: skip
    assert due["t/fine"]["result"] == "async"
    assert due["t/bug"]["error"]["type"] == "KeyError"
    assert "in bug" in due["t/bug"]["error"]["traceback"]
    assert due["t/fail"]["retryable"] is False
    assert due["t/leave"]["exit_code"] == 3
    assert "tasks" not in server.of("claims")[0].body


def test_as_many_run_at_once_as_are_allowed(server: WireServer) -> None:
    """Concurrency three: three run side by side, the fourth waits for room."""
    inside, most = 0, 0
    lock, gate = threading.Lock(), threading.Event()

    def work(run: co.Execution) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside == 3:
                gate.set()
        assert gate.wait(20)
        with lock:
            inside -= 1

    for _ in range(7):
        server.add_due("t/work")
    with working(server, {"t/work": work}, concurrency=3):
        server.wait_for(lambda: len(server.of("complete")) == 7)
    assert most == 3
    assert server.of("claims")[0].body["max"] == 3


def test_heartbeats_come_at_the_servers_pace(server: WireServer) -> None:
    """While a handler works, its lease is renewed as often as the server says."""
    server.pace = 1.0
    server.add_due("t/work")
    with working(server, {"t/work": lambda run: server.wait_for(lambda: len(server.of("heartbeat")) >= 3)}):
        server.wait_for(lambda: server.of("complete"))
    times = [call.at for call in server.of("heartbeat")]
    assert all(0.9 < after - before < 6 for before, after in pairwise(times))
    assert server.of("heartbeat")[0].body == {"fence": 1, "lease_seconds": 30}


def test_cancellation_reaches_a_handler(server: WireServer) -> None:
    """A handler that asks ends with the outcome cancelled."""
    server.cancel_requested = True
    server.pace = 1.0

    def work(run: co.Execution) -> None:
        assert run.wait_cancelled(20)
        run.raise_if_cancelled()

    due = server.add_due("t/work")
    with working(server, {"t/work": work}):
        server.wait_for(lambda: due["status"] == "CANCELLED")
    assert server.of("complete")[0].body["outcome"] == "cancelled"


def test_a_lost_lease_stops_the_handler_and_reports_nothing(server: WireServer) -> None:
    """Fenced: the handler sees LeaseLost, no outcome is sent, and the worker goes on."""
    server.pace = 1.0
    seen: list[str] = []

    def work(run: co.Execution) -> None:
        assert run.wait_cancelled(20)
        try:
            run.raise_if_cancelled()
        except co.LeaseLost as error:
            seen.append(error.code)
            raise

    first = server.add_due("t/work")
    server.fail("heartbeat", Fault(status=409, problem={"code": "lease_lost", "detail": "old fence"}))
    with working(server, {"t/work": work, "t/next": lambda: None}):
        server.wait_for(lambda: seen)
        after = server.add_due("t/next")
        server.wait_for(lambda: after["status"] == "FINISHED")
    assert seen == ["lease_lost"]
    assert first["status"] == "RUNNING"
    assert [call.path.split("/")[5] for call in server.of("complete")] == [after["id"]]


def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_ends(server: WireServer) -> None:
    """Nobody answers: the handler is told to stop before the server could give the run away."""
    server.pace = 1.0
    stopped: list[float] = []

    def work(run: co.Execution) -> None:
        server.always["heartbeat"] = Fault(hang=60)
        assert run.wait_cancelled(20)
        stopped.append(time.monotonic())
        run.raise_if_cancelled()

    server.add_due("t/work")
    with working(server, {"t/work": work}, lease_seconds=5):
        server.wait_for(lambda: stopped)
        server.always.clear()
    claimed = server.of("claims")[0].at
    assert 4 < stopped[0] - claimed < 5
    assert server.of("complete") == []


def test_a_stopping_worker_lets_its_runs_finish(server: WireServer) -> None:
    """Stop: no new claims, the running handler finishes within the grace, and its outcome counts."""
    began = threading.Event()

    def work(run: co.Execution) -> str:
        began.set()
        time.sleep(0.5)
        return "finished"

    due = server.add_due("t/work")
    with working(server, {"t/work": work}, concurrency=2):
        assert began.wait(20)
    assert (due["status"], due["result"]) == ("FINISHED", "finished")
    assert server.of("release") == []


def test_what_outlasts_the_grace_is_released(server: WireServer) -> None:
    """A handler that hears of the stop ends, one that does not is left behind; both runs are given back."""
    release, ready = threading.Event(), threading.Barrier(3)

    def listens(run: co.Execution) -> None:
        run.checkpoint({"row": 9})
        ready.wait(20)
        assert run.wait_cancelled(20)
        run.raise_if_cancelled()

    def deaf(run: co.Execution) -> None:
        ready.wait(20)
        release.wait(60)

    one, two = server.add_due("t/listens"), server.add_due("t/deaf")
    with working(server, {"t/listens": listens, "t/deaf": deaf}, concurrency=2, grace_seconds=0.2):
        ready.wait(20)
    assert [one["status"], two["status"]] == ["PENDING", "PENDING"]
    assert {call.body["reason"] for call in server.of("release")} == {"the worker stops"}
    assert any(call.body.get("checkpoint") == {"row": 9} for call in server.of("heartbeat"))
    release.set()
    assert server.of("complete") == []


def test_a_long_poll_is_ended_and_what_it_brought_is_given_back(server: WireServer) -> None:
    """A claim that crossed with the stop is asked for again, and released."""
    late = server.add_due("t/work", queue="other")
    with working(server, {"t/work": lambda: None}):
        server.wait_for(lambda: server.of("claims"))
        first = server.of("claims")[0].body["claim_id"]
        with server.changed:
            server.claims[first] = [late["id"]]
            late["fence"] = 5
        begun = time.monotonic()
    assert time.monotonic() - begun < 20
    assert [call.body["claim_id"] for call in server.of("claims")] == [first, first]
    assert server.of("release")[0].body == {"fence": 5, "reason": "the worker stops"}


def test_an_execution_without_a_handler_is_given_back(server: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    """An unknown task is released with a reason, and the worker does not spin on it."""
    server.add_due("t/other")
    with working(server, {"t/work": lambda: None}, tasks=["t/work", "t/other"]):
        server.wait_for(lambda: server.of("release"))
    assert server.of("release")[0].body["reason"] == "worker w1 has no handler for t/other"
    assert "no handler for t/other" in caplog.text


def test_an_outage_is_waited_out(server: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    """The server is away and comes back: the worker says so once and goes on claiming."""
    server.fail("claims", *[Fault(status=503)] * 6)
    due = server.add_due("t/work")
    with working(server, {"t/work": lambda: None}):
        server.wait_for(lambda: due["status"] == "FINISHED")
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_a_claim_whose_replies_were_all_lost_is_found_again(server: WireServer) -> None:
    """Also the next round of tries names the same claim: what it took is run now, not when its lease has ended."""
    server.fail("claims", *[Fault(drop=True)] * 7)
    due = server.add_due("t/work")
    with working(server, {"t/work": lambda: None}):
        server.wait_for(lambda: due["status"] == "FINISHED")
    assert len({call.body["claim_id"] for call in server.of("claims")[:8]}) == 1
    assert due["fence"] == 1


def test_an_outcome_survives_an_outage(server: WireServer) -> None:
    """The end of a run is told again until the server takes it."""
    server.fail("complete", Fault(status=503), Fault(drop=True))
    due = server.add_due("t/work")
    with working(server, {"t/work": lambda: "value"}):
        server.wait_for(lambda: due["status"] == "FINISHED")
    bodies = [call.body for call in server.of("complete")]
    assert len(bodies) == 3
    assert bodies[0] == bodies[1] == bodies[2]


def test_a_task_that_is_not_pushed_yet_is_waited_for(server: WireServer) -> None:
    """A claim that names an unknown task is refused; the worker asks again, for the manifest may come."""
    server.fail("claims", Fault(status=404, problem={"code": "not_found", "detail": "there is no such task"}))
    due = server.add_due("t/work")
    with working(server, {"t/work": lambda: None}):
        server.wait_for(lambda: due["status"] == "FINISHED")


def test_more_tasks_than_a_claim_may_name_are_refused(server: WireServer) -> None:
    """A worker of 101 tasks is told what to do instead."""
    handlers = {f"t/work{number}": print for number in range(101)}
    with pytest.raises(ValueError, match="100 tasks at most"):
        co.Worker(client(server)).run(handlers)


def test_a_server_without_long_poll_is_not_hammered(server: WireServer) -> None:
    """Answers that come too soon are followed by a rest."""
    server.always["claims"] = Fault(problem={"executions": []})
    with working(server, {"t/work": lambda: None}):
        server.wait_for(lambda: len(server.of("claims")) >= 3)
    times = [call.at for call in server.of("claims")]
    assert times[2] - times[0] > 1.5


def test_a_wrong_token_ends_the_worker_loudly(server: WireServer) -> None:
    """What waiting cannot mend is raised."""
    worker = co.Worker(co.Client(server.url, "co_00000000_wrong"))
    with pytest.raises(co.Unauthenticated, match="make a token"):
        worker.run({"t/work": print})


def test_a_worker_without_settings_says_so() -> None:
    """A worker that could never claim is refused at once."""
    with pytest.raises(co.NotConfigured, match="a worker needs both"):
        co.Worker(co.Client("", "")).run({"t/work": print})


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"concurrency": 101}, {"lease_seconds": 1}])
def test_impossible_numbers_are_refused(options: dict[str, Any]) -> None:
    """Limits of the wire are checked where the worker is made."""
    with pytest.raises(ValueError, match=r"is 1 to 100|is 5 to 3600"):
        co.Worker(co.Client("", ""), **options)


PROGRAM = """
import cron_observer_sdk as co, sys, time
def work(run):
    run.log("at work")
    print("at work", flush=True)
    while not run.cancelled:
        time.sleep(0.02)
    run.raise_if_cancelled()
co.Worker(concurrency=2, grace_seconds=float(sys.argv[1])).run({"*": work})
print("stopped", flush=True)
"""


@pytest.mark.parametrize(("grace", "signals"), [("0.2", [signal.SIGTERM]), ("60", [signal.SIGINT, signal.SIGTERM])])
def test_signals_stop_a_worker_process(server: WireServer, grace: str, signals: list[signal.Signals]) -> None:
    """SIGTERM or SIGINT stops it within the grace, a second signal at once; the run is given back, the exit clean."""
    due = server.add_due("t/work")
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "dev", "-c", PROGRAM, grace],
        env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"at work\n"
    for number in signals:
        process.send_signal(number)
        time.sleep(0.1)  # two signals at the same instant may be delivered as one
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"stopped\n", b"")
    assert due["status"] == "PENDING"


def test_a_worker_that_nobody_answers_stops_all_the_same() -> None:
    """Without a server the worker keeps trying, and a stop ends that too."""
    worker = co.Worker(co.Client(f"http://127.0.0.1:{free_port()}", TOKEN))
    thread = threading.Thread(target=worker.run, args=({"t/work": print},))
    thread.start()
    worker.stop()
    thread.join(20)
    assert not thread.is_alive()
