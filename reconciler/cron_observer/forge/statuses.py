"""How each forge is told the state of a commit, and what its answers mean. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cron_observer.forge.places import Place

#: What GitLab calls our states. It takes no step back to ``pending`` from what runs.
_GITLAB: Final = {"pending": "running", "success": "success", "failure": "failed", "error": "failed"}

#: Answers that the same request would get again: wrong as it is, or too many states of one commit.
_FINAL: Final = (400, 409, 410, 413, 414, 415, 422)

#: Seconds that a forge may make us wait; more is taken for this.
_LONGEST_WAIT: Final = 3600.0

#: Characters of a forge's own words that are kept.
_WORDS: Final = 200

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Message:
    """A request to a forge. `headers` hold the token: they are for nobody else."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a request: sent, or why not, and whether trying again is worth while."""

    error: str | None = None
    again: bool = False
    wait: float | None = None  #: seconds that the forge asked for


def message(
    place: Place, token: str, *, commit: str, state: str, context: str, description: str, target: str | None
) -> Message:
    """Return the request that shows `state` beside `commit`; `target` is where its link leads."""
    gitlab = place.provider == "gitlab"
    body: dict[str, Any] = {"state": _GITLAB[state] if gitlab else state, "description": description}
    body["name" if gitlab else "context"] = context
    if target is not None:
        body["target_url"] = target
    headers = {"Accept": "application/json", "User-Agent": "cron-observer"}
    if gitlab:
        headers["PRIVATE-TOKEN"] = token
    elif place.provider == "github":
        headers |= {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }
    else:
        headers["Authorization"] = f"token {token}"
    return Message(place.statuses(commit), headers, body)


def verdict(status: int, headers: Mapping[str, str], text: str, token: str) -> Verdict:
    """Judge the answer of a forge; `text` is the beginning of its body. The token is in no error."""
    if 200 <= status < 300:
        return Verdict()
    told = _told(text, token)
    # GitLab: the commit has this state already
    if status == 400 and "cannot transition status" in told.lower():
        return Verdict()
    error = f"HTTP {status}{': ' if told else ''}{told}"
    if 300 <= status < 400:
        return Verdict(f"{error} (redirects are not followed: set forge_url to the address that answers)", again=True)
    return Verdict(error, again=status not in _FINAL, wait=_wait(status, headers))


def _told(text: str, token: str) -> str:
    """Return what a forge says is wrong, on one line, without the token."""
    try:
        read = msgspec.json.decode(text)
        found = read.get("message", read.get("error", "")) if isinstance(read, dict) else ""
    except (msgspec.DecodeError, RecursionError):
        found = "" if text.lstrip().startswith("<") else text
    words = found if isinstance(found, str) else msgspec.json.encode(found).decode()
    # before it is cut: half a token is half a secret
    return _CONTROL.sub(" ", words.replace(token, "***")).strip()[:_WORDS]


def _wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which a forge wants to be asked again, if it says so."""
    given = headers.get("retry-after", "")
    if status in (403, 429, 503) and given.isascii() and given.isdigit():
        return min(float(given[:9]), _LONGEST_WAIT)
    return None
