"""The reconciler: keeps what is in force equal to what the sources declare. Any number may run at once.

Every trigger (a poll that is due, a change that was heard of, `sync`) only makes a source due; however many there
were, one pass follows, and one more for those that come during it. What a pass does is in `passes`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime
from itertools import combinations
from typing import Any, Final

import structlog

from cron_observer.errors import DatabaseError, SettingsError, SourceError
from cron_observer.reconcile.passes import LEASE, Pass, Subject
from cron_observer.reconcile.subjects import overlap
from cron_observer.settings import Settings, SourceSettings
from cron_observer.source import SourceSpec, detect_kind, open_source, read_address
from cron_observer.source.command import git_version
from cron_observer.source.reader import Reader
from cron_observer.source.threads import in_thread
from cron_observer.source.watch import Watcher
from cron_observer.store import sources, tenants, wakeups
from cron_observer.store.engine import Database, clock, is_transient

log = structlog.get_logger()

#: Seconds that a tick waits for the passes that it began. Slower ones go on by themselves.
PATIENCE: Final = 1.0

#: Seconds that passes have to end in after the reconciler was told to stop.
STOPPING_SECONDS: Final = 10.0


class Reconciler:
    """One reconciler loop. All its truth is in the database; `tick` may be called by any number of processes."""

    def __init__(
        self, database: Database, settings: Settings, *, patience: float = PATIENCE, listen: bool = True
    ) -> None:
        """`database` acts as the reconciler's role. `wake` is set when a tick is worth while at once.

        `patience` is how many seconds a tick waits for passes; without `listen`, changes of local repositories and
        folders are found by looking alone. Raises `SettingsError` when a source has an address or a ref of a form
        that we refuse, or needs Git and there is none.
        """
        self.wake = asyncio.Event()
        self._database = database
        self._tenant = tenants.tenant_id(settings.tenant)
        self._cache = settings.data_dir.absolute() / "mirrors"
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._subjects = {one.name: self._open(one) for one in settings.sources}
        _refuse_overlaps(list(self._subjects.values()))
        if any(subject.kind == "git" for subject in self._subjects.values()):
            git_version()
        self._patience, self._listen = patience, listen
        self._reader = Reader()
        self._watcher: Watcher | None = None
        self._listening: asyncio.Task[None] | None = None
        self._heard: set[str] = set()
        self._news = asyncio.Event()
        self._applying = asyncio.Lock()
        self._running: dict[str, asyncio.Task[str | None]] = {}
        self._prepared = False

    def _open(self, settings: SourceSettings) -> Subject:
        spec = SourceSpec.of(settings)
        source_id = tenants.source_id(self._tenant, spec.name)
        try:
            return Subject(
                spec=spec,
                tenant_id=self._tenant,
                source_id=source_id,
                kind=detect_kind(spec.url),
                source=open_source(spec, self._cache, str(source_id)),
                local=read_address(spec.url).local,
                settings=settings,
            )
        except SourceError as error:
            raise SettingsError(f"source {spec.name}: {error.message}", hint=error.hint) from error

    async def tick(self, now: datetime | None = None) -> dict[str, str]:
        """Begin a pass over every source that is due, and return the outcomes of those that have ended.

        Waits a second for them, less when a change is heard of; what takes longer goes on meanwhile. `now` is
        for tests: the time to go by instead of the database's clock. Raises `DatabaseError` and `SettingsError`.
        """
        if not self._prepared:
            await self._prepare(now)
        async with self._database.transaction([self._tenant]) as conn:
            at = now or await clock(conn)
            heard = set(self._heard)
            self._news.clear()
            for name in sorted(heard):
                await sources.request_sync(conn, self._tenant, name, at, by="push", tell=False)
            begun = []
            for _tenant, name in await sources.due(conn, [self._tenant], at):
                subject = self._subjects.get(name)
                if subject is None or name in self._running:
                    continue
                held = await sources.lease(conn, self._tenant, subject.source_id, owner=self._owner, now=at, ttl=LEASE)
                if held is not None:
                    begun.append((subject, held))
        self._heard -= heard
        for subject, held in begun:
            work = Pass(self._database, subject, held, self._reader, self._applying, now, at)
            self._running[held.name] = asyncio.create_task(self._run(work), name=f"pass over {held.name}")
        return await self._ended()

    async def _prepare(self, now: datetime | None) -> None:
        """Write the sources of the settings down, and start what listens and reads."""
        async with self._database.transaction([self._tenant]) as conn:
            if self._tenant not in await tenants.all_ids(conn):
                raise SettingsError("the tenant is not in the database", hint="run cron-observer db migrate")
            at = now or await clock(conn)
            for subject in self._subjects.values():
                await tenants.ensure_project(conn, self._tenant, subject.spec.project, at)
                await self._ensure(conn, subject, at)
        if self._subjects:
            await in_thread(self._reader.start)
        if self._listen and self._watcher is None:
            self._watcher = Watcher(self._hear)
            self._listening = asyncio.create_task(wakeups.listen(self._database, self._awake), name="hints")
        self._prepared = True

    async def _ensure(self, conn: Any, subject: Subject, at: datetime) -> None:
        mode, policy = subject.settings.mode, subject.settings.failure_policy
        await sources.ensure(conn, self._tenant, subject.spec, subject.kind, at, mode=mode, failure_policy=policy)

    def _hear(self, name: str) -> None:
        self._heard.add(name)
        self._news.set()
        self.wake.set()

    def _awake(self) -> None:
        """Look at once what is due: somebody has asked for something."""
        self._news.set()
        self.wake.set()

    async def _run(self, work: Pass) -> str | None:
        """Do one pass, and outlive whatever happens in it: one source's trouble is not the others'."""
        name = work.held.name
        try:
            await self._follow(work.subject, work.held.applied_seq)
            return await work.run()
        except Exception as error:  # noqa: BLE001  one source's trouble is not the others'
            await self._give_up(work, error)
        finally:
            self._running.pop(name, None)
            self.wake.set()
        return None

    async def _give_up(self, work: Pass, error: Exception) -> None:
        """Tell of a pass that ended by an error of the database or of ours, and give its lease back."""
        name = work.held.name
        try:
            if isinstance(error, DatabaseError) or is_transient(error):
                log.warning("source_postponed", source=name, reason=str(error).splitlines()[0])
                await work.leave("the database was not to be had")
            else:
                log.error("source_pass_failed", source=name, exc_info=error)
                await work.fail_unexpectedly()
        except Exception as again:  # noqa: BLE001  then the lease runs out by itself
            log.warning("source_postponed", source=name, reason=str(again).splitlines()[0])

    async def _follow(self, subject: Subject, applied_seq: int) -> None:
        """Listen to what the source is on this machine; begin before it is looked at, so that nothing is missed."""
        if not subject.local:
            return
        # a path of which nothing was applied yet may have become a repository, or a folder
        if applied_seq == 0 and await in_thread(detect_kind, subject.spec.url) != subject.kind:
            subject.kind = detect_kind(subject.spec.url)
            subject.source = open_source(subject.spec, self._cache, str(subject.source_id))
            async with self._database.transaction([self._tenant]) as conn:
                at = await clock(conn)
                await self._ensure(conn, subject, at)
        if self._watcher is not None:
            await in_thread(self._watch, subject)

    def _watch(self, subject: Subject) -> None:
        if self._watcher is not None:
            self._watcher.watch(subject.spec.name, subject.source.watched())

    async def _ended(self) -> dict[str, str]:
        """Wait for the running passes, but neither long nor when something else is to be done."""
        passes = dict(self._running)
        news = asyncio.create_task(self._news.wait())
        deadline = asyncio.get_running_loop().time() + self._patience
        try:
            while waiting := [task for task in passes.values() if not task.done()]:
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0 or news.done():
                    break
                await asyncio.wait([news, *waiting], timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        ended = {name: task.result() for name, task in passes.items() if task.done() and not task.cancelled()}
        return {name: outcome for name, outcome in ended.items() if outcome is not None}

    async def run(self, stop: asyncio.Event, *, every: float = 1.0) -> None:
        """Tick until `stop` is set, then close. A tick that finds no database is tried again."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self.wake.clear()
                try:
                    await self.tick()
                except DatabaseError as error:
                    log.warning("source_postponed", source=None, reason=error.message)
                waking = asyncio.create_task(self.wake.wait())
                await asyncio.wait([stopping, waking], timeout=every, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
        finally:
            stopping.cancel()
            await self.close()

    async def close(self) -> None:
        """End what runs: applies are let finish, Git and the parser are killed, leases given back."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        for subject in self._subjects.values():
            subject.source.close()
        await in_thread(self._reader.close)
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=STOPPING_SECONDS)
        for task in list(self._running.values()):
            task.cancel()
        if self._watcher is not None:
            await in_thread(self._watcher.close)


def _refuse_overlaps(subjects: Sequence[Subject]) -> None:
    """Raise `SettingsError` for two sources that would apply the same files, each taking the other's for its own."""
    for one, other in combinations(subjects, 2):
        if overlap(one, other):
            raise SettingsError(
                f"the sources {one.spec.name} and {other.spec.name} read the same files of {one.spec.project}",
                hint="give them other paths, refs or projects",
            )
