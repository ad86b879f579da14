"""Who signed the commits: SSH keys of an allowed-signers file, and OpenPGP keys of an armoured one.

Git itself verifies, with a keyring that holds nothing but what the source's settings name. Neither keys of the machine
nor of its accounts count.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cron_observer.errors import SourceError
from cron_observer.source.access import readable
from cron_observer.source.failures import GitFailed
from cron_observer.source.spec import SourceSpec

#: Seconds for the signatures of a range. Each takes some 10 ms.
VERIFY_SECONDS: Final = 600.0
_IMPORT_SECONDS: Final = 60.0

#: A record a commit: id, verdict, fingerprint, and last what the author chose.
_RECORD: Final = ("--format=tformat:%H%x1f%G?%x1f%GF%x1f%ce", "--no-show-signature", "--no-notes", "--no-patch")

#: Git's verdicts on a signature, as a sentence goes on that begins with the commit.
_VERDICTS: Final = {
    "B": "has a signature that does not fit its content",
    "U": "is signed with a key that may not sign",
    "X": "has a signature that has expired",
    "Y": "is signed with a key that has expired",
    "R": "is signed with a key that was revoked",
    "E": "is signed with a key that may not sign",
    "N": "is not signed",
}

_OPENPGP: Final = re.compile(r"[0-9A-F]{40,64}")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]+")

_GPG_CONF: Final = "batch\nno-tty\nno-autostart\nno-auto-key-locate\nno-auto-key-retrieve\ndisable-dirmngr\n"

#: Runs ``git`` in the mirror with further variables and arguments; returns what it wrote.
Run = Callable[[Mapping[str, str], tuple[str, ...]], bytes]


def verify(spec: SourceSpec, run: Run, beside: Path, target: str, scope: tuple[str, ...]) -> None:
    """Verify commits: with ``head`` that of `target`, with ``range`` all that `scope` (revisions) leads to.

    `beside` is the mirror, next to which a keyring is made. Raises `SourceError` (``SignatureRefused``) for the first
    commit, the oldest first, that is not signed by a key, or not committed by a person, of the settings.
    """
    examine(spec)
    which = ("--no-walk=unsorted", target) if spec.verify == "head" else ("--topo-order", "--reverse", *scope)
    with _keyring(spec, beside) as home:
        try:
            said = run({"GNUPGHOME": str(home)}, (*_settings(spec), "log", "-z", *_RECORD, *which, "--"))
            for record in said.decode("utf-8", "replace").split("\0"):
                if record:
                    _judge(spec, record)
        except GitFailed as error:
            raise _refused("the signatures cannot be read", error.said.strip()[:200] or None) from error


def examine(spec: SourceSpec) -> None:
    """Raise `SourceError` when what signatures are verified with is not to be had."""
    if spec.verify == "none":
        return
    if spec.allowed_signers is None and spec.gpg_keys is None:
        raise _refused("verify asks for signatures, but no keys are named", "set allowed_signers or gpg_keys")
    if spec.allowed_signers is not None:
        readable(spec.allowed_signers, "allowed_signers", "SignatureRefused")
        _installed("ssh-keygen", "openssh-client")
    if spec.gpg_keys is not None:
        readable(spec.gpg_keys, "gpg_keys", "SignatureRefused")
        _installed("gpg", "gnupg")


def _installed(program: str, package: str) -> None:
    if shutil.which(program) is None:
        raise _refused(f"{program} is not installed", f"install it: apt-get install {package}")


def _settings(spec: SourceSpec) -> tuple[str, ...]:
    signers = os.devnull if spec.allowed_signers is None else str(spec.allowed_signers)
    return (
        *("-c", f"gpg.ssh.allowedSignersFile={signers}"),
        *("-c", "gpg.program=gpg", "-c", "gpg.ssh.program=ssh-keygen", "-c", "gpg.x509.program=/bin/false"),
    )


@contextmanager
def _keyring(spec: SourceSpec, beside: Path) -> Iterator[Path]:
    """Make a folder for gpg that knows the keys of the settings alone; it goes with the block."""
    with tempfile.TemporaryDirectory(prefix=f"{beside.stem}.keys-", dir=beside.parent) as folder:
        home = Path(folder)
        (home / "gpg.conf").write_text(_GPG_CONF, encoding="ascii")
        if spec.gpg_keys is not None:
            _import(spec.gpg_keys, home)
        yield home


def _import(keys: Path, home: Path) -> None:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "GNUPGHOME": str(home)}
    command = ["gpg", "--batch", "--quiet", "--status-fd", "1", "--import"]
    try:
        with keys.open("rb") as file:
            done = subprocess.run(
                command, env=environment, stdin=file, capture_output=True, timeout=_IMPORT_SECONDS, check=False
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _refused("the keys of gpg_keys cannot be imported", type(error).__name__) from error
    if b"IMPORT_OK" not in done.stdout:
        raise _refused(f"gpg_keys names {keys}, which holds no public key", "write it with gpg --armor --export")


def _judge(spec: SourceSpec, record: str) -> None:
    """Raise `SourceError` unless the commit of a record is signed by a key, and committed by a person, that may."""
    commit, verdict, fingerprint, committer = (*record.split("\x1f", 3), "", "", "")[:4]
    # In a keyring of none but allowed keys, trust is not gpg's to judge; ssh-keygen knows one that is not allowed.
    allowed = verdict == "G" or (verdict == "U" and _OPENPGP.fullmatch(fingerprint) is not None)
    who = _UNPRINTABLE.sub("?", committer)[:100]
    if not allowed:
        what = _VERDICTS.get(verdict, _VERDICTS["E"])
        key = f" ({fingerprint[:60]})" if fingerprint else ""
        hint = "sign it with a key of allowed_signers or gpg_keys, or add the key there"
        raise _refused(f"commit {commit[:12]}, committed by {who}, {what}{key}", hint)
    if spec.committers and committer.casefold() not in {one.casefold() for one in spec.committers}:
        hint = "let somebody of committers commit it, or add the address there"
        raise _refused(f"commit {commit[:12]} was committed by {who}, who is not in committers", hint)


def _refused(what: str, hint: str | None) -> SourceError:
    return SourceError(what, reason="SignatureRefused", permanent=True, hint=hint)
