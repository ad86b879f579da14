"""What the documents say of commands, states, settings and manifests is so, and every link leads somewhere."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
import yaml

from cron_observer import manifest
from cron_observer.cli import commands
from cron_observer.lifecycle import MOVES, Event, Reason, Status
from cron_observer.model import API_VERSION, Severity
from support.documents import ROOT, anchors, blocks, documents, links, section

DOCS = ROOT / "docs"

#: A manifest that shell commands write.
HERE = re.compile(r"<<'END'\n(apiVersion:.*?\n)END$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    """Return how a document is called in the output of a test."""
    return path.relative_to(ROOT).as_posix()


def read(path: str) -> str:
    """Return a document."""
    return (ROOT / path).read_text(encoding="utf-8")


def first_column(text: str) -> list[str]:
    """Return the code spans in the first column of every table."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


@pytest.mark.parametrize("document", documents(), ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link names a file of the project, and every anchor a heading of it."""
    wrong = []
    for link in links(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / unquote(path)).resolve() if path else document
        there = target.exists() and target.is_relative_to(ROOT)
        if there and anchor and target.suffix == ".md":
            there = anchor in anchors(target.read_text(encoding="utf-8"))
        if not there:
            wrong.append(link)
    assert wrong == []


def test_the_index_is_whole() -> None:
    """Every document below docs/ is found from docs/README.md."""
    index = {(DOCS / link.partition("#")[0]).resolve() for link in links(read("docs/README.md"))}
    findings = set((DOCS / "reference/findings").glob("*.md"))  # they are listed on a page of their own
    assert {path for path in DOCS.rglob("*.md") if path.name != "README.md"} - index - findings == set()


def manifests() -> Iterator[tuple[str, str]]:
    """Yield every YAML block of the documents that is a manifest, also those inside of shell commands.

    The pages of findings show what is wrong, and have a test of their own.
    """
    for document in (one for one in documents() if one.parent.name != "findings"):
        for block in blocks(document.read_text(encoding="utf-8")):
            place = f"{name(document)}:{block.line}"
            if block.language in {"yaml", "yml"} and re.search(r"^apiVersion:", block.text, re.MULTILINE):
                yield place, block.text
            for number, inner in enumerate(HERE.findall(block.text)):
                yield f"{place}/{number}", inner


@pytest.mark.parametrize(("place", "text"), [pytest.param(*one, id=one[0]) for one in manifests()])
def test_manifests_of_the_documents_are_valid(place: str, text: str) -> None:
    """A reader may copy any manifest of the documents."""
    parsed = manifest.parse(f"{place}.yaml", text.encode())
    assert [finding.message for finding in parsed.findings if finding.severity is Severity.ERROR] == []
    assert parsed.documents >= 1


def test_the_documents_show_manifests() -> None:
    """The search above finds what is there."""
    assert len(list(manifests())) >= 5
    assert all(API_VERSION in text for _, text in manifests())


@pytest.mark.parametrize("document", [one for one in documents() if one.parent.name != "findings"], ids=name)
def test_yaml_blocks_can_be_read(document: Path) -> None:
    """A YAML block that is no whole manifest is YAML all the same."""
    for block in blocks(document.read_text(encoding="utf-8")):
        if block.language in {"yaml", "yml"}:
            list(yaml.safe_load_all(block.text))


def test_the_states_are_those_of_the_code() -> None:
    """The page about states is up to date, and names each status, reason and event once."""
    assert runpy.run_path(str(ROOT / "scripts" / "states"))["main"](["--check"]) == 0
    page = read("docs/reference/states.md")
    assert sorted(first_column(section(page, "Statuses"))) == sorted(Status)
    assert set(first_column(section(page, "Reasons"))) == set(Reason)
    assert sorted(first_column(section(page, "Events"))) == sorted(Event)
    for event, move in MOVES.items():
        assert re.search(rf"\| `{event}` \| [^|]*\| {move.target} \|", page)


def options(command: click.Command) -> set[str]:
    """Return the long options of a command, or the short one where there is no long one."""
    found = set()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            long = [option for option in parameter.opts if option.startswith("--")]
            found |= set(long or parameter.opts)
    return found - {"--help"}


def loaded(word: str) -> click.Command:
    """Return the click command of a name."""
    from importlib import import_module

    command = getattr(import_module(commands()[word].module), commands()[word].attribute)
    assert isinstance(command, click.Command)
    return command


#: What the introduction of the page says once for all commands.
EVERYWHERE = {"--format", "--config", "--data-dir"}


@pytest.mark.parametrize("word", sorted(commands()))
def test_every_option_is_documented(word: str) -> None:
    """The section of a command names each of its subcommands and options, and none that it does not have."""
    text = section(read("docs/reference/cli.md"), word)
    command = loaded(word)
    if isinstance(command, click.Group):
        for sub, inner in command.commands.items():
            row = re.search(rf"^\| `{word} {sub}[^`]*` \| (.*) \|$", text, re.MULTILINE)
            if len(command.commands) == 1:
                assert f"{word} {sub}" in text
            else:
                assert row is not None, f"{word} {sub} is not documented"
                assert options(inner) - EVERYWHERE <= set(re.findall(r"`(--?[a-z-]+)[^`]*`", row[1]))
        has = set().union(*(options(inner) for inner in command.commands.values()))
    else:
        has = options(command)
    said = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+|-[a-z])\b", text))
    assert has - EVERYWHERE <= said
    known = has | EVERYWHERE | {name for one in command.params for name in one.opts}
    assert said <= known, f"{word} has no {said - known}"


def test_every_command_is_documented() -> None:
    """Each command has a section, and there is no section of another."""
    sections = re.findall(r"^## (.+)$", read("docs/reference/cli.md"), re.MULTILINE)
    assert set(sections) - {"What commands need"} == {*commands(), "run", "ping", "spool"}


def test_options_of_start_are_documented() -> None:
    """`./start --help`, `cron-observer up` and the reference know the same options."""
    said = set(re.findall(r"^  (--[a-z-]+)", read("start"), re.MULTILINE)) - {"--help"}
    assert said | {"--config"} == options(loaded("up"))


def test_every_benchmark_is_documented() -> None:
    """Each script of bench/ has a row with its goal."""
    page = read("docs/reference/benchmarks.md")
    scripts = {path.name for path in (ROOT / "bench").glob("*.py")} - {"common.py", "load.py"}
    assert set(re.findall(r"\| `bench/([a-z_]+\.py)` \|", page)) == scripts


def test_the_readme_is_short() -> None:
    """Who reads the README has other things to do."""
    assert read("README.md").count("\n") <= 200
