"""The SDK's worker behind a bad network, with an API that dies besides: no line and no completion is lost, or twice.

``CRON_OBSERVER_CHAOS_EXECUTIONS=200 CRON_OBSERVER_CHAOS_LINES=5000`` is the full size (some minutes).
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from support.api import make_key
from support.backlogs import EVERY, make_backlog
from support.databases import Tenant
from support.fleet import Fleet, fleet
from support.processes import until
from support.proxy import FAULTS, Proxy, proxied
from support.rows import database_now, make_task

#: How many executions, and how many lines each writes.
EXECUTIONS = int(os.environ.get("CRON_OBSERVER_CHAOS_EXECUTIONS", "16"))
LINES = int(os.environ.get("CRON_OBSERVER_CHAOS_LINES", "400"))

#: The API is killed when another so many executions have begun.
EVERY_SO_MANY = max(8, EXECUTIONS // 5)

#: Bytes that the SDK sends over a connection, at most, before that fails.
CALM = 20_000

PATIENCE = max(100.0, EXECUTIONS * LINES / 500)

pytestmark = pytest.mark.timeout(PATIENCE + EXECUTIONS)


@contextmanager
def bad_network(url: str) -> Iterator[Proxy]:
    """Stand between the SDK and the server, in a thread."""
    loop, made, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    proxies: list[Proxy] = []

    async def stand() -> None:
        async with proxied(url, 1, FAULTS[1:], CALM) as proxy:
            proxies.append(proxy)
            made.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(stand(),))
    thread.start()
    try:
        assert made.wait(30)
        yield proxies[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()


#: What the SDK adds, once, to the log of a run whose end it could not report for a while.
SPOOLED = "reported from the spool, after the server was away"


def written(made: Fleet, token: str, identity: str) -> list[str]:
    """Read a log back, past the proxy, without the word that its end was spooled."""
    request = urllib.request.Request(
        f"{made.url}/api/v1/executions/{identity}/logs.ndjson", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        lines = [str(json.loads(line)["message"]) for line in reply.read().splitlines()]
    return lines[:-1] if lines and lines[-1].startswith(SPOOLED) else lines


def differences(found: list[str], wanted: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Say which lines are missing, which are there more than once, and which nobody wrote: the first few of each."""
    times = Counter(found)
    return (
        [line for line in wanted if line not in times][:3],
        [line for line, many in times.items() if many > 1][:3],
        [line for line in found if not line.startswith("line ")][:3],
    )


async def _reader(tenant: Tenant) -> str:
    token = await make_key(tenant, "read")
    await tenant.database.aclose()
    return token


def wait_for_lines(made: Fleet, ids: list[str]) -> None:
    """Wait until each log has all its lines; fail at once if one is there twice.

    The last lines of a run whose end was spooled come after that.
    """
    token, wanted, left = asyncio.run(_reader(made.tenant)), [f"line {line}" for line in range(LINES)], set(ids)

    def all_there() -> bool:
        for one in sorted(left):
            if (found := written(made, token, one)) == wanted:
                left.discard(one)
            else:
                _, doubled, strange = differences(found, wanted)
                assert (doubled, strange) == ([], []), "a line is there twice, or nobody wrote it"
        return not left

    until(all_there, "every line is there", PATIENCE)


def everything_arrives_once(made: Fleet) -> None:
    """Let two workers write logs through a bad network, kill the API now and then, compare what is stored."""
    now = database_now(made.database) - timedelta(minutes=1)
    ids = [str(one) for one in make_backlog(made.tenant, make_task(made.tenant, **EVERY), now, EXECUTIONS)]
    deaths = 0
    with bad_network(made.url) as proxy:
        for _ in range(2):
            made.start("writing", LINES, url=proxy.url)

        def done() -> bool:
            nonlocal deaths
            if len(made.notes("begin")) > EVERY_SO_MANY * deaths:
                deaths += 1
                made.kill_api()
                made.start_api()
            return made.count("FINISHED") == EXECUTIONS

        until(done, "all is done", PATIENCE)
        made.wait_for_api()
        assert set(FAULTS[1:]) == proxy.done.keys()
        assert deaths > 0
        wait_for_lines(made, ids)
    made.check()
    begun = Counter(one["id"] for one in made.notes("begin"))
    assert begun == dict.fromkeys(ids, 1), "each runs once"
    print(f"{EXECUTIONS} executions of {LINES} lines, {sum(proxy.done.values())} connections: {dict(proxy.done)}, ")
    print(f"{deaths} deaths of the API")


def test_no_line_and_no_completion_is_lost_or_doubled(tenant: Tenant, tmp_path: Path) -> None:
    """Every connection is cut, half closed, or loses an answer sooner or later, and the API dies: what is stored is
    what was written."""
    with fleet(tenant, tmp_path) as made:
        everything_arrives_once(made)


def test_lines_that_are_taken_again_are_seen(tenant: Tenant, tmp_path: Path) -> None:
    """With a server that stores lines again whose answer was lost, they are found twice."""
    with (
        fleet(tenant, tmp_path, "lines that are taken again") as made,
        pytest.raises(AssertionError, match="a line is there twice"),
    ):
        everything_arrives_once(made)
