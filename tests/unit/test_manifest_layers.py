"""Defaults, a Project and environments: what they make of a spec, where values come from, what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cron_observer import manifest
from cron_observer.manifest import layers
from cron_observer.manifest.body import same
from cron_observer.manifest.layers import bearing, changed_folders, compose, limit, merge
from cron_observer.model import Context, Definition, ParsedFile

ROOT = Path(__file__).resolve().parents[2]
SPEC: dict[str, Any] = {"schedule": {"cron": "30 2 * * *"}}


def defaults(path: str, name: str = "d", document: int = 0, **spec: Any) -> Definition:
    """Make Defaults that give tasks these fields."""
    said = {"target": "Task", "spec": spec}
    return Definition(kind="Defaults", name=name, spec=said, path=path, line=3, document=document)


def project(**spec: Any) -> Definition:
    """Make a Project at the root."""
    return Definition(kind="Project", name="acme", spec=spec, path="project.yaml", line=3)


def read(text: str, context: Context, path: str = "x/a.yaml") -> ParsedFile:
    """Parse a task whose spec is `text`, as YAML in braces."""
    head = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\n"
    return manifest.parse(path, f"{head}spec: {text}\n".encode(), context=context)


def codes(file: ParsedFile) -> list[tuple[str, str | None]]:
    """Return code and pointer of the findings."""
    return [(one.code, one.pointer) for one in file.findings]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=3)
)
payloads = st.recursive(values, lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3), max_leaves=8)
specs = st.fixed_dictionaries(
    {
        "schedule": st.fixed_dictionaries(
            {"cron": st.just("0 2 * * *")}, optional={"jitter": st.sampled_from([None, "5m"])}
        )
    },
    optional={
        "timeout": st.sampled_from(["5m", "1h"]),
        "payload": payloads,
        "group": st.sampled_from([None, "g"]),
        "retries": st.fixed_dictionaries({}, optional={"max": st.integers(0, 5), "initial": st.just("1s")}),
    },
)


# -- composing ----------------------------------------------------------------------------------------------------


@given(specs)
def test_composing_with_nothing_is_the_effective_spec(spec: dict[str, Any]) -> None:
    """Without layers and environments, and with layers that say nothing, a spec is what it is by itself."""
    for context in (Context(), Context(environment="e"), Context(layers=(defaults("d.yaml"), project()))):
        assert same(compose(spec, "a.yaml", context).spec, manifest.effective(spec))


@given(specs, specs)
def test_a_layer_gives_what_the_manifest_does_not_say(spec: dict[str, Any], given_to: dict[str, Any]) -> None:
    """What the manifest says is what it says; what else there is comes from the layer."""
    made = compose(spec, "a.yaml", Context(layers=(defaults("d.yaml", **given_to),)))
    for path in layers.leaves({name: spec[name] for name in spec if name != "payload"}):
        assert layers._has(made.merged, path) or _at(spec, path) in (None, {})
    for name in given_to.keys() - spec.keys():
        if given_to[name] is not None and name != "payload":
            assert same(made.merged[name], merge({}, given_to[name]))


def _at(value: Any, path: Any) -> Any:
    for part in path:
        value = value[part]
    return value


@given(payloads, payloads)
def test_merging_follows_the_rules_of_merge_patches(target: Any, patch: Any) -> None:
    """A merge patch applied twice is a merge patch applied once, and leaves no null that it said."""
    once = merge(target, patch)

    assert same(merge(once, patch), once)
    if isinstance(patch, dict):
        assert not [name for name, value in patch.items() if value is None and name in once]
    else:
        assert same(once, patch)


def test_layers_are_taken_from_the_root_to_the_file() -> None:
    """The Project is lowest; of a directory the paths decide, then the documents; neighbours do not count."""
    inner, second = defaults("x/y/b.yaml", "inner"), defaults("x/y/b.yaml", "second", document=1)
    first, outer, root = defaults("x/y/a.yaml", "first"), defaults("x/z.yaml", "outer"), defaults("z.yaml", "root")
    other, acme = defaults("x/yy/a.yaml", "other"), project()
    everything = (second, inner, other, acme, first, root, outer)

    assert bearing(everything, "x/y/deep/t.yaml") == (acme, root, outer, first, inner, second)
    assert bearing(everything, "t.yaml") == (acme, root)
    assert bearing((), "t.yaml") == ()


def test_null_returns_to_the_built_in_default() -> None:
    """A null in nearer Defaults, in the manifest and in a patch takes away what is below it."""
    far, near = defaults("d.yaml", timeout="5m", jitter="1m", queue="q"), defaults("x/d.yaml", timeout=None)
    spec = {"schedule": {"cron": "0 2 * * *"}, "group": None, "environments": {"e": {"queue": None}}}
    made = compose(spec, "x/a.yaml", Context(environment="e", layers=(far, near)))

    assert (made.spec["timeout"], made.spec["queue"], made.spec["group"]) == ("1h", "default", None)
    assert made.origin(("timeout",)).kind == made.origin(("queue",)).kind == "built-in"


def test_every_value_knows_where_it_comes_from() -> None:
    """The origin of a value is the last one that said it, with its place."""
    acme = project(defaults={"Task": {"retries": {"max": 1, "initial": "1s"}}})
    spec = {**SPEC, "retries": {"cap": "1h"}, "environments": {"e": {"priority": 3}}}
    made = compose(
        spec, "x/a.yaml", Context(environment="e", layers=(acme, defaults("x/d.yaml", retries={"max": 2}))), "t"
    )
    said = {at: str(origin) for at, origin in made.origins.items()}

    assert said["/retries/max"] == "Defaults d at x/d.yaml:3"
    assert said["/retries/initial"] == "Project acme at project.yaml:3"
    assert said["/retries/cap"] == "manifest t at x/a.yaml"
    assert said["/priority"] == "environment e at x/a.yaml"
    assert said["/timeout"] == "built-in"
    assert said["/schedule/windows"] == "built-in"


def test_what_has_changed_is_told_by_directory() -> None:
    """Another line or name changes nothing; another value, order or place does."""
    one, two = defaults("x/a.yaml", timeout="5m"), defaults("x/b.yaml", timeout="6m")
    renamed = Definition(kind="Defaults", name="other", spec=one.spec, path="x/a.yaml", line=9)

    assert changed_folders((one,), (renamed,)) == set()
    assert changed_folders((one,), (defaults("x/a.yaml", timeout="7m"),)) == {"x"}
    assert changed_folders((one,), (defaults("y/a.yaml", timeout="5m"),)) == {"x", "y"}
    assert changed_folders((one, two), (defaults("x/c.yaml", timeout="5m"), two)) == {"x"}
    assert changed_folders((), (project(),)) == {""}
    assert (limit((project(limits={"tasks": 3}),)), limit((project(),)), limit(())) == (3, None, None)


# -- judging ------------------------------------------------------------------------------------------------------


def test_what_is_composed_is_judged_as_a_whole() -> None:
    """A fault stands where its value stands; one of a layer is told at the task, with the layer's place."""
    context = Context(environment="e", layers=(defaults("d.yaml", maxParallel=4),))
    file = read("{schedule: {cron: '0 2 * * *'}}", context)
    assert codes(file) == [("CO1316", "/metadata/name")]
    assert file.findings[0].message.endswith("(from Defaults d at d.yaml:3)")
    assert (file.tasks, file.broken_names) == ((), ("a",))

    file = read(
        "{schedule: {cron: '0 2 * * *'}, environments: {e: {schedule: {cron: '0 0 30 2 *'}}}}", Context(environment="e")
    )
    assert codes(file) == [("CO3009", "/spec/environments/e/schedule/cron")]
    assert read(
        "{schedule: {cron: '0 2 * * *'}, environments: {f: {schedule: {cron: '0 0 30 2 *'}}}}", context=Context()
    ).tasks

    file = read(
        "{schedule: {cron: '0 2 * * *'}, environments: {e: {schedule: {cron: null}}}}", Context(environment="e")
    )
    assert codes(file) == [("CO1311", "/spec/environments/e/schedule")]


