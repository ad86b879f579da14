"""Hostile manifests and trees, through a real repository and a real reconciler: each harms only itself.

The ids are those of a catalogue: M1 to M85. What is files of one repository is pushed at once, and each case looks at
what came of its own folder; what is a repository, a setting or a server of its own has a test of its own.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SettingsError, SourceError
from cron_observer.settings import SourceSettings
from cron_observer.source import read_address
from cron_observer.source.address import qualified
from support import databases
from support.databases import FreshDatabase, Tenant, make_tenant
from support.hostile import CASES, Case, manifest, push
from support.repositories import Repository, following

#: A subject that would rewrite a terminal, a header and a log line.
SUBJECT = b"evil \x1b[31m\rInjected: header\x07"

#: Cases that are tested elsewhere, and by what.
ELSEWHERE = {
    "M52": "tests/integration/test_source_git.py::test_a_hostile_submodule_file_refuses_the_fetch",
}


@dataclass(frozen=True)
class Outcome:
    """What one pass over all cases made of them."""

    found: Mapping[str, list[dict[str, Any]]]  #: findings by path
    tasks: Mapping[str, dict[str, Any]]  #: specs by name
    canary: Path
    seconds: float
    before: int
    after: int
    output: str


@pytest.fixture(scope="module")
def outcome(server_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Push every case at once beside one good file, and make one pass."""
    folder = tmp_path_factory.mktemp("hostile")
    canary = folder / "canary"
    repository = Repository.make(folder / "repository")
    cases = {
        name: Case({path: _aimed(entry, canary) for path, entry in case.files.items()}) for name, case in CASES.items()
    }
    push(repository.bare, cases | {"good": Case({b"a.yaml": manifest("the-good-one")})}, SUBJECT)
    with databases.fresh(server_url, template_database) as database:
        yield asyncio.run(_pass(make_tenant(database), repository.bare, folder, canary))


def _aimed(entry: Any, canary: Path) -> Any:
    """Let what would run a command touch a file of ours."""
    return entry.replace(b"/CANARY", str(canary).encode()) if isinstance(entry, bytes) else entry


async def _pass(tenant: Tenant, bare: Path, folder: Path, canary: Path) -> Outcome:
    database: FreshDatabase = tenant.database
    before, began = os.getpid(), time.monotonic()
    async with following(tenant, bare, folder) as it:
        assert await it.reconciler.tick() == {"main": "applied"}
        seconds = time.monotonic() - began
        found: dict[str, list[dict[str, Any]]] = {}
        for row in it.findings():
            found.setdefault(row["path"], []).append(row)
        tasks = {row["name"]: row["spec"] for row in database.rows("SELECT name, spec FROM tasks")}
        (run,) = it.runs()
    await database.aclose()
    return Outcome(found, tasks, canary, seconds, before, os.getpid(), run["subject"])


def errors(outcome: Outcome, path: str) -> set[str]:
    """Return the codes of a file's errors and warnings."""
    return {row["code"] for row in outcome.found.get(path, [])}


@pytest.mark.parametrize("number", sorted(CASES, key=lambda one: int(one[1:])))
def test_a_hostile_file_harms_only_itself(outcome: Outcome, number: str) -> None:
    """What is wrong is a finding of its file, what is right is applied, and nothing is run."""
    case = CASES[number]
    for path, codes in case.codes.items():
        if path == "*":
            shown = {place: errors(outcome, place) for place in outcome.found if place.startswith(f"{number}/")}
            assert len(shown) == len(case.files)
            assert all(found == codes for found in shown.values()), shown
        else:
            found = errors(outcome, f"{number}/{path}")
            assert found & codes == codes if case.more else found == codes
    named = {name for name in outcome.tasks if name.startswith(number.lower() + "-") or name == number.lower()}
    assert named == set(case.tasks)
    for name, members in case.tasks.items():
        assert {member: outcome.tasks[name][member] for member in members} == members
    if case.anything:
        for path in case.files:
            rows = outcome.found.get(f"{number}/{path.decode()}", [])
            assert any(row["severity"] == "error" for row in rows), path
    assert not outcome.canary.exists()


