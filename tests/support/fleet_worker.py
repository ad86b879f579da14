"""A worker process that is meant to be killed, stopped or cut off; what it does it notes in a file, line by line.

``python -m support.fleet_worker ROLE NAME NOTES NUMBER``; where the server is says the environment.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

from cron_observer_sdk import Client, Worker
from cron_observer_sdk.errors import ApiError
from cron_observer_sdk.handle import Execution

#: The shortest lease there is.
LEASE = 5.0


class Notes:
    """A file that several processes append to; a line is written at once, so none is torn by a kill."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, **facts: Any) -> None:
        """Write one line."""
        os.write(self._file, json.dumps(facts).encode() + b"\n")


class Noting(Client):
    """A client that notes which completions were answered."""

    notes: Notes

    def complete(self, execution_id: str, fence: int, outcome: str, **more: Any) -> dict[str, Any]:
        """Do as `Client.complete`, and note the answer."""
        reply = super().complete(execution_id, fence, outcome, **more)
        self.notes.add(what="said", id=execution_id, fence=fence, status=reply["status"])
        return reply


def steady(client: Noting, name: str, number: int) -> None:
    """Work on `number` executions at a time, some milliseconds each, with a few lines of log."""

    def work(execution: Execution) -> dict[str, Any]:
        client.notes.add(what="begin", id=execution.id, fence=execution.fence, worker=name)
        for line in range(3):
            execution.log(f"line {line}")
        time.sleep(random.uniform(0, 0.03))  # noqa: S311  work takes its time
        return {"fence": execution.fence}

    Worker(client, name=name, concurrency=number, lease_seconds=LEASE, grace_seconds=5).run({"*": work})


def mortal(client: Noting, name: str, number: int) -> None:
    """Take `number` executions, and die as soon as all of them have begun."""
    room = threading.Semaphore(number - 1)

    def work(execution: Execution) -> None:
        client.notes.add(what="begin", id=execution.id, fence=execution.fence, worker=name)
        if not room.acquire(blocking=False):
            os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()

    Worker(client, name=name, concurrency=number, lease_seconds=LEASE).run({"*": work})


def writing(client: Noting, name: str, lines: int) -> None:
    """Write a log of `lines` lines in each of eight executions at a time."""

    def work(execution: Execution) -> dict[str, int]:
        client.notes.add(what="begin", id=execution.id, fence=execution.fence, worker=name)
        for line in range(lines):
            execution.log(f"line {line}")
        return {"lines": lines, "fence": execution.fence}

    Worker(client, name=name, concurrency=8, lease_seconds=600, wait_seconds=2).run({"*": work})


def zombie(client: Noting, name: str, number: int) -> None:
    """Claim `number` executions, wait to be told, then report on each whatever there is to report."""
    held: list[dict[str, Any]] = []
    while len(held) < number:
        held += client.claim(name, limit=min(100, number - len(held)), wait_seconds=5, lease_seconds=600)
    print(json.dumps([[one["id"], one["fence"]] for one in held]), flush=True)
    sys.stdin.readline()
    for one in held:
        of = (one["id"], one["fence"])
        client.notes.add(
            what="answers",
            id=one["id"],
            fence=one["fence"],
            start=answer(lambda of=of: client.start(*of)),
            heartbeat=answer(lambda of=of: client.heartbeat(*of, progress=0.5, checkpoint={"by": "a zombie"})),
            logs=answer(lambda of=of: client.logs(*of, 0, [{"level": "INFO", "message": "of a zombie"}])),
            complete=answer(lambda of=of: client.complete(*of, "finished", result="of a zombie")),
            release=answer(lambda of=of: client.release(*of, "by a zombie")),
        )


def answer(ask: Any) -> str:
    """Return the code of a refusal, or that there was none."""
    try:
        ask()
    except ApiError as error:
        return f"{error.status} {error.code}"
    return "taken"


ROLES = {role.__name__: role for role in (steady, mortal, writing, zombie)}


def main() -> None:
    """Be the worker that the arguments name."""
    role, name, notes, number = sys.argv[1:]
    client = Noting()
    client.notes = Notes(notes)
    ROLES[role](client, name, int(number))


if __name__ == "__main__":
    main()
