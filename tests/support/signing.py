"""Keys that sign commits: of ssh, and of OpenPGP in a home of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.repositories import AUTHOR, Repository


@dataclass(frozen=True)
class SshKey:
    """A pair of ssh keys; the private one is the file `path`."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> SshKey:
        """Make a pair without passphrase."""
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
        subprocess.run(command, check=True)
        return cls(path)

    @property
    def public(self) -> str:
        """The public key as one line."""
        return Path(f"{self.path}.pub").read_text().strip()

    def allowed(self, principal: str = "ada@example.org", options: str = "") -> str:
        """Return the line that allows this key to sign."""
        return f"{principal} {options} {self.public}\n" if options else f"{principal} {self.public}\n"

    def signs(self) -> list[str]:
        """Return arguments of git that sign with this key."""
        return ["-c", "gpg.format=ssh", "-c", f"user.signingkey={self.path}", "-c", "commit.gpgsign=true"]


@dataclass(frozen=True)
class Gpg:
    """A home of gpg with keys."""

    home: Path

    def run(self, *arguments: str, at: str | None = None, stdin: str | None = None) -> str:
        """Run gpg, at a moment that it is made to believe in (``20200101T000000``)."""
        faked = ["--faked-system-time", f"{at}!"] if at else []
        done = subprocess.run(
            ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", *faked, *arguments],
            env={"PATH": os.environ["PATH"], "GNUPGHOME": str(self.home), "LC_ALL": "C"},
            input=stdin,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(self, who: str, lasts: str = "0", at: str | None = None) -> str:
        """Make a key that lasts so long (``1d``, 0 for ever); return its fingerprint."""
        self.run("--quick-gen-key", f"{who} <{who}@example.org>", "ed25519", "sign", lasts, at=at)
        listed = self.run("--list-keys", "--with-colons", who)
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key by the certificate that came with it."""
        text = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self.run("--import", stdin=text.replace(":-----BEGIN", "-----BEGIN"))

    def export(self, *fingerprints: str) -> str:
        """Return public keys, armoured."""
        return self.run("--armor", "--export", *fingerprints)

    def signs(self, fingerprint: str, at: str | None = None) -> list[str]:
        """Return arguments of git that sign with a key, at a moment that gpg is made to believe in."""
        program = self.home / f"gpg-{at or 'now'}"
        faked = f"--faked-system-time '{at}!'" if at else ""
        program.write_text(f'#!/bin/sh\nexec gpg --homedir "{self.home}" --batch {faked} "$@"\n')
        program.chmod(0o755)
        return ["-c", f"user.signingkey={fingerprint}", "-c", f"gpg.program={program}", "-c", "commit.gpgsign=true"]


@contextmanager
def gpg_home() -> Iterator[Gpg]:
    """Make a home of gpg, with a path short enough for the socket of its agent, and end the agent after."""
    home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
    home.chmod(0o700)
    try:
        yield Gpg(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def signed(repository: Repository, how: list[str], subject: str = "change", date: str | None = None, **who: str) -> str:
    """Commit something, signed as `how` says, and push it to ``main``; return the commit."""
    count = int(repository.git("rev-list", "--count", "--all"))
    repository.write({"note.txt": f"{subject} {count}"})
    repository.git("add", "--all")
    dates = {"GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date} if date else {}
    done = subprocess.run(
        ["git", *how, "commit", "--quiet", "--message", subject],
        cwd=repository.work,
        env={"PATH": os.environ["PATH"], **AUTHOR, **dates, **who},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    repository.git("push", "--quiet", "--force", "origin", "HEAD:refs/heads/main")
    return repository.head()
