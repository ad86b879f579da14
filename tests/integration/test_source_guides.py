"""The guides about private repositories and signatures: their commands make files that their settings take."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.setting import declared
from cron_observer.source_settings import SourceSettings
from support.documents import ROOT, Block, blocks
from support.git_servers import forge, sshd
from support.repositories import AUTHOR, Repository, source_of
from support.signing import SshKey, gpg_home
from support.tools import need

PRIVATE, SIGNATURES = "fetch-from-a-private-repository", "verify-signatures"


def guide(name: str) -> list[Block]:
    """Return the blocks of a guide."""
    return blocks((ROOT / f"docs/how-to/{name}.md").read_text(encoding="utf-8"))


def run(block: Block, folder: Path, **environment: str) -> str:
    """Run a block of commands as it stands; return what it printed."""
    done = subprocess.run(
        ["bash", "-euc", block.text],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **AUTHOR, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings(name: str) -> Iterator[dict[str, Any]]:
    """Give the sources that a guide writes, and what it adds to one."""
    for block in guide(name):
        if block.language == "toml":
            read = tomllib.loads(block.text)
            yield from read.get("sources", [read])


@pytest.mark.parametrize("name", [PRIVATE, SIGNATURES])
def test_the_settings_of_the_guides_are_settings(name: str) -> None:
    """Every key that a guide writes is a setting of a source, and takes the value."""
    known = declared(SourceSettings)
    shown = list(settings(name))
    assert shown
    for one in shown:
        for key, value in one.items():
            known[key].read(value)


def test_a_token_of_the_guide_opens_a_repository(tmp_path: Path) -> None:
    """The file that the command makes is for its owner alone, and is what credentials_ref takes."""
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": "one"})
    run(guide(PRIVATE)[0], tmp_path, TOKEN="s3cret")
    token = tmp_path / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    with forge(tmp_path / "served", login="x-access-token:s3cret") as server:
        source = source_of(server.url(), tmp_path / "cache", credentials_ref=f"file:{token}")
        assert source.resolve().id == repository.head()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to run an sshd that knows its account")
def test_a_key_of_the_guide_opens_a_repository(tmp_path: Path) -> None:
    """The key and the host keys that the commands make are what ssh_key and known_hosts take."""
    need("ssh-keygen", "ssh-keyscan")
    repository = Repository.make(tmp_path / "served")
    repository.push({"a.yaml": "one"})
    make, scan = (block for block in guide(PRIVATE) if block.text.startswith("ssh-key"))
    run(make, tmp_path)
    key = SshKey(tmp_path / "id_billing")
    with sshd(tmp_path / "sshd", key) as server:
        here = scan.text.replace("ssh-keyscan git.example.org", f"ssh-keyscan -p {server.port} 127.0.0.1")
        assert here != scan.text
        assert "ED25519" in run(Block(scan.language, here, scan.line), tmp_path)
        url = server.url(repository.bare)
        source = source_of(url, tmp_path / "cache", ssh_key=key.path, known_hosts=tmp_path / "known_hosts")
        assert source.resolve().id == repository.head()


def test_a_commit_of_the_guide_is_verified(tmp_path: Path) -> None:
    """The files of keys that the commands make accept the commit that they sign, and no other."""
    need("ssh-keygen", "gpg")
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    SshKey.make(home / ".ssh/id_ed25519")
    repository = Repository.make(tmp_path / "served")
    repository.commit({"a.yaml": "one"})
    signers, keys, _settings, sign, see, shown = guide(SIGNATURES)
    with gpg_home() as gpg:
        gpg.make("ada")
        for block in (signers, keys, sign):
            run(block, repository.work, HOME=str(home), GNUPGHOME=str(gpg.home))
        assert run(see, repository.work, HOME=str(home)) == shown.text
    for name in ("allowed_signers", "keys.asc"):
        shutil.move(repository.work / name, tmp_path / name)
    repository.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    source = source_of(
        repository.bare,
        tmp_path / "cache",
        verify="head",
        allowed_signers=tmp_path / "allowed_signers",
        gpg_keys=tmp_path / "keys.asc",
    )
    target = source.fetch(source.resolve())
    source.verify(target, None)
    repository.git("-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "--message", "not signed")
    repository.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
    with pytest.raises(SourceError, match="is not signed"):
        source.verify(source.fetch(source.resolve()), target.id)
    source.close()