@pytest.mark.parametrize(
    ("patch", "code", "pointer"),
    [
        ("{timeot: 5m}", "CO1301", "/spec/environments/e/timeot"),
        ("{timeout: 5}", "CO1303", "/spec/environments/e/timeout"),
        ("{overlap: never}", "CO1304", "/spec/environments/e/overlap"),
        ("{payload: {password: hunter2hunter2}}", "CO1313", "/spec/environments/e/payload/password"),
        ("{environments: {}}", "CO1301", "/spec/environments/e/environments"),
    ],
)
def test_patches_of_other_environments_are_held_against_the_schema(patch: str, code: str, pointer: str) -> None:
    """Every patch must be right by itself, whichever environment it is for."""
    for environment in (None, "e", "f"):
        file = read(
            f"{{schedule: {{cron: '0 2 * * *'}}, environments: {{e: {patch}}}}}", Context(environment=environment)
        )
        assert codes(file) == [(code, pointer)]


def test_names_of_environments_are_those_of_settings() -> None:
    """What no setting can say is no environment."""
    file = read("{schedule: {cron: '0 2 * * *'}, environments: {Prod_1: {}}}", Context())

    assert codes(file) == [("CO1206", "/spec/environments/Prod_1")]
    assert "name of an environment" in file.findings[0].message


