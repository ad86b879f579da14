"""Reconcilers as processes that are killed, halted, and that race: what is in force is always what one commit says."""

from __future__ import annotations

import ast
import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cron_observer.reconcile import applying, passes
from cron_observer.reconcile.steps import KILL_POINTS, STEPS, Steps
from support import databases
from support.databases import FreshDatabase, Tenant, make_tenant
from support.processes import until
from support.reconciling import is_halted, reconciling, state
from support.repositories import Following, Repository, following, git, manifest

HEAD = "apiVersion: cron-observer/v1\nkind: "
CALENDAR = HEAD + "Calendar\nmetadata: {name: closed}\nspec:\n  entries:\n    - date: 2030-01-%s\n"
GROUP = HEAD + "TaskGroup\nmetadata: {name: night}\nspec: {maxParallel: %s}\n"
DEFAULTS = HEAD + "Defaults\nmetadata: {name: root}\nspec:\n  target: Task\n  spec: {timeout: %sm}\n"
FILES = 40


def first_files() -> dict[str, str | bytes | None]:
    """Return the files of the first commit."""
    files: dict[str, str | bytes | None] = {f"t/{n}.yaml": manifest(f"task-{n}", f"{n} 4 * * *") for n in range(FILES)}
    return files | {"calendar.yaml": CALENDAR % "01", "group.yaml": GROUP % 1, "t/gone.yaml": manifest("gone")}


def second_files() -> dict[str, str | bytes | None]:
    """Return what the second commit changes: of every kind something, with an error and a removal."""
    files: dict[str, str | bytes | None] = {f"t/{n}.yaml": manifest(f"task-{n}", f"{n} 5 * * *") for n in range(5)}
    files |= {"calendar.yaml": CALENDAR % "02", "group.yaml": GROUP % 2, "t/_defaults.yaml": DEFAULTS % 7}
    return files | {"t/new.yaml": manifest("new"), "t/gone.yaml": None, "t/9.yaml": manifest("task-9", "never")}


@dataclass(frozen=True)
class Story:
    """A repository with two commits, and what is in force when nobody disturbs who applies one on the other."""

    folder: Path
    first: str
    second: str
    after: dict[str, Any]

    def copy(self, folder: Path) -> Path:
        """Return a copy of the repository that stands at the first commit."""
        shutil.copytree(self.folder, folder / "tasks.git")
        self.at(folder / "tasks.git", self.first)
        return folder / "tasks.git"

    @staticmethod
    def at(bare: Path, commit: str) -> None:
        """Let the branch of a repository stand at a commit, as a push does."""
        git(bare, "update-ref", "refs/heads/main", commit)


