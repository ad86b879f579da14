"""The work always wins: nothing that is wrong with the server changes it, or holds it for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime

import pytest

import cron_observer_sdk as co
from cron_observer_sdk import notice
from support.machine import Stopwatch
from support.processes import free_port
from support.sdk_server import TOKEN, Fault, WireServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A server, set in the environment."""
    with serving() as state:
        monkeypatch.setenv("CRON_OBSERVER_URL", state.url)
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
        yield state


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is set, and nobody was warned yet."""
    monkeypatch.delenv("CRON_OBSERVER_URL", raising=False)
    monkeypatch.delenv("CRON_OBSERVER_TOKEN", raising=False)
    monkeypatch.setattr("cron_observer_sdk.own_run.PROCESS", notice.Notices())
    monkeypatch.setattr("cron_observer_sdk.observe.PROCESS", notice.Notices())


def test_without_settings_work_runs_and_one_warning_is_given(unset: None, caplog: pytest.LogCaptureFixture) -> None:
    """No URL and no token: everything is a no-op, said once per process."""

    @co.task("a/b")
    def work() -> int:
        run = co.current()
        run.log("into the void")
        run.progress(0.5)
        run.checkpoint({"row": 1})
        assert (run.observed, run.id, run.payload, run.cancelled) == (False, "", None, False)
        return 1

    threads = threading.active_count()
    assert [work(), work(), work()] == [1, 1, 1]
    assert threading.active_count() == threads
    assert [record.message for record in caplog.records] == [
        "CRON_OBSERVER_URL and CRON_OBSERVER_TOKEN not set: runs are not reported to Cron Observer"
    ]


def test_a_wrong_address_keeps_no_work_from_running(
    unset: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A setting that cannot be used is a warning too."""
    monkeypatch.setenv("CRON_OBSERVER_URL", "cron.example")
    with co.task("a/b") as run:
        assert not run.observed
    assert "CRON_OBSERVER_URL must look like" in caplog.text


def test_a_dead_server_costs_work_nothing_but_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens: the work runs, and begin and end together cost it two seconds at most."""
    monkeypatch.setenv("CRON_OBSERVER_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
    taken = Stopwatch()
    with co.task("a/b") as run:
        run.log("hello")
    assert taken.seconds < 2.6
    assert len([record for record in caplog.records if record.name == "cron_observer_sdk"]) == 1


def test_a_silent_server_holds_work_two_seconds_at_most(server: WireServer) -> None:
    """A server that accepts and never answers delays begin and end by two seconds together, no more."""
    server.always["claims"] = Fault(hang=60)
    taken, begun = Stopwatch(), time.monotonic()
    with co.task("a/b") as run:
        assert not run.observed
        assert time.monotonic() - begun > 1.0
        assert taken.seconds < 1.9
    assert taken.seconds < 2.5


def test_a_server_that_falls_silent_in_the_middle_holds_the_end_two_seconds(server: WireServer) -> None:
    """Lines and outcome that nobody takes are given up after two seconds in all."""
    with co.task("a/b") as run:
        server.always["logs"] = server.always["complete"] = Fault(hang=60)
        run.log("never")
        taken = Stopwatch()
    assert taken.seconds < 2.6
    server.wait_for(lambda: server.of("complete"))


def test_a_server_that_comes_back_gets_the_whole_story(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work began while the server was down: when it is back, the run appears with its log and true begin."""
    port = free_port()
    monkeypatch.setenv("CRON_OBSERVER_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
    before = time.time()
    with co.task("a/b") as run:
        began = time.time()
        run.log("early")
        with serving(port=port) as server:
            server.wait_for(lambda: server.of("logs"))
            run.log("late")
            server.wait_for(lambda: len(server.messages()) == 2)
            assert run.observed
            started = server.of("create")[0].body["started_at"]
            assert before - 1 < _unix(started) <= began
            run.result = "whole"
            late = co.current()
            assert late is run
    assert server.messages() == ["early", "late"]


def test_a_claim_whose_replies_were_all_lost_is_found_again(server: WireServer) -> None:
    """Also the next round of tries names the same claim: the slot that it took is the one that is run."""
    server.add_due("a/b")
    server.add_due("a/b")
    server.fail("claims", Fault(drop=True), Fault(drop=True))
    with co.task("a/b") as run:
        server.wait_for(lambda: server.of("start"))
        assert run.fence == 1
    assert len({call.body["claim_id"] for call in server.of("claims")}) == 1
    assert len(server.due) == 1


def test_an_outage_in_the_middle_does_not_end_work(server: WireServer) -> None:
    """A lease that the server took back after an outage leaves the work alone: the work always wins."""
    with co.task("a/b", lease_seconds=5) as run:
        server.always["heartbeat"] = Fault(status=503)
        run.checkpoint(1)
        server.wait_for(lambda: len(server.of("heartbeat")) >= 2)
        time.sleep(5)  # the lease runs out by our own clock
        server.always["heartbeat"] = Fault(status=409, problem={"code": "lease_lost", "detail": "expired"})
        heard = len(server.of("heartbeat"))
        server.wait_for(lambda: len(server.of("heartbeat")) > heard)
        assert not run.wait_cancelled(0.5)
    assert server.only()["status"] == "FINISHED"


def test_a_lease_taken_away_ends_the_reports(server: WireServer) -> None:
    """While the lease was good, the server gave the run to somebody else: stop, and report no outcome."""
    server.fail("heartbeat", Fault(status=409, problem={"code": "lease_lost", "detail": "fenced"}))

    @co.task("a/b")
    def work() -> None:
        run = co.current()
        run.checkpoint(1)
        assert run.wait_cancelled(20)
        run.raise_if_cancelled()

    with pytest.raises(co.LeaseLost):
        work()
    assert server.of("complete") == []


def test_an_unknown_task_is_said_and_the_work_runs(server: WireServer, caplog: pytest.LogCaptureFixture) -> None:
    """The server's hint reaches the person; the work does not care."""
    server.unknown_tasks.add("a/b")
    with co.task("a/b") as run:
        assert not run.observed
    assert "this run of a/b is not reported: there is no such task (push its manifest)" in caplog.text


def _unix(text: str) -> float:
    """Read an instant."""
    return datetime.fromisoformat(text).timestamp()
