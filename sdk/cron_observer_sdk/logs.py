"""The log of one execution: lines are buffered, numbered when they are sent, and sent in batches by a thread.

The numbers belong to what is sent, so lines dropped from a full buffer leave no gap. Lines that were
acknowledged lately are kept, for a server that lost them and asks again. While the server is away they are numbered
and written to the journal of the run, if it has one, and read back from it when the server has returned.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from cron_observer_sdk.errors import ApiError, LogGap, Unavailable
from cron_observer_sdk.journal import END_BYTES, Journal
from cron_observer_sdk.lines import Line, encode_line, note, ready, without_fields
from cron_observer_sdk.text import JsonObject

#: A batch goes out when one of these is reached.
BATCH_LINES = 5000
BATCH_BYTES = 512 * 1024
INTERVAL_SECONDS = 0.5
#: Memory for lines that are not sent yet; beyond it the oldest are dropped, and counted.
BUFFER_BYTES = 16 * 1024 * 1024
#: Acknowledged lines kept for a server that asks for them again.
KEPT_LINES = 2000
#: Deadline of one request, and the longest pause after one that failed.
SEND_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 10.0

#: (first number, encoded entries, deadline in seconds) → reply
Send = Callable[[int, "list[bytes]", float], JsonObject]


class LogStream:
    """Takes lines at once and delivers them in order; never blocks and never raises towards the work."""

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES, interval: float = INTERVAL_SECONDS) -> None:
        self._changed = threading.Condition()
        self._pending: deque[Line] = deque()
        self._pending_bytes = 0
        self._buffer_bytes = buffer_bytes
        self._interval = interval
        self._dropped = 0
        self._sent: list[Line] = []  #: sent, but not acknowledged
        self._sent_is_written = False  #: what is in `_sent` is in the journal as well
        self._written = 0  #: lines in the journal that come after `_sent`
        self._journal: Journal | None = None
        self._away = True  #: nobody takes the lines at present
        self._kept: deque[Line] = deque(maxlen=KEPT_LINES)
        self._next_seq = 0  #: the number of the first line that is not acknowledged
        self._largest = BATCH_LINES  #: halved while the server refuses a batch
        self._closing = False
        self._stopped = False
        self._drained = threading.Event()
        self.answered_at = 0.0  #: monotonic; when the server last acknowledged something

    def add(self, lines: Iterable[Line]) -> None:
        """Take lines. Drop the oldest ones if there is no room."""
        with self._changed:
            if self._stopped:
                return
            before = self._pending_bytes
            for line in lines:
                self._pending.append(line)
                self._pending_bytes += line.size
            while self._pending_bytes > self._buffer_bytes and len(self._pending) > 1:
                self._pending_bytes -= self._pending.popleft().size
                self._dropped += 1
            if before == 0 or self._full():
                self._changed.notify_all()

    def keep_in(self, journal: Journal) -> None:
        """Write the lines to the journal while nobody takes them."""
        self._journal = journal

    def spill(self) -> None:
        """Move what waits to the journal, as far as it has room, if nobody takes the lines at present."""
        if self._away and not self._stopped:
            self._spill(last=False)

    def next_number(self) -> int:
        """Return the number that a line would get after those that were sent or written."""
        with self._changed:
            return self._next_seq + len(self._sent) + self._written

    def open(self, send: Send, heed: Callable[[JsonObject], None], refused: Callable[[ApiError], bool]) -> None:
        """Begin to deliver. `heed` gets each reply; `refused` says whether an error ends the stream."""
        run = threading.Thread(
            target=self._deliver_all, args=(send, heed, refused), name="cron-observer-logs", daemon=True
        )
        self._away = False
        run.start()

    def close(self, *, quiet: float, limit: float) -> bool:
        """Deliver what is left; say whether everything was stored.

        Give up after `quiet` seconds without an acknowledgement, and after `limit` seconds in any case. What is left
        then goes into the journal, if there is one.
        """
        begun = time.monotonic()
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        while not self._drained.is_set():
            until = min(max(begun, self.answered_at) + quiet, begun + limit)
            left = until - time.monotonic()
            if left <= 0:
                break
            self._drained.wait(left)
        stored = self._drained.is_set() and not self._stopped
        if not stored:
            self.save()
        self.stop()
        return stored

    def save(self) -> None:
        """Write what is left to the journal, for good, and take no more. Does nothing where there is none."""
        if self._journal is not None and not self._stopped and self._journal.open():
            self._spill(last=True)
            self.stop()

    def stop(self) -> None:
        """Forget what is left and take no more."""
        with self._changed:
            self._stopped = True
            self._pending.clear()
            self._pending_bytes = 0
            self._changed.notify_all()
        self._drained.set()

    def _deliver_all(self, send: Send, heed: Callable[[JsonObject], None], refused: Callable[[ApiError], bool]) -> None:
        """Send batch after batch until the stream is closed and empty, or stopped."""
        pause = self._interval
        while self._collect():
            try:
                heed(self._deliver(send))
                self._away = False
                pause = self._interval
            except ApiError as error:  # noqa: PERF203  a request was made: the try costs nothing beside it
                self._away = True
                if refused(error):
                    self.stop()
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._stopped, random.uniform(0, pause))  # noqa: S311
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        self._drained.set()

    def _collect(self) -> bool:
        """Wait for a batch and put it into `_sent`; False when there will be no more."""
        with self._changed:
            if not self._sent:
                self._changed.wait_for(lambda: self._pending or self._written or self._closing or self._stopped)
                self._changed.wait_for(
                    lambda: self._full() or self._written or self._closing or self._stopped, self._interval
                )
            if self._stopped or not (self._sent or self._pending or self._written):
                return False
            if self._sent:
                return True
        if self._journal is None:
            with self._changed:
                self._take_batch()
            return True
        with self._journal.lock:  # a spill may have come between; whoever holds this lock orders lines
            self._refill(self._journal)
        return True

    def _refill(self, journal: Journal) -> None:
        """Put the next lines into `_sent`: those of the journal first."""
        found = journal.read(min(self._largest, self._written), BATCH_BYTES) if self._written else []
        with self._changed:
            if self._stopped:
                return
            self._sent_is_written = bool(found)
            if found:
                self._written -= len(found)
                self._sent = [ready(entry) for entry in found]
                return
            if self._written:  # the journal cannot be read any more
                self._sent.append(note(f"{self._written} lines were lost here: the spool could not be read back"))
                self._written = 0
            self._take_batch()

    def _spill(self, *, last: bool) -> None:
        """Write to the journal what it has room for; the `last` time, what fits into the room for the end."""
        journal = self._journal
        if journal is None or not journal.usable:
            return
        with journal.lock:
            with self._changed:
                sent = [] if self._sent_is_written else list(self._sent)
                first, base = self._next_seq, self._next_seq + len(self._sent) + self._written
                lines = self._take_for(journal.room() + (END_BYTES if last else 0), last=last)
            if sent:  # what is on its way goes first, or the numbers would not follow each other
                written = journal.append(first, [encode_line(line) for line in sent], unread=False)
                self._sent_is_written = written
            else:
                written = True
            written = written and (not lines or journal.append(base, [encode_line(line) for line in lines]))
            with self._changed:
                if written:
                    self._written += len(lines)
                    self._changed.notify_all()
                else:
                    self._pending.extendleft(reversed(lines))
                    self._pending_bytes += sum(line.size for line in lines)

    def _take_for(self, room: int, *, last: bool) -> list[Line]:
        """Take what is pending, the oldest first, while there is room; the `last` time, the newest that fit."""
        taken: list[Line] = []
        if last:
            while self._pending and self._pending_bytes > max(0, room):
                self._pending_bytes -= self._pending.popleft().size
                self._dropped += 1
        if self._dropped and (last or room > 0):
            taken.append(self._word_of_drops())
        while self._pending and room >= self._pending[0].size:
            line = self._pending.popleft()
            room -= line.size
            self._pending_bytes -= line.size
            taken.append(line)
        return taken

    def _word_of_drops(self) -> Line:
        """Return a line about the lines that were dropped, and forget them."""
        dropped, self._dropped = self._dropped, 0
        return note(f"{dropped} lines were dropped here: they came faster than they could be sent")

    def _full(self) -> bool:
        """Say whether a whole batch waits."""
        return len(self._pending) >= BATCH_LINES or self._pending_bytes >= BATCH_BYTES

    def _take_batch(self) -> None:
        """Move the oldest lines to `_sent`, after a word about the ones that were dropped."""
        size = 0
        if self._dropped:
            self._sent.append(self._word_of_drops())
        while self._pending and len(self._sent) < self._largest and size < BATCH_BYTES:
            line = self._pending.popleft()
            self._pending_bytes -= line.size
            size += line.size
            self._sent.append(line)

    def _deliver(self, send: Send) -> JsonObject:
        """Send what is in `_sent`; keep what the server has not stored. Raise `ApiError`."""
        lines, first = self._sent[: self._largest], self._next_seq
        try:
            reply = send(first, [encode_line(line) for line in lines], SEND_SECONDS)
        except LogGap as gap:
            self._rewind(gap.expected_seq)
            return {}
        except ApiError as error:
            if error.status not in {400, 413, 422}:
                raise
            self._make_smaller(len(lines), error)
            return {}
        stored = int(reply.get("next_seq", first + len(lines))) - first
        if stored <= 0:
            raise Unavailable("the server stored no line")
        self._acknowledge(min(stored, len(lines)))
        self._next_seq = first + stored
        self._largest = BATCH_LINES
        return reply

    def _acknowledge(self, count: int) -> None:
        """Note that the server holds the first `count` lines of `_sent`."""
        with self._changed:
            self._kept.extend(self._sent[:count])
            del self._sent[:count]
            self._next_seq += count
        self.answered_at = time.monotonic()

    def _rewind(self, expected: int) -> None:
        """Go on where the server says it stands. Raise `ApiError` if it stands where we are."""
        behind = self._next_seq - expected
        if behind == 0:
            raise Unavailable("the server asks for the lines that it was given")
        if behind < 0:  # it holds more than it acknowledged
            self._acknowledge(min(-behind, len(self._sent)))
            self._next_seq = expected
            return
        again = list(self._kept)[-behind:] if behind <= len(self._kept) else []
        if again:
            for _ in again:
                self._kept.pop()
        else:
            again = [note(f"the server lost up to {behind} lines before this one")]
            self._kept.clear()
        self._sent[:0] = again
        self._next_seq = expected

    def _make_smaller(self, count: int, error: ApiError) -> None:
        """Halve a refused batch; a single refused line goes as plain text, or makes room for a word about it."""
        if count > 1:
            self._largest = count // 2
            return
        line = self._sent[0]
        if line.is_note:
            raise error
        if line.fields is not None:
            self._sent[0] = without_fields(line)
        else:
            self._sent[0] = note(f"a line was refused by the server: {error.message}")
