"""Whole files: which count, which are refused unread, what they declare when they are broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from cron_observer.manifest import MAX_FILE_BYTES, is_manifest, parse, refused, validate_paths, validate_tree
from cron_observer.model import Severity
from support.manifests import HEAD, SMALLEST, task

SCHEDULE = "  schedule: {every: 1m}\n"


@pytest.mark.parametrize(
    ("path", "patterns", "ignore", "counts"),
    [
        ("a.yaml", [], [], True),
        ("tasks/a.yml", [], [], True),
        ("tasks/A.YAML", [], [], True),
        ("a.json", [], [], False),
        ("a.yaml.md", [], [], False),
        (".github/workflows/ci.yaml", [], [], False),
        ("tasks/.hidden.yaml", [], [], False),
        ("tasks/.d/a.yaml", [], [], False),
        ("tasks/a.yaml", ["tasks"], [], True),
        ("tasks/a.yaml", ["tasks/"], [], True),
        ("tasks/a.yaml", ["./tasks"], [], True),
        ("tasks/b/c/a.yaml", ["tasks"], [], True),
        ("tasks2/a.yaml", ["tasks"], [], False),
        ("deploy/a.yaml", ["tasks", "deploy"], [], True),
        ("tasks/a.yaml", ["tasks/*.yaml"], [], True),
        ("teams/x/tasks/a.yaml", ["teams/*/tasks"], [], True),
        ("teams/x/other/a.yaml", ["teams/*/tasks"], [], False),
        ("a.yaml", ["."], [], True),
        ("tasks/old/a.yaml", [], ["tasks/old"], False),
        ("tasks/old/a.yaml", [], ["old"], False),
        ("tasks/a.draft.yaml", [], ["*.draft.yaml"], False),
        ("tasks/new/a.yaml", ["tasks"], ["tasks/old/**"], True),
        ("tasks/old/x/a.yaml", ["tasks"], ["tasks/old/**"], False),
    ],
)
def test_which_files_count(path: str, patterns: list[str], ignore: list[str], counts: bool) -> None:
    """YAML files below the patterns count, those below `ignore` and in dot-folders do not."""
    assert is_manifest(path, patterns, ignore) is counts


@pytest.mark.parametrize(
    ("path", "mode", "size", "head", "code"),
    [
        ("a.yaml", "120000", 11, b"/etc/passwd", "CO1004"),
        ("a.yaml", "160000", 0, b"", "CO1005"),
        ("a.yaml", "040000", 0, b"", "CO1010"),
        ("a.yaml", "100644", MAX_FILE_BYTES + 1, b"", "CO1001"),
        ("a.yaml", "100644", 100, b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "CO1006"),
        ("a\x1b[31m.yaml", "100644", 1, b"", "CO1008"),
        ("a\nb.yaml", "100644", 1, b"", "CO1008"),
        ("a\u202eb.yaml", "100644", 1, b"", "CO1008"),
        ("a\udcff.yaml", "100644", 1, b"", "CO1008"),
    ],
)
def test_entries_that_are_never_read(path: str, mode: str, size: int, head: bytes, code: str) -> None:
    """Links, submodules, pointers, huge files and unusable paths are findings; removals wait for them."""
    parsed = refused(path, mode=mode, size=size, head=head)

    assert parsed is not None
    assert [one.code for one in parsed.findings] == [code]
    assert not parsed.parseable
    assert parsed.findings[0].path.isprintable()


@pytest.mark.parametrize("mode", ["100644", "100755"])
def test_regular_files_may_be_read(mode: str) -> None:
    """A regular file of any size up to the limit is not refused."""
    assert refused("tasks/ä b.yaml", mode=mode, size=MAX_FILE_BYTES, head=b"apiVersion") is None


def test_parse_refuses_by_mode_and_size() -> None:
    """`parse` answers for links and huge files itself; a link's target text is not taken for a manifest."""
    assert [one.code for one in parse("a.yaml", b"../x", mode="120000").findings] == ["CO1004"]
    assert [one.code for one in parse("a.yaml", b" " * (MAX_FILE_BYTES + 1)).findings] == ["CO1001"]
    assert parse("a.yaml", SMALLEST.encode().ljust(MAX_FILE_BYTES, b"\n")).findings == ()


@pytest.mark.parametrize(
    ("text", "code", "severity"),
    [
        ("", "CO1009", "warning"),
        ("# only comments\n\n", "CO1009", "warning"),
        ("---\n", "CO1205", "warning"),
        (f"{SMALLEST}---\n", "CO1205", "warning"),
        ("- a\n", "CO1201", "error"),
        ("text\n", "CO1201", "error"),
        ("services: {web: {}}\n", "CO1202", "error"),
        ("kind: Task\nmetadata: {name: x}\n", "CO1202", "error"),
        ("apiVersion: cron-observer/v2\nkind: Task\nmetadata: {name: x}\n", "CO1203", "error"),
        ("apiVersion: 1\nkind: Task\nmetadata: {name: x}\n", "CO1203", "error"),
        ("apiVersion: cron-observer/v1\nkind: Taks\nmetadata: {name: x}\n", "CO1204", "error"),
        ("apiVersion: cron-observer/v1\nkind: AlertRule\nmetadata: {name: x}\n", "CO1204", "error"),
        (SMALLEST + "sops: {mac: x}\n", "CO1007", "error"),
    ],
)
def test_documents_that_are_no_manifests(text: str, code: str, severity: str) -> None:
    """Empty documents are warned of; anything else that is no manifest is an error, never skipped."""
    (one,) = parse("a.yaml", text.encode()).findings

    assert (one.code, one.severity) == (code, severity)


