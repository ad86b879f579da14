"""The `git` program: fixed argument lists, a scrubbed environment, and bounds of time and size."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Final, cast

from cron_observer.errors import SettingsError, SourceError
from cron_observer.source.access import HELPER, SSH, Access, access, has_credentials
from cron_observer.source.address import Address, common_dir, git_dir
from cron_observer.source.failures import GitFailed, late, too_large
from cron_observer.source.pump import TooMuch, TooSlow, pump
from cron_observer.source.spec import SourceSpec

#: The oldest Git that leaves other people's configuration alone when told so (``GIT_CONFIG_GLOBAL``), and that answers
#: questions about objects one after the other (``cat-file --batch-command``).
OLDEST: Final = (2, 36)

#: Seconds for a look at the refs of a repository; a forge that answers at all answers well within.
LOOK_SECONDS: Final = 30.0
#: Seconds for a fetch. The first one of a big repository takes minutes; below 1 kB/s for 30 s ends it sooner.
FETCH_SECONDS: Final = 900.0
#: Seconds for a command that only reads our own mirror.
READ_SECONDS: Final = 120.0
#: Seconds below `LOW_SPEED_BYTES` a second after which Git gives up a server that speaks HTTP.
LOW_SPEED_SECONDS: Final = 30
LOW_SPEED_BYTES: Final = 1000

#: Bytes that a command may write: a listing of a million files. More is an attack, or another product's repository.
MOST_OUTPUT: Final = 256 * 1024 * 1024
#: Bytes of memory that a command may have. A tree of a few objects can unfold to more files than fit anywhere.
MOST_MEMORY: Final = 2 * 1024 * 1024 * 1024

#: What a child may see of our environment: how to reach the network, and nothing of the product's.
_PASSED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)

#: Old, harmless faults that real repositories carry; everything else that `fsck` calls an error is refused.
_HARMLESS: Final = ("zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate", "badDateOverflow")

#: Blobs beyond `bigFileThreshold` are passed through, not held in memory.
_CONFIG: Final = (
    """
[core]
    bigFileThreshold = 16m
    fsync = none
    hooksPath = /dev/null
    fsmonitor = false
    askPass =
    quotePath = false
[transfer]
    fsckObjects = true
[fetch "fsck"]
"""
    + "".join(f"    {name} = warn\n" for name in _HARMLESS)
    + """[gc]
    auto = 0
    autoDetach = false
[maintenance]
    auto = false
[protocol "ext"]
    allow = never
[http]
    followRedirects = initial
    lowSpeedLimit = {bytes}
    lowSpeedTime = {seconds}
[credential]
    helper =