def test_a_project_asks_for_labels_and_queues() -> None:
    """The rules of a Project are held against the composed task."""
    rules = project(labels={"required": ["team"]}, queues={"allow": ["w-*", "x"]})
    assert codes(read("{schedule: {cron: '0 2 * * *'}}", Context(layers=(rules,)))) == [
        ("CO1321", "/metadata/labels/team"),
        ("CO1322", "/spec/queue"),
    ]
    given = Context(layers=(rules, defaults("d.yaml", queue="w-7")))
    assert codes(read("{schedule: {cron: '0 2 * * *'}}", given)) == [("CO1321", "/metadata/labels/team")]


def test_what_null_takes_away_is_a_fault_of_who_said_null() -> None:
    """A built-in default that is not allowed stands where the value went, and not where another one was."""
    context = Context(environment="e", layers=(project(queues={"allow": ["w-*"]}),))
    spec = "{schedule: {cron: '0 2 * * *'}, queue: w-1, environments: {e: {queue: null}}}"
    assert codes(read(spec, context)) == [("CO1322", "/spec/environments/e/queue")]
    layered = (*context.layers, defaults("d.yaml", queue="w-1"), defaults("x/d.yaml", "near", queue=None))
    (found,) = read("{schedule: {cron: '0 2 * * *'}}", Context(layers=layered)).findings
    assert (found.code, found.pointer) == ("CO1322", "/metadata/name")
    assert "(from Defaults near at x/d.yaml" in found.message


LAYER = "apiVersion: cron-observer/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("kind", "spec", "found"),
    [
        ("Defaults", "{spec: {timeout: null, schedule: {timezone: Europe/Berlin}}}", []),
        ("Defaults", "{spec: {schedule: {jitter: 5m, onExcluded: next_allowed}, maxParallel: 4}}", []),
        ("Defaults", "{}", [("CO1302", "/spec/spec")]),
        ("Defaults", "{spec: {timeout: 9d}}", [("CO1309", "/spec/spec/timeout")]),
        ("Defaults", "{spec: {schedule: {timezone: Europe/Berln}}}", [("CO3011", "/spec/spec/schedule/timezone")]),
        ("Defaults", "{spec: {schedule: {cron: '0 0 30 2 *'}}}", [("CO3009", "/spec/spec/schedule/cron")]),
        ("Defaults", "{spec: {payload: {token: abcdefgh}}}", [("CO1313", "/spec/spec/payload/token")]),
        ("Defaults", "{spec: {environments: {e: {}}}}", [("CO1301", "/spec/spec/environments")]),
        ("Defaults", "{target: Calendar, spec: {}}", [("CO1304", "/spec/target")]),
        ("Project", "{labels: {required: [team]}, limits: {tasks: 9}, queues: {allow: [x]}}", []),
        ("Project", "{defaults: {Task: {retries: {cap: 9d}}}}", [("CO1309", "/spec/defaults/Task/retries/cap")]),
        ("Project", "{queues: {allow: ['[x]']}}", [("CO1305", "/spec/queues/allow/0")]),
        ("Project", "{limits: {tasks: -1}}", [("CO1306", "/spec/limits/tasks")]),
    ],
)
def test_layers_are_judged_by_themselves(kind: str, spec: str, found: list[tuple[str, str]]) -> None:
    """What is wrong with a layer whatever it meets is its own fault; what depends on the task is not looked at."""
    file = manifest.parse("a.yaml", LAYER.format(kind=kind, spec=spec).encode())

    assert codes(file) == found
    assert [one.kind for one in file.others] == ([] if found else [kind])


