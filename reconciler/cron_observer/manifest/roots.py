"""Where the repository of a file on disk begins, and the calendar files below it. For manifests without a source."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cron_observer.manifest import rules
from cron_observer.manifest.calendar import named_files
from cron_observer.manifest.files import finding, is_manifest
from cron_observer.manifest.layers import may_bear
from cron_observer.model import Definition

if TYPE_CHECKING:
    from cron_observer.manifest.ics import CalendarFile


class Roots:
    """The repositories of the files that are validated together."""

    def __init__(self, folders: Iterable[Path]) -> None:
        """`folders` are those that were named: one is the root of what is in it where no repository is found."""
        self._named = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100 - links are not followed
        self._known: dict[Path, Path | None] = {}
        self._begin: dict[str, Path] = {}

    def below(self, path: str) -> str:
        """Return the path of a file from the root of its repository: the nearest folder that holds ``.git``.

        Outside of any repository that is the folder that was named, or else the folder of the file.
        """
        root = self.root(path)
        below = _whole(path).relative_to(root).as_posix()
        self._begin[below] = root
        return below

    def root(self, path: str) -> Path:
        """Return where the repository of a file begins."""
        whole = _whole(path)
        named = next((folder for folder in self._named if whole.is_relative_to(folder)), whole.parent)
        return self._root(whole.parent) or named

    def may_hold_project(self, path: str) -> bool:
        """Tell whether a file is where a source begins, for all that is known: a folder that was named may be one."""
        folder = _whole(path).parent
        return folder == self.root(path) or folder in self._named

    def above(self, paths: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield the files in the folders of `paths` and those above, up to the root, that may bear upon these.

        Those that stand in a folder that was named, or are one of `paths`, are left out.
        """
        known, folders = {os.path.abspath(path) for path in paths}, set[Path]()  # noqa: PTH100
        for below in sorted({os.path.join(os.path.dirname(path), "-") for path in known}):  # noqa: PTH118, PTH120
            root = self.root(below)
            around = (folder for folder in Path(below).parents if folder.is_relative_to(root))
            folders |= {one for one in around if not any(one.is_relative_to(named) for named in self._named)}
        for folder in sorted(folders):
            for file in sorted(folder.iterdir()) if folder.is_dir() else ():
                data = _content(file) if is_manifest(file.name) and str(file) not in known else None
                if isinstance(data, bytes) and may_bear(data):
                    yield str(file), data

    def _root(self, folder: Path) -> Path | None:
        if folder not in self._known:
            found = folder if (folder / ".git").exists() else None
            self._known[folder] = found or (self._root(folder.parent) if folder != folder.parent else None)
        return self._known[folder]

    def calendar_files(self, calendars: Iterable[Definition]) -> dict[str, CalendarFile]:
        """Read the files that calendars name, by their paths from the root. A file that is not there is left out."""
        from cron_observer.manifest import ics

        files: dict[str, CalendarFile] = {}
        for one in calendars:
            for path in named_files(one).values():
                data = _content(self._begin[one.path] / path) if path not in files else None
                if isinstance(data, bytes):
                    files[path] = ics.read(path, data)
                elif data is not None:
                    found = finding(rules.BAD_CALENDAR_FILE, path, data)
                    files[path] = ics.CalendarFile(dates=[], spans=[], findings=[found])
        return files


def _whole(path: str) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed


def _content(path: Path) -> bytes | str | None:
    """Return what a file holds, or why that is not known; None where there is none."""
    from cron_observer.manifest import ics

    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return "this is no regular file"
        if status.st_size > ics.MAX_BYTES:
            return f"the file has {status.st_size:,} bytes; at most {ics.MAX_BYTES:,} are read"
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"this cannot be read: {error.strerror}"
