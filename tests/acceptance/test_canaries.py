"""What is secret about a source stays with Git: no log, row, answer, page, file or command line has it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from cron_observer.source.access import TOKEN_USER
from support.git_servers import Authority, forge, sshd, watching
from support.processes import Product, Repository, running, until
from support.signing import SshKey

#: One for each way in which a source can be given a secret.
ADDRESS, VARIABLE, FILE = "canary/address+1@x", "canary/variable+2@x", "canary/file+3@x"

MANIFEST = """apiVersion: cron-observer/v1
kind: Task
metadata:
  name: {}
spec:
  schedule:
    cron: "0 4 * * *"
"""

SETTINGS = """
[[sources]]
name = "address"
url = "{address}"
ca_file = "{ca}"
poll_seconds = 0.3

[[sources]]
name = "variable"
url = "{variable}"
ca_file = "{ca}"
credentials_ref = "env:CANARY"
poll_seconds = 0.3

[[sources]]
name = "file"
url = "{file}"
ca_file = "{ca}"
credentials_ref = "file:{token}"
poll_seconds = 0.3
"""

SSH = """
[[sources]]
name = "ssh"
url = "{ssh}"
ssh_key = "{key}"
known_hosts = "{known}"
poll_seconds = 0.3
"""


def forms(*users_and_secrets: tuple[str, str]) -> Iterator[str]:
    """Give secrets as they are, in addresses, and as HTTP sends them."""
    for user, secret in users_and_secrets:
        yield secret
        yield quote(secret, safe="")
        yield quote(secret)
        yield base64.b64encode(secret.encode()).decode().rstrip("=")
        yield base64.b64encode(f"{user}:{secret}".encode()).decode().rstrip("=")


def reasons(product: Product) -> dict[str, str]:
    """Return why each source is what it is."""
    listed = product.get("sources")["items"]
    return {one["name"]: one["conditions"].get("Fetched", {}).get("reason", "") for one in listed}


def everything_said(product: Product) -> Iterator[tuple[str, str]]:
    """Give every answer and page that tells of sources."""
    names = list(reasons(product))
    runs = [f"runs/{run['id']}" for name in names for run in product.get(f"sources/{name}/runs")["items"]]
    ours = [f"sources/{name}{more}" for name in names for more in ("", "/runs")]
    for path in ("sources", *ours, *runs, *(f"/sync/{name}" for name in names), "/sync", "/", "/metrics"):
        reply = product.ask("GET", path)
        assert reply.status == 200, path
        yield path, str(reply.body)
    yield "log", product.log.read_text()


def test_no_secret_of_a_source_leaves(tmp_path: Path) -> None:
    """Through good days and bad ones, with a server that repeats what it was shown, every canary stays where it is."""
    repository = Repository(tmp_path)
    repository.push("Begin", {"a.yaml": MANIFEST.format("a")})
    (tmp_path / "token").write_text(f"robot:{FILE}\n")
    (tmp_path / "token").chmod(0o600)
    authority = Authority.make(tmp_path / "ca")
    secrets = [*forms(("ada", ADDRESS), (TOKEN_USER, VARIABLE), ("robot", FILE))]
    logins = [f"ada:{ADDRESS}", f"{TOKEN_USER}:{VARIABLE}", f"robot:{FILE}"]
    with (
        forge(tmp_path, login=logins[0], authority=authority) as first,
        forge(tmp_path, login=logins[1], authority=authority) as second,
        forge(tmp_path, login=logins[2], authority=authority) as third,
    ):
        servers = (first, second, third)
        settings = tmp_path / "settings.toml"
        settings.write_text(
            SETTINGS.format(
                address=first.url("crons.git", f"ada:{quote(ADDRESS, safe='')}"),
                variable=second.url("crons.git"),
                file=third.url("crons.git"),
                ca=authority.file,
                token=tmp_path / "token",
            )
        )
        with (
            watching(*secrets) as shown,
            running(tmp_path / "data", "--config", str(settings), "--no-demo", CANARY=VARIABLE) as product,
        ):
            until(lambda: set(reasons(product).values()) == {"Fetched"}, "every source is fetched")
            for fault, reason in (
                ("echo", "AuthenticationFailed"),
                ("500", "Unreachable"),
                ("page", "RepositoryNotFound"),
            ):
                for server in servers:
                    server.fails(fault)
                until(lambda reason=reason: set(reasons(product).values()) == {reason}, reason)
                for place, text in everything_said(product):
                    assert [one for one in secrets if one in text] == [], place
            for server in servers:
                server.fails(None)
                server.login = "nobody:else"
            until(lambda: set(reasons(product).values()) == {"AuthenticationFailed"}, "all are refused")
            for place, text in everything_said(product):
                assert [one for one in secrets if one in text] == [], place
            assert files_with(tmp_path / "data", secrets) <= {"up.toml"}
            assert (tmp_path / "data/up.toml").stat().st_mode & 0o077 == 0
        assert shown == []
        assert files_with(tmp_path / "data", secrets) == set()
        for server in servers:
            assert any(given for _, given in server.seen), "the secrets were used"


def files_with(folder: Path, secrets: list[str]) -> set[str]:
    """Return the names of files below `folder`, those of the database among them, that hold a secret."""
    pattern = re.compile(b"|".join(re.escape(one.encode()) for one in secrets))
    found = set()
    for path in folder.rglob("*"):
        try:
            if path.is_file() and pattern.search(path.read_bytes()):
                found.add(path.name)
        except OSError:
            continue
    return found


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run an sshd that knows its account")
def test_a_source_over_ssh_from_end_to_end(tmp_path: Path) -> None:
    """A source with its own key and host key is applied by the product; its key is nowhere but in its file."""
    repository = Repository(tmp_path)
    repository.push("Begin", {"a.yaml": MANIFEST.format("a")})
    key = SshKey.make(tmp_path / "key")
    body = key.path.read_text().splitlines()[2]
    with sshd(tmp_path / "sshd", key) as server:
        settings = tmp_path / "settings.toml"
        settings.write_text(SSH.format(ssh=server.url(repository.bare), key=key.path, known=server.known_hosts))
        with (
            watching(body) as shown,
            running(tmp_path / "data", "--config", str(settings), "--no-demo") as product,
        ):
            until(lambda: product.task("a") is not None, "the task is applied")
            assert reasons(product) == {"ssh": "Fetched"}
        assert shown == []
        assert files_with(tmp_path / "data", [body]) == set()
