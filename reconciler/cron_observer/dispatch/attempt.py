"""One execution from its claim to its report: made into a request, sent, kept alive meanwhile, and ended."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from cron_observer.dispatch import answer
from cron_observer.dispatch.answer import Answered, Judged
from cron_observer.dispatch.reporting import Reports
from cron_observer.dispatch.request import Credentials, Message, message
from cron_observer.dispatch.sending import Sender
from cron_observer.dispatch.signature import keys_of
from cron_observer.errors import CronObserverError, DatabaseError, InvalidSpec, LeaseLost, SettingsError
from cron_observer.lifecycle import Completion, Run, Status
from cron_observer.model import parse_duration
from cron_observer.secret import read_secret
from cron_observer.source.threads import in_thread
from cron_observer.store.executions import Accept, Complete, Heartbeat, Release
from cron_observer.store.executions import Answer as Written

log = structlog.get_logger()

#: Heartbeats in the time of a lease.
_BEATS: Final = 3

#: Seconds that the outcome of a request waits for a database that is away. Past its lease another dispatcher sends the
#: execution again; until one has claimed it, the outcome counts.
_REPORT_PATIENCE: Final = 300.0

#: The variable that holds a secret, by its name in a manifest.
VARIABLE: Final = "CRON_OBSERVER_SECRET_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A claimed execution with all that its request is made of. `now` is the database's clock at `read_at`."""

    run: Run
    http: Mapping[str, Any]
    execution: Mapping[str, Any]
    token: str
    now: datetime
    read_at: float  #: monotonic seconds
    trusted: bool  #: its tenant may use the secrets of this machine


