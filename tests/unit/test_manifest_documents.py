"""The schema, the example manifests and the reference pages agree with the validator."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cron_observer import manifest, schedule
from cron_observer.manifest.rules import Rule
from cron_observer.plan import actions
from cron_observer.review import warnings

ROOT = Path(__file__).parents[2]
FINDINGS = (ROOT / "docs/reference/findings.md").read_text()
PAGES = ROOT / "docs/reference/findings"
NOW = datetime(2026, 6, 1, tzinfo=UTC)
MANIFEST = (ROOT / "docs/reference/manifest.md").read_text()
#: Rules of manifests, and those that only a comparison with what is in force can break.
ROOMS = (actions, warnings)
RULES = [*manifest.RULES.values(), *(one for room in ROOMS for one in vars(room).values() if isinstance(one, Rule))]
CODES = sorted({*(rule.code for rule in RULES), *schedule.CODES})
BLOCKS = re.findall(r"```yaml\n(.*?)```", MANIFEST, re.DOTALL)


def page(code: str) -> str:
    """Return the page of a code."""
    return (PAGES / f"{code.lower()}.md").read_text(encoding="utf-8")


def examples(code: str, heading: str) -> list[str]:
    """Return the manifests below a heading of a code's page."""
    below = page(code).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```yaml\n(.*?)```", below, re.DOTALL)


def test_every_code_is_documented_and_no_other() -> None:
    """docs/reference/findings.md lists each code in order, and each has a page of its own."""
    assert re.findall(r"^\| \[(CO\d{4})\]\(findings/co\d{4}\.md\) \|", FINDINGS, re.MULTILINE) == CODES
    assert sorted(path.stem.upper() for path in PAGES.glob("*.md")) == CODES


@pytest.mark.parametrize("code", CODES)
def test_every_page_shows_how_it_comes_about(code: str) -> None:
    """A page has a wrong manifest and a right one, or says in words what leads there."""
    text = page(code)
    assert ("\n## Wrong\n" in text) == ("\n## Right\n" in text)
    assert ("\n## Wrong\n" in text) != ("\n## How it comes about\n" in text)


@pytest.mark.parametrize("code", [code for code in CODES if "\n## Wrong\n" in page(code)])
def test_wrong_examples_have_the_finding_and_right_ones_have_none(code: str, tmp_path: Path) -> None:
    """What a page calls wrong has its code, and what it calls right is without any finding."""
    for heading, expected in (("Wrong", True), ("Right", False)):
        (text,) = examples(code, heading)
        (tmp_path / "example.yaml").write_text(text, encoding="utf-8")
        found = {one.code for one in manifest.validate_tree(tmp_path, NOW).findings}
        assert code in found if expected else found == set()


