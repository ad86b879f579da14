"""Defaults, a Project and environments: from a push to the specs of the tasks that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cron_observer.reconcile import Reconciler
from cron_observer.settings import Settings, SourceSettings
from cron_observer.source.reader import Reader
from support.databases import Tenant
from support.repositories import Following, Repository, following, manifest


def defaults(name: str, **spec: str) -> str:
    """Write Defaults that give tasks these fields, as YAML."""
    said = "".join(f"    {key}: {value}\n" for key, value in spec.items())
    return (
        f"apiVersion: cron-observer/v1\nkind: Defaults\nmetadata:\n  name: {name}\n"
        f"spec:\n  target: Task\n  spec:\n{said}"
    )


def project(name: str, **spec: str) -> str:
    """Write a Project with these fields, as YAML."""
    said = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return f"apiVersion: cron-observer/v1\nkind: Project\nmetadata:\n  name: {name}\nspec:\n{said}"


def specs(it: Following, field: str) -> dict[str, Any]:
    """Return one field of the spec of each living task."""
    rows = it.database.rows("SELECT name, spec FROM tasks WHERE removed_at IS NULL")
    return {row["name"]: row["spec"][field] for row in rows}


def generations(it: Following) -> dict[str, int]:
    """Return the generation of each living task."""
    return {row["name"]: row["generation"] for row in it.database.rows("SELECT name, generation FROM tasks")}


def layer(it: Following, name: str) -> dict[str, Any]:
    """Return the row of a layer."""
    (row,) = it.database.rows("SELECT * FROM layers WHERE name = %s", name)
    return row


def codes(it: Following) -> list[tuple[str, str]]:
    """Return path and code of the findings."""
    return [(one["path"], one["code"]) for one in it.findings()]


EXAMPLES = Path(__file__).resolve().parents[2] / "manifests-example"
FILES = [path for path in EXAMPLES.rglob("*") if path.is_file()]

TREE = {
    "a.yaml": manifest("at-root"),
    "billing/b.yaml": manifest("of-billing"),
    "billing/deep/c.yaml": manifest("deep"),
    "billingual/d.yaml": manifest("elsewhere"),
}


async def test_a_changed_layer_renders_its_dependants_and_only_them(tenant: Tenant, tmp_path: Path) -> None:
    """Tasks of the directory and below follow its Defaults; no other task is touched, nor is any file needed anew."""
    repository = Repository.make(tmp_path)
    repository.push({**TREE, "billing/_defaults.yaml": defaults("billing", timeout="5m", priority="3")})
    async with following(tenant, repository.bare, tmp_path) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        assert it.findings() == []
        assert specs(it, "timeout") == {"at-root": "1h", "of-billing": "5m", "deep": "5m", "elsewhere": "1h"}
        made = layer(it, "billing")
        assert (made["kind"], made["path"], made["line"], made["version"]) == (
            "Defaults",
            "billing/_defaults.yaml",
            4,
            1,
        )

        repository.push({"billing/_defaults.yaml": defaults("billing", timeout="7m", priority="3")})
        assert await it.sync() == "applied"
        assert specs(it, "timeout") == {"at-root": "1h", "of-billing": "7m", "deep": "7m", "elsewhere": "1h"}
        assert generations(it) == {"at-root": 1, "of-billing": 2, "deep": 2, "elsewhere": 1}
        assert it.runs()[0]["counts"]["files"] == 3
        assert layer(it, "billing")["version"] == 2

        # what says the same is not rendered
        repository.push({"billing/_defaults.yaml": "# a comment\n" + defaults("billing", timeout="7m", priority="3")})
        await it.sync()
        assert it.runs()[0]["counts"]["files"] == 1
        assert layer(it, "billing")["line"] == 5


async def test_layers_add_up_from_the_root_to_the_manifest(tenant: Tenant, tmp_path: Path) -> None:
    """The Project is below the Defaults, those nearer the file are above the others, the manifest above all."""
    repository = Repository.make(tmp_path)
    given = "{Task: {queue: acme, priority: 1, timeout: 1m, retries: {max: 1, initial: 1s}}}"
    repository.push(
        {
            "project.yaml": project("acme", defaults=given),
            "_defaults.yaml": defaults("root", priority="2", timeout="2m", retries="{max: 2}"),
            "x/_defaults.yaml": defaults("x", timeout="3m", queue="null"),
            "x/a.yaml": manifest("a", retries="{cap: 1h}"),
            "x/b.yaml": manifest("b", timeout="4m"),
        }
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.findings() == []
        assert specs(it, "timeout") == {"a": "3m", "b": "4m"}
        assert specs(it, "priority") == {"a": 2, "b": 2}
        assert specs(it, "queue") == {"a": "default", "b": "default"}
        assert specs(it, "retries")["a"] == {"max": 2, "backoff": "exponential", "initial": "1s", "cap": "1h"}


async def test_a_broken_layer_keeps_what_is_made_of_it(tenant: Tenant, tmp_path: Path) -> None:
    """Defaults that cannot be read leave their dependants as they are, changed ones included in the same push."""
    repository = Repository.make(tmp_path)
    repository.push({**TREE, "billing/_defaults.yaml": defaults("billing", timeout="5m")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        broken = {"billing/_defaults.yaml": defaults("billing", timeout="5 minutes")}
        repository.push({**broken, "billing/b.yaml": manifest("of-billing", priority="4")})
        await it.sync()
        assert codes(it) == [("billing/_defaults.yaml", "CO1308")]
        assert specs(it, "timeout")["of-billing"] == "5m"
        assert specs(it, "priority")["of-billing"] == 4
        assert layer(it, "billing")["sync"] == "KEPT_LAST_GOOD"

        repository.push({"billing/_defaults.yaml": "kind: [Defaults\n"})
        await it.sync()
        assert specs(it, "timeout")["deep"] == "5m"
        assert layer(it, "billing")["sync"] in ("KEPT_LAST_GOOD", "HELD")

        repository.push({"billing/_defaults.yaml": defaults("billing", timeout="6m")})
        await it.sync()
        assert it.findings() == []
        assert specs(it, "timeout") == {"at-root": "1h", "of-billing": "6m", "deep": "6m", "elsewhere": "1h"}
        assert layer(it, "billing")["sync"] == "SYNCED"


async def test_a_layer_that_moves_or_goes_takes_what_it_gave_with_it(tenant: Tenant, tmp_path: Path) -> None:
    """Both directories are rendered; a removed layer leaves the built-in defaults, and a revert brings it back."""
    repository = Repository.make(tmp_path)
    repository.push({**TREE, "billing/_defaults.yaml": defaults("shared", timeout="5m")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        uid = layer(it, "shared")["layer_uid"]
        repository.push({"billing/_defaults.yaml": None, "billingual/_d.yaml": defaults("shared", timeout="5m")})
        await it.sync()
        assert specs(it, "timeout") == {"at-root": "1h", "of-billing": "1h", "deep": "1h", "elsewhere": "5m"}
        assert (layer(it, "shared")["layer_uid"], layer(it, "shared")["path"]) == (uid, "billingual/_d.yaml")

        removal = repository.push({"billingual/_d.yaml": None})
        await it.sync()
        assert set(specs(it, "timeout").values()) == {"1h"}
        assert layer(it, "shared")["removed_at"] is not None
        assert it.findings() == []

        repository.git("revert", "--no-edit", removal)
        repository.push()
        await it.sync()
        assert specs(it, "timeout")["elsewhere"] == "5m"
        assert (layer(it, "shared")["layer_uid"], layer(it, "shared")["removed_at"]) == (uid, None)


async def test_the_environment_of_the_source_picks_the_patch(tenant: Tenant, tmp_path: Path) -> None:
    """A task is what its manifest says of the source's environment, and follows when the setting changes."""
    patches = "{staging: {suspend: true, timeout: null}, test: {priority: 9}}"
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("a", timeout="5m", environments=patches), "b.yaml": manifest("b")})
    async with following(tenant, repository.bare, tmp_path, environment="staging") as it:
        await it.reconciler.tick()
        assert it.findings() == []
        assert specs(it, "suspend") == {"a": True, "b": False}
        assert specs(it, "timeout")["a"] == "1h"
        assert "environments" not in it.task("a")["spec"]
    async with following(tenant, repository.bare, tmp_path, environment="test") as it:
        await it.reconciler.tick()
        assert (specs(it, "suspend")["a"], specs(it, "timeout")["a"], specs(it, "priority")["a"]) == (False, "5m", 9)
        assert generations(it) == {"a": 2, "b": 1}
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert (specs(it, "suspend")["a"], specs(it, "priority")["a"]) == (False, 0)


