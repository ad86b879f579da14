"""A large repository and what its changes cost: the reconciler's own passes, each beside what nothing can beat.

The repository holds 100,000 manifests in 200 folders, one task each, of some 800 bytes, with 500 distinct schedules.
Measured are the first sync, a look that finds nothing new, one changed file, 1,000 changed files, a restart with an
intact database, and a push by force; a change counts from the request that a hook or a poll makes until the pass has
ended, fetch included. The limits of the same run: Git alone (the same look and fetch, and for a first sync every
blob), parsing alone (the processor time of one loader pass), and the same rows by one COPY. Commits are durable.

Goals: a first sync under 15 s; nothing new under 50 ms more than Git's own look; one change under 60 ms (median), and
within 10 % of what it takes among 1,000 manifests; 1,000 changed files under 400 ms.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import structlog
from common import arguments, percentile, show

from cron_observer.manifest import loader
from cron_observer.postgres import launch
from cron_observer.postgres.cluster import SUPERUSER
from support import databases
from support.databases import FreshDatabase, make_tenant
from support.postgres import DISK, short_folder, test_provider
from support.repositories import Following, following, git

FIRST_SECONDS = 15.0
NOTHING_MS = 50.0
ONE_MS = 60.0
THOUSAND_MS = 400.0
GROWTH = 1.10

FOLDERS = 200
DISTINCT = 500
FEW = 1_000
SAMPLE = 2_000

_IDENTITY = "committer Ada Lovelace <ada@example.org>"


def manifest(number: int, version: int = 0) -> str:
    """Return a manifest as people write them, some 800 bytes; `version` changes what it runs."""
    return (
        "# yaml-language-server: $schema=https://example.org/schemas/v1/manifest.json\n"
        "apiVersion: cron-observer/v1\nkind: Task\nmetadata:\n"
        f"  name: task-{number:06}\n"
        f"  labels: {{team: team-{number % 37}, tier: gold, area: billing}}\n"
        "  annotations:\n    runbook: https://runbooks.example.org/billing/nightly-export\n"
        "spec:\n"
        f'  description: "Export the day\'s invoices of customer {number} to the warehouse"\n'
        "  schedule:\n"
        f'    cron: "{number % 60} {number % 24} * * {"*" if number % DISTINCT < 250 else number % 7}"\n'
        "    timezone: Europe/Berlin\n"
        "  queue: default\n  priority: 5\n  overlap: skip\n"
        "  retries: {max: 3, backoff: exponential, initial: 30s, cap: 10m}\n"
        "  timeout: 30m\n  startDeadline: 10m\n"
        "  payload:\n"
        f"    customer: {number}\n    version: {version}\n    dataset: invoices\n    mode: incremental\n"
        "    destination: {kind: warehouse, table: billing.invoices_daily, region: eu-central}\n"
    )


def path_of(number: int) -> str:
    """Return where a manifest lies."""
    return f"tasks/team-{number % FOLDERS:03}/task-{number:06}.yaml"


class Bare:
    """A bare repository that is written by Git's import, so that a push costs next to nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        git(folder.parent, "init", "--quiet", "--bare", "--initial-branch=main", folder.name)
        self._at = 1_760_000_000

    def commit(self, files: Iterable[tuple[str, str]], *, onto: str | None = "refs/heads/main^0") -> None:
        """Add one commit to the branch, or put it in the place of all that there was (`onto` None)."""
        self._at += 60
        start = ["reset refs/heads/main\n\n"] if onto is None else []
        head = f"commit refs/heads/main\n{_IDENTITY} {self._at} +0000\ndata 7\nchange\n\n"
        command = ["git", "-C", str(self.folder), "fast-import", "--quiet", "--force"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        assert process.stdin is not None
        with process.stdin as feed:
            feed.write("".join([*start, head, f"from {onto}\n" if onto is not None else ""]).encode())
            for path, text in files:
                data = text.encode()
                feed.write(b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data))
        assert process.wait() == 0


