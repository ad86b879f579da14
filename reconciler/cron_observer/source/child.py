"""One child that reads files, seen from the process that asks it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import msgspec

from cron_observer.manifest.document import NOTHING
from cron_observer.model import Context
from cron_observer.source import parsing

COMMAND: Final = (sys.executable, "-B", "-P", "-m", "cron_observer.source.parsing")

#: Seconds to wait for an answer.
WALL_SECONDS: Final = 20.0
#: Seconds until a new child has imported what it needs, on a busy machine.
START_SECONDS: Final = 60.0


class Died(Exception):  # noqa: N818  it says what happened
    """The child has gone, hangs, or answers nonsense."""


class Child:
    """A process that is started when it is asked, kept for the next request, and replaced once it has failed one.

    For one thread at a time, but for `kill`.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Nothing is started yet. `command` is given the number of the socket to answer on."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._context: Context = NOTHING  # what the process has been told last
        self._killed = False

    @property
    def pid(self) -> int | None:
        """The process, None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process, if there is none. Raises `Died`."""
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        self._socket, self._context = ours, NOTHING
        with theirs:
            self._process = subprocess.Popen(
                [*self._command, str(theirs.fileno())],
                cwd="/",
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        if self._killed:  # while it was being started
            self._process.kill()
        ours.settimeout(START_SECONDS)
        try:
            parsing.receive(ours)
        except OSError as error:
            self.end()
            raise Died from error

    def ask(self, request: parsing.Request, context: Context = NOTHING) -> bytes:
        """Return the answer to a request. The context is sent when it is another than that of the request before.

        Raises `Died`; then the process is gone.
        """
        self.start()
        assert self._socket is not None  # noqa: S101  it has been started
        request.context = None if context is self._context or context == self._context else context
        self._socket.settimeout(WALL_SECONDS)
        try:
            parsing.send(self._socket, msgspec.msgpack.encode(request))
            answer = parsing.receive(self._socket)
        except OSError as error:
            self.end()
            raise Died from error
        self._context = context
        return answer

    def end(self) -> None:
        """End the process; the next request gets another one."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._socket = None

    def kill(self) -> None:
        """End the process for good, also while another thread waits for its answer: that raises `Died` there."""
        self._killed = True
        process = self._process
        if process is not None:
            process.kill()
