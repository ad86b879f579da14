"""What is installed elsewhere: both wheels, built without a network, alone in an environment without the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import ROOT
from support.processes import clean_environment, free_port, until

#: What is copied to build from; everything that a wheel may hold, and nothing that only a checkout has.
SOURCES = (
    "api",
    "reconciler",
    "sdk",
    "schemas",
    "manifests-example",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "NOTICE",
    "THIRD_PARTY_NOTICES.md",
)


def environment() -> dict[str, str]:
    """Return an environment in which nothing of the checkout can be imported and no index be asked."""
    left = {name: value for name, value in clean_environment().items() if not name.startswith(("PYTHON", "VIRTUAL"))}
    return left | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def run(*command: str | Path, cwd: Path, expected: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command and demand its exit code."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment(), capture_output=True, text=True, check=False,
        timeout=100,
    )  # fmt: skip
    assert done.returncode == expected, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built from a copy of the checkout: the server's and the SDK's."""
    folder = tmp_path_factory.mktemp("packaging")
    source, target = folder / "source", folder / "wheels"
    source.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=unwanted)
        else:
            shutil.copy2(ROOT / name, source / name)
    for room in (source / "sdk", source):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target, cwd=room)
    built = sorted(target.glob("*.whl"))
    assert len(built) == 2
    return {"sdk" if "sdk" in wheel.name else "server": wheel for wheel in built}


@pytest.fixture(scope="session")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with both wheels; dependencies are lent by this one, rooms are not."""
    programs = make_environment(tmp_path_factory.mktemp("installed"), *wheels.values())
    (site,) = programs.parent.glob("lib/python*/site-packages")
    # Folders named in a .pth file are searched, but .pth files in them (our editable rooms) are not read.
    (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    return programs


def make_environment(folder: Path, *wheels: Path) -> Path:
    """Make an environment with these wheels and nothing else; return its folder of programs."""
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    programs = folder / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", *wheels, cwd=folder)
    return programs


def names(wheel: Path) -> set[str]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_servers_wheel_is_whole(wheels: dict[str, Path]) -> None:
    """It holds both packages, everything that they read, the licences, and nothing that claims another name."""
    held = names(wheels["server"])
    assert {name.partition("/")[0] for name in held} == {
        "cron_observer", "cron_observer_api", "cron_observer-0.1.0.dist-info"
    }  # fmt: skip
    for room, package in (("reconciler", "cron_observer"), ("api", "cron_observer_api")):
        for path in (ROOT / room / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(ROOT / room).as_posix() in held
    for path in (ROOT / "schemas").glob("*.json"):
        assert f"cron_observer/_schemas/{path.name}" in held
    assert any(name.startswith("cron_observer/_manifests_example/") for name in held)
    licences = {Path(name).name for name in held if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "THIRD_PARTY_NOTICES.md"}
    assert not {name for name in held if "__pycache__" in name or name.endswith((".pyc", ".orig", ".rej"))}


def test_the_sdks_wheel_stands_alone(wheels: dict[str, Path], tmp_path: Path) -> None:
    """It asks for no other distribution; alone it brings `run`, and says where the server's commands come from."""
    held = names(wheels["sdk"])
    assert {name.partition("/")[0] for name in held} == {"cron_observer_sdk", "cron_observer_sdk-0.1.0.dist-info"}
    with zipfile.ZipFile(wheels["sdk"]) as archive:
        metadata = archive.read("cron_observer_sdk-0.1.0.dist-info/METADATA").decode()
    assert "Requires-Python: >=3.9" in metadata
    assert "Requires-Dist" not in metadata
    assert "cron_observer_sdk-0.1.0.dist-info/licenses/LICENSE" in held
    assert (ROOT / "sdk" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

    programs = make_environment(tmp_path, wheels["sdk"])
    assert "run" in run(programs / "cron-observer", "--help", cwd=tmp_path).stdout
    run(programs / "cron-observer", "run", "default/a", "--", "sh", "-c", "exit 7", cwd=tmp_path, expected=7)
    said = run(programs / "cron-observer", "validate", ".", cwd=tmp_path, expected=64).stderr
    assert "the server's commands come with the distribution cron-observer" in said


def test_it_runs_from_the_wheels(installed: Path, tmp_path: Path) -> None:
    """Installed, it imports nothing from the checkout, lists every command, and finds schemas and migrations."""
    code = (
        "import cron_observer, cron_observer_api, cron_observer_sdk, json, sys; "
        "from cron_observer.store.migrate import head; "
        "print(json.dumps([[m.__file__ for m in (cron_observer, cron_observer_api, cron_observer_sdk)], "
        "sys.path, head()]))"
    )
    modules, path, head = json.loads(run(installed / "python", "-c", code, cwd=tmp_path).stdout)
    assert all(Path(file).is_relative_to(installed.parent) for file in modules), modules
    assert not {entry for entry in path if Path(entry).name in {"reconciler", "api", "sdk"}}
    assert head

    listed = run(installed / "cron-observer", "--help", cwd=tmp_path).stdout
    assert {"run", "serve", "validate", "doctor"} <= set(listed.split())
    shutil.copytree(ROOT / "manifests-example", tmp_path / "manifests")
    assert "no findings" in run(installed / "cron-observer", "validate", "manifests", cwd=tmp_path).stdout
    (tmp_path / "manifests" / "wrong.yaml").write_text("apiVersion: cron-observer/v1\nkind: Task\n")
    assert "CO1" in run(installed / "cron-observer", "validate", "manifests", cwd=tmp_path, expected=1).stdout


@pytest.fixture
def served(installed: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the demo, run from the wheels."""
    port = free_port()
    log = tmp_path / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(installed / "cron-observer"), "up", "--port", str(port), "--data-dir", str(tmp_path / "data")],
            cwd=tmp_path,
            env=environment() | {"HOME": os.environ.get("HOME", "/")},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            return "Ready in" in log.read_text()

        until(ready, "ready")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def test_it_serves_from_the_wheels(served: str) -> None:
    """Pages, their files, the schema and the demo's manifests are all in the wheels."""

    def get(path: str) -> str:
        with urllib.request.urlopen(f"{served}{path}", timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    assert "invoice-export" in get("/tasks")
    assert json.loads(get("/schemas/v1/task.json"))["title"]
    assert json.loads(get("/api/v1/openapi.json"))["openapi"].startswith("3.1")
