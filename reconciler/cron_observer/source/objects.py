"""The objects of a mirror, answered by one `git cat-file` that is kept for the next question.

Starting a program costs more than a hundred answers. The process is started when first asked, again when it has died,
and ended when the mirror is replaced, when the source is closed, and when too many others are kept.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from cron_observer.source.command import READ_SECONDS, Git
from cron_observer.source.spec import MirrorBroken

#: Questions that are asked at once. They must fit into a pipe (64 KiB), so that neither side waits for the other.
_BATCH: Final = 200
#: Bytes of a tree (of some eighty thousand entries) or a commit that are read here; what is larger is left to Git.
MOST_READ: Final = 4 << 20
#: Processes that are kept, of all sources together.
MOST_KEPT: Final = 16

_CHUNK: Final = 1 << 18

T = TypeVar("T")


class Found(NamedTuple):
    """An object: its id, its type and its size in bytes."""

    id: str
    kind: str
    size: int


class _Gone(Exception):  # noqa: N818  it says what happened
    """The process has ended, or it does not answer."""


class _TooLarge(Exception):  # noqa: N818  it says what it is
    """An object is larger than what may be read of it."""


class _Kept:
    """The mirrors whose processes are kept, the one that was asked longest ago first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._order: OrderedDict[int, Objects] = OrderedDict()

    def asked(self, one: Objects) -> None:
        """Note that this one was asked just now; end those that are too many, but for any that is busy."""
        with self._lock:
            self._order[id(one)] = one
            self._order.move_to_end(id(one))
            surplus = list(self._order.values())[: max(0, len(self._order) - MOST_KEPT)]
            for other in surplus:
                if other.end_if_idle():
                    del self._order[id(other)]

    def ended(self, one: Objects) -> None:
        """Forget one."""
        with self._lock:
            self._order.pop(id(one), None)


_kept: Final = _Kept()


class Objects:
    """Reads the objects of one mirror. Safe from several threads, which take turns.

    Every method raises `MirrorBroken` when the mirror cannot be read, and `SourceError` when the source is closed.
    """

    def __init__(self, git: Git, folder: Path) -> None:
        """Nothing is started yet."""
        self._git, self._folder = git, folder
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._process: _Process | None = None
        self._place = (0, 0)  #: device and inode of the folder that the process reads

    def find(self, names: Sequence[str]) -> list[Found | None]:
        """Look objects up by id or by name (``ref^{tree}``); None for one that is not there."""
        found: list[Found | None] = []
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            found += self._ask("info", batch, _headers)
        return found

    def read(self, ids: Sequence[str]) -> list[bytes] | None:
        """Return the content of trees or commits that are there, in order; None when one is too large for us."""
        found = list(self.contents(ids, MOST_READ))
        return None if any(one.size > MOST_READ for one, _ in found) else [data for _, data in found]

    def contents(self, ids: Sequence[str], limit: int) -> Iterator[tuple[Found, bytes]]:
        """Give each object with its content; of one over `limit` bytes no content."""
        careful = False
        for start in range(0, len(ids), _BATCH):
            batch = ids[start : start + _BATCH]
            if not careful:
                try:
                    yield from self._ask("contents", batch, partial(_contents, limit=limit))
                    continue
                except _TooLarge:
                    careful = True
            yield from self._carefully(batch, limit)

    def _carefully(self, ids: Sequence[str], limit: int) -> Iterator[tuple[Found, bytes]]:
        """Do the same by asking how large each is beforehand, which costs twice as much."""
        for name, one in zip(ids, self.find(ids), strict=True):
            if one is None:
                raise _missing(name)
            if one.size > limit:
                yield one, b""
            else:
                yield from self._ask("contents", [name], partial(_contents, limit=limit))

    def _ask(self, command: str, names: Sequence[str], answer: Callable[[_Process, Sequence[str]], list[T]]) -> list[T]:
        """Ask about `names` at once, and let `answer` read what comes. A process that has died is replaced, once."""
        asked = "".join(f"{command} {name}\n" for name in names).encode() + b"flush\n"
        with self._lock:
            for last in (False, True):
                try:
                    process = self._current()
                    process.write(asked)
                    answered = answer(process, names)
                    break
                except _Gone as gone:
                    self._end()
                    if last:
                        raise MirrorBroken(f"git cat-file {gone}") from gone
                except BaseException:
                    self._end()  # what was asked for and not read must not answer the next question
                    raise
        _kept.asked(self)
        return answered

    def _current(self) -> _Process:
        """Return the process that reads what lies in the mirror's place now."""
        try:
            status = (self._folder / "objects").stat()
        except OSError as error:
            raise MirrorBroken("the mirror is gone") from error
        place = status.st_dev, status.st_ino
        if self._process is not None and place == self._place:
            return self._process
        self._end()
        self._place = place
        arguments = (f"--git-dir={self._folder}", "cat-file", "--batch-command", "--buffer")
        process = self._stack.enter_context(self._git.serving(*arguments))
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018  both are pipes
        self._process = _Process(process.stdin.fileno(), process.stdout.fileno())
        return self._process

    def _end(self) -> None:
        self._process = None
        self._stack.close()

    def end_if_idle(self) -> bool:
        """End the process unless somebody is asking; tell whether there is none any more."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._end()
        finally:
            self._lock.release()
        return True

    def close(self) -> None:
        """End the process; the next question starts another one, which sees what is in the mirror's place then."""
        with self._lock:
            self._end()
        _kept.ended(self)


