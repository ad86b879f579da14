"""Findings as SARIF, JUnit, GitHub commands and GitLab Code Quality: what they demand, and that nothing gets out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cron_observer.cli.formats import FORMATS, github, write
from cron_observer.cli.validate import validate
from cron_observer.manifest import Report
from cron_observer.manifest.scalars import shown
from cron_observer.manifest.tree import Outline
from cron_observer.markdown import MOST_BYTES, code
from cron_observer.model import Finding, Severity
from support.manifests import SMALLEST, task

LATE = "  schedule: {every: 1m}\n"


def a_finding(**members: Any) -> Finding:
    """Make a finding; every member may be given."""
    given_ = {"severity": Severity.ERROR, "code": "CO1301", "path": "tasks/a.yaml", "message": "it is wrong"}
    return Finding(**{**given_, **members})


def report(*findings: Finding, **outlines: list[Outline]) -> Report:
    """Make a report of findings."""
    return Report(findings=list(findings), documents=1, files=1, outlines=outlines)


def xml(text: str) -> ET.Element:
    """Read XML that we have written ourselves."""
    return ET.fromstring(text)  # noqa: S314


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with a file of two documents, the second broken twice, and one that says nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    (tmp_path / "a.yaml").write_text(task(LATE, "good") + "---\n" + task(LATE + "  retry: 1\n  timeout: soon\n", "bad"))
    (tmp_path / "b.yaml").write_text("# nothing\n")
    return tmp_path


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(validate, list(arguments))


# -- SARIF ---------------------------------------------------------------------------------------------------


def test_sarif_has_what_the_specification_requires(tree: Path) -> None:
    """Version, driver, a rule for each code with its page, and results that lead to rule and region."""
    log = json.loads(run("--format", "sarif").output)
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (one_run,) = log["runs"]
    driver = one_run["tool"]["driver"]
    assert driver["name"] == "cron-observer"
    assert one_run["columnKind"] == "unicodeCodePoints"
    rules = driver["rules"]
    assert [rule["id"] for rule in rules] == sorted({rule["id"] for rule in rules})
    for rule in rules:
        assert rule["helpUri"].startswith("https://")
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in {"error", "warning"}
    assert len(one_run["results"]) == 3
    for result in one_run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in {"error", "warning"}
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1
    regions = [one["locations"][0]["physicalLocation"]["region"] for one in one_run["results"]]
    assert regions[0] == {"startLine": 14, "startColumn": 3, "endLine": 14, "endColumn": 8}


def fingerprints(text: str) -> list[str]:
    """Return the fingerprints of a SARIF log."""
    results = json.loads(text)["runs"][0]["results"]
    return [one["partialFingerprints"]["cronObserverIdentity/v1"] for one in results]


def test_moved_lines_open_nothing_anew(tree: Path) -> None:
    """The fingerprints of a named document's findings do not depend on its lines, nor on its file."""
    before = fingerprints(run("--format", "sarif", "a.yaml").output)
    (tree / "c.yaml").write_text("# a comment\n\n" + (tree / "a.yaml").read_text())
    assert fingerprints(run("--format", "sarif", "c.yaml").output) == before
    assert len(set(before)) == len(before) == 2


def test_every_result_has_a_fingerprint_of_its_own() -> None:
    """Equal findings are numbered; those without a name are told apart by their files."""
    one, other = a_finding(kind="Task", name="x", pointer="/spec"), a_finding(path="b.yaml")
    prints = fingerprints(write("sarif", report(one, one, other, a_finding())))
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("./tasks/ä b.yaml", {"uri": "tasks/%C3%A4%20b.yaml", "uriBaseId": "%SRCROOT%"}),
        ("/srv/a#b.yaml", {"uri": "file:///srv/a%23b.yaml"}),
    ],
)
def test_paths_are_uris(path: str, place: dict[str, str]) -> None:
    """A relative path is one below the root of the sources, an absolute one is a file URL."""
    log = json.loads(write("sarif", report(a_finding(path=path))))
    physical = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"] == place


# -- JUnit ---------------------------------------------------------------------------------------------------


def test_junit_has_a_suite_a_file_and_a_case_a_document(tree: Path) -> None:
    """Errors fail the case of their document, warnings do not, and the counts add up."""
    result = run("--format", "junit")
    root = xml(result.output)
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors")) == ("testsuites", "3", "1", "0")
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"a.yaml", "b.yaml"}
    good, bad = suites["a.yaml"]
    assert (good.get("name"), good.get("line"), list(good)) == ("Task good", "1", [])
    assert (bad.get("name"), bad.get("classname"), bad.get("line")) == ("Task bad", "a.yaml", "7")
    assert [failure.get("type") for failure in bad] == ["CO1301", "CO1308"]
    assert all(failure.get("message") and "a.yaml:" in (failure.text or "") for failure in bad)
    (empty,) = suites["b.yaml"]
    assert [part.tag for part in empty] == ["system-out"]
    for suite in suites.values():
        assert {"tests", "failures", "errors", "skipped"} <= set(suite.keys())


