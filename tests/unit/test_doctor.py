"""How `doctor` judges what it finds, without a database."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from cron_observer.cli import doctor
from cron_observer.cli.doctor import NEWEST_MINORS, Status
from cron_observer.store.doctor import Facts
from cron_observer.store.migrate import head


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ((14, 22), Status.ERROR),
        ((15, NEWEST_MINORS[15] - 1), Status.WARNING),
        ((18, NEWEST_MINORS[18] - 1), Status.WARNING),
        ((18, NEWEST_MINORS[18]), Status.OK),
        ((18, NEWEST_MINORS[18] + 3), Status.OK),
        ((19, 0), Status.OK),
    ],
)
def test_versions_of_postgresql(version: tuple[int, ...], status: Status) -> None:
    """A server below 15 does not work, one without the newest fixes is to know of, one from the future is well."""
    check = doctor.minor(version)

    assert (check.status, check.mend is None) == (status, status is Status.OK)


@pytest.mark.parametrize(
    ("revision", "status", "word"),
    [(head(), Status.OK, head()), (None, Status.ERROR, "none"), ("0000", Status.ERROR, "older"),
     ("9999", Status.ERROR, "newer")],
)  # fmt: skip
def test_schemas(revision: str | None, status: Status, word: str) -> None:
    """A schema that is not the one of this version is to be mended, and its direction is said."""
    check = doctor.schema(revision)

    assert check.status is status
    assert word in check.detail


@pytest.mark.parametrize(
    ("ahead", "unsure", "status"),
    [(0.4, 0.1, Status.OK), (-3.0, 0.1, Status.WARNING), (3.0, 0.1, Status.WARNING), (3.0, 1.5, Status.OK)],
)
def test_clocks(ahead: float, unsure: float, status: Status) -> None:
    """Clocks that are surely more than 2 s apart are to know of; a slow answer proves nothing."""
    facts = Facts(version=(18, 6), revision=None, ahead=timedelta(seconds=ahead), unsure=timedelta(seconds=unsure))

    assert doctor.skew(facts).status is status


@pytest.mark.parametrize(
    ("used", "status"), [("2026f", Status.OK), ("2027a", Status.OK), ("2025b", Status.WARNING),
                         ("unknown", Status.WARNING)]
)  # fmt: skip
def test_time_zones(used: str, status: Status) -> None:
    """Zone data older than what was installed along is to know of."""
    assert doctor.time_zones(used, "2026f").status is status


def test_roles() -> None:
    """One role that cannot be acted as is named with its reason."""
    assert doctor.roles({"api": None, "scheduler": None}).status is Status.OK

    check = doctor.roles({"api": None, "scheduler": "permission denied"})
    assert check.status is Status.ERROR
    assert check.detail == "scheduler: permission denied"


def test_space(tmp_path: Path) -> None:
    """The room of a folder that is not there yet is that of its parent; a file in its place is said."""
    assert doctor.space(tmp_path / "a" / "b").status is Status.OK

    (tmp_path / "file").write_text("")
    assert doctor.space(tmp_path / "file").status is Status.ERROR


def test_ports() -> None:
    """A free port is well, a stranger on it is to know of, an address of another machine does not work."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        number = stranger.getsockname()[1]
        busy = doctor.port("127.0.0.1", number)
    assert (busy.status, "another program" in busy.detail) == (Status.WARNING, True)
    assert doctor.port("127.0.0.1", number).status is Status.OK
    assert doctor.port("192.0.2.1", number).status is Status.ERROR


def test_wrong_settings_are_said(tmp_path: Path) -> None:
    """A settings file that cannot be read ends the examination with 1, the place and the mend."""
    config = tmp_path / "cron-observer.toml"
    config.write_text("prot = 8475\n")
    result = CliRunner().invoke(doctor.doctor, ["--config", str(config), "--format", "json"])

    assert result.exit_code == 1
    said = json.loads(result.output)
    assert said["ok"] is False
    assert said["checks"][-1] == {
        "name": "Settings",
        "status": "error",
        "detail": f"{config}: unknown setting prot",
        "mend": "did you mean port?",
    }