def _headers(process: _Process, names: Sequence[str]) -> list[Found | None]:
    return [process.header() for _ in names]


def _contents(process: _Process, names: Sequence[str], limit: int) -> list[tuple[Found, bytes]]:
    return [process.content(name, limit) for name in names]


def _missing(name: str) -> MirrorBroken:
    return MirrorBroken(f"the object {name} is missing")


class _Process:
    """The pipes of a process, and what has come of its answer so far."""

    def __init__(self, questions: int, answers: int) -> None:
        self._questions, self._answers = questions, answers
        self._buffer, self._at = b"", 0
        self._poll = select.poll()
        self._poll.register(answers, select.POLLIN)
        self._deadline = 0.0

    def write(self, asked: bytes) -> None:
        self._deadline = time.monotonic() + READ_SECONDS
        try:
            while asked:
                asked = asked[os.write(self._questions, asked) :]
        except OSError as error:
            raise _Gone("has ended") from error

    def header(self) -> Found | None:
        """Read the line that tells of an object."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            self._have(len(self._buffer) - self._at + 1)
        words = self._buffer[self._at : end].decode("utf-8", "replace").split(" ")
        self._at = end + 1
        if words[-1] in ("missing", "ambiguous"):
            return None
        if len(words) != 3 or not words[2].isdecimal():
            raise _Gone("answered nonsense")
        return Found(words[0], words[1], int(words[2]))

    def content(self, name: str, limit: int) -> tuple[Found, bytes]:
        """Read an object. Raises `_TooLarge` before its content is read."""
        found = self.header()
        if found is None:
            raise _missing(name)
        if found.id != name:
            raise _Gone("answered for another object than it was asked for")
        if found.size > limit:
            raise _TooLarge
        self._have(found.size + 1)
        end = self._at + found.size
        data = self._buffer[self._at : end]
        self._at = end + 1
        return found, data

    def _have(self, size: int) -> None:
        """Wait until there are so many bytes that were not read yet."""
        if (there := len(self._buffer) - self._at) >= size:
            return
        parts = [self._buffer[self._at :]]
        while there < size:
            left = self._deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise _Gone("does not answer")
            part = os.read(self._answers, _CHUNK)
            if not part:
                raise _Gone("has ended")
            parts.append(part)
            there += len(part)
        self._buffer, self._at = b"".join(parts), 0
