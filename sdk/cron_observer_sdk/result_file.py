"""The file into which a command writes its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cron_observer_sdk.text import RESULT_BYTES, decode_json


class ResultFile:
    """Made before the command starts, so that what an earlier run left is not taken for its result."""

    def __init__(self, name: str) -> None:
        self._path = Path(name)
        self._before = self._mark()

    def read(self) -> tuple[Any, str | None]:
        """Return (the result, None), or (None, why there is none)."""
        after = self._mark()
        if after is None:
            return None, f"there is no result: the command did not write {self._path}"
        if after == self._before:
            return None, f"there is no result: {self._path} is from before this run"
        try:
            with self._path.open("rb") as file:
                data = file.read(RESULT_BYTES + 1)
            if len(data) > RESULT_BYTES:
                return None, f"there is no result: {self._path} has more than {RESULT_BYTES} bytes"
            return decode_json(data), None
        except (OSError, ValueError) as error:
            return None, f"there is no result: {self._path} cannot be read as JSON: {error}"

    def _mark(self) -> tuple[int, int, int] | None:
        """Return what changes when the file is written; None if it is not there."""
        try:
            known = self._path.stat()
        except OSError:
            return None
        return known.st_ino, known.st_size, known.st_mtime_ns
