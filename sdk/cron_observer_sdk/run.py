"""``cron-observer run TASK -- command…``: run a command and report it, whatever happens to the reporting."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Union

from cron_observer_sdk.child import Child, code_of_failure, exit_code, open_standard_streams
from cron_observer_sdk.client import Client
from cron_observer_sdk.errors import CronObserverError, LeaseLost, NotConfigured
from cron_observer_sdk.host_lock import BUSY, HostLock
from cron_observer_sdk.notice import Notices, strict
from cron_observer_sdk.options import USAGE, RunOptions
from cron_observer_sdk.outcome import Outcome, fault
from cron_observer_sdk.output import Output, Sink, Tail
from cron_observer_sdk.own_run import OwnRun
from cron_observer_sdk.ping_run import PingRun
from cron_observer_sdk.redact import Redactor
from cron_observer_sdk.result_file import ResultFile
from cron_observer_sdk.text import RESULT_BYTES, strict_json

AnyRun = Union[OwnRun, PingRun]

#: Signals that are handed on to the command.
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class Interrupted(BaseException):
    """A signal came while the command does not run: before it starts, or while its end is reported."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Hands signals on to the command while there is one."""

    def __init__(self) -> None:
        self._child: Child | None = None
        self._raises = False
        self._missed: list[int] = []
        # An inherited "ignore" would let the kernel reap the command before we do.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in FORWARDED:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
                signal.signal(number, self._arrived)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal raise `Interrupted` in this block; outside of it, signals wait for a child."""
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def hand_to(self, child: Child) -> None:
        """Hand signals to the child, the held ones first."""
        self._child = child
        while self._missed:
            child.signal(self._missed.pop(0))

    def take_back(self) -> None:
        """Hand on nothing more: the command has ended."""
        self._child = None

    def _arrived(self, number: int, _frame: Any) -> None:
        """Handle one signal."""
        if self._child is not None:
            self._child.signal(number)
        elif self._raises:
            raise Interrupted(number)
        else:
            self._missed.append(number)


class Ender:
    """Ends the command when its time is over or its cancellation is asked for."""

    def __init__(self, own: AnyRun, options: RunOptions) -> None:
        self.why: str | None = None  #: ``timeout`` or ``cancelled``, once it has begun to end the command
        self._own_run = own
        self._options = options
        self._thread: threading.Thread | None = None

    def watch(self, child: Child) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, args=(child,), name="cron-observer-end", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Wait until the rest of the group is gone, if the command was ended."""
        if self.why is not None and self._thread is not None:
            self._thread.join()

    def _watch(self, child: Child) -> None:
        """Wait for a reason, then end the group."""
        timeout = self._options.timeout
        asked = self._own_run.execution.wait_cancelled(threading.TIMEOUT_MAX if timeout is None else timeout)
        self.why = "cancelled" if asked else "timeout"
        child.end(self._options.grace)


def run(options: RunOptions, command: Sequence[str]) -> int:
    """Run the command; return its exit code, whatever becomes of the reporting."""
    open_standard_streams()
    signals = Signals()
    notices = Notices(_to_stderr, _to_stderr)
    lock = HostLock(options.task or f"ping {options.ping}") if options.lock else None
    os.environ.update(options.environment)
    try:
        own = _any_run(options, notices)
        with signals.interrupting():
            time.sleep(random.uniform(0, options.jitter))  # noqa: S311  it spreads load, and keeps no secret
    except NotConfigured as error:
        _to_stderr(str(error))
        return USAGE
    except Interrupted as interrupted:
        return 128 + interrupted.number
    busy = None if lock is None else _busy(lock, options)
    try:
        with signals.interrupting():
            own.begin()
    except Interrupted as interrupted:
        own.release("stopped before the command started")
        return 128 + interrupted.number
    except CronObserverError as error:  # only where CRON_OBSERVER_STRICT asks for it
        _to_stderr(str(error))
        return USAGE
    if busy is not None:
        _to_stderr(f"{busy.error['message'] if busy.error else ''}: the command was not started")
        code = BUSY
    else:
        code, busy = _work(options, command, own, signals)
    with suppress(Interrupted), signals.interrupting():
        own.end(busy)
    return code