def test_a_file_with_an_odd_name_is_one_suite(tree: Path) -> None:
    """A path that has to be escaped is the same in the outline and in its findings."""
    (tree / "n\nl.yaml").write_text(SMALLEST)
    names = [suite.get("name") for suite in xml(run("--format", "junit").output)]
    assert names == ["a.yaml", "b.yaml", "n\\nl.yaml"]


def test_junit_is_what_it_says_wherever_it_is_printed(tree: Path) -> None:
    """Other characters than those of ASCII are references: the encoding of the terminal does not matter."""
    (tree / "c.yaml").write_text(task(LATE + '  "日本é": 1\n', "c"))
    text = run("--format", "junit").output
    assert text.isascii()
    assert "日本é" in "".join(xml(text).itertext())


def test_colours_may_be_turned_off(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR is heard also where there is a terminal."""
    assert "\x1b[" in CliRunner().invoke(validate, [], color=True).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in CliRunner().invoke(validate, [], color=True).output


def test_forges_are_told_paths_from_the_root_of_the_repository(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that runs in a folder of the repository annotates the files that are meant; people see what they named."""
    (tree / ".git").mkdir()
    (tree / "sub").mkdir()
    (tree / "a.yaml").rename(tree / "sub" / "a.yaml")
    monkeypatch.chdir(tree / "sub")
    for path in ("a.yaml", "../sub/a.yaml", str(tree / "sub" / "a.yaml")):
        assert "::error file=sub/a.yaml,line=" in run(path, "--format", "github").output
        assert {one["location"]["path"] for one in json.loads(run(path, "--format", "gitlab").output)} == {"sub/a.yaml"}
        sarif = json.loads(run(path, "--format", "sarif").output)["runs"][0]["results"][0]
        assert sarif["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "sub/a.yaml"
        assert f"--> {path}:" in run(path).output


# -- GitHub --------------------------------------------------------------------------------------------------

COMMAND = re.compile(r"::(error|warning) ([^:\n]*)::([^\n]*)")


def unescaped(text: str, *more: tuple[str, str]) -> str:
    """Undo what the escaping of workflow commands does."""
    for escaped, plain in (*more, ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")):
        text = text.replace(escaped, plain)
    return text


def read_command(line: str) -> tuple[str, dict[str, str], str]:
    """Read a workflow command as a runner does."""
    match = COMMAND.fullmatch(line)
    assert match is not None, line
    pairs = (pair.partition("=") for pair in match[2].split(","))
    return (
        match[1],
        {name: unescaped(value, ("%3A", ":"), ("%2C", ",")) for name, _, value in pairs},
        unescaped(match[3]),
    )


def test_github_annotates_places_errors_first(tree: Path) -> None:
    """Each finding is one command, with its place and code; behind them stands what it came to."""
    (tree / "0.yaml").write_text("# nothing\n")
    *lines, totals = run("--format", "github").output.splitlines()
    read = [read_command(line) for line in lines]
    assert [word for word, _, _ in read] == ["error", "error", "warning", "warning"]
    assert read[0][1] == {
        "file": "a.yaml",
        "line": "14",
        "endLine": "14",
        "col": "3",
        "endColumn": "7",
        "title": "CO1301",
    }
    assert read[0][2].startswith('spec: unknown field "retry"\nhint: did you mean "retries"?\nhttps://')
    assert totals == "checked 2 documents in 3 files: 2 errors, 2 warnings"


def test_github_writes_the_page_of_the_job(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there already stays; without the format nothing is written."""
    page = tree / "summary"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    run("--format", "json")
    assert page.read_text() == "before\n"
    run("--format", "github")
    assert page.read_text().startswith("before\n### Manifests\n")
    assert "`a.yaml:14`" in page.read_text()


def test_the_page_of_the_job_is_not_too_long() -> None:
    """Of very many findings as many are shown as fit, and the rest is counted."""
    several = [a_finding(message="ä" * 1000, line=number) for number in range(1, 1000)]
    text = github.summary(report(*several))
    assert len(text.encode()) <= MOST_BYTES
    assert re.search(r"and \d+ more findings", text)


# -- GitLab --------------------------------------------------------------------------------------------------


def test_gitlab_has_what_code_quality_needs(tree: Path) -> None:
    """Description, check, fingerprint, severity, path and line of each; no fingerprint stands twice."""
    issues = json.loads(run("--format", "gitlab").output)
    assert len(issues) == 3
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert issue["location"]["lines"]["begin"] >= 1
        assert not issue["location"]["path"].startswith("./")
    assert len({issue["fingerprint"] for issue in issues}) == 3


# -- files ---------------------------------------------------------------------------------------------------


def test_several_formats_are_written_at_once(tree: Path) -> None:
    """Files get what they are asked for, the terminal gets text."""
    result = run("--format", "gitlab", "-o", "gl.json", "--sarif", "s.sarif", "--junit", "j.xml")
    assert result.exit_code == 1
    assert len(json.loads((tree / "gl.json").read_text())) == 3
    assert json.loads((tree / "s.sarif").read_text())["version"] == "2.1.0"
    assert xml((tree / "j.xml").read_text()).tag == "testsuites"
    assert "error[CO1301]" in result.output
    assert result.output.endswith("checked 2 documents in 2 files: 2 errors, 1 warning\n")


def test_a_clean_tree_is_written_too(tree: Path) -> None:
    """Without findings every format is whole, so that viewers see that the check ran."""
    for name in ("a.yaml", "b.yaml"):
        (tree / name).unlink()
    (tree / "c.yaml").write_text(SMALLEST)
    assert run("--format", "gitlab").output == "[]\n"
    assert json.loads(run("--format", "sarif").output)["runs"][0]["results"] == []
    assert xml(run("--format", "junit").output).get("tests") == "1"
    assert run("--format", "github").output == "checked 1 document in 1 file: no findings\n"


def test_a_file_that_cannot_be_written_is_said(tree: Path) -> None:
    """The message names the file, and the check does not pass."""
    result = run("--sarif", "nowhere/s.sarif")
    assert result.exit_code == 1
    assert "nowhere/s.sarif cannot be written: No such file or directory" in result.output


def test_a_full_disk_is_said(tree: Path) -> None:
    """What cannot be printed is an error with a sentence, and no success."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cron_observer_sdk", "validate", "--format", "json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("name", ["", "Prod", "a b", "-x", "a" * 64])
def test_a_name_that_no_environment_can_have_is_a_usage_error(tree: Path, name: str) -> None:
    """It would be judged as if there were no environment at all."""
    result = run("--environment", name)
    assert result.exit_code == 64
    assert "is no name of an environment" in result.output


@pytest.mark.parametrize("form", FORMATS)
def test_secrets_and_escapes_stay_inside(tree: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No format shows a secret, or lets a file write to the terminal."""
    page = tree / "page"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    (tree / "a.yaml").write_text(task(LATE + "  payload: {password: hunter2, x: [1e999]}\n"))
    (tree / "c.yaml").write_bytes(b'metadata: {name: "\\e[31m"}\n\x1b[2J: 1\n')
    (tree / "d\x1b[31m.yaml").write_text("a: 1\n")
    output = run("--format", form).output + (page.read_text() if page.exists() else "")
    assert "hunter2" not in output
    assert "\x1b" not in output


# -- any text ------------------------------------------------------------------------------------------------

_TEXTS = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from("%:,\r\n`|<>&\"'[]{}\\@#\x00\x1b\u202e\u2028\ufffe\ud800")),
    min_size=1,
    max_size=40,
)


@given(message=_TEXTS, hint=_TEXTS)
def test_any_message_survives(message: str, hint: str) -> None:
    """Whatever a message holds, each format gives it back, with control characters shown."""
    one = a_finding(message=message, hint=hint, line=3, column=2)
    said, help_ = shown(message, 2000), shown(hint, 2000)
    found = report(one)

    assert json.loads(write("json", found))["findings"][0]["message"] == message
    result = json.loads(write("sarif", found))["runs"][0]["results"][0]
    escaped = re.sub(r"\{\{|\}\}|\\([\[\]\\])", lambda match: match[1] or match[0][0], result["message"]["text"])
    assert escaped == f"{said} (hint: {help_})"
    assert json.loads(write("gitlab", found))[0]["description"] == f"{said} (hint: {help_})"
    failure = xml(write("junit", found)).find(".//failure")
    assert failure is not None
    assert failure.get("message") == said
    assert (failure.text or "").endswith(f": {said}\nhint: {help_}")
    (line,) = write("github", found).splitlines()
    assert read_command(line)[2] == f"{said}\nhint: {help_}"


@given(path=_TEXTS)
def test_any_path_survives(path: str) -> None:
    """Whatever a path holds, each format names the file."""
    path = path.replace("\x00", "0").removeprefix("./")
    path = path.encode("utf-8", "replace").decode()  # others are not names that the system gives
    found = report(a_finding(path=path, line=3))

    result = json.loads(write("sarif", found))["runs"][0]["results"][0]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert unquote_to_bytes(uri.removeprefix("file://")).decode() == path
    assert re.fullmatch(r"[A-Za-z0-9._~%/:-]*", uri)
    assert json.loads(write("gitlab", found))[0]["location"]["path"] == shown(path, 4096)
    suite = xml(write("junit", found)).find("testsuite")
    assert suite is not None
    assert suite.get("name") == shown(path, 4096)
    (line,) = write("github", found).splitlines()
    assert read_command(line)[1]["file"] == shown(path, 4096)


@given(text=_TEXTS)
def test_any_text_is_one_code_span(text: str) -> None:
    """A span begins and ends with backticks that its text does not hold, so that nothing in it is Markdown."""
    span = code(text)
    match = re.fullmatch(r"(`+)( ?)(.*?)( ?)\1", span)
    assert match is not None
    assert match[1] not in re.findall("`+", match[3])
    assert shown(text, 2000).strip() in match[3] + match[4]
    assert "\n" not in span
