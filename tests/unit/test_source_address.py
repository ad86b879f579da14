"""Addresses and refs: which are allowed, what Git is told, and what is hidden."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cron_observer.errors import SourceError
from cron_observer.source import SourceSpec, open_source, read_address
from cron_observer.source.address import is_commit, qualified
from cron_observer.source.failures import meaning


@pytest.mark.parametrize(
    ("url", "told", "protocol"),
    [
        ("https://example.org/tasks.git", "https://example.org/tasks.git", "https"),
        ("https://u:p@example.org:8443/tasks.git", "https://example.org:8443/tasks.git", "https"),
        ("https://token@example.org/tasks.git?x=1", "https://example.org/tasks.git?x=1", "https"),
        ("https://[2001:db8::1]/tasks.git", "https://[2001:db8::1]/tasks.git", "https"),
        ("http://localhost:3000/tasks.git", "http://localhost:3000/tasks.git", "http"),
        ("ssh://git@example.org:2222/tasks.git", "ssh://git@example.org:2222/tasks.git", "ssh"),
        ("ssh://git:secret@example.org/tasks.git", "ssh://git@example.org/tasks.git", "ssh"),
        ("git@example.org:team/tasks.git", "git@example.org:team/tasks.git", "ssh"),
        ("example.org:team/tasks.git", "example.org:team/tasks.git", "ssh"),
        ("/srv/tasks.git", "/srv/tasks.git", "file"),
        ("file:///srv/a%20b.git", "/srv/a b.git", "file"),
        ("file://localhost/srv/tasks.git", "/srv/tasks.git", "file"),
        ("/srv/with:colon", "/srv/with:colon", "file"),
        ("./with:colon", str(Path("with:colon").absolute()), "file"),
    ],
)
def test_allowed_addresses(url: str, told: str, protocol: str) -> None:
    """Git is told an address without credentials, and may use one protocol."""
    address = read_address(url)
    assert (address.url, address.protocol, address.local) == (told, protocol, protocol == "file")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-x",
        "--upload-pack=touch x",
        "ext::sh -c id",
        "fd::7",
        "transport::https://x/y",
        "git://example.org/x",
        "ftp://example.org/x",
        "http://example.org/x",
        "http://169.254.169.254/x",
        "https://",
        "https:///x",
        "https://-x/y",
        "https://example.org:port/y",
        "https://example.org/x#frag",
        "https://exa mple.org/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://-x@example.org/y",
        "ssh://example.org/y?x",
        "git@-example.org:x",
        "git@example.org:-x",
        "-git@example.org:x",
        "file://host/x",
        "file:///x?y",
        "https://example.org/\x00",
        "https://example.org/a\nb",
    ],
)
def test_refused_addresses(url: str) -> None:
    """What could be an option, a command, a clear-text server or nonsense is refused with one word."""
    with pytest.raises(SourceError) as refused:
        read_address(url)
    assert (refused.value.reason, refused.value.permanent) == ("AddressRefused", True)


def test_credentials_are_decoded_and_hidden() -> None:
    """User and password are given decoded to whoever needs them, and shown by nobody."""
    address = read_address("https://rob%40t:p%2Fw@example.org:8443/x.git")
    assert (address.username, address.password, address.host) == ("rob@t", "p/w", "https://example.org:8443")
    spec = SourceSpec(name="main", url="https://rob%40t:p%2Fw@example.org/x.git")
    assert not any(word in repr(address) + repr(spec) for word in ("rob", "p/w", "p%2Fw"))


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("ssh://git@example.org/x.git", "credentials_ref"),
        ("git@example.org:x.git", "ca_file"),
        ("/srv/x.git", "credentials_ref"),
        ("/srv/x.git", "ssh_key"),
        ("https://example.org/x.git", "ssh_key"),
        ("https://example.org/x.git", "known_hosts"),
    ],
)
def test_settings_that_an_address_has_no_use_for_are_refused(url: str, setting: str) -> None:
    """A key for a server that is not asked for keys is a mistake, and said at the start."""
    value: Any = "env:TOKEN" if setting == "credentials_ref" else Path("/etc/x")
    with pytest.raises(SourceError, match=f"{setting} is set") as refused:
        open_source(SourceSpec(name="main", url=url, **{setting: value}), Path("/nowhere"), "key")
    assert refused.value.reason == "AddressRefused"
    assert refused.value.hint


def test_refs_are_qualified() -> None:
    """A short name may be a branch or a tag, a full one is itself, 40 or 64 digits are a commit."""
    assert qualified("main") == ("refs/heads/main", "refs/tags/main")
    assert qualified("refs/heads/x/y") == ("refs/heads/x/y",)
    assert is_commit("0" * 40)
    assert is_commit("f" * 64)
    assert not is_commit("F" * 40)
    assert not is_commit("0" * 39)


@pytest.mark.parametrize(
    "ref",
    [
        *("", "-x", "a..b", "a b", "a:b", "a~1", "a^", "a?", "a*", "a[", "a\\b", "a.lock", "a.lock/b", "/a", "a/"),
        *("a//b", "a.", ".a", "a/.b", "@", "a@{0}", "a\x00", "a\n", "x" * 251),
    ],
)
def test_refused_refs(ref: str) -> None:
    """What Git would not call a ref, or could take for an option, is refused."""
    with pytest.raises(SourceError) as refused:
        qualified(ref)
    assert refused.value.reason == "RefRefused"


@pytest.mark.parametrize(
    ("said", "reason", "permanent"),
    [
        ("fatal: could not read Username for 'https://x': terminal prompts disabled", "AuthenticationFailed", True),
        ("git@x: Permission denied (publickey).\nfatal: Could not read from remote", "AuthenticationFailed", True),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 403", "AuthenticationFailed", True),
        ("remote: Repository not found.\nfatal: repository 'https://x/' not found", "RepositoryNotFound", True),
        ("fatal: '/srv/x' does not appear to be a git repository", "RepositoryNotFound", True),
        ("fatal: couldn't find remote ref refs/heads/x", "RefNotFound", True),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "Unreachable", False),
        ("ssh: connect to host x port 22: Connection refused", "Unreachable", False),
        ("fatal: unable to access 'https://x/': The requested URL returned error: 503", "Unreachable", False),
        ("fatal: unable to access 'https://x/': SSL certificate problem: self-signed", "CertificateRefused", True),
        ("Host key verification failed.\nfatal: Could not read from remote", "HostKeyRefused", True),
        ("error: object 123abc: gitmodulesUrl: disallowed\nfatal: fsck error in packed object", "ObjectsRefused", True),
        ("fatal: write error: No space left on device", "NoSpace", False),
        ("ERROR: Repository not found.\nfatal: Could not read from remote repository.", "RepositoryNotFound", True),
        ("remote: The project you were looking for could not be found.", "RepositoryNotFound", True),
        ("Gitea: Cannot find repository: a/b\nfatal: Could not read from", "RepositoryNotFound", True),
        ("fatal: https://x/info/refs not valid: is this a git repository?", "RepositoryNotFound", True),
        ("remote: HTTP Basic: Access denied\nfatal: Authentication failed", "AuthenticationFailed", True),
        ("@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification", "HostKeyRefused", True),
        ("kex_exchange_identification: Connection closed by remote host", "Unreachable", False),
        ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", "Unreachable", False),
        ("fatal: unable to access 'https://x/': Operation too slow.", "Timeout", False),
        ("ssh: connect to host x port 22: Connection timed out", "Timeout", False),
        ("fatal: Out of memory, malloc failed (tried to allocate 9 bytes)", "TooLarge", True),
    ],
)
def test_what_git_says_has_a_word(said: str, reason: str, permanent: bool) -> None:
    """Messages of Git and ssh are told apart by what the operator can do about them."""
    error = meaning(said)
    assert error is not None
    assert (error.reason, error.permanent) == (reason, permanent)
    assert error.hint


def test_the_telling_line_is_shown_and_obeys_nobody() -> None:
    """Of many lines the one that says what is wrong is kept, without anything that a terminal would do."""
    said = "Warning: added\nremote: \x1b]0;x\x07hello\nadmin@x: Permission denied (publickey).\nfatal: Could not read"
    error = meaning(said)
    assert error is not None
    assert error.message == "admin@x: Permission denied (publickey)."
    hostile = meaning("fatal: repository 'x\x1b[31m\u202e' not found" + "x" * 500)
    assert hostile is not None
    assert hostile.message.startswith("repository 'x [31m ' not found")
    assert len(hostile.message) == 300


def test_an_unknown_word_is_no_guess() -> None:
    """What is not known is left to the caller."""
    assert meaning("fatal: something new") is None