def test_the_others_are_applied_and_the_process_lives(outcome: Outcome) -> None:
    """Beside all of it the good file is in force, our process is the same, and it took seconds."""
    assert "the-good-one" in outcome.tasks
    assert outcome.before == outcome.after
    files = sum(len(case.files) for case in CASES.values())
    assert outcome.seconds < 2 * files


def test_every_finding_is_safe_to_show(outcome: Outcome) -> None:
    """No path, message, hint or excerpt holds a control or direction character, nor the secret of a file."""
    unsafe = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
    for rows in outcome.found.values():
        for row in rows:
            for member in ("path", "message", "hint", "name", "kind"):
                assert not unsafe.search(row[member] or ""), row
    secret = "AKIA" + "ABCDEFGHIJKLMNOP"
    assert all(secret not in (row["message"] + (row["hint"] or "")) for rows in outcome.found.values() for row in rows)


@pytest.mark.parametrize("number", ["M58"])
def test_a_subject_cannot_rewrite_a_terminal(outcome: Outcome, number: str) -> None:
    """The subject of a commit is kept with its words, and without what moves a cursor or begins a line."""
    assert "evil" in outcome.output
    assert "Injected: header" in outcome.output
    assert outcome.output.isprintable(), number


@pytest.mark.parametrize("number", ["M54"])
@pytest.mark.parametrize("ref", ["--upload-pack=x", "-h", "refs/heads/a..b", "a b", "a~1", "@", "a\nb", "", "x" * 300])
def test_refs_that_git_does_not_allow_are_refused(number: str, ref: str) -> None:
    """What could be an option, a range or a pattern is no ref."""
    with pytest.raises(SourceError) as raised:
        qualified(ref)
    assert raised.value.reason == "RefRefused", number


@pytest.mark.parametrize("number", ["M55"])
@pytest.mark.parametrize(
    "url",
    [
        *("ext::sh -c id", "fd::17", "git://h/x", "ssh://-oProxyCommand=x/", "-oProxyCommand=x", "http://10.0.0.1/x"),
        *("ftp://h/x", "https://", "https://h\n/x", "-x", "", "::1", "https://h/x#y", "ssh://-l@h/x"),
    ],
)
def test_addresses_that_run_something_are_refused(number: str, url: str) -> None:
    """Remote helpers, options in disguise and transports without security are no addresses."""
    with pytest.raises(SourceError) as raised:
        read_address(url)
    assert raised.value.reason == "AddressRefused", number


@pytest.mark.parametrize("number", ["M55"])
def test_a_reconciler_does_not_start_with_such_an_address(number: str, tenant: Tenant, tmp_path: Path) -> None:
    """The setting is refused before any work."""
    from cron_observer.reconcile import Reconciler
    from cron_observer.settings import Settings

    source = SourceSettings(name="main", url="ext::sh -c id")
    with pytest.raises(SettingsError, match="source main"):
        Reconciler(tenant.database.reconciler, Settings(data_dir=tmp_path, sources=(source,)))
    assert number == "M55"


