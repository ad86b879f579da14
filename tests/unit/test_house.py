"""The house keeps its own rules: what lies at the root, how long things are, what no file may say."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from cron_observer.cli import commands
from cron_observer.settings import PREFIX, ROLES, Settings, SourceSettings, declared
from support.documents import ROOT, section

#: What may lie at the root, and nothing else. docs/explanation/house.md gives the reasons.
AT_ROOT = {
    *(".ci", ".dockerignore", ".github", ".gitignore", ".pre-commit-hooks.yaml"),
    *("api", "bench", "clients", "docs", "manifests-example", "reconciler", "requirements", "schemas", "scripts"),
    *("sdk", "tests"),
    *("check", "start", "action.yml", "Dockerfile", "compose.yaml", "pyproject.toml"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "NOTICE", "README.md", "SECURITY.md", "THIRD_PARTY_NOTICES.md"),
}

#: Lines beyond which a file says why it is longer, here.
FILE_LINES = 450
LONG_FILES = {
    "reconciler/cron_observer/store/tables.py": "one table after the other: nothing to tell apart",
    "reconciler/cron_observer/store/migrations/versions/0001_initial.sql": "the first schema, whole",
    "schemas/openapi.json": "made by scripts/openapi",
    "schemas/defaults.v1.json": "holds what may be said of a task, field by field; made by scripts/schemas",
    "schemas/task.v1.json": "one kind is one file, field by field",
    "schemas/project.v1.json": "holds what may be said of a task, field by field; made by scripts/schemas",
    "docs/reference/manifest.md": "every field of every kind, for those who search the page",
}

#: Lines beyond which a function says why it is longer, here.
FUNCTION_LINES = 60
LONG_FUNCTIONS = {
    "reconciler/cron_observer/store/executions/create.py:create_running": "one row and one event, column by column",
    "tests/acceptance/test_main_job.py:test_push_run_break_remove": "one story, told in one piece",
}

#: Folders whose files others have written.
FOREIGN = ("api/cron_observer_api/static/vendor/", "tests/unit/vectors/")

#: Names of hosts that packages come from, put together so that this file does not say them.
REGISTRIES = re.compile(
    "|".join(
        re.escape(".".join(parts))
        for parts in (
            *(("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("npmjs", "com"), ("unpkg", "com")),
            *(("jsdelivr", "net"), ("cloudflare", "com"), ("docker", "io"), ("ghcr", "io"), ("crates", "io")),
            *(("deb", "debian"), ("archive", "ubuntu"), ("proxy", "golang")),
        )
    )
)

#: Folders of somebody's machine. What everybody has (/tmp, /usr, /var/lib, /etc) is no secret.
SOMEBODYS = re.compile(r"(?<![\w.$}])/(?:home/[a-z]\w*|Users/\w+|root|work|mnt|workspace)/\w")

#: Notes to oneself.
UNDONE = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")

#: What a room is never called.
KINDS = {"utils", "util", "helpers", "helper", "common", "misc", "models", "services", "managers", "controllers"}


@cache
def files() -> tuple[str, ...]:
    """Return every file that Git knows of, by its path in the project."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout
    found = tuple(path for path in listed.decode().split("\0") if path and (ROOT / path).exists())
    if not found:
        pytest.skip("this is no clone of the repository")
    return found