def test_every_code_in_the_source_is_a_known_one() -> None:
    """The lists have every code that some module raises, and no other."""
    source = "".join(path.read_text() for path in (ROOT / "reconciler").rglob("*.py"))

    assert set(re.findall(r"\bCO\d{4}\b", source)) == set(CODES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_title_and_severity_are_documented(rule: Any) -> None:
    """The list and the page name each rule as the code does, and say how bad it is."""
    row = re.search(rf"^\| \[{rule.code}\]\S+ \| (.*?) \| (.*?) \|$", FINDINGS, re.MULTILINE)
    assert row is not None
    heading, severity = page(rule.code).split("\n\n", 2)[:2]

    assert row[1].lower() == rule.title.lower()
    assert heading.lower() == f"# {rule.code}: {rule.title}".lower()
    assert row[2].startswith(("as bad", str(rule.severity)))
    assert severity.lower().startswith(row[2])


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_manifests_in_the_reference_are_valid(block: str) -> None:
    """Every YAML block of the manifest's page is one or more valid manifests."""
    parsed = manifest.parse("manifest.yaml", block.encode())

    assert parsed.findings == ()
    assert parsed.tasks or parsed.others


def test_the_full_manifest_of_the_reference_uses_every_field() -> None:
    """The long example leaves out no field of the schema."""

    def names(part: Any) -> set[str]:
        fields = part.get("properties", {})
        return set(fields).union(*(names(field) for field in fields.values()))

    assert {name for name in names(manifest.schema("task")) if f"{name}:" not in BLOCKS[1]} == set()


def test_every_field_has_its_place_in_the_reference() -> None:
    """Each field of the spec has a section, each field of a mapping a row."""
    spec = manifest.schema("task")["properties"]["spec"]["properties"]
    for name, field in spec.items():
        assert f"### {name}\n" in MANIFEST
        for inner in field.get("properties", {}):
            assert f"| `{inner}` |" in MANIFEST or inner == "external"


@pytest.mark.parametrize("kind", ["Calendar", "TaskGroup", "Defaults", "Project"])
def test_every_field_of_the_other_kinds_is_in_the_reference(kind: str) -> None:
    """Each field has a row in the section of its kind, and an example uses it."""
    section = MANIFEST.split(f"## {kind}\n", 1)[1].split("\n## ", 1)[0]
    fields = manifest.schema(kind)["properties"]["spec"]["properties"]
    entries = fields.get("entries", {}).get("items", {}).get("properties", {})

    assert [name for name in [*fields, *entries] if f"`{name}`" not in section or f"{name}:" not in section] == []


def test_examples_in_the_schema_are_valid() -> None:
    """Every example of the schema makes a valid manifest when it is put in its place."""
    document = manifest.schema("task")
    for example in document["examples"]:
        _, findings = manifest.parse_spec(example["metadata"]["name"], example["spec"], {})
        assert findings == []
    for name, field in document["properties"]["spec"]["properties"].items():
        if name == "environments":  # which a task of the API does not have
            continue
        values = [*field["examples"], *([field["default"]] if "default" in field else [])]
        for value in values:
            beside = {"overlap": "allow_all"} if name == "maxParallel" else {}
            _, findings = manifest.parse_spec("x", {"schedule": {"every": "1m"}, **beside, name: value}, {})
            assert findings == [], (name, value)


def test_the_example_manifests_are_valid() -> None:
    """`manifests-example/` has no findings, warnings included."""
    report = manifest.validate_tree(ROOT / "manifests-example")

    assert report.findings == []
    assert report.documents >= 12


def test_the_example_manifests_use_every_field() -> None:
    """A newcomer finds each field in some example."""
    texts = "".join(path.read_text() for path in (ROOT / "manifests-example").rglob("*.yaml"))
    schema = manifest.schema("task")["properties"]
    fields = [
        *schema["metadata"]["properties"],
        *schema["spec"]["properties"],
        *schema["spec"]["properties"]["schedule"]["properties"],
    ]

    assert [name for name in fields if name != "run" and f"{name}:" not in texts] == []


def test_the_example_manifests_bring_a_page_to_life() -> None:
    """Two queues, several time zones, and some tasks that are due within a minute."""
    paths = sorted((ROOT / "manifests-example").rglob("*.yaml"))
    tasks = [task for path in paths for task in manifest.parse(path.name, path.read_bytes()).tasks]
    often = [task for task in tasks if task.spec["schedule"].get("every", "").endswith("s")]

    assert {task.spec["queue"] for task in tasks} == {"default", "reports"}
    assert len({task.spec["schedule"]["timezone"] for task in tasks}) >= 4
    assert len(often) >= 3
    assert len({path.parent.name for path in paths}) >= 6


def test_the_example_readme_lists_its_files() -> None:
    """Each link of the reading order leads to a file."""
    folder = ROOT / "manifests-example"
    linked = re.findall(r"\]\(([a-z/-]+\.yaml)\)", (folder / "README.md").read_text())

    assert len(linked) >= 10
    assert [name for name in linked if not (folder / name).is_file()] == []
