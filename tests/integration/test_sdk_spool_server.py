"""The spool against the server itself: what it makes of runs that it hears of afterwards."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from cron_observer_sdk.client import Client
from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.replay import Tally, replay
from cron_observer_sdk.spool import Spool
from support.api import make_key, served
from support.databases import Tenant
from support.processes import free_port
from support.rows import make_task
from support.sdk_cli import cli
from support.worker import Worker


async def test_a_run_of_an_outage_appears_with_its_log(tenant: Tenant) -> None:
    """Begin, lines in order, exit code and true begin are stored once, however often the file is replayed."""
    make_task(tenant, "export")
    token = await make_key(tenant, "report", "read")
    away = f"http://127.0.0.1:{free_port()}"
    words = ("run", "default/export", "--", "sh", "-c", "echo one; echo two; exit 3")
    done = await asyncio.to_thread(cli, *words, server=away, env={"CRON_OBSERVER_TOKEN": token})
    assert done.returncode == 3
    (path,) = Spool().waiting()
    async with served(tenant) as api:
        url = str(api.client.base_url).rstrip("/")
        whole = path.read_bytes().replace(away.encode(), url.encode())
        for _ in range(2):
            path.write_bytes(whole)
            assert (await _replay(url, token)).delivered == 1
        found = (await api.call("GET", "/executions", "read")).json()["items"]
        (one,) = found
        assert (one["status"], one["trigger"], one["worker"] is not None) == ("FAILED", "api", True)
        lines = (await api.call("GET", f"/executions/{one['id']}/logs", "read")).json()["items"]
        assert [line["message"] for line in lines][:2] == ["one", "two"]
        assert len(lines) == 3
        shown = (await api.call("GET", f"/executions/{one['id']}", "read")).json()
        assert shown["exit_code"] == 3
        assert shown["duration_seconds"] > 0


async def test_an_end_that_comes_after_its_lease_counts_until_somebody_else_has_begun(tenant: Tenant) -> None:
    """A run whose lease is over is still taken, log and all; after another claim it is set aside."""
    task = make_task(tenant, "export")
    token = await make_key(tenant, "report", "read")
    async with served(tenant) as api:
        url = str(api.client.base_url).rstrip("/")
        worker = Worker(api, tenant)
        for claimed_again in (False, True):
            worker.slot(task)
            (given,) = await worker.claim(lease_seconds=5)
            _spooled(url, token, given)
            worker.pass_time(10)
            if claimed_again:
                (again,) = await worker.claim(lease_seconds=60)
                assert again["id"] == given["id"]
            tally = await _replay(url, token)
            shown = (await api.call("GET", f"/executions/{given['id']}", "read")).json()
            if claimed_again:
                assert (tally.delivered, tally.refused, shown["status"]) == (0, 1, "RUNNING")
            else:
                assert (tally.delivered, shown["status"]) == (1, "FINISHED")
                lines = (await api.call("GET", f"/executions/{given['id']}/logs", "read")).json()["items"]
                assert [line["message"] for line in lines][:1] == ["late word"]


async def _replay(url: str, token: str) -> Tally:
    """Replay in a thread, as a process beside the server would."""
    return await asyncio.to_thread(replay, Spool(), Client(url, token))


def _spooled(url: str, token: str, given: dict[str, Any]) -> None:
    """Leave the end of a claimed run to the spool."""
    task, worker = "default/export", f"h:{os.getpid()}"
    head = {"v": 1, "url": url, "key": token[:11], "task": task, "id": uuid7(), "worker": worker}
    made = Spool().create(head)
    made.write([b'{"kind":"bound","id":"%s","fence":%d}' % (given["id"].encode(), given["fence"])], durable=False)
    made.write([b'{"kind":"line","seq":0,"entry":{"level":"INFO","message":"late word"}}'], durable=False)
    made.write([b'{"kind":"end","outcome":{"outcome":"finished"},"at":"2026","next_seq":1}'], durable=True)
    made.close()


SCRIPT = """
import json, os, urllib.error, urllib.request
def call(path, body):
    asked = urllib.request.Request(os.environ["CRON_OBSERVER_URL"] + "/api/v1/sdk/" + path, json.dumps(body).encode(),
        {"Authorization": "Bearer " + os.environ["CRON_OBSERVER_RUN_TOKEN"], "Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(asked).status
    except urllib.error.HTTPError as error:
        return error.code
own = "executions/" + os.environ["CRON_OBSERVER_EXECUTION_ID"]
fence = int(os.environ["CRON_OBSERVER_EXECUTION_FENCE"])
print(call(own + "/heartbeat", {"fence": fence, "progress": 0.5}), call("claims", {"worker": "me"}))
print(os.environ.get("CRON_OBSERVER_TOKEN"))
"""


async def test_a_command_may_report_on_its_own_run_and_nothing_else(tenant: Tenant) -> None:
    """With the token of its run a script says how far it is; for anything else it is refused."""
    task = make_task(tenant, "export")
    token = await make_key(tenant, "report", "read")
    async with served(tenant) as api:
        Worker(api, tenant).slot(task)
        url = str(api.client.base_url).rstrip("/")
        words = ("run", "default/export", "--", sys.executable, "-c", SCRIPT)
        done = await asyncio.to_thread(cli, *words, server=url, env={"CRON_OBSERVER_TOKEN": token})
        assert (done.returncode, done.stdout, done.stderr) == (0, b"200 403\nNone\n", b"")
        (one,) = (await api.call("GET", "/executions", "read")).json()["items"]
        assert (one["status"], one["progress"]) == ("FINISHED", 1.0)
