"""The `git` program: fixed argument lists, a scrubbed environment, a wall clock, and words for what went wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple, cast

from cron_observer.errors import SettingsError, SourceError
from cron_observer.source.address import Address, common_dir, git_dir

#: The oldest Git that leaves other people's configuration alone when told so (``GIT_CONFIG_GLOBAL``).
OLDEST: Final = (2, 32)

#: Seconds for a look at the refs of a repository; a forge that answers at all answers well within.
LOOK_SECONDS: Final = 30.0
#: Seconds for a fetch. The first one of a big repository takes minutes; below 1 kB/s for 30 s ends it sooner.
FETCH_SECONDS: Final = 900.0
#: Seconds for a command that only reads our own mirror.
READ_SECONDS: Final = 120.0

#: What a child may see of our environment: how to reach the network, and nothing of the product's.
_PASSED: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK", "GIT_SSH_COMMAND"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
    *("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
)

_SSH: Final = "ssh -oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=15 -oServerAliveCountMax=3"

#: Old, harmless faults that real repositories carry; everything else that `fsck` calls an error is refused.
_HARMLESS: Final = ("zeroPaddedFilemode", "badTimezone", "missingSpaceBeforeDate", "badDateOverflow")

_CONFIG: Final = (
    """
[core]
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
    lowSpeedLimit = 1000
    lowSpeedTime = 30
[credential]
    helper =
[safe]
"""
)

#: Gives Git the credentials of the address, for its host alone; they stand in the child's environment only.
_HELPER: Final = (
    '"!f() { test \\"$1\\" = get && printf \'username=%s\\\\npassword=%s\\\\n\' '
    '\\"$CRON_OBSERVER_GIT_USERNAME\\" \\"$CRON_OBSERVER_GIT_PASSWORD\\"; }; f"'
)


class _Meaning(NamedTuple):
    """What the program says (in the C locale), the word for it, and whether waiting will not help."""

    says: str
    reason: str
    permanent: bool
    hint: str


_MEANINGS: Final = (
    _Meaning(
        "host key verification failed|no .* host key is known",
        "HostKeyRefused",
        True,
        "add the server's host key to known_hosts of the account that runs the reconciler",
    ),
    _Meaning(
        "certificate|server verification failed",
        "CertificateRefused",
        True,
        "let the machine trust the authority that signed the server's certificate",
    ),
    _Meaning(
        r"could not read (username|password)|authentication failed|terminal prompts disabled|access denied|"
        r"permission denied \(|returned error: 40[13]|invalid credentials|no supported authentication",
        "AuthenticationFailed",
        True,
        "give the source credentials that may read the repository",
    ),
    _Meaning(
        "couldn't find remote ref|not our ref|unadvertised object",
        "RefNotFound",
        True,
        "name a branch, tag or commit that the repository has",
    ),
    _Meaning("dubious ownership", "RepositoryRefused", True, "let the reconciler's account own the repository"),
    _Meaning(
        r"fsck error|error in (tag|commit|tree|blob) [0-9a-f]|error: object [0-9a-f]+: \w+:",
        "ObjectsRefused",
        True,
        "run git fsck in the repository and mend what it reports",
    ),
    _Meaning(
        r"could not resolve (host|hostname)|connection (refused|timed out|reset|closed)|failed to connect|"
        r"network is unreachable|no route to host|operation (timed out|too slow)|\b(ssl|tls)\b|"
        r"returned error: (429|5\d\d)|early eof|hung up|connection to .* closed",
        "Unreachable",
        False,
        "look whether the server answers from this machine",
    ),
    _Meaning(
        "repository .* (not found|does not exist)|not appear to be a git repository|not a git repository|"
        "returned error: 404|no such file or directory|could not be found",
        "RepositoryNotFound",
        True,
        "look at the address of the source, and whether its credentials may see it",
    ),
    _Meaning("no space left on device|disk quota", "NoSpace", False, "make room below the data folder"),
)


class GitFailed(Exception):  # noqa: N818  it says what happened
    """The program ended with an error; `said` is what it wrote, without secrets."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


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


