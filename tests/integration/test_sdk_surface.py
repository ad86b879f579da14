"""What work can say beside log lines, and who can say it: blocks of their own, files, structlog, async code."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import cron_observer_sdk as co
from support.sdk_server import TOKEN, WireServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A server, set in the environment."""
    with serving() as state:
        monkeypatch.setenv("CRON_OBSERVER_URL", state.url)
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
        yield state


def test_an_execution_of_its_own_claims_nothing(server: WireServer) -> None:
    """`execution` leaves a due slot to whoever it is for."""
    due = server.add_due("a/b")
    with co.execution("a/b") as run:
        run.log("mine")
    assert due["status"] == "PENDING"
    assert server.of("claims") == []
    assert server.messages() == ["mine"]


def test_a_key_is_one_execution(server: WireServer) -> None:
    """The same key and attempt find the same execution: the second does its work and reports nothing."""
    seen = []
    for attempt in (None, None, 2):
        with co.execution("a/b", idempotency_key="2026-11-21", attempt=attempt) as run:
            seen.append((run.id, run.repeated))
            run.log("again")
    assert [repeated for _, repeated in seen] == [False, True, False]
    assert seen[0][0] == seen[1][0] != seen[2][0]
    assert [execution["status"] for execution in server.executions.values()] == ["FINISHED", "FINISHED"]
    first, second = server.logs.values()
    assert first[0]["fields"] == {"idempotency_key": "2026-11-21"}
    assert second[0]["fields"] == {"idempotency_key": "2026-11-21", "attempt": 2}
    assert len(server.of("complete")) == 2


async def test_an_execution_in_async_code(server: WireServer) -> None:
    """The same block, awaited; an exception is the failure and passes on."""
    with pytest.raises(ValueError, match="no"):
        async with co.execution("a/b"):
            raise ValueError("no")
    assert server.only()["error"]["type"] == "ValueError"


def test_a_loop_that_is_tracked(server: WireServer) -> None:
    """Each item moves the progress; cancellation ends the loop before the next one."""
    server.pace = 0.01
    seen = []

    @co.task("a/b")
    def work() -> None:
        run = co.current()
        for number in run.track(range(4)):
            seen.append(number)
            if number == 2:
                server.cancel_requested = True
                run.log("stop me")
                run.wait_cancelled(30)

    with pytest.raises(co.Cancelled):
        work()
    assert seen == [0, 1, 2]
    assert server.only()["status"] == "CANCELLED"
    with co.testing.recording() as events, co.task("a/b") as run:
        assert list(run.track(iter("abc"), total=3)) == ["a", "b", "c"]
        assert list(run.track(iter("abc"))) == ["a", "b", "c"]
    assert [event.said["progress"] for event in events.of("progress")] == [1 / 3, 2 / 3, 1.0]


def test_numbers_and_links_are_lines(server: WireServer) -> None:
    """A metric and a link are lines that people read, with fields that programs read."""
    with co.task("a/b") as run:
        run.metric("invoices", 1200, unit="pieces")
        run.link("backup", "s3://bucket/x")
    lines = [(entry["message"], entry["fields"]) for entry in server.logs[server.only()["id"]]]
    assert lines == [
        ("invoices=1200", {"unit": "pieces", "metric": "invoices", "value": 1200}),
        ("backup: s3://bucket/x", {"link": "backup", "url": "s3://bucket/x"}),
    ]


def test_a_file_is_read_into_the_log(server: WireServer, tmp_path: Path) -> None:
    """What is written from now on follows, over emptying and replacement, to the last line without an end."""
    old, new = tmp_path / "old.log", tmp_path / "new.log"
    old.write_text("before\n")
    client = co.Client(server.url, TOKEN, redact=["secret-[0-9]+"])
    with co.task("a/b", client=client) as run:
        run.output(old)
        run.output(new, from_start=True, level="WARN")
        with old.open("a") as file:
            file.write("one secr")
            file.flush()
            time.sleep(0.3)
            file.write("et-1\n")
        server.wait_for(lambda: server.logs and "one ***" in server.messages())
        old.write_text("two\n")
        server.wait_for(lambda: "two" in server.messages())
        (tmp_path / "next").write_text("three\n")
        (tmp_path / "next").rename(old)
        server.wait_for(lambda: "three" in server.messages())
        new.write_text("four\nfive")
    entries = server.logs[server.only()["id"]]
    assert [entry["message"] for entry in entries] == ["one ***", "two", "three", "four", "five"]
    assert [(entry["level"], entry["fields"]["file"]) for entry in entries[2:4]] == [
        ("INFO", "old.log"), ("WARN", "new.log")
    ]  # fmt: skip


def test_a_client_hides_what_matches(server: WireServer) -> None:
    """Messages, fields, errors, results and checkpoints are searched before they leave."""
    client = co.Client(server.url, TOKEN, redact=[r"token=\S+"])

    @co.task("a/b", client=client)
    def work() -> None:
        run = co.current()
        run.log("with token=abc inside", where="token=abc")
        run.checkpoint({"at": ["token=abc"]})
        server.wait_for(lambda: any("checkpoint" in call.body for call in server.of("heartbeat")))
        run.result = {"url": "x?token=abc"}
        raise RuntimeError("refused: token=abc")

    with pytest.raises(RuntimeError):
        work()
    client.patch(server.only()["id"], "FAILED", error_message="token=abc")
    said = str([call.body for call in server.calls])
    assert "token=abc" not in said
    assert said.count("***") >= 6


