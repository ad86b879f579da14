"""Check-ins that manifests declare: a push makes them, changes their clocks, and takes them away."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from support.api import api
from support.checkins import watching
from support.databases import Tenant
from support.repositories import Repository, following, manifest

RUN = "  run: {checkin: {grace: %s}}\n"


async def test_a_pushed_check_in_is_watched_until_it_is_no_more(tenant: Tenant, tmp_path: Path) -> None:
    """It gets an address that outlives its edits; new clocks hold for slots to come; as a task of workers it has none,
    and when it is a check-in again it has the old one."""
    repository = Repository.make(tmp_path)
    base = manifest("backup", "*/5 * * * *")
    repository.push({"a.yaml": base + RUN % "10m"})
    async with following(tenant, repository.bare, tmp_path) as it, api(tenant) as app:
        assert await it.reconciler.tick() == {"main": "applied"}

        async def shown() -> str | None:
            answered = await app.call("GET", "/projects/default/tasks/backup", "read")
            found: str | None = answered.json()["ping_url"]
            return found

        def graces() -> set[tuple[str, timedelta | None]]:
            rows = tenant.database.rows(
                "SELECT queue, start_deadline - available_at AS grace FROM executions WHERE status = 'PENDING' "
                "AND available_at > now() + interval '1 minute'"
            )
            return {(row["queue"], row["grace"]) for row in rows}

        address = await shown()
        assert address is not None
        assert graces() == {("@checkin", timedelta(minutes=10))}
        assert (await app.client.get(address)).text == "OK"

        repository.push({"a.yaml": base + RUN % "3m"})
        assert await it.sync() == "applied"
        assert graces() == {("@checkin", timedelta(minutes=3))}
        assert await shown() == address

        repository.push({"a.yaml": base})
        assert await it.sync() == "applied"
        assert graces() == {("default", None)}
        assert await shown() is None
        app.app.state.address_book.forget()  # type: ignore[union-attr]
        assert (await app.client.get(address)).status_code == 404

        repository.push({"a.yaml": base + RUN % "3m"})
        assert await it.sync() == "applied"
        app.app.state.address_book.forget()  # type: ignore[union-attr]
        assert await shown() == address
        assert (await app.client.get(address)).text == "OK"


@pytest.mark.parametrize("asked", ["last", "all"])
async def test_a_pause_makes_up_for_nothing(tenant: Tenant, asked: str) -> None:
    """What a pause leaves out cannot be run afterwards, so nobody is promised that it will be."""
    async with watching(tenant) as task:
        place = f"/projects/default/tasks/{task.name}"
        paused = await task.app.call("POST", f"{place}/pause", "trigger", json={"reason": "away", "on_resume": asked})
        assert (paused.status_code, paused.json()["code"]) == (409, "conflict")
        assert (await task.app.call("POST", f"{place}/pause", "trigger", json={"reason": "away"})).status_code == 200
        resumed = await task.app.call("POST", f"{place}/resume", "trigger", json={"reason": "", "on_resume": asked})
        assert resumed.status_code == 409
        assert (await task.app.call("POST", f"{place}/resume", "trigger", json={"reason": ""})).status_code == 200