def meaning(said: str) -> SourceError | None:
    """Return the error that Git's words stand for, or None when they are of no known kind."""
    for one in _MEANINGS:
        if re.search(one.says, said, re.IGNORECASE):
            return SourceError(_first_line(said), reason=one.reason, permanent=one.permanent, hint=one.hint)
    return None


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(fatal|error|remote error|ERROR)\b", line)]
    line = (telling or lines or ["git says nothing"])[0]
    return re.sub(r"^(fatal|error): ", "", line)[:300]


class Git:
    """Runs the program for one address, and ends what runs when it is stopped. Safe from several threads."""

    def __init__(self, address: Address, config: Path) -> None:
        """`config` is a file of ours that stands in for every configuration of the machine and its users."""
        self.address = address
        self._config = config
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def environment(self) -> dict[str, str]:
        """Return everything that a child of ours sees, for GitPython as well."""
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
        if self.address.username is not None or self.address.password is not None:
            ours["CRON_OBSERVER_GIT_USERNAME"] = self.address.username or ""
            ours["CRON_OBSERVER_GIT_PASSWORD"] = self.address.password or ""
        return {"GIT_SSH_COMMAND": _SSH, **passed, **ours}

    def configure(self, *ours: Path) -> None:
        """Write the configuration file. `ours` and the repository itself may belong to another account."""
        safe = {str(path) for path in ours}
        if self.address.path is not None:
            for path in (self.address.path, git_dir(self.address.path)):
                if path is not None:
                    safe |= {str(form) for one in (path, common_dir(path)) for form in (one, one.resolve())}
        lines = [_CONFIG, *(f"    directory = {_quoted(path)}\n" for path in sorted(safe))]
        if self.address.host is not None and (self.address.username or self.address.password):
            lines.append(f"[credential {_quoted(self.address.host)}]\n    helper = {_HELPER}\n")
        self._config.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._config.with_name(f"{self._config.name}.{os.getpid()}")
        fresh.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        fresh.replace(self._config)

    def run(self, *arguments: str, within: float, stdin: bytes | None = None) -> bytes:
        """Run ``git arguments`` for at most `within` seconds and return what it wrote.

        Raises `GitFailed` when it fails, and `SourceError` when it takes too long or was stopped. The whole
        process group is killed then.
        """
        with self._start(arguments, subprocess.PIPE if stdin is not None else subprocess.DEVNULL) as process:
            try:
                output, errors = process.communicate(stdin, timeout=within)
            except subprocess.TimeoutExpired:
                raise self._late(arguments, within) from None
        self._judge(process, errors)
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
    def _start(
        self, arguments: tuple[str, ...], stdin: int, stderr: int = subprocess.PIPE
    ) -> Iterator[subprocess.Popen[bytes]]:
        with self._lock:
            if self._stopped:
                raise self._stopped_error()
            process = self._begin(arguments, stdin, stderr)
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

    def _begin(self, arguments: tuple[str, ...], stdin: int, stderr: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                ["git", *arguments],
                cwd="/",
                env=self.environment(),
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

    def _judge(self, process: subprocess.Popen[bytes], errors: bytes) -> None:
        if self._stopped:
            raise self._stopped_error()
        if process.returncode != 0:
            raise GitFailed(self.clean(errors.decode("utf-8", "replace")))

    def _late(self, arguments: tuple[str, ...], within: float) -> SourceError:
        words = {"ls-remote": "the repository did not answer", "fetch": "the fetch did not end"}
        what = next((words[word] for word in arguments if word in words), "git did not end")
        hint = "it is tried again, ever more rarely"
        return SourceError(f"{what} within {within:g} s", reason="Timeout", permanent=False, hint=hint)

    def _stopped_error(self) -> SourceError:
        return SourceError("the reconciler is stopping", reason="Stopped", permanent=False)

    def clean(self, said: str) -> str:
        """Take credentials out of what Git wrote."""
        said = re.sub(r"(?<=://)[^/@\s]*@", "", said)
        for secret in (self.address.password, self.address.username if self.address.password is None else None):
            if secret:
                said = said.replace(secret, "***")
        return said

    def stop(self) -> None:
        """Kill what runs; whatever is asked from now on fails."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the group that the process leads. It has not been waited for, so that its id is still its own."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
