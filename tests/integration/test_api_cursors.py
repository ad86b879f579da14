"""Cursors are opaque, signed, and good for one list of one tenant."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from pathlib import Path

import pytest

from cron_observer.errors import SettingsError
from cron_observer_api.cursors import load_key
from support.api import api
from support.databases import Tenant, make_tenant
from support.rows import database_now, make_slot, make_task


async def test_a_cursor_is_good_for_its_list_only(tenant: Tenant) -> None:
    """Another filter, list, path or tenant, and any change of a byte, is 400 bad_cursor."""
    now = database_now(tenant.database)
    task = make_task(tenant)
    for minutes in range(1, 6):
        make_slot(tenant, task, now - timedelta(minutes=minutes))
    other = make_tenant(tenant.database, "other")
    async with api(tenant) as it:

        async def code(path: str, **more: Tenant) -> str | None:
            told = await it.call("GET", path, "admin", **more)
            found: str | None = told.json().get("code")
            assert told.status_code == (400 if found else 200)
            return found

        cursor = (await it.call("GET", "/executions?limit=2&status=PENDING", "admin")).json()["next_cursor"]
        assert await code(f"/executions?limit=1&cursor={cursor}&status=PENDING") is None
        wrong = [
            f"/executions?cursor={cursor}",
            f"/executions?cursor={cursor}&status=FAILED",
            f"/executions?cursor={cursor}&status=PENDING&upcoming=true",
            f"/projects?cursor={cursor}",
            f"/projects/default/tasks?cursor={cursor}",
            f"/keys?cursor={cursor}",
            "/executions?status=PENDING&cursor=",
            "/executions?status=PENDING&cursor=!!!",
            "/executions?status=PENDING&cursor=" + "A" * 5000,
            f"/executions?status=PENDING&cursor={cursor}x",
            f"/executions?status=PENDING&cursor={cursor}A",
        ]
        raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        for at in range(len(raw)):
            changed = raw.copy()
            changed[at] ^= 1
            tampered = base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")
            wrong.append(f"/executions?status=PENDING&cursor={tampered}")
        for path in wrong:
            assert await code(path) == "bad_cursor", path
        assert await code(f"/executions?cursor={cursor}&status=PENDING", tenant=other) == "bad_cursor"


async def test_every_list_has_pages(tenant: Tenant) -> None:
    """limit is 50 by default and 200 at most, in every list; others are refused."""
    async with api(tenant) as it:
        for path in ("/executions", "/projects", "/projects/default/tasks", "/sources", "/keys"):
            told = await it.call("GET", path, "admin")
            assert set(told.json()) == {"items", "next_cursor"}, path
            for limit in ("0", "201", "-1", "x", ""):
                assert (await it.call("GET", f"{path}?limit={limit}", "admin")).status_code == 400, (path, limit)
            assert (await it.call("GET", f"{path}?limit=200", "admin")).status_code == 200


async def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    """Whoever comes first makes the key, for its owner alone; the others read it."""
    keys = await asyncio.gather(*(asyncio.to_thread(load_key, tmp_path / "new") for _ in range(16)))
    assert len(set(keys)) == 1
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["cursor.key"]
    assert (tmp_path / "new" / "cursor.key").stat().st_mode & 0o777 == 0o600


def test_a_broken_key_is_said(tmp_path: Path) -> None:
    """A key of the wrong length, and a folder that cannot be made, are settings to mend."""
    (tmp_path / "cursor.key").write_bytes(b"short")
    (tmp_path / "file").write_text("")
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(SettingsError) as told:
            load_key(folder)
        assert told.value.hint
