"""Our copy of a repository, damaged in every way, and what Git leaves behind: nothing.

``CRON_OBSERVER_SYNCS=1000`` syncs as often, to see that nothing is left behind; by default 200 times.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from support.databases import Tenant
from support.git_servers import Forge, forge
from support.repositories import Repository, following, git, manifest, source_of

SYNCS = int(os.environ.get("CRON_OBSERVER_SYNCS", "200"))

#: Ways to damage a mirror of which the next pass must know nothing.
DAMAGE = ("pack cut", "pack gone", "index gone", "zeros", "object gone", "ref garbage", "shallow", "config", "lock")


def damage(mirror: Path, how: str) -> None:
    """Damage a mirror."""
    git(mirror, "repack", "-a", "-d", "--quiet")
    packs, indexes = (sorted((mirror / "objects/pack").glob(f"*.{kind}")) for kind in ("pack", "idx"))
    for path in (*packs, *indexes):
        path.chmod(0o644)
    if how == "pack cut":
        packs[0].write_bytes(packs[0].read_bytes()[: packs[0].stat().st_size // 2])
    elif how == "pack gone":
        packs[0].unlink()
    elif how == "index gone":
        indexes[0].unlink()
    elif how == "zeros":
        packs[0].write_bytes(bytes(packs[0].stat().st_size))
    elif how == "object gone":
        git(mirror, "update-ref", "-d", "refs/cron-observer/observed")
        git(mirror, "update-ref", "-d", "refs/cron-observer/applied")
        git(mirror, "gc", "--quiet", "--prune=now")
    elif how == "ref garbage":
        for name in ("observed", "applied"):
            (mirror / "refs/cron-observer").mkdir(parents=True, exist_ok=True)
            (mirror / "refs/cron-observer" / name).write_bytes(b"\0garbage")
    elif how == "shallow":
        (mirror / "shallow").write_text("0" * 40 + "\n")
    elif how == "config":
        (mirror / "config").write_text("[core\nnot a config")
    elif how == "lock":
        for name in ("HEAD.lock", "shallow.lock", "packed-refs.lock", "refs/cron-observer/observed.lock"):
            (mirror / name).parent.mkdir(parents=True, exist_ok=True)
            (mirror / name).touch()


async def test_a_mirror_that_is_damaged_is_made_anew(tenant: Tenant, tmp_path: Path) -> None:
    """Whatever happened to our copy, the next pass applies the next commit, and nothing else changes."""
    repository = Repository.make(tmp_path / "served")
    repository.push({f"{number}.yaml": manifest(f"task-{number}") for number in range(3)})
    with forge(tmp_path / "served") as server:
        async with following(tenant, server.url(), tmp_path) as it:
            await it.reconciler.tick()
            (mirror,) = (tmp_path / "mirrors").glob("*.git")
            for number, how in enumerate(DAMAGE):
                damage(mirror, how)
                commit = repository.push({"0.yaml": manifest("task-0", f"{number} 1 * * *")})
                assert await it.sync() == "applied", how
                assert it.source()["applied_commit"] == commit
                assert it.task("task-0")["generation"] == number + 2, how
                assert [it.task(f"task-{other}")["generation"] for other in (1, 2)] == [1, 1], how
                git(mirror, "fsck", "--connectivity-only")


def killing(source: Any, after: float, stop: threading.Event) -> threading.Thread:
    """Kill every Git of a source, from so many seconds after it began on, until told to stop."""

    def work() -> None:
        while not stop.is_set():
            for process in list(source._git._running):
                if not stop.wait(after) and process.returncode is None:
                    try:
                        os.killpg(process.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            time.sleep(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def slow(server: Forge) -> None:
    """Let a fetch take its time."""
    server.fails("drip", "/git-upload-pack", (256, 0.003))


def test_a_fetch_that_is_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """Git killed at 16 moments of a fetch: the next one brings the commit, whole, and no parts of files stay."""
    repository = Repository.make(tmp_path / "served")
    head = repository.push({"a.yaml": "0"})
    chance = random.Random(7)  # noqa: S311  draws moments
    reasons: list[str] = []
    with forge(tmp_path / "served") as server:
        source = source_of(server.url(), tmp_path / "cache")
        source.fetch(source.resolve())
        for number in range(16):
            head = repository.push({"a.yaml": f"{number}", "noise.bin": chance.randbytes(30_000)})
            target = source.resolve()
            slow(server)
            stop = threading.Event()
            killer = killing(source, chance.uniform(0.001, 0.2), stop)
            try:
                source.fetch(target)  # on a busy machine there may be nothing to kill at the moment that was drawn
            except SourceError as refused:
                reasons.append(refused.reason)
            stop.set()
            killer.join()
            server.fails(None)
            sound(source, repository, head, f"{number}")
            assert list((tmp_path / "cache").rglob("tmp_*")) == []
        source.close()
    assert len(reasons) >= 8
    assert set(reasons) <= {"FetchFailed", "Unreachable"}


def sound(source: Any, repository: Repository, head: str, content: str) -> None:
    """Fetch, and assert that everything of the newest commit is there."""
    target = source.fetch(source.resolve())
    assert target.id == head == repository.head()
    (entry,) = source.entries(target, ["a.yaml"])
    assert [data for _, data in source.read([entry], 1 << 20)] == [content.encode()]
    git(source.mirror, "fsck", "--connectivity-only")


_FETCH = """
import sys
from pathlib import Path
from cron_observer.source import SourceSpec, open_source
source = open_source(SourceSpec(name="main", url=sys.argv[1]), Path(sys.argv[2]), "key")
target = source.resolve()
print("looked", flush=True)
source.fetch(target)
"""


def test_a_reconciler_that_is_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    """The process that fetches killed 4 times in its midst, without a mirror and with one: the next brings all."""
    repository = Repository.make(tmp_path / "served")
    chance = random.Random(7)  # noqa: S311  draws moments
    with forge(tmp_path / "served") as server:
        source = source_of(server.url(), tmp_path / "cache")
        for number in range(4):
            head = repository.push({"a.yaml": f"{number}", "noise.bin": chance.randbytes(60_000)})
            slow(server)
            command = [sys.executable, "-c", _FETCH, server.url(), str(tmp_path / "cache")]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stdout.readline() == b"looked\n"
            time.sleep(chance.uniform(0.05, 0.4))  # the moment is what is drawn
            process.kill()
            process.communicate()
            server.fails(None)
            sound(source, repository, head, f"{number}")
        source.close()


def test_what_others_left_is_cleared_away_when_it_is_old(tmp_path: Path) -> None:
    """Halves of mirrors from processes that were killed go, once no fetch can still be at work on them."""
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": "0"})
    source = source_of(repository.bare, tmp_path / "cache")
    for name, old in (("key.new-1", True), ("key.old-1", True), ("key.keys-x", True), ("key.new-2", False)):
        (tmp_path / "cache" / name).mkdir(parents=True)
        if old:
            os.utime(tmp_path / "cache" / name, (0, 0))
    source.fetch(source.resolve())
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"key.git", "key.gitconfig", "key.new-2"}


def children(about: Path) -> list[str]:
    """Return the command lines of this process's children, and of any process of Git, that name a folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if str(about) in line and (parent == os.getpid() or line.startswith("git ")):
            found.append(line)
    return found


def descriptors() -> int:
    """Return how many files this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.timeout(60 + SYNCS // 4)
async def test_many_passes_leave_no_process_behind(tenant: Tenant, tmp_path: Path) -> None:
    """After many syncs, every 50th of them with something new, as few processes of ours run as after the first."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        opened = descriptors()
        for number in range(1, SYNCS + 1):
            if number % 50 == 0:
                repository.push({"a.yaml": manifest("alpha", f"{number % 60} {number // 50 % 24} * * *")})
            assert await it.sync() == ("applied" if number % 50 == 0 else "unchanged")
        after = children(tmp_path)
        # what reads objects stays for the source's next pass; nothing else does
        assert all(" cat-file --batch" in line for line in after), after
        assert len(after) <= 2, after
        assert descriptors() <= opened + 10
        assert it.task("alpha")["generation"] == 1 + SYNCS // 50
    assert children(tmp_path) == []
