"""Which PostgreSQL programs are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from cron_observer.errors import DatabaseError
from cron_observer.postgres import providers


def fake(bin_dir: Path, version: str, *, initdb: bool = True) -> Path:
    """Make a folder of programs that print `version`."""
    bin_dir.mkdir(parents=True)
    for name in ("postgres", "initdb") if initdb else ("postgres",):
        program = bin_dir / name
        program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version} (Debian {version}-1)'\n")
        program.chmod(0o755)
    return bin_dir


def test_the_named_folder_comes_first(tmp_path: Path) -> None:
    """CRON_OBSERVER_PG_BIN wins over the wheel and the system."""
    named = fake(tmp_path / "mine", "17.2")
    found = providers.find({providers.BIN_VARIABLE: str(named)})
    assert (found.kind, found.bin_dir, found.version, found.major) == ("explicit", named, "17.2", 17)


def test_the_wheel_comes_before_the_system(tmp_path: Path) -> None:
    """A newer system PostgreSQL does not displace the one that we test with."""
    fake(tmp_path / "99" / "bin", "99.1")
    assert providers.find({}, system_root=tmp_path).kind == "wheel"


@pytest.mark.parametrize("content", ["17.2", "14.9", None])
def test_a_named_folder_that_is_unusable_is_an_error(tmp_path: Path, content: str | None) -> None:
    """Too old, without initdb or empty: it is said, and no other is taken silently."""
    named = tmp_path / "mine"
    if content:
        fake(named, content, initdb=content == "14.9")
    with pytest.raises(DatabaseError, match="holds no usable PostgreSQL 15 or newer") as refused:
        providers.find({providers.BIN_VARIABLE: str(named)})
    assert providers.BIN_VARIABLE in str(refused.value.hint)


def test_the_systems_newest_is_first_and_what_does_not_run_is_left_out(tmp_path: Path) -> None:
    """Versions are compared as numbers; too old and broken ones are passed over."""
    for version in ("9.6", "15.4", "100beta1", "17.0"):
        fake(tmp_path / version.split(".")[0] / "bin", version)
    broken = fake(tmp_path / "101" / "bin", "101.0") / "postgres"
    broken.write_text("#!/nonexistent\n")
    assert [one.major for one in providers.system(tmp_path)] == [100, 17, 15]


def test_nothing_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without wheel and system the error names the ways out."""
    monkeypatch.setattr(providers, "_WHEEL", "no_such_wheel")
    with pytest.raises(DatabaseError) as refused:
        providers.find({}, system_root=tmp_path)
    assert "DATABASE_URL" in str(refused.value.hint)
    assert "apt-get install" in str(refused.value.hint)


def test_without_the_wheel_the_system_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a platform that the wheel does not know, a system PostgreSQL is used."""
    monkeypatch.setattr(providers, "_WHEEL", "no_such_wheel")
    fake(tmp_path / "16" / "bin", "16.3")
    assert providers.find({}, system_root=tmp_path).kind == "system"
