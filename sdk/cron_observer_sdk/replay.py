"""Hands what waits in the spool to the server. Every step may be repeated: ids and numbers say what it has already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import (
    AlreadyFinal,
    ApiError,
    Conflict,
    Forbidden,
    LogGap,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from cron_observer_sdk.lines import Line, encode_line, note
from cron_observer_sdk.segment import Entry, LogEntry, Segment
from cron_observer_sdk.text import JsonObject, encode

if TYPE_CHECKING:
    from cron_observer_sdk.spool import Spool

#: One request of lines.
BATCH_LINES = 2000
BATCH_BYTES = 512 * 1024
#: The lease of a run that is told of afterwards: it ends as soon as it has been told.
LEASE_SECONDS = 120.0
#: Seconds for each call.
CALL_SECONDS = 10.0

#: What became of a file.
DELIVERED = "delivered"
REFUSED = "refused"  #: set aside, with the reason
AWAY = "away"  #: the server did not answer
STOPPED = "stopped"  #: the server does not take our token
LEFT = "left"  #: not for this client, or the server failed over it: for another time


@dataclass
class Tally:
    """What became of the files that were replayed."""

    delivered: int = 0
    refused: int = 0
    left: int = 0
    away: str = ""  #: why the replay ended early, if nobody answered
    stopped: str = ""  #: why it ended early, if the token was refused
    reasons: list[str] = field(default_factory=list)  #: of refusals

    @property
    def idle(self) -> bool:
        """Say whether there was nothing to do."""
        return not (self.delivered or self.refused or self.left or self.away or self.stopped)


@dataclass
class _Story:
    """What a file says, but for the lines."""

    head: JsonObject = field(default_factory=dict)
    bound: JsonObject | None = None
    end: JsonObject | None = None
    last_seq: int = -1


def replay(
    spool: Spool,
    client: Client,
    *,
    task: str | None = None,
    seconds: float = 60.0,
    largest: int | None = None,
    refused: bool = False,
    any_server: bool = False,
) -> Tally:
    """Replay what waits for this client's server, the oldest first (of one task, if named).

    Begin nothing new after `seconds`, and leave files over `largest` bytes. `refused`: try what was set aside once more
    as well. `any_server`: also what was written for another address. Never raises.
    """
    tally, until = Tally(), time.monotonic() + seconds
    with suppress(OSError):
        spool.prune()
    paths = [*spool.refused(), *spool.waiting()] if refused else spool.waiting()
    for path in paths:
        if time.monotonic() > until or tally.away or tally.stopped:
            break
        try:
            if largest is not None and path.stat().st_size > largest:
                continue
            _replay_file(path, client, task, tally, any_server=any_server)
        except FileNotFoundError:
            continue
        except OSError as error:
            tally.left += 1
            tally.reasons.append(f"{path.name}: {error}")
    return tally


def replay_segment(segment: Segment, client: Client) -> tuple[str, str]:
    """Replay one file that the caller holds; return what became of it, and why. Raise `OSError`."""
    story = _read(segment)
    try:
        if story.head.get("what") == "ping":
            from cron_observer_sdk.ping import replay_ping

            replay_ping(story.head)
        else:
            _tell(segment, client, story)
    except ApiError as error:
        return _judge(segment, client, story, error)
    segment.delete()
    return DELIVERED, ""


def _replay_file(path: Path, client: Client, task: str | None, tally: Tally, *, any_server: bool) -> None:
    """Replay the file unless it is not ours to replay. Raise `OSError`."""
    segment = Segment.take(path)
    if segment is None:
        return
    head = segment.head()
    is_ping = head is not None and head.get("what") == "ping"
    ours = any_server or (head is not None and head.get("url") == client.url)
    if head is not None and not is_ping and not (ours and client.configured):
        segment.close()
        return
    if task is not None and (head is None or head.get("task") != task):
        segment.close()
        return
    became, why = replay_segment(segment, client)
    if became == DELIVERED:
        tally.delivered += 1
    elif became == REFUSED:
        tally.refused += 1
        tally.reasons.append(why)
    elif became == AWAY:
        tally.away = why
    elif became == STOPPED:
        tally.stopped = why
    else:
        tally.left += 1
        tally.reasons.append(why)


def _judge(segment: Segment, client: Client, story: _Story, error: ApiError) -> tuple[str, str]:
    """Say what an error means for the file. Raise `OSError`."""
    name = str(story.head.get("task") or story.head.get("what") or segment.path.stem)
    why = f"{name}: {error}"
    ours = story.head.get("key") in {None, "", client.key_id}
    if isinstance(error, Unavailable):
        segment.close()
        return AWAY, why
    if isinstance(error, (Unauthenticated, Forbidden)):
        segment.close()
        return STOPPED, why
    if error.status >= 500 or error.code == "bad_reply" or (isinstance(error, NotFound) and not ours):
        segment.close()
        return LEFT, why
    segment.set_aside(str(error))
    return REFUSED, why


def _read(segment: Segment) -> _Story:
    """Read everything but the lines."""
    story = _Story()
    for entry in segment.entries():
        if isinstance(entry, LogEntry):
            story.last_seq = max(story.last_seq, entry.seq)
        elif entry.kind == "head":
            story.head = entry.said
        elif entry.kind == "bound":
            story.bound = entry.said
        elif entry.kind == "end":
            story.end = entry.said
    return story


def _tell(segment: Segment, client: Client, story: _Story) -> None:
    """Tell the server of the run. Raise `ApiError`."""
    if not story.head.get("task"):
        raise ApiError("it was cut off before it said anything", code="unreadable")
    if story.bound is None:
        story.bound = _begin(segment, client, story.head)
    key, fence = str(story.bound["id"]), int(story.bound["fence"])
    untold: Conflict | None = None
    try:
        _tell_lines(segment, client, key, fence, story)
    except LogGap:
        raise
    except Conflict as error:  # its lease is over: a log is open again when the end was accepted late
        untold = error
    outcome = _outcome(story)
    try:
        client.complete(key, fence, timeout=CALL_SECONDS, **outcome)
    except AlreadyFinal:
        if untold is not None:
            raise
    except ApiError as error:
        if outcome.get("result") is None or error.status not in {400, 413, 422}:
            raise
        client.complete(key, fence, timeout=CALL_SECONDS, **{**outcome, "result": None})
    if untold is not None:
        _tell_lines(segment, client, key, fence, story)


def _begin(segment: Segment, client: Client, head: JsonObject) -> JsonObject:
    """Make the server know the run, under the id that it was given when it began. Raise `ApiError`."""
    facts = client.create(
        str(head["task"]),
        str(head.get("worker") or "spool"),
        id=str(head["id"]),
        started_at=head.get("started_at"),
        lease_seconds=LEASE_SECONDS,
        timeout=CALL_SECONDS,
        tries=1,
    )
    # Under a higher fence it runs elsewhere by now: ours is the first, or none.
    ours = facts.get("worker") in {None, head.get("worker")}
    bound = {"kind": "bound", "id": str(facts["id"]), "fence": int(facts["fence"]) if ours else 1}
    with suppress(OSError):
        segment.write([encode(bound)], durable=False)
    return bound


def _outcome(story: _Story) -> JsonObject:
    """Return how the run ended; without a word of it, its process died."""
    known = {"outcome", "exit_code", "error", "result", "retryable"}
    if story.end is not None and isinstance(story.end.get("outcome"), dict):
        return {key: value for key, value in story.end["outcome"].items() if key in known}
    message = "the process that ran it ended without a word, while the server was away"
    return {"outcome": "failed", "error": {"type": "ProcessDied", "message": message, "traceback": ""}}


def _tell_lines(segment: Segment, client: Client, key: str, fence: int, story: _Story) -> None:
    """Send the lines of the log, and one about where they come from. Raise `ApiError`."""
    shift = 0
    for first, lines in _batches(segment, story):
        shift = _send(client, key, fence, first, lines, shift)


def _send(client: Client, key: str, fence: int, first: int, lines: list[bytes], shift: int) -> int:
    """Send one batch; return by how much the server's numbers lie below ours. Raise `ApiError`."""
    largest = len(lines)
    while lines:
        batch = lines[:largest]
        try:
            client.logs_encoded(key, fence, first - shift, batch, timeout=CALL_SECONDS, tries=1)
        except LogGap as gap:  # lines before these were lost, there or here
            if gap.expected_seq >= first - shift:
                raise
            shift = first - gap.expected_seq
            continue
        except ApiError as error:
            if error.status not in {400, 413, 422}:
                raise
            if len(batch) > 1:
                largest = len(batch) // 2
            else:
                lines[0] = encode_line(note(f"a line was refused by the server: {error.message}"))
                largest = 0 if _is_note(batch[0]) else 1
                if largest == 0:
                    raise
            continue
        first += len(batch)
        lines = lines[len(batch) :]
    return shift


def _is_note(line: bytes) -> bool:
    """Say whether a line is a word of ours about another one."""
    return b"a line was refused by the server: " in line


def _batches(segment: Segment, story: _Story) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first number, lines) with the numbers of each batch in a row."""
    first, size = 0, 0
    lines: list[bytes] = []
    for entry in segment.entries():
        if isinstance(entry, Entry):
            continue
        if lines and (entry.seq != first + len(lines) or len(lines) >= BATCH_LINES or size >= BATCH_BYTES):
            yield first, lines
            lines, size = [], 0
        if not lines:
            first = entry.seq
        lines.append(entry.encoded)
        size += len(entry.encoded)
    if lines:
        yield first, lines
    after = story.end.get("next_seq") if story.end is not None else None
    yield max(story.last_seq + 1, after if isinstance(after, int) else 0), [encode_line(_origin(story))]


def _origin(story: _Story) -> Line:
    """Return a line about when the run ended: the server's times are those of the report."""
    at = story.end.get("at") if story.end is not None else None
    told = f"the run ended at {at}" if at else "nobody told how the run ended"
    return note(f"reported from the spool, after the server was away; {told}")
