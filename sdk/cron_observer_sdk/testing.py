"""For tests of code that uses the SDK: everything is recorded, and nothing leaves the process."""

from __future__ import annotations

import json
import threading
import time
from types import TracebackType
from typing import Any, NamedTuple

from cron_observer_sdk import client as clients
from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import NotFound
from cron_observer_sdk.ids import uuid7
from cron_observer_sdk.text import JsonObject, timestamp
from cron_observer_sdk.transport import Abort, Request

#: Longest time that a claim waits for something to be offered.
WAIT_SECONDS = 0.05
_ENDS = {"finished": "FINISHED", "failed": "FAILED", "cancelled": "CANCELLED", "skipped": "SKIPPED"}


class Event(NamedTuple):
    """One thing that was said.

    `kind`: ``started``, ``log``, ``progress``, ``checkpoint``, ``released``, ``triggered``, or how it ended:
    ``finished``, ``failed``, ``cancelled``, ``skipped``. `said` is what goes with it, as the API has it.
    """

    kind: str
    task: str
    said: JsonObject


class Recorded(list[Event]):
    """What was said, in order; lines of a log come in batches, so their place among the rest means nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.client: Client = _Recorder(self)  #: for code that is handed its client

    def of(self, kind: str) -> list[Event]:
        """Return the events of a kind."""
        return [event for event in self if event.kind == kind]

    def messages(self) -> list[str]:
        """Return the messages of the log."""
        return [str(event.said["message"]) for event in self.of("log")]

    def offer(self, task: str, payload: Any = None, **facts: Any) -> str:
        """Let a slot of a task fall due, for `task()` or a `Worker` to claim; return its id."""
        return _recorder(self).offer(task, payload, facts)

    def cancel(self) -> None:
        """Ask everything that runs, or begins from here on, to stop."""
        _recorder(self).cancelled = True


class recording:  # noqa: N801  used like a function
    """Record what the SDK reports in this block, in place of sending it.

        with co.testing.recording() as events:
            nightly()
        assert events.messages() == ["starting"]
        assert events[-1].kind == "finished"

    It stands in for the client of the environment; hand `events.client` to code that takes a client. No network,
    no settings, no spool. As a fixture: ``with recording() as events: yield events``.
    """

    def __init__(self) -> None:
        self._events = Recorded()

    def __enter__(self) -> Recorded:
        """Begin to record."""
        clients.stand_ins.append(self._events.client)
        return self._events

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        """Leave the client of the environment in force again."""
        clients.stand_ins.remove(self._events.client)


def _recorder(events: Recorded) -> _Recorder:
    """Return the recorder of a recording."""
    if not isinstance(events.client, _Recorder):
        raise TypeError("the client of a recording was replaced")
    return events.client


class _Recorder(Client):
    """A client that answers from memory as a server would."""

    def __init__(self, events: Recorded) -> None:
        super().__init__("http://recording.invalid", "recorded", spool=False)
        self.cancelled = False
        self._events = events
        self._lock = threading.RLock()
        self._known: dict[str, JsonObject] = {}
        self._due: list[str] = []

    def noted(self, task: str, kind: str, said: JsonObject) -> None:
        """Record what a run says for its next heartbeat."""
        self._record(kind, task, said)

    def offer(self, task: str, payload: Any, facts: JsonObject) -> str:
        """Make an execution that waits."""
        with self._lock:
            made = self._make(uuid7(), task, trigger="schedule", status="PENDING", payload=payload, **facts)
            self._due.append(str(made["id"]))
        return str(made["id"])

    def _call(
        self,
        request: Request,
        *,
        timeout: float | None = None,  # noqa: ARG002  nobody waits for memory
        tries: int | None = None,  # noqa: ARG002
        abort: Abort | None = None,
    ) -> JsonObject:
        """Answer a call."""
        path = request.path.partition("?")[0]
        body: JsonObject = json.loads(request.body) if request.body else {}
        if path == "/sdk/claims":
            return self._claimed(body, abort)
        with self._lock:
            if path == "/sdk/executions":
                return self._begun(body)
            if path == "/sdk/completions":
                return {"results": [self._completed(one) for one in body["completions"]]}
            if path == "/sdk/executions/pending":
                return {"executions": [self._known[key] for key in self._due]}
            if path.startswith("/projects/"):
                _, _, project, _, name, _ = path.split("/")
                self._record("triggered", f"{project}/{name}", body)
                return self._make(uuid7(), f"{project}/{name}", trigger="manual", **body)
            key, _, verb = path[len("/sdk/executions/") :].partition("/")
            if key not in self._known:
                raise NotFound("there is no such execution", status=404, code="not_found")
            return self._reported(self._known[key], verb, body)

    def _completed(self, word: JsonObject) -> JsonObject:
        """Take one of many last words."""
        key = str(word["id"])
        if key not in self._known:
            return {"id": key, "status": None, "problem": {"code": "not_found", "status": 404}}
        said = {name: value for name, value in word.items() if name != "id"}
        return {"id": key, "status": self._reported(self._known[key], "complete", said)["status"], "problem": None}

    def _claimed(self, body: JsonObject, abort: Abort | None) -> JsonObject:
        """Give out what is due."""
        wanted = body.get("tasks")
        with self._lock:
            found = [self._known[key] for key in self._due if wanted is None or _name(self._known[key]) in wanted]
            found = found[: int(body.get("max", 1))]
            for one in found:
                self._due.remove(str(one["id"]))
                one.update(status="RUNNING", fence=1, attempt=1, cancel_requested=self.cancelled)
                self._record("started", _name(one), {"payload": one["payload"]})
        if not found and body.get("wait_seconds"):
            time.sleep(WAIT_SECONDS) if abort is None else abort.requested.wait(WAIT_SECONDS)
        return {"executions": found}

    def _begun(self, body: JsonObject) -> JsonObject:
        """Take note of a run that began by itself."""
        if body["id"] in self._known:
            return self._known[body["id"]]
        made = self._make(str(body["id"]), str(body["task"]), worker=body["worker"])
        self._record("started", str(body["task"]), {"payload": None})
        return made

    def _reported(self, one: JsonObject, verb: str, body: JsonObject) -> JsonObject:
        """Take what is said of an execution."""
        if verb == "heartbeat":
            return {"cancel_requested": self.cancelled, "heartbeat_every_seconds": 1.0}
        if verb == "logs":
            entries = body["entries"][max(0, one["lines"] - body["first_seq"]) :]
            one["lines"] += len(entries)
            for entry in entries:
                self._record("log", _name(one), entry)
            return {"next_seq": one["lines"], "cancel_requested": self.cancelled}
        if verb == "complete":
            one["status"] = _ENDS[body["outcome"]]
            self._record(body["outcome"], _name(one), {key: value for key, value in body.items() if key != "fence"})
        elif verb == "release":
            one["status"] = "PENDING"
            self._record("released", _name(one), {"reason": body["reason"]})
        return one

    def _make(self, key: str, task: str, **facts: Any) -> JsonObject:
        """Make an execution."""
        project, _, name = task.partition("/")
        now = timestamp(time.time())
        made: JsonObject = {
            "id": key, "task": {"uid": uuid7(), "project": project, "name": name}, "status": "RUNNING",
            "trigger": "api", "queue": "default", "attempt": 1, "fence": 1, "payload": None, "checkpoint": None,
            "scheduled_for": now, "fire_at": now, "timezone": "UTC", "nominal_local": now[:-1],
            "heartbeat_every_seconds": 1.0, "cancel_requested": self.cancelled, "lines": 0, **facts,
        }  # fmt: skip
        self._known[key] = made
        return made

    def _record(self, kind: str, task: str, said: JsonObject) -> None:
        """Write an event."""
        with self._lock:
            self._events.append(Event(kind, task, said))


def _name(one: JsonObject) -> str:
    """Return ``project/name``."""
    return f"{one['task']['project']}/{one['task']['name']}"
