"""A file that is read into a log while it is written."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from cron_observer_sdk.output import Output
from cron_observer_sdk.reporter import Reporter

#: How often it is looked at, and how long its end is waited for.
INTERVAL_SECONDS = 0.25
CLOSE_SECONDS = 1.0
#: What is read at a time, and at the end at most.
CHUNK_BYTES = 256 * 1024
END_BYTES = 16 * 1024 * 1024


class FileTail:
    """Reads a file from a thread until it is closed. It may come later, be emptied or be replaced."""

    def __init__(self, path: Path, reporter: Reporter, level: str, *, from_start: bool) -> None:
        self._path = path
        self._output = Output(reporter, reporter.hide, level=level, fields={"file": path.name})
        self._file: BinaryIO | None = None
        self._open()
        if self._file is not None and not from_start:
            self._file.seek(0, os.SEEK_END)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="cron-observer-file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read to the end and stop."""
        self._over.set()
        self._thread.join(CLOSE_SECONDS)

    def _follow(self) -> None:
        """Read until closed, and once more."""
        while not self._over.wait(INTERVAL_SECONDS):
            self._read(END_BYTES)
        self._read(END_BYTES)
        self._output.finish()
        if self._file is not None:
            self._file.close()

    def _read(self, limit: int) -> None:
        """Take what has come."""
        with suppress(OSError):
            if self._file is None:
                self._open()
            if self._file is None:
                return
            if os.fstat(self._file.fileno()).st_size < self._file.tell():
                self._file.seek(0)
            while limit > 0:
                data = self._file.read(min(CHUNK_BYTES, limit))
                if not data:
                    break
                limit -= len(data)
                self._output.take("stdout", data, time.time())
            if self._replaced():
                self._file.close()
                self._file = None

    def _replaced(self) -> bool:
        """Say whether another file has the name by now. Raise `OSError`."""
        if self._file is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        """Open the file if it is there, and a plain one."""
        with suppress(OSError):
            if self._path.is_file():
                self._file = self._path.open("rb", buffering=0)