class Memory(threading.Thread):
    """Watches what this process and its children hold, the database's processes apart."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.begun = 0
        self._over = threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._over.wait(0.1):
            held = sum(_resident(pid) for pid in _family()) * page
            self.begun = self.begun or held
            self.peak = max(self.peak, held)

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self.join()


def _resident(pid: int) -> int:
    """Return the pages of a process that no file backs and nobody shares, which would be counted twice."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) - int(fields[2])


def _family() -> list[int]:
    """Return this process and its descendants, without those that are PostgreSQL's or the import's.

    The kernel knows the children of each thread: a walk through all processes would take time that is measured.
    """
    found, left = [], [os.getpid()]
    while left:
        found.append(pid := left.pop())
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):  # it has ended
                left += [one for one in map(int, thread.read_text(encoding="ascii").split()) if not _is_postgres(one)]
    return found


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").startswith(("postgres", "pg_"))
    except OSError:
        return True


@contextmanager
def fresh_database() -> Iterator[FreshDatabase]:
    """Run a server with durable commits and give an empty database on it."""
    with (
        short_folder("co-bench-", DISK) as folder,
        launch(folder / "pg", provider=test_provider()) as server,
    ):
        url = server.url(SUPERUSER, "postgres")
        with databases.template(url) as template, databases.fresh(url, template) as database:
            yield database


@asynccontextmanager
async def followed(database: FreshDatabase, bare: Bare, folder: Path) -> AsyncIterator[Following]:
    """Follow the repository; everything is asked for, as hooks and polls do, and nothing is watched."""
    async with following(make_tenant(database), bare.folder, folder, patience=3600) as follow:
        yield follow


def spent(database: FreshDatabase) -> float:
    """Return the seconds of processor time of this process, its children and its connections to the server so far."""
    own, ticks = os.times(), 0
    servers = database.rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    for pid in {*_family(), *(row["pid"] for row in servers)} - {os.getpid()}:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return own.user + own.system + own.children_user + own.children_system + ticks / os.sysconf("SC_CLK_TCK")


def tell_spent(what: str, seconds: float) -> None:
    """Print processor time: it says what work costs where others use the same cores."""
    print(f"  processor time of {what}: {seconds * 1000:.0f} ms")


async def until_applied(follow: Following) -> float:
    """Ask for a pass as a hook does, and return the seconds until it has ended."""
    began = time.perf_counter()
    follow.database.do("UPDATE sources SET requested_seq = requested_seq + 1, asked_by = 'push', next_poll_at = now()")
    outcome = (await follow.reconciler.tick()).get("main")
    seconds = time.perf_counter() - began
    assert outcome in {"applied", "unchanged"}, outcome
    return seconds


