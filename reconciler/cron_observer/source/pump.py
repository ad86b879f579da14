"""Talk to a child process within bounds: of time, of what it writes, and of what somebody watches meanwhile."""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable
from typing import Final

#: Seconds between two calls of whoever watches.
WATCH_SECONDS: Final = 0.2

#: Bytes of errors that are kept: the first ones say what was wrong.
MOST_ERRORS: Final = 65_536

_CHUNK: Final = 1 << 20


class TooSlow(Exception):  # noqa: N818  it says what happened
    """The child did not end in time."""


class TooMuch(Exception):  # noqa: N818  it says what happened
    """The child wrote more than is taken."""


def pump(
    process: subprocess.Popen[bytes],
    stdin: bytes | None,
    *,
    within: float,
    most: int,
    watch: Callable[[], None] | None = None,
) -> tuple[bytes, bytes]:
    """Write `stdin` to the child and read until it closes its outputs; return them. Its end is waited for.

    `watch` is called now and then, and may raise. Raises `TooSlow` and `TooMuch` (more than `most` bytes); the child
    is left to the caller to kill.
    """
    deadline, look = time.monotonic() + within, time.monotonic() + WATCH_SECONDS
    output, errors, waiting = bytearray(), bytearray(), memoryview(stdin or b"")
    with selectors.DefaultSelector() as selector:
        _register(selector, process, bool(waiting))
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TooSlow
            ready = selector.select(left if watch is None else min(left, WATCH_SECONDS))
            if watch is not None and time.monotonic() >= look:
                watch()
                look = time.monotonic() + WATCH_SECONDS
            for key, _ in ready:
                if key.fileobj is process.stdin:
                    waiting = _written(process, waiting, selector)
                elif not _read(key.fd, output if key.fileobj is process.stdout else errors, most):
                    selector.unregister(key.fileobj)
            if len(output) > most:
                raise TooMuch
            del errors[MOST_ERRORS:]
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TooSlow from None
    return bytes(output), bytes(errors)


def _register(selector: selectors.BaseSelector, process: subprocess.Popen[bytes], writes: bool) -> None:
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            selector.register(stream, selectors.EVENT_READ)
    if process.stdin is not None and writes:
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
    elif process.stdin is not None:
        process.stdin.close()


def _read(fd: int, into: bytearray, most: int) -> bool:
    """Read what is there; tell whether more may come."""
    chunk = os.read(fd, min(_CHUNK, most + 1))
    into += chunk
    return bool(chunk)


def _written(process: subprocess.Popen[bytes], waiting: memoryview, selector: selectors.BaseSelector) -> memoryview:
    """Write what the child takes, and close its input when nothing is left; return what is left."""
    assert process.stdin is not None  # noqa: S101  it was registered
    try:
        waiting = waiting[os.write(process.stdin.fileno(), waiting[:_CHUNK]) :]
    except BlockingIOError:
        return waiting
    except BrokenPipeError:  # it does not want to know the rest; its exit code says why
        waiting = waiting[:0]
    if not waiting:
        selector.unregister(process.stdin)
        process.stdin.close()
    return waiting