def texts(*endings: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of our own files, all of them or those with these endings."""
    for path in files():
        if path.startswith(FOREIGN) or (endings and not path.endswith(endings)):
            continue
        try:
            yield path, (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def places(pattern: re.Pattern[str], *, but: tuple[str, ...] = ()) -> list[str]:
    """Return where a pattern is found in our files, line by line."""
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        if path not in but
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_else_lies_at_the_root() -> None:
    """Every entry at the root has a reason."""
    assert {path.partition("/")[0] for path in files()} == AT_ROOT


def test_the_page_about_the_house_names_every_room() -> None:
    """docs/explanation/house.md tells what each folder at the root is, and each module of the core."""
    page = (ROOT / "docs/explanation/house.md").read_text(encoding="utf-8")
    rooms = {path.partition("/")[0] for path in files() if "/" in path}
    assert {room for room in rooms if f"`{room}/`" not in section(page, "At the root")} == set()
    core = {path.split("/")[2].removesuffix(".py") for path in files() if path.startswith("reconciler/cron_observer/")}
    listed = section(page, "The core")
    named = {name.removesuffix("/") for name in re.findall(r"`([a-z_]+/?)`", listed)}
    assert core - named - {"__init__", "py.typed"} == set()


def test_files_are_short() -> None:
    """A long file is on the list with its reason, and nothing is on the list that is not long."""
    kinds = (".py", ".sql", ".md", ".html", ".css", ".js", ".json", ".yaml", ".yml", ".toml", ".sh")
    long = {path for path, text in texts(*kinds) if text.count("\n") > FILE_LINES}
    assert long == set(LONG_FILES)


def test_functions_are_short() -> None:
    """A long function is on the list with its reason, and nothing is on the list that is not long."""
    long = set()
    for path, text in texts(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    long.add(f"{path}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


def test_no_host_of_packages_is_named() -> None:
    """Which index packages come from is set on the machine, never in the project."""
    assert places(REGISTRIES) == []


def test_no_machine_of_somebody_is_named() -> None:
    """The project runs wherever it is put."""
    assert places(SOMEBODYS) == []


def test_nothing_is_left_undone() -> None:
    """What is to be done stands in the tracker."""
    assert places(UNDONE) == []


def test_the_patterns_find_what_they_look_for() -> None:
    """Each of the three would be caught; what is allowed is not."""
    folder = "/".join(("", "home", "ada", "crons"))
    assert REGISTRIES.search("https://files." + "pythonhosted" + ".org/packages")
    assert SOMEBODYS.search(f"see {folder}")
    assert UNDONE.search("# " + "TO" + "DO: later")
    assert not SOMEBODYS.search("the folder /tmp/co, /usr/lib/postgresql, a/home/b and /var/lib/cron-observer")


def test_rooms_are_cut_by_noun() -> None:
    """No room of the product is called after a kind of code."""
    ours = [Path(path) for path in files() if path.startswith(("reconciler/", "api/", "sdk/"))]
    assert {name for path in ours for name in (*path.parts[:-1], path.stem)} & KINDS == set()


def test_every_module_says_what_it_is() -> None:
    """Each module begins with a sentence, also those of tests."""
    silent = [path for path, text in texts(".py") if text.strip() and not ast.get_docstring(ast.parse(text))]
    assert silent == []


def test_every_test_states_its_claim() -> None:
    """A test's docstring is what it shows, in a sentence."""
    silent = [
        f"{path}:{node.name}"
        for path, text in texts(".py")
        if path.startswith("tests/")
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def pyproject() -> dict[str, Any]:
    """Return the project's pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirement(line: str) -> str:
    """Return the name of a requirement."""
    return re.split(r"[\s\[<>=~;!]", line.strip(), maxsplit=1)[0].lower()


@pytest.mark.parametrize("name", ["bootstrap", "runtime", "dev"])
def test_locks_are_hashed_and_whole(name: str) -> None:
    """Each lock pins every package with hashes, holds what its .in asks for, and names no index."""
    lock = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==\S+.*?(?=^[A-Za-z0-9]|\Z)", lock, re.MULTILINE | re.DOTALL)
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(pinned) == len(entries)
    assert [entry.partition("=")[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"^--.*$|https?://", lock, re.MULTILINE) == []
    asked = [
        requirement(line)
        for line in (ROOT / "requirements" / f"{name}.in").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith(("#", "-r"))
    ]
    assert set(asked) - {one.lower() for one in pinned} == set()


def test_the_wheel_asks_for_what_the_lock_has() -> None:
    """The dependencies of the distribution and those of requirements/runtime.in are the same."""
    asked = {
        re.sub(r"\s*;.*", "", line.strip())
        for line in (ROOT / "requirements" / "runtime.in").read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    }
    dependencies = {re.sub(r"\s*;.*", "", one) for one in pyproject()["project"]["dependencies"]}
    assert dependencies - {"cron-observer-sdk"} == asked


def test_the_versions_are_one() -> None:
    """Server, SDK, packages and compose.yaml are of one version."""
    import cron_observer
    import cron_observer_sdk

    sdk = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    image = re.search(r"image: cron-observer:(\S+)", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert image is not None
    versions = {pyproject()["project"]["version"], sdk, cron_observer.__version__, cron_observer_sdk.__version__}
    assert versions == {image[1]}


def test_workflows_are_pinned_and_may_little() -> None:
    """Every action is pinned by its hash, and no job has rights that it did not ask for."""
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        for action in re.findall(r"uses:\s*(\S+)", text):
            assert re.search(r"@[0-9a-f]{40}$", action), f"{path.name}: {action}"
        assert yaml.safe_load(text)["permissions"] == {}


def known_variables() -> set[str]:
    """Return the environment variables that settings are read from."""
    return {f"{PREFIX}{name.upper()}" for name in declared(Settings)}


def test_compose_says_what_the_product_knows() -> None:
    """Commands, roles and settings of compose.yaml are those of the product; nothing is published to the world."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    ran: set[str] = set()
    for name, service in services.items():
        if name == "postgres":
            continue
        word, *arguments = service["command"]
        assert word in commands()
        ran |= {role for flag, role in pairwise(arguments) if flag == "--role"}
        assert set(service["environment"]) <= known_variables()
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "./secrets:/run/secrets:ro" in service["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert ran == set(ROLES)
    for ignoring in (".gitignore", ".dockerignore"):
        assert {"secrets", ".env"} <= {line.strip("/") for line in (ROOT / ignoring).read_text("utf-8").split()}


def test_the_image_is_made_of_what_is_there() -> None:
    """The Dockerfile names files that exist and settings that are known, runs as nobody's account, and is watched."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for lock in re.findall(r"requirements/[\w.]+", text):
        assert (ROOT / lock).is_file(), lock
    assert set(re.findall(rf"\b({PREFIX}[A-Z_]+)=", text)) <= known_variables()
    ignored = set((ROOT / ".dockerignore").read_text(encoding="utf-8").split())
    assert ignored & {"api", "reconciler", "sdk", "schemas", "manifests-example", "requirements", "README.md"} == set()
    assert re.search(r"^USER 10001:10001$", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
    installed = re.search(r"apt-get install [^\n]*", text)
    assert installed is not None
    assert {"git", "gpg", "openssh-client"} <= set(installed[0].split())


def test_settings_of_the_guides_are_known() -> None:
    """A settings file that a document shows can be read."""
    for path, text in texts(".md"):
        for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
            shown = tomllib.loads(block)
            if {"sources", "data_dir"} & set(shown):
                assert set(shown) - {"sources"} <= set(declared(Settings)), path
                for source in shown.get("sources", ()):
                    assert set(source) <= set(declared(SourceSettings)), path
        for variable in re.findall(rf"\b{PREFIX}DATABASE_URL\w*", text):
            assert variable in known_variables(), f"{path}: {variable}"
