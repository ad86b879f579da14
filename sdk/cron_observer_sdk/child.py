"""A command as a child: its own process group, its output passed on as it comes, its exit code as the shell says.

Nothing is added to the output and nothing is held back: what the child writes is on our stdout and stderr before
anybody else gets to see it.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO

#: What is read at a time.
CHUNK_BYTES = 64 * 1024
#: How late a signal may be handed on that came at the worst instant.
SIGNAL_SECONDS = 0.2
#: How long output is still passed on that comes from processes which the command left in the background.
BACKGROUND_SECONDS = 2.0

#: ``(stream, what came, Unix seconds)``; called by the thread of the stream
Listener = Callable[[str, bytes, float], None]


class Child:
    """Runs one command. `spawn`, then `wait`; `signal` and `end` may come from other threads meanwhile."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], listener: Listener, *, quiet: bool = False
    ) -> None:
        self._quiet = quiet  #: what the command writes is for the listener alone
        self._command = list(command)
        self._environment = dict(environment)
        self._listener = listener
        self._lock = threading.RLock()  # reentrant: a signal handler may come while `wait` holds it
        self._process: subprocess.Popen[bytes] | None = None
        self._reaped = False
        self._forwarders: list[threading.Thread] = []
        self._ended, self._ended_writer = -1, -1  #: a pipe that closes when the command has ended
        self.cut = False  #: output was left unread, because a background process keeps its stream open

    def spawn(self) -> None:
        """Start the command. Raise `OSError` where that cannot be."""
        try:
            self._process = self._popen(self._command)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            self._process = self._popen(["/bin/sh", *self._command])  # a script without #!, as execvp does
        self._ended, self._ended_writer = os.pipe()
        self._forward_in_background("stdout", self._process.stdout, 1)
        self._forward_in_background("stderr", self._process.stderr, 2)

    def signal(self, number: int) -> None:
        """Send a signal to the whole group, as long as the command lives."""
        with self._lock:
            if self._process is not None and not self._reaped:
                _signal_group(self._process.pid, number)

    def end(self, grace: float) -> None:
        """End the group: SIGTERM, and SIGKILL for what is left after `grace` seconds."""
        process = self._process
        if process is None or self._reaped:
            return
        self.signal(signal.SIGTERM)
        until = time.monotonic() + grace
        while time.monotonic() < until:
            if not _signal_group(process.pid, 0):
                return
            time.sleep(min(0.05, grace))
        _signal_group(process.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the command and for its output; return its status as `subprocess` does (-n: signal n)."""
        process = self._process
        if process is None:
            raise RuntimeError("the command was not started")
        while True:
            _wait_patiently(process.pid)
            with self._lock:
                found, status = os.waitpid(process.pid, os.WNOHANG)
                if found:
                    self._reaped = True
                    break
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        process.returncode = code
        os.close(self._ended_writer)
        for thread in self._forwarders:
            thread.join()
        os.close(self._ended)
        return code

    def _forward_in_background(self, name: str, stream: IO[bytes] | None, target: int) -> None:
        """Give the stream a thread of its own, so that neither waits for the other."""
        if stream is None:
            raise RuntimeError(f"the command has no {name}")
        thread = threading.Thread(
            target=self._forward, args=(name, stream, target), name=f"cron-observer-{name}", daemon=True
        )
        self._forwarders.append(thread)
        thread.start()

    def _popen(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process that inherits what a shell would hand on."""
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=self._environment,
            start_new_session=True,
            close_fds=False,
        )

    def _forward(self, name: str, stream: IO[bytes], target: int) -> None:
        """Pass one stream on until it ends, until nobody reads ours, or a while after the command ended."""
        source = stream.fileno()
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        until: float | None = None
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready = {number for number, _ in poll.poll(None if left is None else left * 1000)}
            if self._ended in ready:
                poll.unregister(self._ended)
                until = time.monotonic() + BACKGROUND_SECONDS
            if source in ready:
                data = os.read(source, CHUNK_BYTES)  # a pipe: it ends, but it does not fail
                if not data or not self._pass_on(name, data, target):
                    break
            elif left == 0:
                self.cut = True
                break
        stream.close()

    def _pass_on(self, name: str, data: bytes, target: int) -> bool:
        """Write to our own stream, then tell the listener; False when the reader of our stream has gone."""
        now = time.time()
        going = True
        try:
            if not self._quiet:
                _write_all(target, data)
        except BrokenPipeError:
            going = False  # the child learns it as it would without us: by a broken pipe
        except OSError:
            going = True  # our stream is unusable in another way; the log still gets the output
        with suppress(Exception):  # whatever the listener does, the stream must flow
            self._listener(name, data, now)
        return going


def exit_code(status: int) -> int:
    """Return what a shell reports for a status of `subprocess`: 128 + n for signal n."""
    return 128 - status if status < 0 else status


def code_of_failure(error: OSError) -> int:
    """Return what a shell reports for a command that cannot be started: 127 not found, 126 not runnable."""
    missing = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
    return 127 if error.errno in missing else 126


def _wait_patiently(pid: int) -> None:
    """Wait for the process in a thread, and look up now and then for signals.

    A signal that comes right before a call that blocks is handled only when the call returns: the command would
    not hear of it before its own end.
    """
    ended = threading.Event()

    def wait() -> None:
        with suppress(ChildProcessError):
            _wait_for(pid)
        ended.set()

    threading.Thread(target=wait, name="wait", daemon=True).start()
    while not ended.wait(SIGNAL_SECONDS):
        pass


def _wait_for(pid: int) -> None:
    """Wait until the process has ended, and leave it a zombie, so that its number stays its own.

    As process 1 we also inherit orphans, and reap them.
    """
    if not hasattr(os, "waitid"):
        time.sleep(0.05)  # the caller looks again and again
        return
    if os.getpid() != 1:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return
    while True:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        if found is None or found.si_pid == pid:
            return
        os.waitpid(found.si_pid, 0)


def _signal_group(pid: int, number: int) -> bool:
    """Signal a process group; False if there is none any more."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is there, under another user
    return True


def _write_all(target: int, data: bytes) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking. Raise `OSError`."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:  # noqa: PERF203
            poll = select.poll()
            poll.register(target, select.POLLOUT)
            poll.poll()


def open_standard_streams() -> None:
    """Fill closed standard streams, so that no pipe and no connection of ours takes their numbers."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
