"""Read manifests and calendar files in a child with limits: what a stranger wrote must not hurt the reconciler.

The child has bounds on memory, processor time and open files, and writes no files. It is kept for the next file, and
replaced when it dies or hangs; the file that it died of gets a finding. What it answers is JSON, read against the
types of `model`: nothing of it is ever run.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from cron_observer import manifest
from cron_observer.errors import SourceError
from cron_observer.manifest import ics, loader, rules
from cron_observer.manifest.document import NOTHING
from cron_observer.manifest.files import finding
from cron_observer.manifest.nodes import Node, Stream, find
from cron_observer.model import Context, ParsedFile
from cron_observer.source.spec import UNNAMABLE, UNREADABLE, Entry
from cron_observer.source.trees import is_calendar_file

#: Bytes of address space: the largest manifest needs a quarter of it.
MEMORY: Final = 512 * 1024 * 1024
#: Seconds of processor time and of waiting for one file; the largest manifest takes well under one.
PROCESSOR_SECONDS: Final = 10
WALL_SECONDS: Final = 20.0
#: Seconds until a new child has imported what it needs, on a busy machine.
START_SECONDS: Final = 60.0

COMMAND: Final = (sys.executable, "-B", "-P", "-m", "cron_observer.source.reader")

#: Bytes of a calendar file, which may hold twenty thousand events.
MAX_CALENDAR_BYTES: Final = 5 * 1024 * 1024

_LENGTH: Final = struct.Struct("!I")
_MOST: Final = 64 * 1024 * 1024  # bytes of an answer


#: A value of a document: its kind, its name, and a JSON pointer inside of it.
Place = tuple[str | None, str | None, str]


class _Request(msgspec.Struct, array_like=True):
    path: str
    mode: str
    data: bytes
    places: list[Place] = []
    context: Context | None = None  #: None: that of the request before


_requests = msgspec.msgpack.Decoder(_Request)
_answers = msgspec.json.Decoder(ParsedFile)


_days = msgspec.json.Decoder(ics.CalendarFile)
_lines = msgspec.json.Decoder(list[int | None])
_T = TypeVar("_T", ParsedFile, ics.CalendarFile, list[int | None])


class _Died(Exception):  # noqa: N818  it says what happened
    """The child has gone, hangs, or answers nonsense."""


class Reader:
    """Parses files, one after the other. Blocks; safe from several threads."""

    def __init__(self, *, command: Iterable[str] = COMMAND) -> None:
        """Nothing is started yet. `command` is given the number of the socket to answer on."""
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._closed = False
        self._context: Context | None = None  # what the child has been told last

    def start(self) -> None:
        """Start the child ahead of the first file."""
        with self._lock:
            if self._child is None and not self._closed:
                with contextlib.suppress(_Died):
                    self._begin()

    def parse(
        self, files: Iterable[tuple[Entry, bytes]], context: Context = NOTHING
    ) -> Iterator[tuple[Entry, bytes, ParsedFile]]:
        """Give the verdict on each file; one that kills the child is refused, and the next gets a new child.

        Tasks are composed with the layers of `context`. Raises `SourceError` (``Stopped``) when the reader is closed
        meanwhile.
        """
        for entry, data in files:
            yield entry, data, _refused(entry, data) or self._parsed(entry, data, context)

    def _parsed(self, entry: Entry, data: bytes, context: Context) -> ParsedFile:
        parsed = self._ask(entry, data, _answers, context=context)
        if parsed is not None:
            return parsed
        message = "the file could not be parsed within the limits of memory and time"
        hint = "simplify it, or split it into several files"
        found = finding(rules.UNREADABLE, entry.path, message, hint)
        return ParsedFile(path=entry.path, findings=(found,), parseable=False)

    def calendars(self, files: Iterable[tuple[Entry, bytes]]) -> Iterator[tuple[Entry, ics.CalendarFile]]:
        """Give what each calendar file holds; one that cannot be read holds nothing and says why.

        Raises `SourceError` (``Stopped``) when the reader is closed meanwhile.
        """
        for entry, data in files:
            if not entry.mode.startswith("100"):
                message = "this is no regular file"
                found = finding(rules.BAD_CALENDAR_FILE, entry.path, message, "commit the file itself")
            elif (entry.size or len(data)) > MAX_CALENDAR_BYTES:
                message = f"the file has more than {MAX_CALENDAR_BYTES:,} bytes"
                found = finding(rules.BAD_CALENDAR_FILE, entry.path, message, "remove old events from it")
            elif (held := self._ask(entry, data, _days)) is not None:
                yield entry, held
                continue
            else:
                message = "the file could not be read within the limits of memory and time"
                found = finding(rules.BAD_CALENDAR_FILE, entry.path, message, "simplify it")
            yield entry, ics.CalendarFile(dates=[], spans=[], findings=[found])

    def lines(self, path: str, data: bytes, places: Sequence[Place]) -> list[int | None]:
        """Return the line of each place of a manifest, None where it is not found."""
        found = self._ask(Entry(path, "100644", ""), data, _lines, list(places))
        return [None] * len(places) if found is None else found

    def _ask(
        self,
        entry: Entry,
        data: bytes,
        answers: msgspec.json.Decoder[_T],
        places: list[Place] | None = None,
        context: Context = NOTHING,
    ) -> _T | None:
        """Let the child read a file; None when it dies of it."""
        request = _Request(entry.path, entry.mode, data, places or [])
        with self._lock:
            # A child that has served before may have died of something else: the file gets a child of its own.
            for _ in range(1 if self._child is None else 2):
                try:
                    if self._child is None:
                        self._begin()
                    request.context = None if context is self._context else context
                    self._context = context
                    return self._exchange(msgspec.msgpack.encode(request), answers)
                except _Died:
                    self._end()
                if self._closed:
                    raise SourceError("the reconciler is stopping", reason="Stopped", permanent=False)
        return None

    def _begin(self) -> None:
        if self._closed:
            raise _Died
        ours, theirs = socket.socketpair()
        with theirs:
            self._socket = ours
            self._child = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                cwd="/",
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.settimeout(START_SECONDS)
        self._receive()

    def _exchange(self, request: bytes, answers: msgspec.json.Decoder[_T]) -> _T:
        assert self._socket is not None  # noqa: S101  there is a child
        self._socket.settimeout(WALL_SECONDS)
        try:
            self._socket.sendall(_LENGTH.pack(len(request)) + request)
        except OSError as error:
            raise _Died from error
        try:
            return answers.decode(self._receive())
        except msgspec.MsgspecError as error:
            raise _Died from error

    def _receive(self) -> bytes:
        assert self._socket is not None  # noqa: S101  there is a child
        try:
            return _read(self._socket)
        except OSError as error:
            raise _Died from error

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._child = self._socket = self._context = None

    def close(self) -> None:
        """End the child, also in the middle of a file."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
        with self._lock:
            self._end()


