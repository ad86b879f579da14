"""Calendars: from a push to the plans of the tasks that refer to them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cron_observer.manifest import effective
from cron_observer.store import bindings, plans, tasks
from cron_observer.store.engine import clock
from support.databases import Tenant
from support.plans import until_blocked
from support.repositories import Following, Repository, following, manifest

WEEKENDS = "  entries: [{weekdays: [sat, sun]}]\n"


def calendar(name: str, spec: str = WEEKENDS) -> str:
    """Write the manifest of a calendar; `spec` is its block, as YAML."""
    return f"apiVersion: cron-observer/v1\nkind: Calendar\nmetadata:\n  name: {name}\nspec:\n{spec}"


def excluding(name: str, calendar_name: str, cron: str = "0 4 * * *", **spec: str) -> str:
    """Write the manifest of a task that does not run on the days of a calendar."""
    return manifest(name, cron, **spec) + f"    calendars:\n      exclude:\n        - {calendar_name}\n"


def shutdown(*days: str) -> str:
    """Write a calendar file with events of one day each, ``20261224``."""
    events = "".join(
        f"BEGIN:VEVENT\r\nUID:{day}@example\r\nDTSTART;VALUE=DATE:{day}\r\nSUMMARY:Shutdown\r\nEND:VEVENT\r\n"
        for day in days
    )
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\n{events}END:VCALENDAR\r\n"


def row(it: Following, name: str) -> dict[str, Any]:
    """Return the row of a calendar."""
    (found,) = it.database.rows("SELECT * FROM calendars WHERE name = %s", name)
    return found


def content(it: Following, name: str) -> list[dict[str, Any]]:
    """Return the parts that a calendar holds now."""
    parts: list[dict[str, Any]] = it.database.value(
        "SELECT content -> 'parts' FROM calendar_contents WHERE digest = %s", row(it, name)["digest"]
    )
    return parts


def bound(it: Following, task: str) -> list[str]:
    """Return what the plan of a task excludes: names with digests."""
    excluded: list[str] = it.plan(task)["schedule"]["calendars"]["exclude"]
    return excluded


def codes(it: Following) -> list[tuple[str, str]]:
    """Return path and code of the findings."""
    return [(one["path"], one["code"]) for one in it.findings()]


async def test_a_calendar_reaches_the_plan_of_a_task(tenant: Tenant, tmp_path: Path) -> None:
    """A calendar and a task of one push are in force together; the calendar knows its commit, line and content."""
    repository = Repository.make(tmp_path)
    commit = repository.push(
        {"time/weekends.yaml": calendar("weekends"), "a.yaml": excluding("alpha", "weekends")}, "Add"
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.findings() == []
        made = row(it, "weekends")
        assert (made["path"], made["line"], made["commit"]) == ("time/weekends.yaml", 4, commit)
        assert (made["author"], made["subject"], made["version"]) == ("Ada Lovelace", "Add", 1)
        assert [part["weekdays"] for part in content(it, "weekends")] == [[0, 6]]
        assert bound(it, "alpha") == [f"weekends@{made['digest']}"]
        assert it.source()["counts"]["calendars"] == 1
        assert it.runs()[0]["counts"]["calendars_created"] == 1
        skipped = "SELECT count(*) FROM executions WHERE status = 'SKIPPED' AND reason = 'calendar'"
        weekend = "extract(isodow FROM nominal_local) IN (6, 7)"
        assert tenant.database.value(f"{skipped} AND NOT {weekend}") == 0
        assert tenant.database.value(f"SELECT count(*) FROM executions WHERE status = 'PENDING' AND {weekend}") == 0


async def test_a_changed_calendar_plans_its_tasks_anew(tenant: Tenant, tmp_path: Path) -> None:
    """Tasks of unchanged files, of the API, and of calendars built on it follow; others are left alone."""
    repository = Repository.make(tmp_path)
    repository.push(
        {
            "base.yaml": calendar("base"),
            "company.yaml": calendar("company", "  entries: [{date: '2026-12-24'}]\n  base: [base]\n"),
            "a.yaml": excluding("alpha", "company"),
            "b.yaml": excluding("beta", "base"),
            "c.yaml": manifest("gamma"),
        }
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        await create(tenant, "delta", "company")
        before = {name: it.plan(name) for name in ("alpha", "beta", "gamma", "delta")}
        tasks_before = tenant.database.rows("SELECT * FROM tasks ORDER BY name")
        assert len(content(it, "company")) == 2
        repository.push({"base.yaml": calendar("base", "  entries: [{weekdays: [sun]}]\n")})
        assert await it.sync() == "applied"
        assert it.findings() == []
        after = {name: it.plan(name) for name in before}
        moved = {name: after[name]["generation"] - before[name]["generation"] for name in before}
        assert moved == {"alpha": 1, "beta": 1, "gamma": 0, "delta": 1}
        assert [part["weekdays"] for part in content(it, "company")] == [[], [0]]
        assert bound(it, "delta") == bound(it, "alpha") == [f"company@{row(it, 'company')['digest']}"]
        assert (row(it, "base")["version"], row(it, "company")["version"]) == (2, 2)
        assert tenant.database.rows("SELECT * FROM tasks ORDER BY name") == tasks_before
        assert tenant.database.value("SELECT count(*) FROM calendar_contents") == 4
        repository.push({"base.yaml": "# said better\n" + calendar("base", "  entries: [{weekdays: [sun]}]\n")})
        await it.sync()
        assert (row(it, "base")["version"], row(it, "base")["line"]) == (2, 5)
        assert {name: it.plan(name) for name in before} == after


async def create(tenant: Tenant, name: str, calendar_name: str) -> None:
    """Create a task of the API that refers to a calendar."""
    spec = effective({"schedule": {"cron": "0 1 * * *", "calendars": {"exclude": [calendar_name]}}})

    async def work(conn: Any) -> Any:
        return await tasks.create_owned(
            conn, tenant.tenant_id, tenant.project_id, name, spec, {}, "key", await clock(conn)
        )

    await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], work)


async def test_a_reference_to_nothing_refuses_one_document(tenant: Tenant, tmp_path: Path) -> None:
    """The others of the push are applied; the task comes when the calendar does, without another change of its file."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": excluding("alpha", "weekend"), "b.yaml": manifest("beta")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.names() == ["beta"]
        (found,) = it.findings()
        assert (found["code"], found["pointer"]) == ("CO1403", "/spec/schedule/calendars/exclude/0")
        assert (found["line"], found["excerpt"].splitlines()[1]) == (10, "10 |         - weekend")
        repository.push({"time.yaml": calendar("weekends")})
        await it.sync()
        (found,) = it.findings()
        assert "weekends" in found["hint"]
        repository.push({"time.yaml": calendar("weekends") + "---\n" + calendar("weekend")})
        await it.sync()
        assert it.names() == ["alpha", "beta"]
        assert it.findings() == []


