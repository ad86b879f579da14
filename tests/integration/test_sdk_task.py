"""`task` reports work as it runs, and never stands in its way."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise

import pytest

import cron_observer_sdk as co
from support.sdk_server import TOKEN, Fault, WireServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WireServer]:
    """A server, set in the environment."""
    with serving() as state:
        monkeypatch.setenv("CRON_OBSERVER_URL", state.url)
        monkeypatch.setenv("CRON_OBSERVER_TOKEN", TOKEN)
        yield state


def test_a_function_is_reported_with_its_result(server: WireServer) -> None:
    """Without a due slot an execution is created; log, result and outcome belong to it."""

    @co.task("billing/export")
    def export(day: str) -> dict[str, str]:
        """Export a day."""
        run = co.current()
        run.log("starting", rows=1200)
        run.log("slowly", level="warning")
        return {"exported": day}

    assert export("today") == {"exported": "today"}
    assert export.__doc__ == "Export a day."
    assert server.verbs() == ["claims", "create", "logs", "complete"]
    assert server.of("claims")[0].body["tasks"] == ["billing/export"]
    assert server.of("claims")[0].body["wait_seconds"] == 0
    assert server.only()["status"] == "FINISHED"
    assert server.only()["result"] == {"exported": "today"}
    (entries,) = server.logs.values()
    assert [(entry["level"], entry["message"], entry.get("fields")) for entry in entries] == [
        ("INFO", "starting", {"rows": 1200}),
        ("WARN", "slowly", None),
    ]


def test_a_due_slot_is_claimed_first(server: WireServer) -> None:
    """The run of work that cron starts becomes the slot that waits, not a second execution."""
    due = server.add_due("billing/export", payload={"format": "csv"}, queue="slow", checkpoint={"row": 7})
    with co.task("billing/export") as run:
        assert (run.id, run.task, run.attempt, run.fence) == (due["id"], "billing/export", 1, 1)
        assert (run.payload, run.last_checkpoint) == ({"format": "csv"}, {"row": 7})
        assert run.scheduled_for is not None
        assert run.scheduled_for.isoformat() == "2026-03-29T01:30:00+00:00"
        assert (run.nominal_local, run.timezone) == ("2026-03-29T02:30:00", "Europe/Berlin")
        server.wait_for(lambda: server.of("start"))
        run.result = 42
    assert "create" not in server.verbs()
    assert "queues" not in server.of("claims")[0].body
    assert server.only()["status"] == "FINISHED"
    assert server.only()["result"] == 42


def test_an_exception_passes_unchanged_and_is_told(server: WireServer) -> None:
    """The caller sees the very exception; the server gets type, message and a traceback without our frames."""
    error = ValueError("no such day")

    @co.task("a/b")
    def work() -> None:
        raise error

    with pytest.raises(ValueError, match="no such day") as raised:
        work()
    assert raised.value is error
    told = server.only()["error"]
    assert (told["type"], told["message"]) == ("ValueError", "no such day")
    assert "test_sdk_task.py" in told["traceback"]
    assert "observe.py" not in told["traceback"]


def test_skip_ends_work_quietly(server: WireServer) -> None:
    """Work that found nothing to do is skipped, for the server and for its caller."""

    @co.task("a/b")
    def work() -> int:
        raise co.Skip("holiday")

    assert work() is None
    assert server.only()["status"] == "SKIPPED"
    assert server.only()["error"]["message"] == "holiday"


@pytest.mark.parametrize("stop", [SystemExit(3), KeyboardInterrupt()])
def test_exits_and_interrupts_are_never_swallowed(server: WireServer, stop: BaseException) -> None:
    """``sys.exit`` and Ctrl-C do what they always do, and are reported as failures."""
    with pytest.raises(type(stop)), co.task("a/b"):
        raise stop
    assert server.only()["status"] == "FAILED"


def test_cancellation_travels_in_replies(server: WireServer) -> None:
    """A wish to cancel reaches the work with the next reply; the work ends when it asks."""
    server.cancel_requested = True

    @co.task("a/b")
    def work() -> None:
        run = co.current()
        run.log("one line")
        assert run.wait_cancelled(20)
        run.raise_if_cancelled()

    with pytest.raises(co.Cancelled):
        work()
    assert server.only()["status"] == "CANCELLED"


def test_progress_and_checkpoint_travel_with_heartbeats(server: WireServer) -> None:
    """A checkpoint hurries a heartbeat; progress is kept within 0 and 1."""
    with co.task("a/b") as run:
        run.progress(7, "nearly")
        run.checkpoint({"row": 5})
        server.wait_for(lambda: server.of("heartbeat"))
    beat = server.of("heartbeat")[0].body
    assert beat == {"fence": 1, "progress": 1.0, "message": "nearly", "lease_seconds": 30, "checkpoint": {"row": 5}}


def test_a_bad_result_is_said_and_dropped(server: WireServer) -> None:
    """A value that JSON cannot hold is returned to the caller; the log says why it is not stored."""
    value = object()

    @co.task("a/b")
    def work() -> object:
        return value

    assert work() is value
    assert server.only()["status"] == "FINISHED"
    assert server.only()["result"] is None
    (entries,) = server.logs.values()
    assert entries[0]["level"] == "ERROR"
    assert entries[0]["message"].startswith("the result cannot be stored: Object of type object is not JSON")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_result_does_not_cost_the_outcome(
    server: WireServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An outcome whose result the server does not take is reported without it, and that is said."""
    server.fail("complete", Fault(status=status, problem={"detail": "too deep"}))
    with co.task("a/b") as run:
        run.result = {"deep": 1}
    assert server.only()["status"] == "FINISHED"
    assert [call.body.get("result") for call in server.of("complete")] == [{"deep": 1}, None]
    assert "the result was refused, the outcome is reported without it: too deep" in caplog.text


