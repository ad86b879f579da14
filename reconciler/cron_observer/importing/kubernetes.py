"""Kubernetes CronJobs, as manifests or as ``kubectl get cronjobs -o yaml`` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cron_observer.importing.manifests import Imported, Task, name_of
from cron_observer.manifest import loader
from cron_observer.manifest.nodes import Node, find

_OVERLAP: Final = {"Allow": "allow_all", "Forbid": "skip", "Replace": "terminate_other"}
_EVERY: Final = re.compile(r"@every\s+(?=\d)(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s)?")
_ZONE: Final = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")

#: What is said of a CronJob in other words, or means nothing outside of a cluster.
_METADATA: Final = frozenset(
    (
        *("name", "namespace", "labels", "annotations", "creationTimestamp", "generation", "resourceVersion"),
        *("uid", "managedFields", "selfLink"),
    )
)
_SPEC: Final = frozenset(
    ("schedule", "timeZone", "concurrencyPolicy", "startingDeadlineSeconds", "suspend", "jobTemplate")
)
_JOB: Final = frozenset(("backoffLimit", "activeDeadlineSeconds", "template"))
_CONTAINER: Final = frozenset(("name", "image", "command", "args", "workingDir", "env"))

_TEMPLATE: Final = "spec.jobTemplate.spec.template"

#: How a Job waits between its tries; not to be set there.
_RETRIES: Final = {"backoff": "exponential", "initial": "10s", "cap": "6m"}
_MOST_RETRIES: Final = 100
_LONGEST: Final = 7 * 86_400  # seconds of a timeout


def read_cronjobs(text: str, *, queue: str | None = None) -> Imported:
    """Read every CronJob of a YAML or JSON text; others are noted and left out. Lines are known in YAML alone."""
    imported = Imported()
    if text.lstrip().startswith("{"):
        _read_json(imported, text, queue)
        return imported
    stream = loader.load(text)
    for problem in [*stream.problems, *(one for document in stream.documents for one in document.problems)]:
        imported.note(stream.place(problem.start)[0], f"not imported: {problem.message}", refused=True)
    for document in stream.documents:
        if document.root is not None and not document.problems:
            for node in _nodes(document.root):
                _take(imported, node.value, stream.place(node.start)[0], queue)
    return imported


def _read_json(imported: Imported, text: str, queue: str | None) -> None:
    """Read what is too long for YAML's limits, as programs write it."""
    try:
        waiting = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        imported.note(getattr(error, "lineno", None), "not imported: this is no JSON", refused=True)
        return
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, dict) and str(value.get("kind")).endswith("List") and isinstance(value.get("items"), list):
            waiting[:0] = value["items"]
        else:
            _take(imported, value, None, queue)


def _nodes(root: Node) -> Iterator[Node]:
    """Yield the objects of a document: itself, or those of a List."""
    kind = root.value.get("kind") if isinstance(root.value, dict) else None
    items = find(root, "/items")
    if isinstance(kind, str) and kind.endswith("List") and items is not None:
        for item in items.items:
            yield from _nodes(item)
    else:
        yield root


def _take(imported: Imported, value: Any, line: int | None, queue: str | None) -> None:
    if value is None:
        return
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind != "CronJob":
        what = kind if isinstance(kind, str) else "what stands here"
        imported.note(line, f"left out: {what} is no CronJob")
        return
    try:
        imported.tasks.append(_Reading(imported, line, value).task(queue))
    except (KeyError, TypeError, AttributeError, IndexError, ValueError):
        imported.note(line, "not imported: this CronJob has not the shape that batch/v1 demands", refused=True)


