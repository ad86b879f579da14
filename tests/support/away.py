"""The scheduler goes away while slots fall due, and a worker dies: what becomes of every slot.

Shared by the acceptance test, which lets it be away for seconds, and by the soak script, for minutes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from support.processes import COMMAND, Product, Repository, clean_environment, free_port, manifest, until


@dataclass
class Parts:
    """The API and the loops as processes of their own, against a database of ours."""

    api: Product
    loops: subprocess.Popen[bytes]
    config: Path


@contextmanager
def apart(folder: Path, database_url: str, token: str, repository: Repository) -> Iterator[Parts]:
    """Run ``serve --role api`` and ``serve --role reconciler --role scheduler`` until the block ends."""
    port = free_port()
    data = folder / "data"
    data.mkdir()
    (data / "dev.env").write_text(f"CRON_OBSERVER_TOKEN={token}\n")
    config = folder / "cron-observer.toml"
    config.write_text(
        f'data_dir = "{data}"\ndatabase_url = "{database_url}"\nport = {port}\n\n'
        f'[[sources]]\nname = "main"\nurl = "{repository.bare}"\npoll_seconds = 1\n'
    )
    log = (folder / "parts.log").open("ab")

    def serve(*roles: str) -> subprocess.Popen[bytes]:
        chosen = [word for role in roles for word in ("--role", role)]
        return subprocess.Popen(
            [*COMMAND, "serve", "--config", str(config), *chosen],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, env=clean_environment(),
        )  # fmt: skip

    api, loops = serve("api"), serve("reconciler", "scheduler")
    try:
        yield Parts(Product(f"http://127.0.0.1:{port}", data, api, folder / "parts.log"), loops, config)
    finally:
        for process in (api, loops):
            if process.poll() is None:
                process.terminate()
        for process in (api, loops):
            process.wait(30)
        log.close()


@dataclass
class Story:
    """What the workers saw while the scheduler was away."""

    away_from: datetime
    away_until: datetime
    claimed: list[dict[str, Any]] = field(default_factory=list)
    dead_worker: str = ""
    offered_again_after: float = 0.0


def work(product: Product, story: Story, over: threading.Event, dies: bool) -> None:
    """Claim and complete until `over`; a worker that `dies` keeps its first execution and is never heard again."""
    while not over.is_set():
        try:
            ask = {"worker": "mortal" if dies else "steady", "wait_seconds": 2, "lease_seconds": 5, "max": 10}
            reply = product.ask("POST", "sdk/claims", ask | ({"max": 1} if dies else {}))
        except (urllib.error.URLError, OSError):
            continue
        for execution in reply.body["executions"]:
            story.claimed.append(execution)
            if dies:
                story.dead_worker = execution["id"]
                return
            done = {"fence": execution["fence"], "outcome": "finished"}
            product.ask("POST", f"sdk/executions/{execution['id']}/complete", done)


def tell(parts: Parts, repository: Repository, seconds: float, *, tasks: int = 5, every: int = 2) -> Story:
    """Plan tasks, kill the loops with -9 for `seconds`, let one worker die meanwhile; return what happened."""
    product = parts.api
    until(lambda: product.ask("GET", "/livez", token=None).status == 200 if _answers(product) else False, "the API")
    files = {
        f"t{n}.yaml": manifest(f"t{n}", f"every: {every}s", "  overlap: allow_all\n  catchup: {policy: none}\n")
        for n in range(tasks)
    }
    repository.push("Add tasks", files)
    until(lambda: product.task(f"t{tasks - 1}"), "the tasks")
    until(lambda: product.get("executions?upcoming=true&limit=200")["items"], "the plan")
    os.kill(parts.loops.pid, signal.SIGKILL)
    parts.loops.wait()
    # The plan takes effect five seconds after it is applied; from then on every slot counts.
    began = datetime.now(UTC) + timedelta(seconds=8)
    story, over = Story(began, began + timedelta(seconds=seconds)), threading.Event()
    mortal = threading.Thread(target=work, args=(product, story, over, True))
    mortal.start()
    mortal.join(60)
    workers = [threading.Thread(target=work, args=(product, story, over, False)) for _ in range(2)]
    for worker in workers:
        worker.start()
    while datetime.now(UTC) < story.away_until + timedelta(seconds=3):
        time.sleep(0.2)
    over.set()
    for worker in workers:
        worker.join(60)
    return story


def _answers(product: Product) -> bool:
    try:
        product.ask("GET", "/livez", token=None)
    except (urllib.error.URLError, OSError):
        return False
    return True


def missing(story: Story, tasks: int, every: int) -> list[tuple[str, datetime]]:
    """Return the (task, instant) pairs that fell due while the scheduler was away and that no worker got."""
    got = {(one["task"]["name"], datetime.fromisoformat(one["fire_at"])) for one in story.claimed}
    first = -(-int(story.away_from.timestamp()) // every) * every
    wanted = [
        (f"t{n}", datetime.fromtimestamp(second, UTC))
        for n in range(tasks)
        for second in range(first, int(story.away_until.timestamp()), every)
    ]
    return [one for one in wanted if one not in got]