def _work(options: RunOptions, command: Sequence[str], own: AnyRun, signals: Signals) -> tuple[int, Outcome]:
    """Run the command to its end; return its exit code and what is to be reported."""
    sink: Sink = own if isinstance(own, PingRun) else own.reporter
    tail = None if options.tail_bytes is None else Tail(sink, options.tail_bytes)
    output = Output(None if options.no_output else tail or sink, Redactor(options.redact))
    result = None if options.result_file is None else ResultFile(options.result_file)
    child = Child(command, _environment(own, options), output.take, quiet=options.quiet)
    try:
        child.spawn()
    except OSError as error:
        code = code_of_failure(error)
        message = f"{command[0]}: {error.strerror or error}"
        _to_stderr(message)
        outcome = Outcome("failed", code, fault("CommandNotFound" if code == 127 else "CommandNotRunnable", message))
    else:
        signals.hand_to(child)
        ender = Ender(own, options)
        ender.watch(child)
        status = child.wait()
        ender.finish()
        code = exit_code(status)
        outcome = _outcome(status, ender.why, options, own)
    output.finish()
    if tail is not None:
        tail.flush()
    signals.take_back()
    if result is not None:
        value, why = result.read()
        outcome = outcome._replace(result=value)
        if why is not None:
            (own if isinstance(own, PingRun) else own.reporter).log("WARN", why, None)
    return code, outcome


def _any_run(options: RunOptions, notices: Notices) -> AnyRun:
    """Make the run; a wrong address does not keep the command from running. Raise `NotConfigured` if it shall."""
    if options.ping is not None:
        return PingRun(options.ping, notices)
    try:
        client = Client(redact=options.redact)
    except NotConfigured as error:
        if strict():
            raise
        notices.say("unconfigured", f"{error}: this run is not reported")
        client = Client("", "")
    return OwnRun(
        options.task, client, queues=options.queues, lease_seconds=options.lease, notices=notices, process=notices
    )


def _busy(lock: HostLock, options: RunOptions) -> Outcome | None:
    """Take the lock; return what is to be reported if that cannot be."""
    name = options.task or "the check"
    try:
        if lock.take():
            return None
    except OSError as error:
        return Outcome("failed", BUSY, fault("NoLock", f"{name} cannot be locked: {error}"))
    return Outcome("skipped", error=fault("Locked", f"another run of {name} is going on on this host"))


def _outcome(status: int, why: str | None, options: RunOptions, own: AnyRun) -> Outcome:
    """Say how the command ended."""
    code = exit_code(status)
    if why == "timeout":
        return Outcome("failed", code, fault("Timeout", f"still running after {options.timeout:g} s: ended"))
    if why == "cancelled" and isinstance(own, OwnRun) and not isinstance(own.reporter.stop_cause, LeaseLost):
        return Outcome("cancelled", code)
    if status < 0:
        return Outcome("failed", code, fault("Signal", f"ended by {_signal_name(-status)}"))
    return Outcome("finished" if code in options.success_codes else "failed", code)


def _signal_name(number: int) -> str:
    """Return SIGKILL for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _environment(own: AnyRun, options: RunOptions) -> dict[str, str]:
    """Return our environment without our key, and what the command may want to know about its execution."""
    run, facts = own.execution, own.execution.facts
    environment = dict(os.environ)
    environment.pop("CRON_OBSERVER_RUN_TOKEN", None)
    if not options.keep_token:
        environment.pop("CRON_OBSERVER_TOKEN", None)
    if options.result_file is not None:
        environment["CRON_OBSERVER_RESULT_FILE"] = str(Path(options.result_file).absolute())
    if not run.observed:
        return environment
    environment["CRON_OBSERVER_EXECUTION_ID"] = run.id
    environment["CRON_OBSERVER_EXECUTION_TASK"] = run.task
    environment["CRON_OBSERVER_EXECUTION_ATTEMPT"] = str(run.attempt)
    environment["CRON_OBSERVER_EXECUTION_FENCE"] = str(run.fence)
    if facts.get("run_token"):
        environment["CRON_OBSERVER_RUN_TOKEN"] = str(facts["run_token"])
    if facts.get("scheduled_for"):
        environment["CRON_OBSERVER_EXECUTION_SCHEDULED_FOR"] = str(facts["scheduled_for"])
    if facts.get("payload") is not None:
        payload = strict_json(facts["payload"])
        if len(payload.encode("utf-8")) <= RESULT_BYTES:
            environment["CRON_OBSERVER_EXECUTION_PAYLOAD"] = payload
    return environment


def _to_stderr(message: str) -> None:
    """Say something beside the command's own output."""
    with suppress(OSError):
        os.write(2, f"cron-observer: {message}\n".encode("utf-8", "replace"))


def main(arguments: Sequence[str]) -> int:
    """Run the command that the arguments describe."""
    from cron_observer_sdk.options import read

    options, command = read(arguments)
    return run(options, command)