def _refused(entry: Entry, data: bytes) -> ParsedFile | None:
    """Judge what must not even be parsed."""
    found = None
    if entry.mode == UNNAMABLE:
        message = "the path holds control characters or is not UTF-8"
        found = finding(rules.BAD_PATH, entry.path, message, "rename the file")
    elif entry.mode == UNREADABLE:
        hint = "let the reconciler's account read it"
        found = finding(rules.UNREADABLE, entry.path, "the file may not be read", hint)
    if found is not None:
        return ParsedFile(path=entry.path, findings=(found,), parseable=False)
    return manifest.refused(entry.path, mode=entry.mode, size=entry.size or len(data), head=data[:256])


def _read(connection: socket.socket) -> bytes:
    """Read one message. Raises `OSError` when the other side has gone or says too much."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _MOST:
        raise OSError("the message is too long")
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(65_536, length - len(parts)))
        if not part:
            raise ConnectionResetError("the other side has gone")
        parts += part
    return bytes(parts)


def _limit() -> None:
    """Take from this process what parsing does not need."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _child(number: int) -> None:
    """Answer requests until the other side goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit()
    # What the first file would import is imported now, before the clock of a file runs.
    warm = b"apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\nspec: {schedule: {cron: '* * * * *'}}\n"
    manifest.parse("a.yaml", warm)
    with socket.socket(fileno=number) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(_LENGTH.pack(0))
        context = NOTHING
        while True:
            request = _requests.decode(_read(connection))
            context = context if request.context is None else request.context
            used = resource.getrusage(resource.RUSAGE_SELF)
            soft = int(used.ru_utime + used.ru_stime) + 1 + PROCESSOR_SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
            answer = msgspec.json.encode(_answer(request, context))
            connection.sendall(_LENGTH.pack(len(answer)) + answer)


def _answer(request: _Request, context: Context) -> ParsedFile | ics.CalendarFile | list[int | None]:
    if request.places:
        return _lines_of(request.data, request.places)
    if is_calendar_file(request.path):
        return ics.read(request.path, request.data)
    return manifest.parse(request.path, request.data, mode=request.mode, context=context)


def _lines_of(data: bytes, places: Sequence[Place]) -> list[int | None]:
    """Return the line of each value, or of the nearest one around it."""
    stream = loader.load(loader.decode(data)[0])
    roots: dict[tuple[Any, Any], Node] = {}
    for document in stream.documents:
        kind, name = (find(document.root, at) for at in ("/kind", "/metadata/name"))
        if document.root is not None and kind is not None and name is not None:
            roots[kind.value, name.value] = document.root
    return [_line(stream, roots.get((kind, name)), pointer) for kind, name, pointer in places]


def _line(stream: Stream, root: Node | None, pointer: str) -> int | None:
    if root is None:
        return None
    while (node := find(root, pointer)) is None:
        pointer = pointer.rpartition("/")[0]
    return stream.place(node.start if node.key_start < 0 or node.children is None else node.key_start)[0]


if __name__ == "__main__":
    _child(int(sys.argv[1]))
