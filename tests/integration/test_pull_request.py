"""A pull request from its first push to the commit status, and whether a plan foretells what an apply does."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from cron_observer.cli.validate import validate
from support.databases import Tenant
from support.repositories import Repository, following, manifest
from support.reviews import document, look, run, task, told

#: What a run counts, by what a plan counts. A name that had been removed once is new to a plan.
COUNTS = {
    "create": ("created", "restored"),
    "update": ("updated",),
    "rename": ("renamed",),
    "remove": ("removed",),
    "keep": ("kept",),
    "hold": ("held",),
}


async def test_a_pull_request_from_branch_to_status(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch, its plan and annotations, the mended branch, the merge, what is applied, and what the forge is told."""
    repository = Repository.make(tmp_path)
    monkeypatch.chdir(repository.work)
    repository.push({"tasks/export.yaml": manifest("export"), "tasks/report.yaml": manifest("report")})
    forge = {"provider": "github", "status_ref": "env:NO_TOKEN", "environment": "production"}
    async with following(tenant, repository.bare, tmp_path, **forge) as it:
        await it.sync()
        assert it.names() == ["export", "report"]

        repository.git("switch", "--quiet", "--create", "later")
        repository.commit(
            {
                "tasks/export.yaml": manifest("export", "15 4 * * *"),
                "tasks/new.yaml": manifest("new", retry="1"),
                "tasks/report.yaml": None,
            }
        )
        output = CliRunner().invoke(validate, ["--format", "github", "tasks"]).output
        assert output.startswith("::error file=tasks/new.yaml,line=6,endLine=6,col=3,")
        first = run("--base", "main", "--path", "tasks", "--environment", "production", "--detailed-exitcode")
        assert first.exit_code == 1
        assert "- Task report" in first.output
        assert it.names() == ["export", "report"]

        repository.commit({"tasks/new.yaml": manifest("new")})
        found = look("--path", "tasks", "--environment", "production", base="main")
        assert told(found) == {"Task export": "update", "Task new": "create", "Task report": "remove"}
        comment = run("--base", "main", "--path", "tasks", "--format", "markdown").output
        assert re.search(r"\*\*update\*\* Task `export`", comment)

        repository.git("switch", "--quiet", "main")
        repository.git("merge", "--quiet", "--no-ff", "--message", "Export later", "later")
        merged = repository.push()
        assert await it.sync() == "applied"
        assert it.names() == ["export", "new"]
        assert {name: it.runs()[0]["counts"][name] for name in ("created", "updated", "removed")} == {
            "created": 1,
            "updated": 1,
            "removed": 1,
        }
        (status,) = it.database.rows("SELECT * FROM commit_statuses WHERE commit = %s", merged)
        assert (status["state"], status["context"]) == ("success", "cron-observer/production/main")


class Changing:
    """Manifests that somebody changes at random, as a seed draws it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)  # noqa: S311  the same every time
        self.number = 0
        self.tasks: dict[str, tuple[str, str]] = {}  # by path: name and text

    def start(self) -> dict[str, str | None]:
        """Return the first files."""
        shared: dict[str, str | None] = {
            "shared/days.yaml": document("Calendar", "days", '{entries: [{weekdays: ["mon-fri"]}]}'),
            "shared/group.yaml": document("TaskGroup", "nightly", "{}"),
        }
        return shared | {path: text for _ in range(8) for path, text in [self.fresh()]}

    def fresh(self) -> tuple[str, str]:
        """Make a new task."""
        self.number += 1
        name = f"task-{self.number}"
        path = f"{self.draw.choice(['a', 'b', 'a/deep'])}/{name}.yaml"
        self.tasks[path] = name, self.text(name)
        return path, self.tasks[path][1]

    def text(self, name: str, renamed_from: str | None = None) -> str:
        """Write a task somehow."""
        with_days = '{cron: "0 4 * * *", calendars: {include: [days]}}'
        schedule = self.draw.choice([with_days, f'{{cron: "{self.draw.randrange(60)} 5 * * *"}}'])
        more = {"group": "nightly"} if self.draw.random() < 0.3 else {}
        former = f", renamedFrom: {renamed_from}" if renamed_from else ""
        return task(name, schedule=schedule, **more).replace(f"{{name: {name}}}", f"{{name: {name}{former}}}")

    def broken(self) -> dict[str, str | None]:
        """Break a task, let another name a group that nobody declares, and change a third."""
        first, second, third = self.draw.sample(sorted(self.tasks), k=3)
        names = [self.tasks[path][0] for path in (first, second, third)]
        return {
            first: task(names[0], retry="1"),
            second: task(names[1], group="nobody"),
            third: task(names[2], schedule="{every: 1h}"),
        }

    def step(self) -> dict[str, str | None]:
        """Change one to four things; return what is written and what is removed."""
        files: dict[str, str | None] = {}
        for path in self.draw.sample(sorted(self.tasks), k=self.draw.randint(1, 4)):
            name, text = self.tasks.pop(path)
            what = self.draw.choice(["change", "remove", "rename", "move", "add", "comment"])
            if what == "remove":
                files[path] = None
                continue
            if what == "rename":
                self.number += 1
                self.tasks[path] = f"task-{self.number}", self.text(f"task-{self.number}", name)
            elif what == "move":
                files[path] = None
                path = f"moved/{self.number}-{name}.yaml"  # noqa: PLW2901
                self.tasks[path] = name, text
            elif what == "comment":
                self.tasks[path] = name, "# again\n" + text
            else:
                self.tasks[path] = name, self.text(name)
            if what == "add":
                files |= [self.fresh()]
            files[path] = self.tasks[path][1]
        if self.draw.random() < 0.4:
            spec = self.draw.choice(["{timeout: 20m}", "{timeout: 30m}", "{schedule: {timezone: Asia/Tokyo}}"])
            files["a/_defaults.yaml"] = document("Defaults", "team", f"{{spec: {spec}}}")
        return files


@pytest.mark.parametrize("seed", range(4))
async def test_a_plan_foretells_what_is_applied(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever changes, the plan in the clone counts what the reconciler then does, and names the same findings."""
    repository = Repository.make(tmp_path)
    monkeypatch.chdir(repository.work)
    changing = Changing(seed)
    repository.push(changing.start())
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.sync()
        for number in range(6):
            base = repository.head()
            repository.push(changing.step() if number < 5 else changing.broken())
            found = look(base=base)
            await it.sync()
            counts = Counter(it.runs()[0]["counts"])
            foretold = Counter(one["action"] for one in found["actions"] if one["kind"] == "Task")
            for ours, theirs in COUNTS.items():
                assert foretold[ours] == sum(counts[name] for name in theirs), (ours, counts, told(found))
            errors = sorted((one["path"], one["code"]) for one in it.findings())
            assert sorted((one["path"], one["code"]) for one in found["findings"] if one["code"] < "CO16") == errors
        assert (foretold["keep"], foretold["update"]) == (2, 1)
