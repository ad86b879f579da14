"""The demo worker: claims everything over the SDK, pretends to work, logs, and now and then fails.

What it does for a task stands in the task's payload, as ``demo``: how many `seconds` it takes (from, to), how many
log `lines` it writes, and that every `failEvery`-th run fails. Run as ``python -m cron_observer.demo.worker``.
"""

from __future__ import annotations

import random
from typing import Any, Final

import cron_observer_sdk as sdk

#: What a task without a demo payload is taken for.
_DEFAULT: Final[dict[str, Any]] = {"seconds": [1, 3], "lines": 10, "failEvery": 0}

_WORDS: Final = (
    "read {n} rows from the source",
    "checked batch {n}",
    "wrote part {n}",
    "request {n} answered in {ms} ms",
    "cache hit for key {n}",
    "sent message {n}",
)
_ODD: Final = ("slow answer for part {n}: {ms} ms", "part {n} came back empty, tried again")
_TROUBLE: Final = ("connection reset by peer", "deadline of the remote service exceeded", "checksum mismatch in part 7")


def work(run: sdk.Execution) -> dict[str, Any]:
    """Pretend to do one execution; raise `RuntimeError` when it is its turn to fail."""
    asked = run.payload.get("demo") if isinstance(run.payload, dict) else None
    demo = {**_DEFAULT, **(asked if isinstance(asked, dict) else {})}
    # Seeded by the execution, so that a repeated one behaves the same.
    chance = random.Random(f"{run.id}/{run.attempt}")  # noqa: S311  theatre, not security
    low, high = demo["seconds"]
    seconds, lines = chance.uniform(low, high), max(1, int(demo["lines"]))
    fails = bool(demo["failEvery"]) and chance.random() < 1 / int(demo["failEvery"])
    stop_at = chance.randint(1, lines) if fails else lines
    run.log(f"starting {run.task}", attempt=run.attempt, scheduled_for=str(run.scheduled_for))
    for number in range(1, stop_at + 1):
        run.wait_cancelled(seconds / lines)
        run.raise_if_cancelled()
        words, level = (_ODD, "WARN") if chance.random() < 0.06 else (_WORDS, "INFO")
        run.log(chance.choice(words).format(n=number, ms=chance.randint(3, 900)), level=level, part=number)
        run.progress(number / lines)
    if fails:
        trouble = chance.choice(_TROUBLE)
        run.log(trouble, level="ERROR")
        raise RuntimeError(trouble)
    run.log(f"done: {lines} parts in {seconds:.1f} s")
    return {"parts": lines, "seconds": round(seconds, 2)}


def main() -> None:
    """Work until SIGTERM."""
    client = sdk.Client(spool=False)  # the demo leaves nothing outside of its data folder
    worker = sdk.Worker(client, ("default", "reports"), concurrency=8, name="demo-worker", grace_seconds=2)
    worker.run({"*": work})


if __name__ == "__main__":
    main()
