"""What one run has to say while the server is away, written to the spool as it is said.

Opened at the first sign of trouble, so a run that nothing goes wrong with touches no disk. Nothing here raises:
a disk that is full or gone costs the report, never the work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cron_observer_sdk.notice import Notices
from cron_observer_sdk.text import JsonObject, encode, timestamp

if TYPE_CHECKING:
    from cron_observer_sdk.segment import Segment
    from cron_observer_sdk.spool import Spool

#: Bytes of one run; what it says beyond them stays in memory as long as it runs.
RUN_BYTES = 16 * 1024 * 1024
#: Room that the end of a run may take beyond that.
END_BYTES = 1024 * 1024
#: How often new lines are written.
INTERVAL_SECONDS = 0.5
#: After how many bytes the limits of the whole spool are looked at again.
PRUNE_BYTES = 4 * 1024 * 1024


class Journal:
    """The file of one run in the spool. `lock` is held around every use of it that is more than one call."""

    def __init__(self, head: JsonObject, notices: Notices, spool: Callable[[], Spool] | None = None) -> None:
        self.lock = threading.RLock()
        self.ended = False  #: the end is on the disk
        self._head = head
        self._notices = notices
        self._spool_of = spool
        self._spool: Spool | None = None
        self._segment: Segment | None = None
        self._closed = False
        self._bound: JsonObject | None = None
        self._read = 0  #: where the lines begin that nobody has read back
        self._unpruned = 0
        self._stop = threading.Event()

    def watch(self, spill: Callable[[], None]) -> None:
        """Open it, and call `spill` every now and then until it is closed, from a thread of its own."""
        with self.lock:
            if self._closed or self._segment is not None:
                return
        threading.Thread(target=self._watch, args=(spill,), name="cron-observer-spool", daemon=True).start()

    def open(self) -> bool:
        """Make the file unless it is there; say whether it is."""
        with self.lock:
            if self._closed or self._segment is not None:
                return self._segment is not None
            try:
                self._spool = _default_spool() if self._spool_of is None else self._spool_of()
                self._segment = self._spool.create(self._head)
                if self._bound is not None:
                    self._segment.write([encode(self._bound)], durable=False)
            except (OSError, ImportError) as error:
                self._give_up(error)
                return False
            self._read = self._segment.size
            return True

    @property
    def usable(self) -> bool:
        """Say whether there is a file to write to."""
        return self._segment is not None

    def bind(self, execution_id: str, fence: int) -> None:
        """Note as which execution the server knows the run."""
        with self.lock:
            self._bound = {"kind": "bound", "id": execution_id, "fence": fence}
            if self._segment is not None:
                self._try_writing([encode(self._bound)], durable=True)

    def room(self) -> int:
        """Return the bytes that lines may still take."""
        return 0 if self._segment is None else RUN_BYTES - self._segment.size

    def append(self, first_seq: int, entries: Sequence[bytes], *, unread: bool = True) -> bool:
        """Write numbered lines; say whether they are in the file. `unread`: they are to be read back."""
        from cron_observer_sdk.segment import log_line

        with self.lock:
            lines = [log_line(first_seq + number, entry) for number, entry in enumerate(entries)]
            if not self._try_writing(lines, durable=False):
                return False
            if not unread and self._segment is not None:
                self._read = self._segment.size
            self._unpruned += sum(map(len, lines))
            if self._unpruned > PRUNE_BYTES and self._spool is not None:
                self._unpruned = 0
                try:
                    self._spool.prune()
                except OSError as error:
                    self._notices.say("spool", f"the spool cannot be tidied: {error}")
            return True

    def read(self, limit: int, size: int) -> list[bytes]:
        """Return the next lines of the log that were written to be read back."""
        from cron_observer_sdk.segment import log_entry

        found: list[bytes] = []
        with self.lock:
            if self._segment is None:
                return found
            try:
                for place, line in self._segment.lines(self._read):
                    entry = log_entry(line)
                    if entry is not None:
                        found.append(entry.encoded)
                        size -= len(entry.encoded)
                    self._read = place
                    if len(found) >= limit or size <= 0:
                        break
            except OSError as error:
                self._give_up(error)
        return found

    def end(self, outcome: JsonObject, at: float, next_seq: int) -> bool:
        """Write how the run ended, and the number of the line after its last; return True when it is on the disk.

        Where the disk is full, the lines of the log make room for it.
        """
        said = [encode({"kind": "end", "outcome": outcome, "at": timestamp(at), "next_seq": next_seq})]
        with self.lock:
            if self.ended:
                return True
            if not self.open() or self._segment is None:
                return False
            try:
                self._segment.write(said, durable=True)
            except OSError as error:
                if self._bound is not None:
                    said.insert(0, encode(self._bound))
                try:
                    self._segment.cut(self._segment.head_size)
                    self._segment.write(said, durable=True)
                except OSError:
                    self._give_up(error)
                    return False
            self.ended = True
            return True

    def discard(self) -> None:
        """Delete the file: the server has all of it, or the run did not take place."""
        self._finish(lambda segment: segment.delete())

    def set_aside(self, reason: str) -> None:
        """Keep the file for a person to look at: the server refused the run."""
        self._finish(lambda segment: segment.set_aside(reason))

    def close(self) -> None:
        """Leave the file to whoever replays it."""
        self._finish(lambda segment: segment.close())

    def hand_over(self) -> Segment | None:
        """Return the file, still locked, to be replayed by the caller; None if there is none."""
        with self.lock:
            segment, self._segment, self._closed = self._segment, None, True
            self._stop.set()
            return segment

    def _finish(self, action: Callable[[Segment], None]) -> None:
        """Do the last thing to the file."""
        segment = self.hand_over()
        if segment is None:
            return
        try:
            action(segment)
        except OSError as error:
            self._notices.say("spool", f"the spool failed: {error}")

    def _watch(self, spill: Callable[[], None]) -> None:
        """Write what comes until the file is closed."""
        if not self.open():
            return
        spill()
        while not self._stop.wait(INTERVAL_SECONDS):
            spill()

    def _try_writing(self, lines: Sequence[bytes], *, durable: bool) -> bool:
        """Write; say whether that went well."""
        if self._segment is None:
            return False
        try:
            self._segment.write(lines, durable=durable)
        except OSError as error:
            self._notices.say("spool", f"the spool cannot be written: {error}; the work goes on")
            return False
        return True

    def _give_up(self, error: Exception) -> None:
        """Go on without a file."""
        self._notices.say("spool", f"the spool cannot be used: {error}; the work goes on")
        self.close()
        self._closed = True


def _default_spool() -> Spool:
    """Return the spool of this user. Raise `ImportError` where the system has no locks for files."""
    from cron_observer_sdk.spool import Spool

    return Spool()