def test_structlog_events_follow(server: WireServer) -> None:
    """An event becomes a line with its level, its values as fields and its traceback; outside of a run nothing."""
    printed: list[Any] = []

    def keep(_logger: Any, _method: str, event: Any) -> Any:
        printed.append(dict(event))
        raise structlog.DropEvent

    processors = [structlog.processors.add_log_level, co.structlog_processor, keep]
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=processors)
    log.info("outside")
    with co.task("a/b"):
        log.warning("disk is filling", percent=91)
        try:
            {}["x"]
        except KeyError:
            log.exception("it failed")
    first, second = server.logs[server.only()["id"]]
    assert (first["message"], first["level"], first["fields"]) == ("disk is filling", "WARN", {"percent": 91})
    assert second["level"] == "ERROR"
    assert second["message"].startswith("it failed\nTraceback")
    assert second["message"].endswith("KeyError: 'x'")
    assert [event["event"] for event in printed] == ["outside", "disk is filling", "it failed"]


async def test_the_client_for_async_code(server: WireServer) -> None:
    """Calls are awaited, side by side, and raise what the others raise."""
    server.add_due("a/b")
    async with co.AsyncClient() as client:
        waiting = asyncio.create_task(client.claim("me", wait_seconds=10, queues=["none"]))
        (given,) = await client.claim("me")
        await client.heartbeat(given["id"], given["fence"], progress=0.5)
        await client.logs(given["id"], given["fence"], 0, [{"level": "INFO", "message": "hello"}])
        done = await client.complete(given["id"], given["fence"], "finished", result=1)
        assert (done["status"], done["result"]) == ("FINISHED", 1)
        server.unknown_tasks.add("no/such")
        with pytest.raises(co.NotFound):
            await co.AsyncClient.of(client.client).create("no/such", "me")
        waiting.cancel()
    assert repr(client) == f"AsyncClient({server.url!r})"


async def test_a_worker_in_async_code(server: WireServer) -> None:
    """Coroutines run in this loop, several at a time, plain functions beside it; cancelling ends the worker well."""
    loop, met = asyncio.get_running_loop(), asyncio.Barrier(2)
    seen: list[Any] = []

    async def together(run: co.Execution) -> str:
        assert asyncio.get_running_loop() is loop
        assert co.current() is run
        await met.wait()
        return "met"

    def plain() -> str:
        seen.append(threading.current_thread())
        return "plain"

    dues = [server.add_due("a/together"), server.add_due("a/together"), server.add_due("a/plain")]
    worker = co.Worker(concurrency=3, wait_seconds=0)
    work = asyncio.create_task(worker.arun({"a/together": together, "a/plain": plain}))
    ended = lambda: all(due["status"] == "FINISHED" for due in dues)  # noqa: E731
    await asyncio.to_thread(server.wait_for, ended)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert [due["result"] for due in dues] == ["met", "met", "plain"]
    assert seen[0] is not threading.main_thread()


def test_a_recording_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings, network and spool: what was said is a list, and afterwards all is as before."""
    monkeypatch.delenv("CRON_OBSERVER_URL", raising=False)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection was made"))
    logging.getLogger("app").addHandler(handler := co.LogHandler())

    @co.task("billing/export")
    def export() -> dict[str, int]:
        run = co.current()
        run.log("starting", rows=3)
        logging.getLogger("app").warning("careful")
        run.progress(0.5, "half")
        run.checkpoint({"row": 1})
        run.raise_if_cancelled()
        return {"exported": run.payload["rows"] if run.payload else 0}

    try:
        with co.testing.recording() as events:
            assert export() == {"exported": 0}
            slot = events.offer("billing/export", payload={"rows": 7})
            assert export() == {"exported": 7}
            events.cancel()
            with pytest.raises(co.Cancelled):
                export()
    finally:
        logging.getLogger("app").removeHandler(handler)
    ends = [event for event in events if event.kind in {"finished", "cancelled"}]
    assert [(end.kind, end.task, end.said.get("result")) for end in ends] == [
        ("finished", "billing/export", {"exported": 0}),
        ("finished", "billing/export", {"exported": 7}),
        ("cancelled", "billing/export", None),
    ]
    assert events.messages()[:2] == ["starting", "careful"]
    assert events.of("log")[0].said["fields"] == {"rows": 3}
    assert events.of("checkpoint")[0].said == {"checkpoint": {"row": 1}}
    assert len(slot) == 36
    with co.task("a/b") as run:
        assert not run.observed


@pytest.fixture
def recorded() -> Iterator[co.testing.Recorded]:
    """What the SDK reports in a test."""
    with co.testing.recording() as events:
        yield events


def test_a_worker_can_be_recorded(recorded: co.testing.Recorded) -> None:
    """What is offered is claimed by a worker, and its end is recorded."""
    recorded.offer("x/y", payload=3)
    worker = co.Worker(wait_seconds=0)

    def double(run: co.Execution) -> int:
        worker.stop()
        return int(run.payload * 2)

    worker.run({"x/y": double})
    assert [(event.kind, event.said.get("result")) for event in recorded] == [("started", None), ("finished", 6)]
