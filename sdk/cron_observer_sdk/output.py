"""The output of a command as lines of its log."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

from cron_observer_sdk.lines import LINE_BYTES, Line, make_lines, note, whole_characters
from cron_observer_sdk.redact import PLAIN, UNBROKEN_BYTES, Redactor
from cron_observer_sdk.text import JsonObject

#: stderr is not ERROR: many programs write their progress to it. `level=WARN` still shows it alone.
LEVELS = {"stdout": "INFO", "stderr": "WARN"}
FIELDS: dict[str, JsonObject | None] = {"stdout": None, "stderr": {"stream": "stderr"}}


class Sink(Protocol):
    """Who takes the lines."""

    def log_lines(self, lines: Iterable[Line]) -> None:
        """Take lines."""


class Output:
    """Cuts two streams into lines. Each stream is fed by one thread; the log keeps the order of arrival.

    What `hide` hides is looked for in whole lines, before a long one is cut. A line that does not end cannot be
    judged, so beyond `UNBROKEN_BYTES` it is left out.
    """

    def __init__(
        self, sink: Sink | None, hide: Redactor = PLAIN, *, level: str | None = None, fields: JsonObject | None = None
    ) -> None:
        self._sink = sink
        self._hide = hide
        self._levels = LEVELS if level is None else dict.fromkeys(LEVELS, level)
        self._fields = FIELDS if fields is None else dict.fromkeys(FIELDS, fields)
        self._rest = {"stdout": b"", "stderr": b""}  #: the line that has not ended yet
        self._began = {"stdout": 0.0, "stderr": 0.0}  #: when it began
        self._skips = {"stdout": False, "stderr": False}  #: the line is left out to its end

    def take(self, stream: str, data: bytes, at: float) -> None:
        """Take what a stream brought."""
        if self._sink is not None:
            self._sink.log_lines(self._lines(stream, data, at))

    def finish(self) -> None:
        """Take the last lines, which had no line end."""
        for stream, rest in self._rest.items():
            if rest and self._sink is not None and not self._skips[stream]:
                self._sink.log_lines(self._made(stream, rest, self._began[stream]))
        self._rest = {"stdout": b"", "stderr": b""}

    def _lines(self, stream: str, data: bytes, at: float) -> Iterator[Line]:
        """Cut off the whole lines, and what is longer than a line may be."""
        rest = self._rest[stream]
        began = self._began[stream] if rest else at
        *whole, rest = (rest + data).split(b"\n")
        for text in whole:
            if self._skips[stream]:
                self._skips[stream] = False
            else:
                yield from self._made(stream, text, began)
            began = at
        if self._hide:
            if len(rest) > UNBROKEN_BYTES or self._skips[stream]:
                if not self._skips[stream]:
                    yield note(
                        f"a line of more than {UNBROKEN_BYTES} bytes was left out: nothing could be hidden in it"
                    )
                self._skips[stream], rest = True, b""
        else:
            while len(rest) > LINE_BYTES:
                cut = whole_characters(rest, LINE_BYTES)
                yield from self._made(stream, rest[:cut], began)
                rest, began = rest[cut:], at
        self._rest[stream], self._began[stream] = rest, began

    def _made(self, stream: str, text: bytes, at: float) -> Iterator[Line]:
        """Make a line; a carriage return at its end belongs to the line end."""
        text = text[:-1] if text.endswith(b"\r") else text
        return make_lines(at, self._levels[stream], self._hide.line(text), self._fields[stream])


class Tail:
    """Keeps the last lines until `flush` hands them on; both streams in their order."""

    def __init__(self, sink: Sink, limit: int) -> None:
        self._sink = sink
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: deque[Line] = deque()
        self._size = 0
        self._dropped = 0

    def log_lines(self, lines: Iterable[Line]) -> None:
        """Take lines; forget the oldest beyond the limit."""
        with self._lock:
            for line in lines:
                self._kept.append(line)
                self._size += len(line.message)
            while self._size > self._limit and len(self._kept) > 1:
                self._size -= len(self._kept.popleft().message)
                self._dropped += 1

    def flush(self) -> None:
        """Hand on what was kept, after a word about what was not."""
        with self._lock:
            kept, self._kept = list(self._kept), deque()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            at = kept[0].at if kept else time.time()
            words = f"{dropped} lines before these were left out, as --tail-bytes asks"
            kept.insert(0, note(words)._replace(at=at))
        self._sink.log_lines(kept)
