"""Crontab files: those of people (``crontab -l``) and those of the system, which name a user in each line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from cron_observer.importing.manifests import Imported, Task, is_secret, name_of
from cron_observer.schedule.grammar import DAY, HOUR, MACROS, MINUTE, MONTH, WEEKDAY

_SETTING: Final = re.compile(r"\s*(?:([A-Za-z_][A-Za-z0-9_]*)|\"([^\"]*)\"|'([^']*)')\s*=\s*(.*?)\s*")
_FIELDS: Final = re.compile(r"(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+(\S.*)")
_MACRO: Final = re.compile(r"(@[A-Za-z_]+)\s+(\S.*)")
_WITH_USER: Final = re.compile(r"(\S+)\s+(\S.*)")
_JOB: Final = re.compile(r"[\d*@,/-]|\w{3}\b")
_SPREAD: Final = re.compile(r"(\d*)~(\d*)")
_STEP: Final = re.compile(r"\*/(\d{1,9})")

_MAIL: Final = ("MAILTO", "MAILFROM", "CONTENT_TYPE", "CONTENT_TRANSFER_ENCODING")

#: What new crontabs begin with, down to the names of the columns or a line of stars; and drawings beside that.
_HEADING: Final = re.compile(r"m(?:in)?\S*\s+h\S*\s+dom\s+mon\S*\s+dow\b.*|\*(?:\s+\*){4}(?:\s.*)?", re.IGNORECASE)
_DRAWING: Final = re.compile(r"[|\u2500-\u257f].*|[.+`'-]-.*\b(?:minute|hour|day|month|week|command)\b.*|-(?:\s+-)+")

#: Programs whose first argument says what is run.
_WRAPPERS: Final = frozenset(
    (
        *("sh", "bash", "dash", "zsh", "ksh", "env", "sudo", "nice", "ionice", "nohup", "time", "timeout", "flock"),
        *("chronic", "cronic", "setlock", "run-one", "exec", "command", "test", "[", "cd"),
        *("python", "python2", "python3", "perl", "php", "ruby", "node", "java"),
    )
)

#: cron starts what is due whatever still runs, and never afterwards; nothing ends what it started.
_AS_CRON_DOES: Final = {"overlap": "allow_all", "catchup": {"policy": "none"}, "timeout": "24h"}


@dataclass(slots=True)
class _State:
    """What the lines so far have said."""

    zone: str
    env: dict[str, str] = field(default_factory=dict)
    delay: str | None = None
    comment: list[str] = field(default_factory=list)


def read_crontab(text: str, *, system: bool = False, timezone: str = "UTC", queue: str | None = None) -> Imported:
    """Read a crontab. `system`: its lines name a user. `timezone` is the machine's, where the file names none."""
    imported = Imported()
    state = _State(zone=timezone)
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if not content:
            state.comment = []
        elif content.startswith("#"):
            _comment(state, content.lstrip("#").strip())
        elif (setting := _SETTING.fullmatch(content)) and not _looks_like_a_job(content):
            _set(state, imported, number, setting)
        else:
            _job(state, imported, number, content, system=system, queue=queue)
            state.comment = []
    return imported


def _comment(state: _State, words: str) -> None:
    """Remember a comment: it describes the line below it, unless it is one of those that explain crontabs."""
    if not words or _HEADING.fullmatch(words):
        state.comment = []
    elif not _DRAWING.fullmatch(words):
        state.comment.append(words)


def _looks_like_a_job(content: str) -> bool:
    return content[0] in "@*-~" or content[0].isdigit()


def _set(state: _State, imported: Imported, number: int, setting: re.Match[str]) -> None:
    name = setting[1] or setting[2] or setting[3] or ""
    value = setting[4]
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    state.comment = []
    if name == "CRON_TZ":
        state.zone = value.removeprefix(":")
    elif name == "RANDOM_DELAY":
        state.delay = f"{value}m" if value.isdigit() and value != "0" else None
    elif name in _MAIL:
        imported.note(number, f"dropped: {name}={value}: nothing is mailed; what a run prints is its execution's log")
    elif is_secret(name, value):
        imported.note(number, f"dropped: {name} looks like a secret; give it to whoever runs the tasks")
    else:
        if name == "TZ":
            imported.note(number, "TZ is given to the commands alone, as cron does; CRON_TZ is the zone of schedules")
        state.env[name] = value


