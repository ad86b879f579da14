"""Hear of changes in local folders at once. A hint only: whoever listens looks for himself, and looks anyway."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

#: Seconds of silence after which a burst of changes is over, and how long one is waited for at most.
QUIET: Final = 0.05
AT_MOST: Final = 0.5

#: What changes content or names; reading a file, which we do ourselves, is no change.
_TELLING: Final = frozenset({"created", "modified", "moved", "deleted", "closed"})

log = structlog.get_logger()

#: A folder, which inode it is, and whether what lies below it counts.
_Place = tuple[str, int, bool]


@dataclass(slots=True)
class _Watched:
    places: frozenset[_Place] = frozenset()
    observer: Any = None


class Watcher:
    """Calls back in the event loop, with the key, when something below the folders of a key has changed."""

    def __init__(self, changed: Callable[[str], None], *, quiet: float = QUIET, at_most: float = AT_MOST) -> None:
        """`changed` is called once for each burst of changes."""
        # The library warns when it meets a new folder twice, which happens when folders are made inside each other.
        warnings.filterwarnings("ignore", "Callback with id", RuntimeWarning)
        self._changed = changed
        self._quiet, self._at_most = quiet, at_most
        self._loop = asyncio.get_running_loop()
        self._watched: dict[str, _Watched] = {}
        self._timers: dict[str, tuple[asyncio.TimerHandle, float]] = {}
        self._closed = False

    def watch(self, key: str, folders: Sequence[tuple[Path, bool]]) -> bool:
        """Watch exactly these folders, each with whether deeply, for `key`; say whether that is new.

        Cheap when they are watched already, else it blocks for a moment. Folders that cannot be watched (too
        many, or gone) are left to the next look, and that is logged.
        """
        wanted = frozenset(place for path, deep in folders if (place := _place(path, deep)) is not None)
        watched = self._watched.setdefault(key, _Watched())
        if wanted == watched.places or self._closed:
            return False
        _end(watched)
        watched.places = wanted
        if wanted:
            watched.observer = Observer()
            watched.observer.daemon = True
            watched.observer.start()
        handler = _Handler(lambda: self._loop.call_soon_threadsafe(self._mark, key))
        for path, _inode, deep in sorted(wanted):
            try:
                watched.observer.schedule(handler, path, recursive=deep)
            except OSError as error:
                log.warning("folder_not_watched", folder=path, error=error.strerror)
        return True

    def _mark(self, key: str) -> None:
        """Put the call off until it has been quiet for a while, but not for ever."""
        if self._closed:
            return
        now = self._loop.time()
        timer = self._timers.get(key)
        since = now if timer is None else timer[1]
        if timer is not None:
            timer[0].cancel()
        at = min(now + self._quiet, since + self._at_most)
        self._timers[key] = self._loop.call_at(at, self._fire, key), since

    def _fire(self, key: str) -> None:
        self._timers.pop(key, None)
        if not self._closed:
            self._changed(key)

    def close(self) -> None:
        """Stop watching. Blocks for a moment."""
        self._closed = True
        for timer, _ in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for watched in self._watched.values():
            _end(watched)


def _end(watched: _Watched) -> None:
    if watched.observer is not None:
        watched.observer.stop()
        watched.observer.join(timeout=5)
        watched.observer = None


class _Handler(FileSystemEventHandler):
    def __init__(self, tell: Callable[[], object]) -> None:
        super().__init__()
        self._tell = tell

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _TELLING:
            with suppress(RuntimeError):  # the loop has ended
                self._tell()


def _place(path: Path, deep: bool) -> _Place | None:
    try:
        return str(path), path.stat().st_ino, deep
    except OSError:
        return None