@pytest.mark.parametrize("number", ["M57"])
async def test_a_repository_that_is_too_large_is_given_up(number: str, tenant: Tenant, tmp_path: Path) -> None:
    """A fetch that takes more room than allowed is ended; what was applied stays, and the reason is told."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest(number.lower())})
    async with following(tenant, f"file://{repository.bare}", tmp_path, max_megabytes=8) as it:
        assert await it.sync() == "applied"
        for part in range(3):
            (repository.work / f"noise-{part}").write_bytes(os.urandom(10 * 1024 * 1024))
        repository.push({"b.yaml": manifest("later")}, "Add noise")
        assert await it.sync() == "failed"
        assert it.conditions()["Fetched"] == "False TooLarge"
        assert it.names() == [number.lower()]


@pytest.mark.parametrize("number", ["M59"])
async def test_an_unsigned_commit_is_held(number: str, tenant: Tenant, tmp_path: Path) -> None:
    """With signatures asked for, a commit without one changes nothing."""
    signers = tmp_path / "signers"
    signers.write_text("")
    repository = Repository.make(tmp_path / "repository")
    repository.push({"a.yaml": manifest(number.lower())})
    async with following(tenant, repository.bare, tmp_path, verify="head", allowed_signers=signers) as it:
        await it.sync()
        assert it.names() == []
        assert it.conditions()["SourceVerified"].startswith("False")


@pytest.mark.parametrize("number", ["M83"])
async def test_two_tenants_may_follow_one_repository(number: str, database: FreshDatabase, tmp_path: Path) -> None:
    """Each has its own tasks, and neither sees the other's."""
    repository = Repository.make(tmp_path)
    repository.push({"a.yaml": manifest(number.lower())})
    tenants = [make_tenant(database, name) for name in ("one", "two")]
    for one in tenants:
        from cron_observer.reconcile import Reconciler
        from cron_observer.settings import Settings

        source = SourceSettings(name="main", url=str(repository.bare), poll_seconds=3600.0)
        settings = Settings(data_dir=tmp_path / one.name, sources=(source,), tenant=one.name)
        reconciler = Reconciler(database.reconciler, settings, patience=60, listen=False)
        assert await reconciler.tick() == {"main": "applied"}
        await reconciler.close()
    rows = database.rows("SELECT tenant_id, task_uid FROM tasks WHERE name = %s", number.lower())
    assert {row["tenant_id"] for row in rows} == {one.tenant_id for one in tenants}
    assert len({row["task_uid"] for row in rows}) == 2


@pytest.mark.parametrize("number", ["M84"])
@pytest.mark.parametrize("left", [4, 0])
async def test_a_commit_that_removes_most_is_held(number: str, left: int, tenant: Tenant, tmp_path: Path) -> None:
    """Removing 60 % or all of ten tasks waits for an approval."""
    names = [f"{number.lower()}-{n}" for n in range(10)]
    repository = Repository.make(tmp_path)
    repository.push({f"{name}.yaml": manifest(name) for name in names})
    async with following(tenant, repository.bare, tmp_path) as it:
        await it.sync()
        repository.push(dict.fromkeys((f"{name}.yaml" for name in names[left:]), None))
        await it.sync()
        assert it.names() == names
        assert it.conditions()["PrunePending"].startswith("True")


@pytest.mark.parametrize("number", ["M85"])
async def test_a_folder_that_nobody_hears_of_is_read_by_the_poll(number: str, tenant: Tenant, tmp_path: Path) -> None:
    """Without events, and with the watched folder replaced as a whole, the next look finds everything."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    async with following(tenant, folder, tmp_path / "data") as it:
        await it.reconciler.tick()
        folder.rename(tmp_path / "aside")
        folder.mkdir()
        for n in range(300):
            (folder / f"{n}.yaml").write_bytes(manifest(f"{number.lower()}-{n:03}"))
        assert await it.poll() == {"main": "applied"}
        assert len(it.names()) == 300


def test_the_catalogue_is_complete(request: pytest.FixtureRequest) -> None:
    """Every case from M1 to M85 has a test of its id, here or where it is said."""
    ids = set(CASES) | set(ELSEWHERE)
    for item in request.session.items:
        if item.path == request.path and hasattr(item, "callspec"):
            ids.add(item.callspec.params.get("number"))
    module = Path(__file__).read_text(encoding="utf-8")
    ids |= set(re.findall(r'parametrize\("number", \["(M\d+)"\]\)', module))
    assert {f"M{n}" for n in range(1, 86)} - ids == set()
    for where in ELSEWHERE.values():
        path, _, name = where.partition("::")
        assert f"def {name}(" in (Path(__file__).parents[2] / path).read_text(encoding="utf-8")