class Alone:
    """What Git needs by itself: its own look, and its own fetch into a mirror of its own."""

    def __init__(self, bare: Bare, mirror: Path) -> None:
        self._url, self._mirror = str(bare.folder), mirror
        git(mirror.parent, "init", "--quiet", "--bare", mirror.name)

    def look(self) -> float:
        """Return the seconds of a look at the branch."""
        return timed("git", "ls-remote", self._url, "refs/heads/main")

    def fetch(self) -> float:
        """Return the seconds of fetching what is new."""
        refs = "+refs/heads/main:refs/heads/main"
        return timed("git", "-C", str(self._mirror), "fetch", "--quiet", "--no-tags", self._url, refs)

    def read(self) -> float:
        """Return the seconds of listing and reading every blob."""
        began = time.perf_counter()
        where = ["git", "-C", str(self._mirror)]
        listed = subprocess.run([*where, "ls-tree", "-r", "main"], check=True, capture_output=True).stdout
        ids = b"".join(line.split()[2] + b"\n" for line in listed.splitlines())
        reading = [*where, "cat-file", "--batch", "--buffer"]
        subprocess.run(reading, input=ids, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def timed(*command: str) -> float:
    """Run a command and return its seconds."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def parsing(manifests: int) -> float:
    """Return the seconds of processor time of one loader pass over so many manifests, judged by a sample."""
    texts = [manifest(number) for number in range(min(manifests, SAMPLE))]
    loader.load(texts[0])
    began = time.process_time()
    for text in texts:
        loader.load(text)
    return (time.process_time() - began) / len(texts) * manifests


def copying(database: FreshDatabase) -> float:
    """Return the seconds in which one COPY each writes the rows of the first sync again, with their indexes."""
    seconds = 0.0
    with databases.connect(database.url) as conn:
        for table in ("tasks", "task_revisions", "task_plan", "manifest_files"):
            conn.execute(f"CREATE TABLE copy_of_{table} (LIKE {table} INCLUDING ALL)")
            columns = ", ".join(
                str(row["column_name"])
                for row in conn.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = "
                    "'public' AND is_generated = 'NEVER' ORDER BY ordinal_position",
                    (table,),
                )
            )
            with conn.cursor() as cursor, cursor.copy(f"COPY (SELECT {columns} FROM {table}) TO STDOUT") as copy:
                chunks = [bytes(chunk) for chunk in copy]
            began = time.perf_counter()
            with conn.cursor() as cursor, cursor.copy(f"COPY copy_of_{table} ({columns}) FROM STDIN") as copy:
                for start in range(0, len(chunks), 1000):
                    copy.write(b"".join(chunks[start : start + 1000]))
            seconds += time.perf_counter() - began
            conn.execute(f"DROP TABLE copy_of_{table}")
    return seconds


class Verdict:
    """The table of figures, and whether a goal was missed."""

    def __init__(self) -> None:
        self.missed = False

    def tell(self, what: str, figure: float, goal: float | None, limit: float, limit_name: str, unit: str) -> None:
        """Print a figure, its goal, the limit of the same run and the ratio."""
        met = "" if goal is None else f" (goal {goal:.1f} {unit}{'' if figure <= goal else ': MISSED'})"
        self.missed |= goal is not None and figure > goal
        print(f"{what:<28} {figure:9.1f} {unit}{met}; {limit_name} {limit:.1f} {unit}; ratio {figure / limit:.1f}")


async def one_change(follow: Following, bare: Bare, alone: Alone, manifests: int, times: int) -> tuple[float, float]:
    """Change one file again and again; return the medians in ms, of the passes and of Git alone."""
    seen, floor, work = [], [], 0.0
    for turn in range(times + 2):
        number = turn * 7919 % manifests
        bare.commit([(path_of(number), manifest(number, turn + 1))])
        before = spent(follow.database)
        seen.append(await until_applied(follow))
        work += spent(follow.database) - before
        floor.append(alone.look() + alone.fetch())
    figures = show(f"one change among {manifests:,}", seen[2:])
    tell_spent("one change", work / len(seen))
    limits = show("git alone (look and fetch)", floor[2:])
    return figures["p50"], limits["p50"]


async def nothing_new(follow: Following, alone: Alone, times: int) -> tuple[float, float]:
    """Look when there is nothing new; return the medians in ms."""
    seen, floor = [], []
    for _ in range(times):
        seen.append(await until_applied(follow))
        floor.append(alone.look())
    return show("nothing new", seen)["p50"], show("git alone (look)", floor)["p50"]


async def among_few(folder: Path, times: int) -> float:
    """Return the median in ms of one change among a thousand manifests."""
    bare = Bare(folder / "few.git")
    bare.commit(((path_of(number), manifest(number)) for number in range(FEW)), onto=None)
    alone = Alone(bare, folder / "few-mirror.git")
    alone.fetch()
    with fresh_database() as database:
        async with followed(database, bare, folder / "few-data") as follow:
            await follow.reconciler.tick()
            median, _ = await one_change(follow, bare, alone, FEW, times)
    return median


async def measure(folder: Path, manifests: int, times: int, verdict: Verdict) -> None:
    """Do it all with one large repository."""
    few = await among_few(folder, times)
    bare = Bare(folder / "many.git")
    bare.commit(((path_of(number), manifest(number)) for number in range(manifests)), onto=None)
    alone = Alone(bare, folder / "many-mirror.git")
    clone, read = alone.fetch(), alone.read()
    parse = parsing(manifests)
    with fresh_database() as database:
        async with followed(database, bare, folder / "many-data") as follow:
            memory = Memory()
            memory.start()
            before, began = spent(database), time.perf_counter()
            outcome = await follow.reconciler.tick()
            first = time.perf_counter() - began
            tell_spent("the first sync", spent(database) - before)
            memory.stop()
            assert outcome == {"main": "applied"}, outcome
            assert follow.source()["counts"]["tasks"] == manifests
            copy = copying(database)
            limit = f"git {clone + read:.1f} s + parsing {parse:.1f} s + COPY {copy:.1f} s ="
            verdict.tell("first sync", first, FIRST_SECONDS, clone + read + parse + copy, limit, "s")
            peak, begun = memory.peak / 2**20, memory.begun / 2**20
            print(f"  memory of the reconciler and its children at most {peak:.0f} MiB, {begun:.0f} before")

            median, limit_ms = await nothing_new(follow, alone, times)
            verdict.tell("nothing new", median, limit_ms + NOTHING_MS, limit_ms, "git alone", "ms")
            median, limit_ms = await one_change(follow, bare, alone, manifests, times)
            verdict.tell("one change", median, ONE_MS, limit_ms, "git alone", "ms")
            verdict.tell("the same, by repository", median, few * GROWTH, few, f"among {FEW:,}", "ms")
            await many_changes(follow, bare, alone, manifests, verdict)

            again = follow.another()
            began = time.perf_counter()
            assert await again.tick() in ({}, {"main": "unchanged"})
            restart = (time.perf_counter() - began) * 1000
            verdict.tell("restart", restart, None, alone.look() * 1000, "git alone", "ms")
            await by_force(follow, bare, alone, manifests, verdict)


async def many_changes(follow: Following, bare: Bare, alone: Alone, manifests: int, verdict: Verdict) -> None:
    """Change a thousand files in one commit, three times."""
    seen, floor = [], []
    number = min(1_000, manifests)
    for turn in range(3):
        chosen = range(turn, turn + number)
        bare.commit((path_of(one % manifests), manifest(one % manifests, 1_000 + turn)) for one in chosen)
        before = spent(follow.database)
        seen.append(await until_applied(follow))
        tell_spent(f"{number:,} changed files", spent(follow.database) - before)
        floor.append(alone.look() + alone.fetch() + parsing(number))
    show(f"{number:,} changed files", seen)
    limit = percentile(floor, 0.5) * 1000
    verdict.tell(f"{number:,} changed files", percentile(seen, 0.5) * 1000, THOUSAND_MS, limit, "git + parsing", "ms")


async def by_force(follow: Following, bare: Bare, alone: Alone, manifests: int, verdict: Verdict) -> None:
    """Put a history of one commit in the place of all, with one file more changed."""
    files = ((path_of(number), manifest(number, 5_000 if number == 0 else 0)) for number in range(manifests))
    bare.commit(files, onto=None)
    seconds = await until_applied(follow)
    verdict.tell("push by force", seconds * 1000, None, (alone.look() + alone.fetch()) * 1000, "git alone", "ms")


def main() -> None:
    """Make the repository, measure, and compare."""
    asked = arguments(__doc__ or "", manifests=100_000, times=21)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    verdict = Verdict()
    print(f"machine: {os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}")
    with short_folder("co-bench-", DISK) as folder:
        asyncio.run(measure(folder, asked.manifests, asked.times, verdict))
    if verdict.missed:
        print("MISSED")
        sys.exit(1)
    print("met")


if __name__ == "__main__":
    main()