async def test_a_fault_that_a_layer_brings_is_told_at_the_task(tenant: Tenant, tmp_path: Path) -> None:
    """The task keeps its last good version, and the finding names the layer's place."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("a"), "_d.yaml": defaults("all", overlap="allow_all", maxParallel="4")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        repository.push({"a.yaml": manifest("a", overlap="skip")})
        await it.sync()
        (found,) = it.findings()
        assert (found["path"], found["line"], found["code"], found["name"]) == ("a.yaml", 4, "CO1316", "a")
        assert "spec.maxParallel" in found["message"]
        assert "(from Defaults all at _d.yaml:4)" in found["message"]
        assert specs(it, "overlap")["a"] == "allow_all"


async def test_the_rules_of_a_project_are_kept(tenant: Tenant, tmp_path: Path) -> None:
    """Labels and queues of every task are held against it, those of unchanged files as well."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest("a", labels="team: x", queue="w-1"), "b.yaml": manifest("b", queue="w-2")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        rules = project("acme", labels="{required: [team]}", queues="{allow: [w-1]}")
        repository.push({"project.yaml": rules})
        await it.sync()
        assert codes(it) == [("b.yaml", "CO1321"), ("b.yaml", "CO1322")]
        assert it.names() == ["a", "b"]
        assert it.task("b")["sync"] == "KEPT_LAST_GOOD"
        repository.push({"project.yaml": None})
        await it.sync()
        assert it.findings() == []
        assert it.task("b")["sync"] == "SYNCED"