@pytest.fixture(scope="module")
def story(server_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Make the repository, and apply its second commit, on the first, where nothing goes wrong."""
    import asyncio

    folder = tmp_path_factory.mktemp("story")
    repository = Repository.make(folder)
    first = repository.push(first_files())
    second = repository.push(second_files())
    with databases.fresh(server_url, template_database) as database:

        async def apply() -> None:
            tenant = make_tenant(database)
            async with following(tenant, repository.bare, folder) as it:
                Story.at(repository.bare, first)
                await it.reconciler.tick()
                Story.at(repository.bare, second)
                assert await it.poll() == {"main": "applied"}
            await database.aclose()

        asyncio.run(apply())
        yield Story(repository.bare, first, second, state(database))


def lease_runs_out(database: FreshDatabase) -> None:
    """Let the lease be over, as it is 10 s after its holder was last heard of, and the source be due."""
    database.do("UPDATE sources SET lease_until = now() - interval '1 second', next_poll_at = now()")


async def at_first(it: Following) -> None:
    """Apply the first commit, and let it be time for a comparison with all that is known."""
    assert await it.reconciler.tick() == {"main": "applied"}
    it.database.do("UPDATE sources SET checked_at = now() - interval '1 year', next_poll_at = now()")


@pytest.mark.parametrize("point", KILL_POINTS)
async def test_a_process_killed_after_any_step_leaves_one_commit_in_force(
    tenant: Tenant, tmp_path: Path, story: Story, point: str
) -> None:
    """Whoever is killed leaves the old commit or the new one, whole; the next holder ends with equal rows."""
    bare = story.copy(tmp_path)
    async with following(tenant, bare, tmp_path) as it:
        await at_first(it)
        before = state(it.database)
        Story.at(bare, story.second)
        with reconciling(it.database, bare, tmp_path, kill=point) as process:
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
        committed = STEPS.index(point.removeprefix("after_")) >= STEPS.index("commit")
        assert state(it.database) == (story.after if committed else before)
        lease_runs_out(it.database)
        assert await it.reconciler.tick() == {"main": "applied"} or committed
        assert state(it.database) == story.after
        outcomes = [run["outcome"] for run in it.runs()]
        assert "running" not in outcomes
        begun = point not in ("after_lease", "after_resolve")
        assert outcomes.count("abandoned") == (1 if begun and not committed else 0)


async def test_what_is_taken_back_leaves_no_run_open(tenant: Tenant, tmp_path: Path, story: Story) -> None:
    """When the commit that somebody died over is gone again, its run is marked by the look that finds nothing new."""
    bare = story.copy(tmp_path)
    async with following(tenant, bare, tmp_path) as it:
        await it.reconciler.tick()
        Story.at(bare, story.second)
        it.database.do("UPDATE sources SET next_poll_at = now()")
        with reconciling(it.database, bare, tmp_path, kill="after_gather") as process:
            process.join(60)
        Story.at(bare, story.first)
        lease_runs_out(it.database)
        assert await it.reconciler.tick() == {"main": "unchanged"}
        assert [run["outcome"] for run in it.runs()] == ["abandoned", "applied"]


async def test_every_step_of_a_pass_has_its_point(
    tenant: Tenant, tmp_path: Path, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that applies something takes the steps of the list, all of them and in that order, each once."""
    taken: list[str] = []
    step = Steps.step

    def noted(self: Steps, name: str) -> Any:
        return step(self, name)

    def reached(point: str) -> None:
        taken.append(point)

    monkeypatch.setattr(Steps, "step", noted)
    monkeypatch.setattr("cron_observer.reconcile.steps.reached", reached)
    bare = story.copy(tmp_path)
    async with following(tenant, bare, tmp_path) as it:
        await at_first(it)
        Story.at(bare, story.second)
        taken.clear()
        await it.reconciler.tick()
    assert tuple(taken) == KILL_POINTS


def test_the_code_takes_no_other_steps() -> None:
    """The steps that the code of a pass takes are those of the list: there is none without a point behind it."""
    named = set()
    for module in (passes, applying):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "step":
                assert isinstance(node.args[0], ast.Constant)
                named.add(node.args[0].value)
    assert named == set(STEPS)


@pytest.mark.parametrize("point", ["after_resolve", "after_fetch", "after_gather"])
async def test_a_process_that_was_halted_wakes_up_too_late(
    tenant: Tenant, tmp_path: Path, story: Story, point: str
) -> None:
    """One that is halted with an old commit in its hands changes nothing when it goes on: the fence has moved."""
    bare = story.copy(tmp_path)
    async with following(tenant, bare, tmp_path) as it:
        with reconciling(it.database, bare, tmp_path / "halted", kill=f"{point}:STOP") as process:
            until(lambda: is_halted(process), "it is halted")
            Story.at(bare, story.second)
            lease_runs_out(it.database)
            assert await it.reconciler.tick() == {"main": "applied"}
            after = state(it.database)
            it.database.do("UPDATE sources SET next_poll_at = now() + interval '1 hour'")
            epoch = it.source()["lease_epoch"]
            os.kill(process.pid or 0, signal.SIGCONT)
            if point == "after_resolve":
                until(lambda: not process.is_alive() or it.source()["lease_epoch"] == epoch, "it goes on")
            else:
                until(lambda: it.runs()[-1]["outcome"] == "abandoned", "it gives up")
        assert state(it.database) == after
        assert it.source()["applied_commit"] == story.second
        assert it.source()["lease_epoch"] == epoch
        assert [run["outcome"] for run in it.runs()].count("applied") == 1


async def test_a_process_that_was_halted_in_its_apply_is_not_waited_for(
    tenant: Tenant, tmp_path: Path, story: Story
) -> None:
    """A transaction that nobody goes on with is taken back by the database, so that others can apply what is new."""
    bare = story.copy(tmp_path)
    async with following(tenant, bare, tmp_path) as it:
        await it.reconciler.tick()
        Story.at(bare, story.second)
        it.database.do("UPDATE sources SET next_poll_at = now()")
        with reconciling(it.database, bare, tmp_path / "halted", kill="after_findings:STOP") as process:
            until(lambda: is_halted(process), "it is halted")
            idle = "SELECT FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()"
            until(lambda: not it.database.rows(idle), "the database gives up")
            lease_runs_out(it.database)
            assert await it.reconciler.tick() == {"main": "applied"}
            it.database.do("UPDATE sources SET next_poll_at = now() + interval '1 hour'")
        assert state(it.database) == story.after


async def test_two_processes_race_over_many_commits(tenant: Tenant, tmp_path: Path) -> None:
    """While two reconcilers are killed at random under a stream of commits, the last commit ends up in force, whole.

    Commits are applied in the order of the branch, each as one transaction, and no task has two of one generation.
    """
    repository = Repository.make(tmp_path)
    repository.push(first_files())
    database, chance = tenant.database, random.Random(7)  # noqa: S311  the same choices in every run
    with reconciling(database, repository.bare, tmp_path / "one"):
        until(lambda: database.rows("SELECT FROM sources WHERE applied_seq > 0"), "the first commit is applied")
        for number in range(8):
            with reconciling(database, repository.bare, tmp_path / "two") as other:
                for _ in range(5):
                    several = chance.sample(range(FILES), 4)
                    repository.push({f"t/{n}.yaml": manifest(f"task-{n}", f"{number} {n % 24} * * *") for n in several})
                other.kill()
                other.join()
            database.do("UPDATE sources SET lease_until = now() - interval '1 second'")
        head = repository.head()
        until(
            lambda: database.rows(
                "SELECT FROM sources WHERE applied_commit = %s AND handled_seq = requested_seq", head
            ),
            "the last commit is applied",
        )
    order = {commit: n for n, commit in enumerate(repository.git("rev-list", "--reverse", "HEAD").splitlines())}
    applied = database.rows("SELECT to_commit FROM sync_runs WHERE outcome = 'applied' ORDER BY finished_at, run_id")
    places = [order[run["to_commit"]] for run in applied]
    assert places == sorted(places)
    doubled = "SELECT FROM task_revisions GROUP BY tenant_id, task_uid, generation HAVING count(*) > 1"
    assert database.rows(doubled) == []
    async with following(tenant, repository.bare, tmp_path) as it:
        raced = state(database)
        it.database.do("UPDATE sources SET checked_at = NULL, validator_version = NULL, next_poll_at = now()")
        await it.reconciler.tick()
        assert state(database) == raced, "a comparison with the whole repository finds nothing to mend"
