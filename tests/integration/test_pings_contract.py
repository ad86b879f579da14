"""The contract of pings, case by case: numbers are those of docs/reference/pings.md."""

from __future__ import annotations

import re
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from support.checkins import Watched, watched, watching
from support.databases import FreshDatabase, Tenant, make_tenant
from support.documents import ROOT

MINUTE = timedelta(minutes=1)


async def lines(task: Watched, execution: UUID) -> list[tuple[str, str]]:
    """Return level and message of each line of an execution's log, as the API shows them."""
    answered = await task.app.call("GET", f"/executions/{execution}/logs", "read")
    return [(one["level"], one["message"]) for one in answered.json()["items"]]


async def test_case_01_and_07_an_address_says_success(tenant: Tenant) -> None:
    """GET, HEAD and POST of the address alone are a success each; other methods are 405."""
    async with watching(tenant) as task:
        for method in ("GET", "HEAD", "POST"):
            answered = await task.ping(method=method)
            assert (answered.status_code, answered.text) == (200, "" if method == "HEAD" else "OK")
        assert [one[0] for one in task.states()] == ["FINISHED"] * 3
        assert str(task.doors.address) == str(task.doors.address).lower()
        assert (await task.ping(method="PUT")).status_code == 405
        assert len(task.runs()) == 3


async def test_case_02_and_03_start_and_fail(tenant: Tenant) -> None:
    """A run begins with start, and fail says that it failed."""
    async with watching(tenant) as task:
        assert (await task.ping("/start")).text == "OK"
        assert task.states() == [("RUNNING", None, "checkin", False)]
        assert (await task.ping("/fail")).text == "OK"
        assert task.states() == [("FAILED", "error", "checkin", False)]


async def test_case_04_a_log_changes_nothing(tenant: Tenant) -> None:
    """What log carries is added, before the end and after it; how it goes stays as it is."""
    async with watching(tenant) as task:
        assert (await task.ping("/log", "POST", content=b"lost")).text == "OK"
        assert task.runs() == []
        await task.ping("/start")
        await task.ping("/log", "POST", content=b"one\ntwo\n")
        assert task.states() == [("RUNNING", None, "checkin", False)]
        await task.ping()
        await task.ping("/log", "POST", content=b"three")
        assert task.states() == [("FINISHED", None, "checkin", False)]
        assert await lines(task, task.runs()[0]["id"]) == [("INFO", "one"), ("INFO", "two"), ("INFO", "three")]


@pytest.mark.parametrize(
    ("code", "state"), [(0, ("FINISHED", None)), (1, ("FAILED", "exit_code")), (255, ("FAILED", "exit_code"))]
)
async def test_case_05_exit_codes(tenant: Tenant, code: int, state: tuple[str, str | None]) -> None:
    """0 is success, anything up to 255 failure, and the code is kept."""
    async with watching(tenant) as task:
        assert (await task.ping(f"/{code}")).text == "OK"
        assert [one[:2] for one in task.states()] == [state]
        assert task.runs()[0]["exit_code"] == code


async def test_case_06_key_and_name(tenant: Tenant) -> None:
    """The key of the project and the name of the task stand for the address, with each ending."""
    async with watching(tenant) as task:
        base = f"/ping/{task.doors.key}/{task.name}"
        for tail in ("/start", "/log", "/fail", "", "/0"):
            answered = await task.app.client.post(base + tail)
            assert (answered.status_code, answered.text) == (200, "OK"), tail
        assert sorted(one[0] for one in task.states()) == ["FAILED", "FINISHED", "FINISHED"]


async def test_case_08_slashes_and_unknown_parameters(tenant: Tenant) -> None:
    """Neither a slash at the end nor a parameter that nobody knows changes anything."""
    async with watching(tenant) as task:
        assert (await task.ping("/")).text == "OK"
        assert (await task.ping("/start/?x=1")).text == "OK"
        assert sorted(one[0] for one in task.states()) == ["FINISHED", "RUNNING"]


