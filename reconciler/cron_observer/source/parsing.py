"""What the children that read files do: answer requests on a socket, with limits that they set themselves.

A child has bounds on memory, processor time and open files, and writes no files. What it answers is JSON, read against
the types of `model`: nothing of it is ever run.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from cron_observer import manifest
from cron_observer.manifest import ics, loader
from cron_observer.manifest.document import NOTHING
from cron_observer.manifest.nodes import Node, Stream, find
from cron_observer.model import Context, ParsedFile
from cron_observer.source.trees import is_calendar_file

#: Bytes of address space: the largest manifest needs a quarter of it.
MEMORY: Final = 512 * 1024 * 1024
#: Seconds of processor time for one file; the largest manifest takes well under one.
PROCESSOR_SECONDS: Final = 10

_LENGTH: Final = struct.Struct("!I")
_MOST: Final = 64 * 1024 * 1024  # bytes of a message

#: A value of a document: its kind, its name, and a JSON pointer inside of it.
Place = tuple[str | None, str | None, str]


class Request(msgspec.Struct, array_like=True):
    """What a child is asked: to parse manifests, to read one calendar file, or to find places in one manifest."""

    files: list[tuple[str, str, bytes]]  #: path, mode and content
    places: list[Place] = []
    context: Context | None = None  #: that manifests are read with from now on; None: that of the request before


_requests = msgspec.msgpack.Decoder(Request)
#: Readers of the three answers.
FILES = msgspec.json.Decoder(list[ParsedFile])
DAYS = msgspec.json.Decoder(ics.CalendarFile)
LINES = msgspec.json.Decoder(list[int | None])
Answer = TypeVar("Answer", list[ParsedFile], ics.CalendarFile, list[int | None])


def send(connection: socket.socket, message: bytes) -> None:
    """Write one message."""
    connection.sendall(_LENGTH.pack(len(message)) + message)


def receive(connection: socket.socket) -> bytes:
    """Read one message. Raises `OSError` when the other side has gone or says too much."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    if length > _MOST:
        raise OSError("the message is too long")
    return bytes(_exactly(connection, length))


def _exactly(connection: socket.socket, length: int) -> bytearray:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(262_144, length - len(parts)))
        if not part:
            raise ConnectionResetError("the other side has gone")
        parts += part
    return parts


def limit() -> None:
    """Take from this process what parsing does not need."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _begin_file() -> None:
    """Give this process the processor time of one more file."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + PROCESSOR_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _serve(number: int) -> None:
    """Answer requests until the other side goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit()
    # What the first file would import is imported now, before the clock of a file runs: its rules, and its messages.
    task = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: %s}\nspec: {schedule: {cron: '* * * * *'}}\n"
    for name in ("a", "A"):
        manifest.parse("a.yaml", (task % name).encode())
    gc.collect()
    gc.freeze()  # what is imported stays, and need not be looked through again
    with socket.socket(fileno=number) as connection, contextlib.suppress(ConnectionError):
        send(connection, b"")
        context = NOTHING
        while True:
            request = _requests.decode(receive(connection))
            context = context if request.context is None else request.context
            send(connection, _answer(request, context))


def _answer(request: Request, context: Context) -> bytes:
    path, _, data = request.files[0]
    if request.places:
        _begin_file()
        return msgspec.json.encode(_lines_of(data, request.places))
    if is_calendar_file(path):
        _begin_file()
        return msgspec.json.encode(ics.read(path, data))
    parsed = []
    for path, mode, data in request.files:
        _begin_file()
        # Encoded one by one: no more than one file's values are held.
        parsed.append(msgspec.json.encode(manifest.parse(path, data, mode=mode, context=context)))
    return b"[%b]" % b",".join(parsed)


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
    _serve(int(sys.argv[1]))
