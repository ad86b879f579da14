"""What Git and ssh say when something goes wrong, as errors that say what to do. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cron_observer.errors import SourceError


class GitFailed(Exception):  # noqa: N818  it says what happened
    """The program ended with an error; `said` is what it wrote, without secrets."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said


class _Meaning(NamedTuple):
    """What the program says (in the C locale), the word for it, and whether waiting will not help."""

    says: str
    reason: str
    permanent: bool
    hint: str


_MEANINGS: Final = (
    _Meaning(
        "host key verification failed|no .* host key is known|remote host identification has changed",
        "HostKeyRefused",
        True,
        "add the server's host key to the source's known_hosts, or to that of the reconciler's account",
    ),
    _Meaning(
        "certificate|server verification failed",
        "CertificateRefused",
        True,
        "name the authority that signed the server's certificate as the source's ca_file, or let the machine trust it",
    ),
    _Meaning(
        r"could not read (username|password)|authentication failed|terminal prompts disabled|access denied|"
        r"permission denied \(|returned error: 40[13]|invalid credentials|no supported authentication|"
        r"too many authentication failures|unable to update url base from redirection",
        "AuthenticationFailed",
        True,
        "give the source credentials that may read the repository",
    ),
    _Meaning(
        "couldn't find remote ref|not our ref|unadvertised object",
        "RefNotFound",
        True,
        "name a branch, tag or commit that the repository has",
    ),
    _Meaning("dubious ownership", "RepositoryRefused", True, "let the reconciler's account own the repository"),
    _Meaning(
        r"fsck error|error in (tag|commit|tree|blob) [0-9a-f]|error: object [0-9a-f]+: \w+:",
        "ObjectsRefused",
        True,
        "run git fsck in the repository and mend what it reports",
    ),
    _Meaning(
        "out of memory|unable to create thread",
        "TooLarge",
        True,
        "narrow the source with paths, or split the repository",
    ),
    _Meaning("no space left on device|disk quota", "NoSpace", False, "make room below the data folder"),
    _Meaning(
        r"(operation|connection) timed out|operation too slow|timeout, server .* not responding",
        "Timeout",
        False,
        "look whether the server answers from this machine, and how fast",
    ),
    _Meaning(
        "repository (.* )?(not found|does not exist)|cannot find repository|not appear to be a git repository|"
        r"not a git repository|returned error: (404|410)|no such file or directory|could not be found|"
        "not valid: (is this a git repository|could not determine)|invalid server response",
        "RepositoryNotFound",
        True,
        "look at the address of the source, and whether its credentials may see it",
    ),
    _Meaning(
        r"could not resolve (host|hostname)|connection (refused|reset|closed)|failed to connect|couldn't connect|"
        r"network is unreachable|no route to host|\b(ssl|tls)\b|gnutls|returned error: (429|[35]\d\d)|"
        r"early eof|hung up|connection to .* closed|empty reply|rpc failed|protocol error|bad line length|"
        r"unexpected disconnect|recv failure|send failure|kex_exchange_identification|remote end closed|"
        r"transfer closed|unexpected \S* ?pack|expected .* flush|invalid pkt|bad pack header|pack signature mismatch",
        "Unreachable",
        False,
        "look whether the server answers from this machine; it is tried again by itself",
    ),
)


#: What a server may send along, and a terminal would obey.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def meaning(said: str) -> SourceError | None:
    """Return the error that Git's words stand for, or None when they are of no known kind."""
    for one in _MEANINGS:
        telling = [line for line in said.splitlines() if re.search(one.says, line, re.IGNORECASE)]
        if telling:
            line = _first_line("\n".join(telling))
            return SourceError(line, reason=one.reason, permanent=one.permanent, hint=one.hint)
    return None


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(fatal|error|remote error|ERROR)\b", line)]
    line = (telling or lines or ["git says nothing"])[0]
    return re.sub(r"^(fatal|error|ERROR): ", "", _UNPRINTABLE.sub(" ", line)).strip()[:300]


def unexplained(error: GitFailed) -> SourceError:
    """Return the error for words of no known kind."""
    return SourceError(
        f"git failed: {_first_line(error.said)}",
        reason="FetchFailed",
        permanent=False,
        hint="run the same by hand; it is tried again, ever more rarely",
    )


def unwritable(error: OSError) -> SourceError:
    """Return the error for a mirror that the operating system does not let us write."""
    return SourceError(
        f"the mirror cannot be written: {error.strerror}",
        reason="MirrorNotWritable",
        permanent=False,
        hint="let the reconciler's account write below the data folder, and make room there",
    )


def too_large(what: str, hint: str) -> SourceError:
    """Return the error for more than we take."""
    return SourceError(what, reason="TooLarge", permanent=True, hint=hint)


def late(arguments: tuple[str, ...], within: float) -> SourceError:
    """Return the error for a command that took longer than `within` seconds."""
    words = {"ls-remote": "the repository did not answer", "fetch": "the fetch did not end"}
    what = next((words[word] for word in arguments if word in words), "git did not end")
    hint = "it is tried again, ever more rarely"
    return SourceError(f"{what} within {within:g} s", reason="Timeout", permanent=False, hint=hint)