async def test_a_project_limits_the_number_of_tasks(tenant: Tenant, tmp_path: Path) -> None:
    """Tasks beyond the limit are refused in the order of their paths, and come when there is room."""
    repository = Repository.make(tmp_path)
    files = {f"{name}.yaml": manifest(name) for name in "abc"}
    repository.push({**files, "project.yaml": project("acme", limits="{tasks: 2}")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.names() == ["a", "b"]
        assert codes(it) == [("c.yaml", "CO1508")]
        repository.push({"project.yaml": project("acme", limits="{tasks: 3}")})
        await it.sync()
        assert it.names() == ["a", "b", "c"]
        assert it.findings() == []


async def test_a_source_has_one_project_at_its_root(tenant: Tenant, tmp_path: Path) -> None:
    """A second one is refused and changes nothing; of two new ones neither counts; one in a directory does not."""
    repository = Repository.make(tmp_path)
    first = project("one", defaults="{Task: {timeout: 1m}}")
    second = project("two", defaults="{Task: {timeout: 2m}}")
    repository.push({"a.yaml": manifest("a"), "1.yaml": first, "2.yaml": second})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert codes(it) == [("1.yaml", "CO1509"), ("2.yaml", "CO1509")]
        assert specs(it, "timeout") == {"a": "1h"}
        repository.push({"2.yaml": None})
        await it.sync()
        assert specs(it, "timeout") == {"a": "1m"}
        repository.push({"2.yaml": second})
        await it.sync()
        assert codes(it) == [("2.yaml", "CO1509")]
        assert specs(it, "timeout") == {"a": "1m"}
        repository.push({"2.yaml": None, "1.yaml": None, "x/1.yaml": first})
        await it.sync()
        assert codes(it) == [("x/1.yaml", "CO1211")]


async def test_a_layer_and_its_tasks_come_in_one_push(tenant: Tenant, tmp_path: Path) -> None:
    """Files of the same push are read with the layers of that push, in one file or in several."""
    repository = Repository.make(tmp_path)
    repository.push({"x/a.yaml": manifest("a")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        both = defaults("x", timeout="5m") + "---\n" + manifest("c")
        repository.push({"x/both.yaml": both, "x/b.yaml": manifest("b")})
        assert await it.sync() == "applied"
        assert specs(it, "timeout") == {"a": "5m", "b": "5m", "c": "5m"}
        assert it.runs()[0]["outcome"] == "applied"
        assert await it.sync() == "unchanged"
        assert generations(it) == {"a": 2, "b": 1, "c": 1}


async def test_a_first_sync_parses_each_file_about_once(tenant: Tenant, tmp_path: Path, monkeypatch: Any) -> None:
    """Only the files that declare layers are parsed before the others."""
    asked: list[str] = []
    parse = Reader.parse

    def counted(self: Reader, files: Any, *context: Any) -> Any:
        for entry, data, file in parse(self, files, *context):
            asked.append(entry.path)
            yield entry, data, file

    monkeypatch.setattr(Reader, "parse", counted)
    repository = Repository.make(tmp_path)
    tasks = {f"x/{number}.yaml": manifest(f"t{number}") for number in range(20)}
    repository.push(
        {**tasks, "x/_d.yaml": defaults("x", timeout="5m"), "project.yaml": project("acme", limits="{tasks: 50}")}
    )
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert set(specs(it, "timeout").values()) == {"5m"}
        assert len(asked) == 22 + 2
        asked.clear()
        repository.push({"x/0.yaml": manifest("t0", "0 5 * * *")})
        await it.sync()
        assert asked == ["x/0.yaml"]


async def test_layers_bear_upon_their_own_source_alone(tenant: Tenant, tmp_path: Path) -> None:
    """What one source says of its tasks is nothing to those of another in the same project."""
    texts = {"one": ("a", defaults("all", timeout="5m")), "two": ("b", defaults("all", timeout="6m"))}
    for folder, (name, layers) in texts.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "task.yaml").write_text(manifest(name))
        (tmp_path / folder / "_d.yaml").write_text(layers)
    db = tenant.database
    sources = tuple(SourceSettings(name=name, url=str(tmp_path / name), poll_seconds=3600) for name in texts)
    reconciler = Reconciler(db.reconciler, Settings(data_dir=tmp_path, sources=sources), patience=60, listen=False)
    try:
        await reconciler.tick()
    finally:
        await reconciler.close()
    found = {row["name"]: row["spec"]["timeout"] for row in db.rows("SELECT name, spec FROM tasks")}
    owner = db.value("SELECT s.name FROM layers AS l JOIN sources AS s USING (tenant_id, source_id)")
    assert found == ({"a": "5m", "b": "1h"} if owner == "one" else {"a": "1h", "b": "6m"})
    assert [row["code"] for row in db.rows("SELECT code FROM sync_findings")] == ["CO1502"]


async def test_layers_go_with_their_source_to_another_project(tenant: Tenant, tmp_path: Path) -> None:
    """Of the project that a source has left no Defaults stay behind, held for a file that nobody needs to mend."""
    repository = Repository.make(tmp_path)
    repository.push({"_defaults.yaml": defaults("all", priority="7"), "a.yaml": manifest("alpha")})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
    async with following(tenant, repository.bare, tmp_path, project="other") as it:
        await it.reconciler.tick()
        assert it.source()["held"] is None
        (row,) = it.database.rows("SELECT sync FROM layers WHERE removed_at IS NULL")
        assert row["sync"] == "SYNCED"
        assert specs(it, "priority") == {"alpha": 7}


async def test_the_example_manifests_apply(tenant: Tenant, tmp_path: Path) -> None:
    """What the demo is made of is applied without a finding, with its layers."""
    repository = Repository.make(tmp_path)
    repository.push({path.relative_to(EXAMPLES).as_posix(): path.read_bytes() for path in FILES})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.reconciler.tick()
        assert it.findings() == []
        assert it.task("dunning")["spec"]["schedule"]["timezone"] == "Europe/Berlin"
        confirmed = {name for name, one in specs(it, "lifecycle").items() if one["prune"] == "confirm"}
        assert confirmed == {"dunning", "hourly-statement", "invoice-export", "payment-matching", "payroll"}
        assert {row["kind"] for row in it.database.rows("SELECT kind FROM layers")} == {"Defaults", "Project"}