def _job(state: _State, imported: Imported, number: int, content: str, *, system: bool, queue: str | None) -> None:
    quiet = content.startswith("-")
    macro, fields = _MACRO.fullmatch(content), _FIELDS.fullmatch(content.removeprefix("-"))
    if content.startswith("@"):
        if macro is None:
            imported.note(number, "not imported: there is no command", refused=True)
            return
        cron, rest = macro[1].lower(), macro[2]
        if cron not in MACROS:
            why = "nothing is due when a machine starts" if cron == "@reboot" else "it is not known"
            imported.note(number, f"not imported: {cron}: {why}", refused=True)
            return
    elif fields is None:
        imported.note(number, "not imported: this is no line of a crontab: five fields and a command", refused=True)
        return
    else:
        cron, rest = _cron(imported, number, fields.groups()[:5]), fields[6]
    if quiet:
        imported.note(number, "dropped: the dash before the minutes, which keeps the line out of the machine's log")
    user: str | None = None
    if system:
        with_user = _WITH_USER.fullmatch(rest)
        if with_user is None:
            imported.note(number, "not imported: the line names no user, or no command", refused=True)
            return
        user, rest = with_user.groups()
    imported.tasks.append(_task(state, number, cron, rest, user=user, queue=queue, content=content))


def _cron(imported: Imported, number: int, fields: tuple[str | Any, ...]) -> str:
    """Write the five fields as our grammar has them, where it has other signs for the same."""
    done = []
    for written, known in zip(fields, (MINUTE, HOUR, DAY, MONTH, WEEKDAY), strict=True):
        items = []
        for item in str(written).split(","):
            spread, step = _SPREAD.fullmatch(item), _STEP.fullmatch(item)
            if spread is not None:
                low, high = spread[1] or str(known.first), spread[2] or str(known.last)
                imported.note(number, f"changed: {item} is drawn once and for all, from the task's name")
                items.append(f"H({low}-{high})")
            elif step is not None and int(step[1]) > known.size:
                imported.note(number, f"changed: {item} of the {known.name} is {known.first} alone, as cron has it")
                items.append(str(known.first))
            else:
                items.append(item)
        done.append(",".join(items))
    return " ".join(done)


def _task(
    state: _State, number: int, cron: str, written: str, *, user: str | None, queue: str | None, content: str
) -> Task:
    command, stdin = _command(written)
    payload: dict[str, Any] = {"command": command}
    if stdin is not None:
        payload["stdin"] = stdin
    if user is not None:
        payload["user"] = user
    if state.env:
        payload["env"] = dict(state.env)
    described = " ".join(line for line in state.comment if not _commented_job(line))
    spec: dict[str, Any] = {
        "description": described[:2000] or None,
        "queue": queue,
        "schedule": {"cron": cron, "timezone": state.zone}
        | ({"jitter": state.delay} if state.delay is not None else {}),
        **_AS_CRON_DOES,
        "payload": payload,
    }
    spec = {name: value for name, value in spec.items() if value is not None}
    return Task(name=_named(command), spec=spec, line=number, origin=[f"crontab, line {number}: {content}"])


def _commented_job(line: str) -> bool:
    return _FIELDS.fullmatch(line) is not None and _JOB.match(line) is not None and line[0] in "0123456789*@"


def _command(written: str) -> tuple[str, str | None]:
    """Part a command from its standard input: the first % that is not escaped begins it, the others are new lines."""
    parts = re.split(r"(?<!\\)%", written)
    command, *rest = (part.replace("\\%", "%") for part in parts)
    return command.strip(), "\n".join(rest) if rest else None


def _named(command: str) -> str:
    """Name a task after the program that its command runs."""
    first = re.split(r"\s*(?:&&|\|\||;|\|)\s*", command)
    chosen = next((part for part in first if not part.startswith(("cd ", "test ", "[ ", "sleep "))), command)
    try:
        words = shlex.split(chosen)
    except ValueError:
        words = chosen.split()
    skipped = False
    for word in words:
        base = PurePosixPath(word).name
        if skipped and not word.startswith("-"):
            skipped = False
            continue
        # what follows is a lock or an account, not the program
        skipped = skipped or base in ("flock", "setlock") or word in ("-u", "-g")
        if word.startswith("-") or "=" in word.partition("/")[0] or base in _WRAPPERS or not re.search("[a-z]", word):
            continue
        if re.fullmatch(r"[0-9.]+[smhd]?", base):
            continue
        return name_of(re.sub(r"\.(sh|py|pl|rb|php|js|jar|exe|bash)\Z", "", base))
    return name_of(command)