async def test_case_10_bad_addresses(tenant: Tenant) -> None:
    """Exit codes above 255 and what has no such form are 400, and change nothing."""
    async with watching(tenant) as task:
        for tail in ("/256", "/1000", "/-1", "/abc", "/START", "/12345678901234567890"):
            answered = await task.ping(tail)
            assert (answered.status_code, answered.text) == (400, "invalid url format"), tail
        answered = await task.app.client.get("/ping/no-uuid")
        assert (answered.status_code, answered.text) == (400, "invalid url format")
        assert task.runs() == []


async def test_case_11_and_12_unknown(database: FreshDatabase, tenant: Tenant) -> None:
    """Unknown addresses, keys and names, those of removed tasks and of tasks that are no check-ins are 404 alike."""
    async with watching(tenant) as task:
        other = await watched(task.app, tenant, "other")
        gone = await watched(task.app, tenant, "gone")
        database.do("UPDATE tasks SET removed_at = now() WHERE task_uid = %s", gone.uid)
        database.do(
            "UPDATE tasks SET spec = jsonb_set(spec, '{run}', '{\"external\": {}}') WHERE task_uid = %s", other.uid
        )
        elsewhere = make_tenant(database, "elsewhere")
        foreign = await watched(task.app, elsewhere, "foreign")
        for path in (
            f"/ping/{uuid4()}",
            f"/ping/{uuid4()}/start",
            f"/ping/{'0' * 32}/{task.name}",
            f"/ping/{task.doors.key}/nobody",
            f"/ping/{task.doors.key}/nobody?create=1",
            f"/ping/{task.doors.key}/foreign",
            f"/ping/{gone.doors.address}",
            f"/ping/{other.doors.address}",
        ):
            answered = await task.app.client.get(path)
            assert (answered.status_code, answered.text) == (404, "not found"), path
        assert (await foreign.ping()).text == "OK"
        assert task.runs() == []
        assert database.value("SELECT count(*) FROM tasks") == 4


@pytest.mark.parametrize("late", ["record", "reject"])
async def test_case_13_and_29_a_refused_late_ping_is_409(tenant: Tenant, late: str) -> None:
    """With reject a ping of a slot that was missed is 409; with record it is noted and changes nothing."""
    async with watching(tenant, late=late) as task:
        slot = task.slot(20 * MINUTE)
        await task.sweep()
        answered = await task.ping()
        assert answered.status_code == (200 if late == "record" else 409)
        assert task.states() == [("MISSED", "no_worker", "schedule", False)]
        noted = task.tenant.database.value(
            "SELECT count(*) FROM execution_events WHERE execution_id = %s AND type = 'late_recorded'", slot
        )
        assert noted == (1 if late == "record" else 0)


async def test_case_14_guessing_is_slowed_down(tenant: Tenant) -> None:
    """After a hundred addresses that are nobody's a client is told to wait; known addresses still work."""
    async with watching(tenant) as task:
        found = [(await task.app.client.get(f"/ping/{uuid4()}")).status_code for _ in range(103)]
        assert found[:100] == [404] * 100
        last = await task.app.client.get(f"/ping/{uuid4()}")
        assert (last.status_code, last.text) == (429, "rate limited")
        assert int(last.headers["Retry-After"]) >= 1
        assert (await task.ping()).text == "OK"


async def test_case_16_headers(tenant: Tenant) -> None:
    """The limit of bodies and the permission for pages of others are on each answer, and nothing is cached."""
    async with watching(tenant) as task:
        for path in (f"/ping/{task.doors.address}", f"/ping/{uuid4()}", "/ping/x"):
            answered = await task.app.client.get(path)
            assert answered.headers["Ping-Body-Limit"] == "100000"
            assert answered.headers["Access-Control-Allow-Origin"] == "*"
            assert answered.headers["Cache-Control"] == "no-store"
            assert answered.headers["Content-Type"].startswith("text/plain")


