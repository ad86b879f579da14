"""What reading a manifest costs: strictly, with its schema, its rules and every default, beside YAML events alone.

A document of twenty lines as people write them, 7,200 different schedules among them. What is measured is processor
time, so that a busy machine does not count; the limit is libyaml's event stream through PyYAML, of which nothing is
kept. Then many files through the children that the reconciler reads them in, with the memory that this takes.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator

import yaml
from common import arguments, verdict

from cron_observer import manifest
from cron_observer.manifest import clean, files
from cron_observer.model import Context, Definition
from cron_observer.source import Entry
from cron_observer.source.reader import Reader

GOAL = 150.0  # microseconds of processor time for a document
GOAL_MANY = 8.0  # seconds of processor time on each of two cores for 100,000 files
ROUNDS = 5
ZONES = ("Europe/Berlin", "UTC", "America/New_York", "Asia/Tokyo", "Australia/Sydney")
DEFAULTS = Definition(
    kind="Defaults", name="all", spec={"spec": {"timeout": "20m", "group": "night"}}, path="_defaults.yaml", line=4
)


def document(number: int) -> bytes:
    """Write one task."""
    return f"""apiVersion: cron-observer/v1
kind: Task
metadata:
  name: task-{number}
  labels: {{team: billing, tier: "{number % 7}"}}
  annotations:
    runbook: "https://wiki.example/{number}"
spec:
  description: Export number {number} of the day
  queue: default
  priority: {number % 10}
  payload: {{format: csv, number: {number}}}
  schedule:
    cron: "{number % 60} {number // 60 % 24} * * 1-5"
    timezone: {ZONES[number // 1440 % len(ZONES)]}
  timeout: 30m
  retries: {{max: 3, backoff: exponential, initial: 30s, cap: 10m}}
  overlap: skip
""".encode()


def events(data: bytes) -> None:
    """Let libyaml read it, and keep nothing."""
    for _ in iter(yaml.CSafeLoader(data.decode()).get_event, None):
        pass


def parse(data: bytes) -> object:
    """Read it as the reconciler does."""
    return manifest.parse("tasks/a.yaml", data)


def measure(name: str, read: Callable[[bytes], object], documents: list[bytes], rounds: int = ROUNDS) -> float:
    """Print and return the microseconds of processor time that one document takes, in the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for data in documents:
            read(data)
        best = min(best, (time.process_time() - began) / len(documents) * 1e6)
    print(f"{name:<52} {best:8.1f} µs")
    return best


def many(count: int) -> tuple[float, float, float]:
    """Read many files through children: seconds until the last, processor seconds of all, MiB of the largest child."""
    reader = Reader()
    reader.start()

    def made() -> Iterator[tuple[Entry, bytes]]:
        for number in range(count):
            data = document(number)
            yield Entry(f"tasks/{number % 200}/{number}.yaml", "100644", f"{number:040}", len(data)), data

    began, used = time.perf_counter(), time.process_time()
    for _, _, parsed in reader.parse(made()):
        assert len(parsed.tasks) == 1
    passed, used = time.perf_counter() - began, time.process_time() - used
    reader.close()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, used + children.ru_utime + children.ru_stime, children.ru_maxrss / 1024


def main() -> None:
    """Measure, print, and judge."""
    options = arguments(__doc__, documents=7_200, files=100_000)
    documents = [document(number) for number in range(options.documents)]
    context = Context(layers=(DEFAULTS,))
    parse(documents[0])
    measure("all of it, every schedule for the first time", parse, documents, rounds=1)
    floor = measure("events of libyaml alone", events, documents)
    measure("values without places", clean.read, documents)
    whole = measure("all of it", parse, documents)
    measure("all of it, under Defaults", lambda data: manifest.parse("tasks/a.yaml", data, context=context), documents)
    measure("with the place of every value", lambda data: files.inspect("tasks/a.yaml", data), documents)
    faulty = [data + b"  bogus: 1\n" for data in documents[: options.documents // 10]]
    measure("with one finding", parse, faulty)
    passed, used, largest = many(options.files)
    share = floor * options.files / 1e6
    print(f"{options.files} files: {passed:.1f} s, {used:.1f} s of processors, {os.cpu_count()} cores")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory at most: {memory:.0f} MiB here, {largest:.0f} MiB in a child")
    verdict("one document", whole, GOAL, floor, "events alone", "µs")
    goal = GOAL_MANY * options.files / 100_000
    verdict(
        f"{options.files} files, processor time on each of two cores", used / 2, goal, share / 2, "events alone", "s"
    )


if __name__ == "__main__":
    main()
