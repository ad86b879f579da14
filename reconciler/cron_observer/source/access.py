"""How one command reaches a server: credentials, keys and authorities, read anew whenever one begins.

So a token or key that is rotated counts from the next look on. What is secret goes to Git through the environment of
its process alone: it is in no address, in no file of ours and on no command line.
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

from cron_observer.errors import SettingsError, SourceError
from cron_observer.secret import read_secret
from cron_observer.source.address import Address
from cron_observer.source.spec import SourceSpec

#: Who a bare token belongs to. Forges look at the token alone; one of them documents this name.
TOKEN_USER: Final = "x-access-token"  # noqa: S105  a name

SSH: Final = "ssh -oBatchMode=yes -oConnectTimeout=15 -oServerAliveInterval=15 -oServerAliveCountMax=3"

#: What ssh reads in the value of an option in ways of its own.
_SPECIAL: Final = re.compile(r'["$\\\x00-\x1f\x7f]')

#: Gives Git the credentials; they stand in the child's environment only.
HELPER: Final = (
    '"!f() { test \\"$1\\" = get && printf \'username=%s\\\\npassword=%s\\\\n\' '
    '\\"$CRON_OBSERVER_GIT_USERNAME\\" \\"$CRON_OBSERVER_GIT_PASSWORD\\"; }; f"'
)


@dataclass(frozen=True, slots=True)
class Access:
    """What one command is given: variables of its environment, and words that no message may hold."""

    environment: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def clean(self, said: str) -> str:
        """Take credentials out of what was said, in every form that they may have there."""
        said = re.sub(r"(?<=://)[^/@\s]*@", "", said)
        for secret in self.secrets:
            said = said.replace(secret, "***")
        return said


def check(spec: SourceSpec, address: Address) -> None:
    """Raise `SourceError` (``AddressRefused``) for a setting that the address has no use for: it is a mistake."""
    http, ssh = address.host is not None, address.protocol == "ssh"
    for setting, useful, use in (
        ("credentials_ref", http, "an address with https://"),
        ("ca_file", http, "an address with https://"),
        ("ssh_key", ssh, "an address of ssh"),
        ("known_hosts", ssh, "an address of ssh"),
    ):
        if getattr(spec, setting) is not None and not useful:
            raise SourceError(
                f"{setting} is set, and only {use} makes use of it",
                reason="AddressRefused",
                permanent=True,
                hint="take the setting out, or mend the address",
            )


def has_credentials(spec: SourceSpec, address: Address) -> bool:
    """Tell whether Git is to be given a user and a password."""
    return address.host is not None and bool(address.username or address.password or spec.credentials_ref)


def access(spec: SourceSpec, address: Address) -> Access:
    """Read what the next command needs to reach the server.

    Raises `SourceError` when a key, an authority or a credential is not to be had, with the word for it.
    """
    if address.protocol == "ssh":
        return Access(_ssh(spec))
    if address.host is None:
        return Access()
    environment = {}
    if spec.ca_file is not None:
        readable(spec.ca_file, "ca_file", "CertificateRefused")
        environment["GIT_SSL_CAINFO"] = str(spec.ca_file)
    if not has_credentials(spec, address):
        return Access(environment)
    username, password = _credentials(spec, address)
    environment |= {"CRON_OBSERVER_GIT_USERNAME": username, "CRON_OBSERVER_GIT_PASSWORD": password}
    # a token may stand in the place of the user
    secret = [password] if password else [username]
    if address.password is not None and address.password not in secret:
        secret.append(address.password)
    return Access(environment, _forms(secret, f"{username}:{password}"))


def _credentials(spec: SourceSpec, address: Address) -> tuple[str, str]:
    if spec.credentials_ref is None:
        return address.username or "", address.password or ""
    said = _secret(spec.credentials_ref)
    user, colon, password = said.partition(":")
    if colon:
        return user, password
    return address.username or TOKEN_USER, said


def _secret(ref: str) -> str:
    """Read what `ref` names: one line, as Git's protocol for credentials has room for no more."""
    try:
        found = read_secret(ref)
    except SettingsError as error:
        raise SourceError(error.message, reason="AuthenticationFailed", permanent=True, hint=error.hint) from None
    if re.search(r"[\x00-\x1f\x7f]", found):
        raise SourceError(
            f"the secret {ref} holds more than one line",
            reason="AuthenticationFailed",
            permanent=True,
            hint="let it hold user:password, or a token, in one line",
        )
    return found


def _forms(secrets: list[str], pair: str) -> tuple[str, ...]:
    """Return secrets as they are, as addresses write them, and as HTTP sends them; the longest first."""
    forms = set()
    for one in (*secrets, pair):
        raw = one.encode("utf-8", "surrogateescape")
        encoded = base64.b64encode(raw).decode()
        forms |= {one, quote(raw, safe=""), quote(raw), quote_plus(raw), encoded, encoded.rstrip("=")}
        forms |= {base64.urlsafe_b64encode(raw).decode()}
    return tuple(sorted((form for form in forms if form), key=len, reverse=True))


def readable(path: Path, setting: str, reason: str) -> None:
    """Raise `SourceError` with `reason` when the file that a setting names cannot be read."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise SourceError(
            f"{setting} names {path}, which cannot be read: {error.strerror}",
            reason=reason,
            permanent=True,
            hint="let the account of the reconciler read the file",
        ) from error


def _ssh(spec: SourceSpec) -> dict[str, str]:
    """Return the command line for ssh. Without settings that of the environment counts, or ours."""
    if spec.ssh_key is None and spec.known_hosts is None:
        return {}
    words = SSH.split(" ")
    if spec.ssh_key is not None:
        _own(spec.ssh_key)
        words += [
            f'-oIdentityFile="{_written(spec.ssh_key, "ssh_key")}"',
            "-oIdentitiesOnly=yes",
            "-oIdentityAgent=none",
        ]
    if spec.known_hosts is not None:
        readable(spec.known_hosts, "known_hosts", "HostKeyRefused")
        words += [
            f'-oUserKnownHostsFile="{_written(spec.known_hosts, "known_hosts")}"',
            "-oGlobalKnownHostsFile=/dev/null",
            "-oStrictHostKeyChecking=yes",
            "-oUpdateHostKeys=no",
        ]
    return {"GIT_SSH_COMMAND": shlex.join(words)}


def _written(path: Path, setting: str) -> str:
    """Return a path as ssh reads it back."""
    if _SPECIAL.search(str(path)):
        raise SourceError(
            f"{setting} names a path with characters that ssh reads in ways of its own",
            reason="AuthenticationFailed",
            permanent=True,
            hint="""give the file a name without ", $ and \\""",
        )
    return str(path).replace("%", "%%")


def _own(key: Path) -> None:
    """Raise `SourceError` when ssh would pass over the key, which it does with few words."""
    readable(key, "ssh_key", "AuthenticationFailed")
    info = key.stat()
    if info.st_uid == os.geteuid() and stat.S_IMODE(info.st_mode) & 0o077:
        raise SourceError(
            f"ssh_key names {key}, which others may read; ssh does not use such a key",
            reason="AuthenticationFailed",
            permanent=True,
            hint=f"chmod 600 {key}",
        )