async def test_case_17_bodies(tenant: Tenant) -> None:
    """The body becomes lines, INFO or ERROR; the content type is not looked at, and what is no UTF-8 is replaced."""
    async with watching(tenant) as task:
        await task.ping("", "POST", content=b"a\r\nb\xff\x00c\n", headers={"Content-Type": "application/json"})
        await task.ping("/fail", "POST", content="Ärger".encode())
        first, second = task.runs()
        assert await lines(task, first["id"]) == [("INFO", "a"), ("INFO", "b\ufffd\ufffdc")]
        assert await lines(task, second["id"]) == [("ERROR", "Ärger")]


async def test_case_18_long_bodies(tenant: Tenant) -> None:
    """Of a long body the first 100,000 bytes are kept; above 1 MiB the ping is refused and changes nothing."""
    async with watching(tenant) as task:
        assert (await task.ping("", "POST", content=b"x" * 150_000)).text == "OK"
        kept = await lines(task, task.runs()[0]["id"])
        assert "".join(message for _, message in kept) == "x" * 100_000
        assert (await task.ping("", "POST", content=b"x" * (1024 * 1024 + 1))).status_code == 413
        assert len(task.runs()) == 1


async def test_case_19_bodies_of_get_are_left_alone(tenant: Tenant) -> None:
    """A GET may carry a body, which nobody reads."""
    async with watching(tenant) as task:
        assert (await task.ping("", "GET", content=b"x")).text == "OK"
        assert await lines(task, task.runs()[0]["id"]) == []


async def test_case_20_runs_of_their_own(tenant: Tenant) -> None:
    """Each name is a run of its own, whatever its case, and its end ends no other; what is no UUID is 400."""
    async with watching(tenant) as task:
        names = [uuid4() for _ in range(3)]
        for name in names:
            assert (await task.ping(f"/start?rid={name}")).text == "OK"
        assert [one[0] for one in task.states()] == ["RUNNING"] * 3
        await task.ping(f"?rid={str(names[1]).upper()}")
        await task.ping(f"/7?rid={names[2]}")
        by_id = {
            row["rid"]: row["status"]
            for row in task.tenant.database.rows(
                "SELECT c.rid, e.status FROM checkins c JOIN executions e ON e.id = c.execution_id"
            )
        }
        assert by_id == {names[0]: "RUNNING", names[1]: "FINISHED", names[2]: "FAILED"}
        for wrong in ("x", "", "1234", f"{names[0]}0", f"{{{names[0]}}}", names[0].hex):
            answered = await task.ping(f"?rid={wrong}")
            assert (answered.status_code, answered.text) == (400, "invalid uuid format"), wrong


async def test_case_21_ends_without_a_name(tenant: Tenant) -> None:
    """An end without a name is that of the newest run without one; runs with a name stay open."""
    async with watching(tenant) as task:
        await task.ping("/start")
        await task.ping(f"/start?rid={uuid4()}")
        await task.ping()
        assert sorted(one[0] for one in task.states()) == ["FINISHED", "RUNNING"]
        open_ = task.tenant.database.value("SELECT rid IS NOT NULL FROM checkins WHERE closed_at IS NULL")
        assert open_ is True


async def test_case_22_and_23_a_second_start(tenant: Tenant) -> None:
    """A second start of the same name renews the deadline and keeps the start; without a name the run begins anew."""
    async with watching(tenant) as task:
        name = uuid4()
        await task.ping(f"/start?rid={name}")
        task.shift(started_at=5 * MINUTE, run_deadline=5 * MINUTE, lease_until=5 * MINUTE, check_at=5 * MINUTE)
        before = task.runs()[0]
        await task.ping(f"/start?rid={name}")
        [after] = task.runs()
        assert after["started_at"] == before["started_at"]
        assert after["run_deadline"] > before["run_deadline"] + 4 * MINUTE
        await task.ping(f"?rid={name}")

        await task.ping("/start")
        task.shift(started_at=5 * MINUTE)
        before = task.runs()[1]
        await task.ping("/start")
        after = task.runs()[1]
        assert after["started_at"] > before["started_at"] + 4 * MINUTE
        assert len(task.runs()) == 2