@pytest.mark.parametrize(
    ("text", "broken", "parseable"),
    [
        (task("  timeout: 1\n"), ("nightly-export",), True),
        (task(SCHEDULE + "  timeout: 1h\n  timeout: 2h\n"), ("nightly-export",), True),
        (task("  schedule: {cron: x}\n"), ("nightly-export",), True),
        ("apiVersion: cron-observer/v1\nkind: Taks\nmetadata: {name: x}\n", ("x",), True),
        ("apiVersion: cron-observer/v1\nkind: Defaults\nmetadata: {name: x}\n", (), True),
        ("apiVersion: cron-observer/v1\nkind: Calendar\nmetadata: {name: x}\n", (), True),
        ("apiVersion: cron-observer/v1\nkind: Calendar\nmetadata: {name: X}\n", (), False),
        (SMALLEST + "sops: {mac: x}\n", ("nightly-export",), True),
        ("services: {web: {}}\n", (), True),
        ("- a\n", (), True),
        (f"{HEAD}metadata: {{name: Bad_Name}}\nspec:\n{SCHEDULE}", (), False),
        (f"{HEAD}metadata: {{}}\nspec:\n{SCHEDULE}", (), False),
        (f"{HEAD}spec:\n{SCHEDULE}", (), False),
        (task(SCHEDULE + "  payload: [\n"), ("nightly-export",), False),
        ("a: [\n", (), False),
        ("%YAML 1.2\n---\n" + SMALLEST, ("nightly-export",), True),
    ],
)
def test_what_a_broken_file_may_declare(text: str, broken: tuple[str, ...], parseable: bool) -> None:
    """A broken document keeps its name if it is known; where it is not, nothing may be removed."""
    parsed = parse("a.yaml", text.encode())

    assert (parsed.broken_names, parsed.parseable) == (broken, parseable)


def test_a_definition_is_located() -> None:
    """A definition carries labels, annotations, the line of its name and its place in the file."""
    second = task(SCHEDULE, "second").replace("name: second", "name: second\n  labels: {a: b}\n  annotations: {c: d}")
    _, one = parse("tasks/a.yaml", f"{SMALLEST}---\n{second}".encode()).tasks

    assert (one.name, one.path, one.line, one.document) == ("second", "tasks/a.yaml", 10, 1)
    assert (one.labels, one.annotations) == ({"a": "b"}, {"c": "d"})


def test_a_name_twice_in_a_file_refuses_both() -> None:
    """Neither of two documents of one name wins by its place; each finding names the other place."""
    parsed = parse("a.yaml", f"{SMALLEST}---\n{SMALLEST}".encode())

    assert parsed.tasks == ()
    assert parsed.broken_names == ("nightly-export",)
    assert [(one.code, one.line, one.column) for one in parsed.findings] == [("CO1207", 3, 18), ("CO1207", 9, 18)]
    assert "9:18" in parsed.findings[0].message
    assert "3:18" in parsed.findings[1].message


def test_a_warning_keeps_no_document_from_being_applied() -> None:
    """A document with warnings alone is a task."""
    parsed = parse("a.yaml", f"{SMALLEST}---\n".encode())

    assert len(parsed.tasks) == 1
    assert parsed.parseable


# -- trees ------------------------------------------------------------------------------------------------


def write(root: Path, **files: str) -> None:
    """Write files; two underscores in a name are a slash."""
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_tree_is_validated_as_one_set(tmp_path: Path) -> None:
    """A task that two files declare is a finding at both, each naming the other."""
    write(tmp_path, a__x=SMALLEST, b__y=f"# moved\n{SMALLEST}")
    report = validate_tree(tmp_path)

    first, second = report.findings
    assert (first.code, first.line, first.column) == ("CO1207", 3, 18)
    assert f"{tmp_path}/b/y.yaml:4:18" in first.message
    assert f"{tmp_path}/a/x.yaml:3:18" in second.message
    assert (report.files, report.documents) == (2, 2)


def test_a_tree_leaves_out_what_is_no_manifest(tmp_path: Path) -> None:
    """Dot-folders and other files are not looked at."""
    write(tmp_path, a=SMALLEST, x__c=SMALLEST.replace("nightly", "c"))
    write(tmp_path / ".git", b="[")
    (tmp_path / "README.md").write_text("[")
    report = validate_tree(tmp_path)

    assert (report.findings, report.files) == ([], 2)


def test_links_in_a_tree_are_not_followed(tmp_path: Path) -> None:
    """A link to a file is a finding, a link to a folder is not entered."""
    outside = tmp_path / "outside"
    write(outside, b="[")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.yaml").symlink_to("/etc/passwd")
    (root / "folder").symlink_to(outside)
    report = validate_tree(root)

    assert [one.code for one in report.findings] == ["CO1004"]


def test_paths_that_differ_only_by_case_are_warned_of(tmp_path: Path) -> None:
    """Some systems cannot hold both of two such files."""
    write(tmp_path, a=SMALLEST, A=SMALLEST.replace("nightly", "other"))

    assert [(one.code, one.severity) for one in validate_tree(tmp_path).findings] == [("CO1011", Severity.WARNING)]


def test_a_large_file_in_a_tree_is_refused_by_its_size(tmp_path: Path) -> None:
    """The finding says how large it is, not how much was read."""
    (tmp_path / "a.yaml").write_bytes(b"a" * (MAX_FILE_BYTES * 2))
    (one,) = validate_tree(tmp_path).findings

    assert one.code == "CO1001"
    assert f"{MAX_FILE_BYTES * 2:,}" in one.message


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    """Naming a folder and a file in it is no duplicate."""
    write(tmp_path, a=SMALLEST)

    assert validate_paths([tmp_path, tmp_path / "a.yaml"]).findings == []