@pytest.mark.parametrize("value", ["yes", "True", "1"])
@pytest.mark.parametrize("key", ["cron-observer/adopt", "cron-observer/new-identity"])
def test_annotations_of_ours_say_true_or_false(key: str, value: str) -> None:
    """Any other word is warned of; it would look as if it meant something."""
    head = "apiVersion: cron-observer/v1\nkind: Task\n"
    text = f'{head}metadata: {{name: a, annotations: {{{key}: "{value}"}}}}\nspec: {{schedule: {{every: 5m}}}}\n'
    file = manifest.parse("a.yaml", text.encode())

    assert [one.code for one in file.findings] == ["CO1323"]
    assert not file.tasks[0].adopts
    assert not file.tasks[0].begins_anew


def test_transfers_are_read() -> None:
    """Tasks, calendars and groups say which source they come from."""
    head = "apiVersion: cron-observer/v1\nkind: {}\nmetadata: {{name: a, transferFrom: old}}\nspec: {}\n"
    task, group = head.format("Task", "{schedule: {every: 5m}}"), head.format("TaskGroup", "{maxParallel: 1}")
    file = manifest.parse("a.yaml", f"{task}---\n{group}".encode())

    assert (file.tasks[0].transfer_from, file.others[0].transfer_from) == ("old", "old")


def test_the_schemas_are_what_the_script_writes() -> None:
    """The partial specs of environments, Defaults and Projects follow from the spec of a task."""
    folder = ROOT / "schemas"
    before = {path.name: path.read_text() for path in folder.glob("*.v1.json")}
    code = (
        "import importlib.machinery, importlib.util, json, sys; sys.dont_write_bytecode = True\n"
        f"loader = importlib.machinery.SourceFileLoader('schemas', {str(ROOT / 'scripts' / 'schemas')!r})\n"
        "spec = importlib.util.spec_from_loader('schemas', loader); module = importlib.util.module_from_spec(spec)\n"
        "loader.exec_module(module)\n"
        "print(json.dumps({word: module.written(word) for word in ('task', 'defaults', 'project')}))"
    )
    written = json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    )

    assert {f"{word}.v1.json": text for word, text in written.items()} == {
        f"{word}.v1.json": before[f"{word}.v1.json"] for word in written
    }


# -- patches of refused changes -------------------------------------------------------------------------------------

MANIFEST = """\
apiVersion: cron-observer/v1
kind: Task
metadata: {name: a}
spec:
  schedule:
    cron: "0 2 * * *"
  timeout: 2m
  environments:
    staging: {queue: slow, retries: {max: 3}}
"""