async def test_case_24_and_25_ends_alone_and_twice(tenant: Tenant) -> None:
    """An end alone is a whole run of unknown length; one that comes twice counts once, and the first word stands."""
    async with watching(tenant) as task:
        name = uuid4()
        assert (await task.ping(f"?rid={name}")).text == "OK"
        assert (await task.ping(f"?rid={name}")).text == "OK"
        assert (await task.ping(f"/fail?rid={name}")).text == "OK"
        assert task.states() == [("FINISHED", None, "checkin", False)]
        assert task.runs()[0]["started_at"] is None


async def test_case_24_a_length_that_nobody_knows_is_none(tenant: Tenant) -> None:
    """An execution of unknown length has no duration, and is left out of medians, in the API and on the pages."""
    async with watching(tenant) as task:
        name = uuid4()
        await task.ping(f"/start?rid={name}")
        task.shift(started_at=5 * MINUTE, claimed_at=5 * MINUTE)
        await task.ping(f"?rid={name}")
        await task.ping()

        listed = (await task.app.call("GET", "/executions?task=default/backup", "read")).json()["items"]
        durations = [one["duration_seconds"] for one in listed]
        stats = (await task.app.call("GET", "/projects/default/tasks/backup/stats", "read")).json()
        page = (await task.app.client.get("/tasks/default/backup")).text
    assert durations[0] is None
    assert durations[1] >= 300
    assert stats["duration_seconds"]["count"] == 1
    assert stats["finished"] == 2
    assert ">0 ms</td>" not in page.partition("Duration</th>")[2].partition("<tbody>")[2].replace("\n", "")


async def test_case_30_and_31_deadlines(tenant: Tenant) -> None:
    """A run without an end has timed out after maxRuntime, and without a sign of life it is lost before."""
    async with watching(tenant, heartbeat="5m", grace="1s") as task:
        name = uuid4()
        await task.ping(f"/start?rid={name}")
        back = dict.fromkeys(("started_at", "claimed_at", "run_deadline", "lease_until", "check_at"), 6 * MINUTE)
        task.shift(**back)
        await task.sweep()
        assert task.states() == [("FAILED", "lease_lost", "checkin", False)]
        await task.ping(f"?rid={name}")
        assert task.states() == [("FINISHED", None, "checkin", True)]

        await task.ping(f"/start?rid={uuid4()}")
        task.shift(**dict.fromkeys(back, 4 * MINUTE))
        await task.ping("/log")
        await task.sweep()
        assert task.states()[1][:2] == ("RUNNING", None)
        task.shift(**dict.fromkeys(back, 56 * MINUTE))
        task.tenant.database.do("UPDATE executions SET lease_until = run_deadline WHERE status = 'RUNNING'")
        await task.sweep()
        assert task.states()[1][:2] == ("FAILED", "timed_out")


async def test_case_32_too_short(tenant: Tenant) -> None:
    """A success sooner than minRuntime after the start is a failure that says so; one without a start is none."""
    async with watching(tenant, minRuntime="30s") as task:
        await task.ping("/start")
        await task.ping()
        await task.ping()
        first, second = task.runs()
        assert (first["status"], first["reason"], first["error"]["type"]) == ("FAILED", "error", "RanTooShort")
        assert second["status"] == "FINISHED"


def test_every_case_has_its_test() -> None:
    """Each number of the page stands in the name of a test, and no other does."""
    page = (ROOT / "docs" / "reference" / "pings.md").read_text(encoding="utf-8")
    cases = {int(number) for number in re.findall(r"^(\d+)\. ", page, re.MULTILINE)}
    names = [
        name
        for file in (ROOT / "tests" / "integration").glob("test_*.py")
        if file.name.startswith(("test_pings_", "test_sentry_"))
        for name in re.findall(r"def test_case_([0-9a-z_]+)\(", file.read_text(encoding="utf-8"))
    ]
    tested = {int(number) for name in names for number in re.findall(r"(?:^|_)(\d\d)(?=_)", name)}
    assert tested == cases == set(range(1, max(cases) + 1))