def test_coroutines_are_reported_and_the_loop_goes_on(server: WireServer) -> None:
    """While the server is slow to answer, other coroutines run."""
    server.fail("claims", Fault(hang=1.5))
    ticks: list[float] = []

    @co.task("a/b")
    async def work(number: int) -> int:
        co.current().log("inside")
        await asyncio.sleep(0)
        return number * 2

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main() -> int:
        ticking = asyncio.create_task(tick())
        try:
            return await work(21)
        finally:
            ticking.cancel()

    assert asyncio.run(main()) == 42
    assert max(after - before for before, after in pairwise(ticks)) < 1.4
    assert server.only()["result"] == 42
    assert server.messages() == ["inside"]


def test_coroutines_side_by_side_are_told_apart(server: WireServer) -> None:
    """Each call of a decorated coroutine has its own current execution, also as ``async with``."""

    @co.task("a/b")
    async def work(number: int) -> str:
        before = co.current().id
        await asyncio.sleep(0.05)
        assert co.current().id == before
        co.current().log(f"work {number}")
        return before

    async def main() -> list[str]:
        async with co.task("a/c") as outer:
            ids = await asyncio.gather(*(work(number) for number in range(5)))
            assert co.current() is outer
            return [outer.id, *ids]

    ids = asyncio.run(main())
    assert len(set(ids)) == 6
    assert sorted(message for key in ids for message in server.messages(key)) == [f"work {n}" for n in range(5)]
    assert {execution["status"] for execution in server.executions.values()} == {"FINISHED"}


def test_blocks_nest(server: WireServer) -> None:
    """The innermost block is the current one; leaving it brings back the one around it."""
    both = co.task("a/b")
    with both as outer:
        with both as inner:
            assert co.current() is inner
        assert co.current() is outer
    assert co.current().id == ""


def test_logging_goes_to_the_current_execution(server: WireServer) -> None:
    """A LogHandler streams records with logger, extra fields and traceback; outside of work it is silent."""
    logger = logging.getLogger("test.sdk")
    handler = co.LogHandler(level="INFO")
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    logger.propagate = False
    try:
        logger.info("outside")
        with co.task("a/b"):
            logger.debug("too fine")
            logger.warning("%d rows", 3, extra={"table": "invoices"})
            try:
                int("inner")
            except ValueError:
                logger.exception("it broke")
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(logger.info, "in a thread"))
            thread.start()
            thread.join()
    finally:
        logger.removeHandler(handler)
    (entries,) = server.logs.values()
    first, second, third = entries
    assert (first["level"], first["message"]) == ("WARN", "3 rows")
    assert first["fields"] == {"logger": "test.sdk", "table": "invoices"}
    assert second["level"] == "ERROR"
    assert second["message"].startswith("it broke\nTraceback (most recent call last):")
    assert third["message"] == "in a thread"


def test_a_forked_child_reports_nothing(server: WireServer) -> None:
    """A child that leaves the block after a fork does not end the parent's execution."""
    child = -1
    try:
        with co.task("a/b") as run:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is the point
                child = os.fork()
            if child == 0:
                run.log("from the child")
                run.progress(0.5)
            else:
                os.waitpid(child, 0)
                run.log("from the parent")
    finally:
        if child == 0:
            os._exit(0)
    assert server.messages() == ["from the parent"]
    assert len(server.of("complete")) == 1


@pytest.mark.parametrize("name", ["nightly", "a/b/c", ""])
def test_a_name_that_can_be_no_task_is_refused_at_once(name: str) -> None:
    """A typing error shows when the module is imported, not at night."""
    with pytest.raises(ValueError, match="write project/name"):
        co.task(name)


def test_generators_are_refused() -> None:
    """A generator would end before it began."""
    with pytest.raises(TypeError, match="is a generator"):

        @co.task("a/b")
        def work() -> Iterator[int]:
            yield 1