[safe]
"""
)


def git_version() -> str:
    """Return the version of Git. Raises `SettingsError` when there is none, or one that is too old."""
    program = shutil.which("git")
    if program is None:
        raise SettingsError("git is not installed", hint="install it: apt-get install git")
    said = subprocess.run([program, "version"], capture_output=True, text=True, check=False, timeout=10).stdout
    match = re.search(r"(\d+)\.(\d+)[\w.]*", said)
    if match is None or (int(match[1]), int(match[2])) < OLDEST:
        raise SettingsError(
            f"git is too old: {said.strip() or 'it does not say its version'}",
            hint="install git {}.{} or newer".format(*OLDEST),
        )
    return match[0]


class Git:
    """Runs the program for one source, and ends what runs when it is stopped. Safe from several threads."""

    def __init__(self, spec: SourceSpec, address: Address, config: Path) -> None:
        """`config` is a file of ours that stands in for every configuration of the machine and its users."""
        self.spec, self.address = spec, address
        self._config = config
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self._configured = False

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return everything that a child of ours sees. Nothing in it is secret but `more`."""
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        ours = {
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(self._config),
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ALLOW_PROTOCOL": self.address.protocol,
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
        }
        return {"GIT_SSH_COMMAND": SSH, **passed, **ours, **(more or {})}

    def configure(self, *ours: Path) -> None:
        """Write the configuration file, once and whenever it is gone: without it Git is not on its guard.

        `ours` and the repository itself may belong to another account.
        """
        if self._configured and self._config.exists():
            return
        safe = {str(path) for path in ours}
        if self.address.path is not None:
            for path in (self.address.path, git_dir(self.address.path)):
                if path is not None:
                    safe |= {str(form) for one in (path, common_dir(path)) for form in (one, one.resolve())}
        lines = [_CONFIG.format(bytes=LOW_SPEED_BYTES, seconds=LOW_SPEED_SECONDS)]
        lines += [f"    directory = {_quoted(path)}\n" for path in sorted(safe)]
        if self.address.host is not None and has_credentials(self.spec, self.address):
            lines.append(f"[credential {_quoted(self.address.host)}]\n    helper = {HELPER}\n")
        self._config.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._config.with_name(f"{self._config.name}.{os.getpid()}")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write("".join(lines).encode("utf-8", "surrogateescape"))
        fresh.replace(self._config)
        self._configured = True

    def remote(self, *arguments: str, within: float, watch: Callable[[], None] | None = None) -> bytes:
        """Run ``git arguments`` that ask the server, with the credentials of this moment; `watch` may end it."""
        return self._run(arguments, within, None, access(self.spec, self.address), watch)

    def run(
        self, *arguments: str, within: float, stdin: bytes | None = None, more: Mapping[str, str] | None = None
    ) -> bytes:
        """Run ``git arguments`` for at most `within` seconds, with the variables `more`; return what it wrote.

        Raises `GitFailed` when it fails, and `SourceError` when it takes too long, writes too much or was stopped.
        The whole process group is killed then.
        """
        return self._run(arguments, within, stdin, Access(dict(more or {})))

    def _run(
        self,
        arguments: tuple[str, ...],
        within: float,
        stdin: bytes | None,
        using: Access,
        watch: Callable[[], None] | None = None,
    ) -> bytes:
        given = subprocess.PIPE if stdin is not None else subprocess.DEVNULL
        with self._start(arguments, given, using=using) as process:
            try:
                output, errors = pump(process, stdin, within=within, most=MOST_OUTPUT, watch=watch)
            except TooSlow:
                raise late(arguments, within) from None
            except TooMuch:
                raise too_large(
                    f"Git lists more than {MOST_OUTPUT // 1024**2} MiB", "narrow the source with paths, or split it"
                ) from None
        if self._stopped:
            raise self._stopped_error()
        if process.returncode != 0:
            said = using.clean(errors.decode("utf-8", "replace"))
            raise GitFailed(said or f"git ended with {process.returncode} without a word")
        return output

    @contextmanager
    def reading(self, *arguments: str, within: float) -> Iterator[BufferedReader]:
        """Run ``git arguments`` and give its output as a stream, which need not be read to its end."""
        with self._start(arguments, subprocess.DEVNULL, subprocess.DEVNULL) as process:
            timer = threading.Timer(within, _kill, [process])
            timer.daemon = True
            timer.start()
            try:
                yield cast("BufferedReader", process.stdout)
            finally:
                timer.cancel()

    @contextmanager
    def serving(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``git arguments`` for as long as the block lasts; it is asked and it answers by its pipes."""
        with self._start(arguments, subprocess.PIPE, subprocess.DEVNULL) as process:
            yield process

    @contextmanager
    def _start(
        self, arguments: tuple[str, ...], stdin: int, stderr: int = subprocess.PIPE, using: Access | None = None
    ) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            if self._stopped:
                raise self._stopped_error()
            process = self._begin(arguments, stdin, stderr, using or Access())
            self._running.add(process)
        try:
            yield process
        finally:
            _kill(process)
            with self._lock:
                self._running.discard(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            process.wait()

    def _begin(self, arguments: tuple[str, ...], stdin: int, stderr: int, using: Access) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                ["git", *arguments],
                cwd="/",
                env=self.environment(using.environment),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise SourceError(
                f"git cannot be run: {error.strerror}",
                reason="GitMissing",
                permanent=False,
                hint="install it: apt-get install git",
            ) from error
        _bound(process)
        return process

    def _stopped_error(self) -> SourceError:
        return SourceError("the reconciler is stopping", reason="Stopped", permanent=False)

    def stop(self) -> None:
        """Kill what runs; whatever is asked from now on fails."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _kill(process)


def _bound(process: subprocess.Popen[bytes]) -> None:
    """Bound the memory of a process that has just begun, and of those that it will start."""
    with suppress(ProcessLookupError, PermissionError):
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the group that the process leads. It has not been waited for, so that its id is still its own."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