class _Reading:
    """One CronJob while it is read."""

    def __init__(self, imported: Imported, line: int | None, value: Mapping[str, Any]) -> None:
        self.imported = imported
        self.line = line
        self.metadata: Mapping[str, Any] = value["metadata"]
        self.spec: Mapping[str, Any] = value["spec"]
        self.job: Mapping[str, Any] = self.spec["jobTemplate"]["spec"]
        self.pod: Mapping[str, Any] = self.job["template"]["spec"]
        self.name = str(self.metadata["name"])

    def say(self, message: str) -> None:
        """Note something about this CronJob."""
        self.imported.note(self.line, f"{self.name}: {message}")

    def task(self, queue: str | None) -> Task:
        """Return the task that does the same."""
        self.dropped("metadata", self.metadata, _METADATA)
        self.dropped("spec", self.spec, _SPEC)
        for where, block in (("spec.jobTemplate", self.spec["jobTemplate"]), (_TEMPLATE, self.job["template"])):
            self.dropped(where, block, frozenset({"metadata", "spec"}))
            written = {name: value for name, value in (block.get("metadata") or {}).items() if value is not None}
            self.dropped(f"{where}.metadata", written, frozenset())
        self.dropped("spec.jobTemplate.spec", self.job, _JOB)
        self.dropped(f"{_TEMPLATE}.spec", self.pod, frozenset({"containers", "restartPolicy"}))
        spec: dict[str, Any] = {
            "queue": queue,
            "suspend": self.suspended(),
            "schedule": self.schedule(),
            "overlap": _OVERLAP[self.spec.get("concurrencyPolicy") or "Allow"],
            **self.lateness(),
            "timeout": self.timeout(),
            "retries": self.retries(),
            "payload": self.payload(),
        }
        namespace = self.metadata.get("namespace")
        labels = {str(key): str(value) for key, value in (self.metadata.get("labels") or {}).items()}
        if namespace:
            labels["namespace"] = str(namespace)
        annotations = {
            str(key): str(value)
            for key, value in (self.metadata.get("annotations") or {}).items()
            if not str(key).startswith("kubectl.kubernetes.io/")
        }
        return Task(
            name=name_of(self.name),
            spec={name: value for name, value in spec.items() if value is not None},
            line=self.line,
            labels=labels,
            annotations=annotations,
            origin=[f"CronJob {namespace + '/' if namespace else ''}{self.name}"],
        )

    def schedule(self) -> dict[str, Any]:
        """Read the expression and its zone."""
        expression, zone = str(self.spec["schedule"]).strip(), self.spec.get("timeZone")
        inner = _ZONE.fullmatch(expression)
        if inner is not None:
            zone, expression = inner.groups()
        if zone is None:
            self.say("no timeZone: read in UTC, which is the zone of most clusters' controllers")
        every = _EVERY.fullmatch(expression)
        if every is not None:
            hours, minutes, seconds = (int(part or 0) for part in every.groups())
            minutes += 60 * hours
            length = f"{60 * minutes + seconds}s" if seconds else f"{minutes}m"
            return {"every": length, "timezone": str(zone or "UTC")}
        cron = " ".join("*" if field == "?" else field for field in expression.split())
        return {"cron": cron, "timezone": str(zone or "UTC")}

    def suspended(self) -> bool | None:
        """Read whether it is suspended; None where it is not."""
        value = self.spec.get("suspend") or False
        if not isinstance(value, bool):
            raise TypeError(value)
        return value or None

    def lateness(self) -> dict[str, Any]:
        """Read how late a job may start. Of several that were missed, Kubernetes starts the newest."""
        deadline = self.spec.get("startingDeadlineSeconds")
        if deadline is None:
            self.say("changed: a missed run is caught up for an hour, and not however late")
            return {"catchup": {"policy": "last", "window": "1h"}}
        seconds = f"{max(1, int(deadline))}s"
        return {"catchup": {"policy": "last", "window": seconds}, "maxLateness": seconds}

    def timeout(self) -> str:
        """Read how long a job may run; without a limit it is a week, the longest there is."""
        limit = self.job.get("activeDeadlineSeconds")
        if limit is None or int(limit) > _LONGEST:
            self.say("changed: a run may take 7 days at most")
            return "7d"
        return f"{max(1, int(limit))}s"

    def retries(self) -> dict[str, Any]:
        """Read how often a failed job is tried again: six times, where it is not said."""
        limit = self.job.get("backoffLimit")
        tries = 6 if limit is None else int(limit)
        if tries > _MOST_RETRIES:
            self.say(f"changed: backoffLimit {tries} is {_MOST_RETRIES}")
        return {"max": min(tries, _MOST_RETRIES), **_RETRIES}

    def payload(self) -> dict[str, Any]:
        """Read what is run."""
        containers = [self.container(one) for one in self.pod["containers"]]
        return containers[0] if len(containers) == 1 else {"containers": containers}

    def container(self, one: Mapping[str, Any]) -> dict[str, Any]:
        """Read one container."""
        self.dropped(f"container {one['name']}", one, _CONTAINER)
        payload = {name: one[name] for name in ("image", "command", "args", "workingDir") if name in one}
        env = {}
        for entry in one.get("env") or ():
            if "valueFrom" in entry:
                self.say(
                    f"dropped: env {entry['name']} comes from elsewhere (valueFrom); give it to whoever runs the task"
                )
            else:
                env[str(entry["name"])] = str(entry.get("value") or "")
        return payload | ({"env": env} if env else {})

    def dropped(self, where: str, block: Mapping[str, Any], known: frozenset[str]) -> None:
        """Note the fields that have no counterpart."""
        if unknown := sorted(set(block) - known):
            self.say(f"dropped: {', '.join(unknown)} of {where}")