class Attempt:
    """Carries one job out. `stop` ends it early: what has no answer yet is given back."""

    def __init__(self, job: Job, sender: Sender, reports: Reports, secrets_dir: Path | None) -> None:
        self._job = job
        self._sender = sender
        self._reports = reports
        self._secrets_dir = secrets_dir
        self._stop = asyncio.Event()
        self._lease = timedelta(seconds=job.run.lease_seconds or 30.0)

    def stop(self) -> None:
        """Give the execution back unless its answer has come."""
        self._stop.set()

    async def carry_out(self) -> None:
        """Send the request and report what became of it. Nothing is raised: what cannot be reported runs out."""
        sending = asyncio.create_task(self._send())
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                await self._report(*sending.result())
            else:
                sending.cancel()
                await asyncio.wait({sending})
                await self._abandon(watching.result())
        except (CronObserverError, OSError) as error:
            # its lease runs out, and it is sent again under the same id
            log.warning("webhook_not_reported", execution_id=str(self._job.run.id), reason=str(error))
        finally:
            sending.cancel()
            watching.cancel()

    def _now(self) -> datetime:
        """Return the database's time, as this process has counted on from where it read it."""
        return self._job.now + timedelta(seconds=time.monotonic() - self._job.read_at)

    async def _send(self) -> tuple[Answered, tuple[str, ...]]:
        """Send the request; return what came back, and the secrets that were in it."""
        try:
            made = await self._made()
            return await self._sent(made), tuple(made.secrets)
        except SettingsError as error:
            return Answered(failure="secret", detail=error.message), ()
        except InvalidSpec as error:
            return Answered(failure="not_sendable", detail=error.message, final=True), ()
        except Exception:  # a defect of ours is a failure of this attempt, and of nothing else
            log.exception("webhook_failed", execution_id=str(self._job.run.id))
            return Answered(failure="defect", detail="the dispatcher failed; its log says why"), ()

    async def _sent(self, made: Message) -> Answered:
        """Send a request within its timeout and that of the execution."""
        run = self._job.run
        patience = parse_duration(str(self._job.http.get("timeout") or "30s")).total_seconds()
        if run.run_deadline is not None:
            patience = min(patience, (run.run_deadline - self._now()).total_seconds())
        return await self._sender.send(made, max(patience, 0.0))

    async def _made(self) -> Message:
        """Make the request, with the secrets as they are now."""
        http, run = self._job.http, self._job.run
        auth, signing = http.get("auth"), http.get("signing")
        secret = await self._secret(str(auth["secretRef"])) if auth else None
        keys = keys_of(await self._secret(str(signing["secretRef"])), str(signing["secretRef"])) if signing else []
        return message(
            http,
            self._job.execution,
            Credentials(token=self._job.token, auth=secret, keys=keys),
            deadline=run.run_deadline or self._now(),
            now=self._now(),
        )

    async def _secret(self, name: str) -> str:
        """Read a secret by its name: a file of the project, one of all projects, or a variable."""
        if not self._job.trusted:
            raise SettingsError(f"there is no secret {name}", hint="secrets belong to the tenant of the settings")
        if self._secrets_dir is not None:
            project = str(self._job.execution["task"]["project"])
            for place in (self._secrets_dir / project / name, self._secrets_dir / name):
                if await in_thread(place.is_file):
                    return await _read(f"file:{place}", name)
        return await _read(f"env:{VARIABLE}{name.upper().replace('-', '_').replace('.', '_')}", name)

    async def _watch(self) -> str:
        """Keep the lease; return why the request has to end: cancelled, lost or stopped."""
        run, lease = self._job.run, self._lease.total_seconds()
        held_until = self._job.read_at + lease
        while True:
            if await self._stopped(lease / _BEATS):
                return "stopped"
            began = time.monotonic()
            beat = Heartbeat(tenant_id=run.tenant_id, id=run.id, fence=run.fence)
            try:
                async with asyncio.timeout(max(held_until - began, 0.0)):
                    written = await self._reports.submit(beat, lease)
            except (DatabaseError, TimeoutError):
                # nobody knows any more whether it is ours: another dispatcher may send it from now on
                return "lost"
            if written.refusal is not None:
                return "lost"
            if written.stop or (written.run is not None and written.run.cancel_requested_at is not None):
                return "cancelled"
            held_until = began + lease

    async def _stopped(self, seconds: float) -> bool:
        """Wait so long; True if this attempt is told to stop meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def _abandon(self, why: str) -> None:
        """Say that no answer is waited for any more."""
        run = self._job.run
        if why == "stopped":
            reason = "the dispatcher stopped before an answer came"
            await self._reports.submit(
                Release(tenant_id=run.tenant_id, id=run.id, fence=run.fence, reason=reason), _REPORT_PATIENCE
            )
        elif why == "cancelled":
            await self._complete(Completion(outcome="cancelled", fence=run.fence, digest=self._digest("cancelled")))
        else:
            log.warning("webhook_lease_lost", execution_id=str(run.id), fence=run.fence)

    async def _report(self, answered: Answered, secrets: tuple[str, ...]) -> None:
        """Report how the request was answered."""
        run = self._job.run
        judged = answer.judge(answered, secrets, self._now())
        told = {"http": {"method": self._job.http.get("method", "POST"), **answer.shown(answered, secrets)}}
        if judged.outcome == "accepted":
            accept = Accept(tenant_id=run.tenant_id, id=run.id, fence=run.fence, told=told)
            _agreed(await self._reports.submit(accept, _REPORT_PATIENCE))
            return
        await self._complete(_completion(judged, run.fence, self._digest(judged.outcome), told))

    async def _complete(self, done: Completion) -> None:
        run = self._job.run
        _agreed(await self._reports.submit(Complete(tenant_id=run.tenant_id, id=run.id, done=done), _REPORT_PATIENCE))

    def _digest(self, outcome: str) -> bytes:
        """Identify what this attempt says, so that a repeat after a lost acknowledgement is recognised."""
        return hashlib.sha256(f"{self._job.run.id} {self._job.run.fence} {outcome}".encode()).digest()


def _completion(judged: Judged, fence: int, digest: bytes, told: Mapping[str, Any]) -> Completion:
    return Completion(
        outcome=judged.outcome,
        fence=fence,
        digest=digest,
        error=judged.error,
        result=judged.result,
        retryable=judged.retryable,
        not_before=judged.wait,
        told=told,
    )


def _agreed(written: Written) -> None:
    """Raise what a report was refused with, unless its receiver has ended the execution already."""
    if written.refusal is None:
        return
    ended_elsewhere = written.run is not None and written.run.status is not Status.RUNNING
    if not (isinstance(written.refusal, LeaseLost) or ended_elsewhere):
        raise written.refusal
    log.info("webhook_overtaken", reason=written.refusal.message)


async def _read(ref: str, name: str) -> str:
    """Read a secret; what cannot be read is told by its name, not by its place."""
    try:
        return await in_thread(partial(read_secret, ref))
    except SettingsError:
        hint = f"write the file below secrets_dir, or set {VARIABLE}…"
        raise SettingsError(f"the secret {name} cannot be read where the dispatcher runs", hint=hint) from None
