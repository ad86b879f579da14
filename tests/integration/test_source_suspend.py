"""Suspended sources: nobody looks at them, what is applied runs on, and everybody can see who said so."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.api import api
from support.databases import Tenant
from support.repositories import Repository, following, manifest
from support.rows import database_now

HOUR = timedelta(hours=1)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with one task."""
    made = Repository.make(tmp_path)
    made.push({"export.yaml": manifest("export")})
    return made


async def test_a_suspended_source_is_left_alone(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """Pushes and `sync` wait until it is resumed, which looks at once; both are audited, with their reasons."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        told = await server.call("POST", "/sources/main/suspend", "admin", json={"reason": "freeze until Monday"})
        assert told.status_code == 200, told.text
        repository.push({"second.yaml": manifest("second")})
        asked = await server.call("POST", "/sources/main/sync", "admin")
        assert asked.status_code == 202
        assert await it.reconciler.tick() == {}
        assert await it.poll() == {}
        assert it.names() == ["export"]
        shown = (await server.call("GET", "/sources/main")).json()
        assert shown["conditions"]["Suspended"]["status"] == "True"
        resumed = await server.call("POST", "/sources/main/resume", "admin", json={"reason": "it is Monday"})
        assert resumed.json()["suspended"] is None
        await it.reconciler.tick()
        assert it.names() == ["export", "second"]
        after = (await server.call("GET", "/sources/main")).json()
    suspended = told.json()["suspended"]
    assert suspended["reason"] == "freeze until Monday"
    assert suspended["by"].startswith("key:")
    assert suspended["until"] is None
    assert shown["suspended"] == suspended
    assert after["conditions"].get("Suspended", {}).get("status") != "True"
    entries = tenant.database.rows("SELECT action, data FROM audit_log WHERE action <> 'source.sync' ORDER BY at")
    assert [(one["action"], one["data"]) for one in entries] == [
        ("source.suspend", {"reason": "freeze until Monday", "until": None}),
        ("source.resume", {"reason": "it is Monday"}),
    ]


async def test_a_suspension_ends_by_itself(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """After `until` the source is looked at again, without anybody doing anything."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        until = (database_now(tenant.database) + HOUR).isoformat()
        told = await server.call("POST", "/sources/main/suspend", "admin", json={"reason": "freeze", "until": until})
        assert told.json()["suspended"]["until"] is not None
        repository.push({"second.yaml": manifest("second")})
        assert await it.poll() == {}
        tenant.database.do(
            "UPDATE sources SET suspended_at = now() - interval '2 hours', suspended_until = now() - interval '1 hour'"
        )
        shown = (await server.call("GET", "/sources/main")).json()
        assert shown["suspended"] is None
        await it.poll()
        assert it.names() == ["export", "second"]


async def test_suspending_again_changes_end_and_reason(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """The same again changes nothing and is not audited; another reason is, and since when it lasts stays."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        bodies: list[dict[str, Any]] = [{"reason": "one"}, {"reason": "one"}, {"reason": "two"}]
        told = [
            (await server.call("POST", "/sources/main/suspend", "admin", json=body)).json()["suspended"]
            for body in bodies
        ]
        first = await server.call("POST", "/sources/main/resume", "admin")
        again = await server.call("POST", "/sources/main/resume", "admin")
    assert told[0] == told[1]
    assert (told[2]["reason"], told[2]["since"]) == ("two", told[0]["since"])
    assert (first.status_code, again.status_code, again.json()["suspended"]) == (200, 200, None)
    assert tenant.database.value("SELECT count(*) FROM audit_log") == 3


async def test_what_cannot_be_is_refused(tenant: Tenant, repository: Repository, tmp_path: Path) -> None:
    """An end in the past or in ten years, no reason, an unknown source, and whoever is no administrator."""
    async with following(tenant, repository.bare, tmp_path / "data") as it, api(tenant) as server:
        await it.sync()
        now = database_now(tenant.database)
        ends = [(now - HOUR).isoformat(), (now + 4000 * 24 * HOUR).isoformat()]
        far = [
            await server.call("POST", "/sources/main/suspend", "admin", json={"reason": "x", "until": end})
            for end in ends
        ]
        wrong = [
            await server.call("POST", "/sources/main/suspend", "admin", json=body)
            for body in ({}, {"reason": ""}, {"reason": "x", "until": "tomorrow"}, {"reason": "x", "for": "1h"})
        ]
        unknown = [
            await server.call("POST", f"/sources/other/{verb}", "admin", json={"reason": "x"})
            for verb in ("suspend", "resume")
        ]
        refused = [
            await server.call("POST", f"/sources/main/{verb}", "trigger", "tasks:write", json={"reason": "x"})
            for verb in ("suspend", "resume")
        ]
    assert [(one.status_code, one.json()["code"]) for one in far] == [(422, "out_of_range")] * 2
    assert {one.status_code for one in wrong} == {400}
    assert {one.status_code for one in unknown} == {404}
    assert {one.status_code for one in refused} == {403}
    assert tenant.database.value("SELECT count(*) FROM audit_log") == 0