async def test_a_calendar_that_is_used_stays(tenant: Tenant, tmp_path: Path) -> None:
    """While a task refers to it a calendar stays in force; when that ends, in whatever way, it goes."""
    repository = Repository.make(tmp_path)
    repository.push({"time.yaml": calendar("weekends"), "a.yaml": excluding("alpha", "weekends")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        plan, uid = it.plan("alpha"), row(it, "weekends")["calendar_uid"]
        repository.push({"time.yaml": None})
        await it.sync()
        assert (row(it, "weekends")["sync"], row(it, "weekends")["removed_at"]) == ("HELD", None)
        assert codes(it) == [("time.yaml", "CO1506")]
        assert 'the task "alpha" (a.yaml:4' in it.findings()[0]["message"]
        assert (it.task("alpha")["sync"], it.plan("alpha")) == ("SYNCED", plan)
        repository.push({"b.yaml": manifest("beta")})
        await it.sync()
        assert (it.plan("alpha"), codes(it)) == (plan, [("time.yaml", "CO1506")])
        repository.push({"time.yaml": calendar("weekends", "  entries: [{weekdays: [sun]}]\n")})
        await it.sync()
        again = row(it, "weekends")
        assert (again["calendar_uid"], again["version"], again["sync"]) == (uid, 2, "SYNCED")
        assert bound(it, "alpha") == [f"weekends@{again['digest']}"]
        assert it.findings() == []
        repository.push({"time.yaml": None})
        await it.sync()
        repository.push({"a.yaml": manifest("alpha")})
        await it.sync()
        assert (row(it, "weekends")["removed_at"] is not None, it.findings()) == (True, [])


async def test_a_broken_calendar_keeps_its_last_good_version(tenant: Tenant, tmp_path: Path) -> None:
    """Tasks go on; one that is changed in the same push waits, because nobody knows what it was to be with."""
    repository = Repository.make(tmp_path)
    repository.push(
        {
            "time.yaml": calendar("weekends"),
            "a.yaml": excluding("alpha", "weekends"),
            "b.yaml": excluding("b", "weekends"),
        }
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        digest = row(it, "weekends")["digest"]
        broken = calendar("weekends", "  entries: [{date: '2026-02-30'}]\n")
        repository.push({"time.yaml": broken, "a.yaml": excluding("alpha", "weekends", "0 5 * * *")})
        await it.sync()
        assert (row(it, "weekends")["sync"], row(it, "weekends")["digest"]) == ("KEPT_LAST_GOOD", digest)
        assert it.task("alpha")["spec"]["schedule"]["cron"] == "0 4 * * *"
        assert (it.task("alpha")["sync"], it.task("b")["sync"]) == ("KEPT_LAST_GOOD", "SYNCED")
        assert codes(it) == [("a.yaml", "CO1503"), ("time.yaml", "CO1405")]
        repository.push({"time.yaml": calendar("weekends")})
        await it.sync()
        assert it.task("alpha")["spec"]["schedule"]["cron"] == "0 5 * * *"
        assert it.findings() == []


async def test_calendars_that_contain_each_other_are_refused(tenant: Tenant, tmp_path: Path) -> None:
    """The one that closes the circle keeps what it was; one that another is based on stays when its file goes."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": calendar("aa"), "b.yaml": calendar("bb", WEEKENDS + "  base: [aa]\n")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        before = {name: row(it, name)["digest"] for name in ("aa", "bb")}
        repository.push({"a.yaml": calendar("aa", WEEKENDS + "  base: [bb]\n")})
        await it.sync()
        assert codes(it) == [("a.yaml", "CO1404")]
        assert {name: row(it, name)["digest"] for name in before} == before
        repository.push({"a.yaml": None})
        await it.sync()
        assert codes(it) == [("a.yaml", "CO1506")]
        assert {name: row(it, name)["digest"] for name in before} == before
        assert {name: row(it, name)["sync"] for name in before} == {"aa": "HELD", "bb": "SYNCED"}


async def test_calendar_files_are_followed(tenant: Tenant, tmp_path: Path) -> None:
    """A changed .ics plans the tasks anew though no manifest has changed; a broken one keeps what was."""
    repository = Repository.make(tmp_path)
    spec = "  entries:\n    - ics: shutdown.ics\n"
    repository.push(
        {
            "time/company.yaml": calendar("company", spec),
            "time/shutdown.ics": shutdown("20261224"),
            "other.ics": "nobody names this",
            "a.yaml": excluding("alpha", "company"),
        }
    )
    async with following(tenant, repository.bare, tmp_path, paths=("time/*.yaml", "a.yaml")) as it:
        await it.reconciler.tick()
        assert it.findings() == []
        assert [part["dates"] for part in content(it, "company")] == [[["2026-12-24", "2026-12-24"]]]
        (file,) = it.database.rows("SELECT * FROM manifest_files WHERE path = 'time/shutdown.ics'")
        assert (file["documents"], file["state"]) == (0, "ok")
        first = it.plan("alpha")
        repository.push({"time/shutdown.ics": shutdown("20261224", "20261231")})
        await it.sync()
        assert len(content(it, "company")[0]["dates"]) == 2
        second = it.plan("alpha")
        assert second["generation"] == first["generation"] + 1
        repository.push({"time/shutdown.ics": "BEGIN:VCALENDAR\r\n"})
        await it.sync()
        (found,) = it.findings()
        assert (found["path"], found["code"], found["line"]) == ("time/company.yaml", "CO1411", 7)
        assert "time/shutdown.ics" in found["message"]
        assert it.plan("alpha") == second
        repository.push({"time/shutdown.ics": None})
        await it.sync()
        assert codes(it) == [("time/company.yaml", "CO1408")]
        repository.push({"time/shutdown.ics": shutdown("20261224", "20261231")})
        await it.sync()
        assert it.findings() == []
        assert it.plan("alpha") == second


async def test_a_folder_with_calendar_files_is_followed(tenant: Tenant, tmp_path: Path) -> None:
    """In a plain folder, a changed calendar file is a change, too."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "c.yaml").write_text(calendar("company", "  entries: [{ics: /shutdown.ics}]\n"))
    (folder / "shutdown.ics").write_text(shutdown("20261224"))
    async with following(tenant, folder, tmp_path / ".data") as it:
        await it.reconciler.tick()
        assert it.findings() == []
        (folder / "shutdown.ics").write_text(shutdown("20261231"))
        assert await it.sync() == "applied"
        assert content(it, "company")[0]["dates"] == [["2026-12-31", "2026-12-31"]]
        assert row(it, "company")["version"] == 2


async def test_a_name_is_one_calendar(tenant: Tenant, tmp_path: Path) -> None:
    """A second file with the name is refused; a calendar that moves keeps its uid; a task of the name is another."""
    repository = Repository.make(tmp_path)
    repository.push({"z.yaml": calendar("weekends"), "t.yaml": manifest("weekends")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.findings() == []
        uid = row(it, "weekends")["calendar_uid"]
        repository.push({"a.yaml": calendar("weekends", "  entries: [{weekdays: [sun]}]\n")})
        await it.sync()
        assert codes(it) == [("a.yaml", "CO1207")]
        assert row(it, "weekends")["path"] == "z.yaml"
        repository.push({"z.yaml": None, "a.yaml": calendar("weekends")})
        await it.sync()
        moved = row(it, "weekends")
        assert (moved["path"], moved["calendar_uid"], moved["version"]) == ("a.yaml", uid, 1)


@pytest.mark.parametrize("held", [True, False])
async def test_a_task_and_its_calendar_change_together(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """A task that is created while its calendar is being changed is planned with the new one.

    The broken twin holds nothing: its task goes on with what the calendar held before.
    """
    if not held:
        for name in ("_CALENDARS", "_GROUPS"):
            free = str(getattr(bindings, name)).replace("FOR SHARE", "")
            monkeypatch.setattr(bindings, name, text(free))
    repository = Repository.make(tmp_path)
    repository.push({"time.yaml": calendar("weekends")})
    spec = effective({"schedule": {"cron": "0 1 * * *", "calendars": {"exclude": ["weekends"]}}})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"time.yaml": calendar("weekends", "  entries: [{weekdays: [sun]}]\n")})

        async def work(conn: Any) -> asyncio.Task[str]:
            await tasks.create_owned(
                conn, tenant.tenant_id, tenant.project_id, "alpha", spec, {}, "key", await clock(conn)
            )
            applying = asyncio.create_task(it.sync())
            if held:
                await until_blocked(tenant.database)
            else:
                await applying
            return applying

        applying = await plans.in_transaction_with_margin(tenant.database.api, [tenant.tenant_id], work)
        assert await applying == "applied"
        assert (bound(it, "alpha") == [f"weekends@{row(it, 'weekends')['digest']}"]) is held
