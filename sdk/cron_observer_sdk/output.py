"""The output of a command as lines of its log."""

from __future__ import annotations

from collections.abc import Iterator

from cron_observer_sdk.lines import LINE_BYTES, Line, make_lines, whole_characters
from cron_observer_sdk.reporter import Reporter
from cron_observer_sdk.text import JsonObject

#: stderr is not ERROR: many programs write their progress to it. `level=WARN` still shows it alone.
LEVELS = {"stdout": "INFO", "stderr": "WARN"}
FIELDS: dict[str, JsonObject | None] = {"stdout": None, "stderr": {"stream": "stderr"}}


class Output:
    """Cuts two streams into lines. Each stream is fed by one thread; the log keeps the order of arrival."""

    def __init__(self, reporter: Reporter | None) -> None:
        self._reporter = reporter
        self._rest = {"stdout": b"", "stderr": b""}  #: the line that has not ended yet
        self._began = {"stdout": 0.0, "stderr": 0.0}  #: when it began

    def take(self, stream: str, data: bytes, at: float) -> None:
        """Take what a stream brought."""
        if self._reporter is not None:
            self._reporter.log_lines(self._lines(stream, data, at))

    def finish(self) -> None:
        """Take the last lines, which had no line end."""
        for stream, rest in self._rest.items():
            if rest and self._reporter is not None:
                self._reporter.log_lines(self._made(stream, rest, self._began[stream]))
        self._rest = {"stdout": b"", "stderr": b""}

    def _lines(self, stream: str, data: bytes, at: float) -> Iterator[Line]:
        """Cut off the whole lines, and what is longer than a line may be."""
        rest = self._rest[stream]
        began = self._began[stream] if rest else at
        *whole, rest = (rest + data).split(b"\n")
        for text in whole:
            yield from self._made(stream, text, began)
            began = at
        while len(rest) > LINE_BYTES:
            cut = whole_characters(rest, LINE_BYTES)
            yield from self._made(stream, rest[:cut], began)
            rest, began = rest[cut:], at
        self._rest[stream], self._began[stream] = rest, began

    def _made(self, stream: str, text: bytes, at: float) -> Iterator[Line]:
        """Make a line; a carriage return at its end belongs to the line end."""
        return make_lines(at, LEVELS[stream], text[:-1] if text.endswith(b"\r") else text, FIELDS[stream])