@pytest.mark.parametrize(
    ("change", "removed", "added"),
    [
        (("/priority", 5), [], ["  priority: 5"]),
        (("/priority", 0), [], ["  priority: 0"]),
        (("/timeout", "9m"), ["  timeout: 2m"], ["  timeout: 9m"]),
        (
            ("/queue", "fast"),
            ["    staging: {queue: slow, retries: {max: 3}}"],
            ["    staging: {queue: fast, retries: {max: 3}}"],
        ),
        (("/retries/cap", "1h"), [], ["  retries:", "    cap: 1h"]),
        (("/payload", {"a": 1}), [], ["  payload:", "    b: null"]),
    ],
)
def test_a_refused_change_is_written_where_it_counts(
    change: tuple[str, Any], removed: list[str], added: list[str]
) -> None:
    """Over a layer in the spec, in the environment's patch where that has the last word, and nowhere else."""
    given = defaults("x/d.yaml", priority=2, payload={"a": 1, "b": 2})
    context = Context(environment="staging", layers=(given,))
    diff = manifest.patch(MANIFEST, "x/a.yaml", 0, changes=[change], context=context).split("\n")

    assert [line[1:] for line in diff if line.startswith("-") and not line.startswith("---")] == removed
    assert [line[1:] for line in diff if line.startswith("+") and not line.startswith("+++")] == added


# -- files and folders ------------------------------------------------------------------------------------------------


def test_a_file_is_validated_with_what_stands_above_it(tmp_path: Path) -> None:
    """A file, its folder and the whole repository are judged alike; only what is named has findings."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "x" / "y").mkdir(parents=True)
    task = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\nspec: {schedule: {cron: '0 2 * * *'}}\n"
    (tmp_path / "x" / "y" / "a.yaml").write_text(task)
    (tmp_path / "x" / "d.yaml").write_text(LAYER.format(kind="Defaults", spec="{spec: {maxParallel: 2}}"))
    (tmp_path / "project.yaml").write_text(LAYER.format(kind="Project", spec="{labels: {required: [team]}}"))
    for path in (tmp_path, tmp_path / "x", tmp_path / "x" / "y", tmp_path / "x" / "y" / "a.yaml"):
        report = manifest.validate_paths([path])
        assert [one.code for one in report.findings] == ["CO1321", "CO1316"], path


def test_projects_stand_at_the_root_and_alone(tmp_path: Path) -> None:
    """A Project in a directory is refused; so are two of them, and neither counts."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "p.yaml").write_text(LAYER.format(kind="Project", spec="{limits: {tasks: 0}}"))
    report = manifest.validate_tree(tmp_path)
    assert [(Path(one.path).name, one.code) for one in report.findings] == [("p.yaml", "CO1211")]
    for name in ("1", "2"):
        text = LAYER.format(kind="Project", spec="{labels: {required: [team]}}").replace("name: x", f"name: p{name}")
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "x" / "p.yaml").write_text(
        "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\nspec: {schedule: {every: 5m}}\n"
    )
    assert [one.code for one in manifest.validate_tree(tmp_path).findings] == ["CO1509", "CO1509"]


def test_each_environment_is_judged_unless_one_is_named(tmp_path: Path) -> None:
    """Without an environment every patch is put to the test; with one, only its own."""
    patches = "{a: {schedule: {cron: '0 0 30 2 *'}}, b: {maxParallel: 3}}"
    head = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: a}\n"
    (tmp_path / "a.yaml").write_text(f"{head}spec: {{schedule: {{cron: '0 2 * * *'}}, environments: {patches}}}\n")

    def found(environment: str | None) -> list[str]:
        return [one.code for one in manifest.validate_paths([tmp_path], environment=environment).findings]

    assert found(None) == ["CO3009", "CO1316"]
    assert (found("a"), found("b"), found("c")) == (["CO3009"], ["CO1316"], [])


def test_tasks_beyond_the_limit_are_told(tmp_path: Path) -> None:
    """The last ones by path and document are too many."""
    (tmp_path / "project.yaml").write_text(LAYER.format(kind="Project", spec="{limits: {tasks: 2}}"))
    for name in "cab":
        text = "apiVersion: cron-observer/v1\nkind: Task\nmetadata: {name: %s}\nspec: {schedule: {every: 5m}}\n"
        (tmp_path / f"{name}.yaml").write_text(text % name)

    assert [(one.code, one.name) for one in manifest.validate_tree(tmp_path).findings] == [("CO1508", "c")]
