"""One manifest file: from its bytes to definitions and findings. Pure, and never raises on bad input."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from cron_observer.manifest import loader, quick, rules
from cron_observer.manifest.document import LATER_KINDS, NOTHING, Verdict, declared, judge, quoted
from cron_observer.manifest.nodes import Stream
from cron_observer.manifest.rules import Problem, Rule
from cron_observer.manifest.scalars import concealed, shown
from cron_observer.model import (
    DEFAULTS,
    PROJECT,
    TASK_NAME,
    Context,
    Definition,
    Finding,
    ParsedFile,
    Severity,
    TaskDefinition,
)

MAX_FILE_BYTES: Final = 256 * 1024
REGULAR_MODES: Final = ("100644", "100755", "100664")  # 100664 is what very old Git wrote
DOCS_URL: Final = "https://cron-observer.dev/docs/reference/findings/"

#: What people call each kind that can be declared.
NOUNS: Final = {
    "Task": "task",
    "Calendar": "calendar",
    "TaskGroup": "task group",
    DEFAULTS: "set of defaults",
    PROJECT: "project document",
}

_LFS: Final = b"version https://git-lfs.github.com/spec/v1"
_UNSAFE_IN_PATH: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def finding(rule: Rule, path: str, message: str, hint: str | None = None, severity: Severity | None = None) -> Finding:
    """Make a finding about a whole file."""
    return Finding(
        severity=severity or rule.severity,
        code=rule.code,
        path=shown(path, 4096),
        message=message,
        hint=hint,
        url=DOCS_URL + rule.code.lower(),
    )


def is_manifest(path: str, patterns: Sequence[str] = (), ignore: Sequence[str] = ()) -> bool:
    """Tell whether a path of a source counts as a manifest.

    That is every ``*.yaml`` and ``*.yml`` below one of `patterns` (folders, files or globs; none means the
    whole tree), unless it is below one of `ignore` or in a folder or file whose name begins with a dot.
    """
    if not path.lower().rstrip("/").endswith((".yaml", ".yml")):
        return False
    if ("/." in path or path.startswith(".")) and any(part.startswith(".") for part in PurePosixPath(path).parts):
        return False
    if patterns and not any(_below(path, pattern) for pattern in patterns):
        return False
    return not any(_below(path, pattern) for pattern in ignore)


def _below(path: str, pattern: str) -> bool:
    wanted = pattern.strip("/").removeprefix("./")
    if wanted in ("", ".") or path == wanted or path.startswith(wanted + "/"):
        return True
    if "/" not in wanted and any(fnmatchcase(part, wanted) for part in path.split("/")):
        return True
    wanted = wanted.removesuffix("/**")
    parents = (path, *(str(parent) for parent in PurePosixPath(path).parents))
    return any(fnmatchcase(parent, wanted) for parent in parents)


def refused(path: str, *, mode: str = "100644", size: int = 0, head: bytes = b"") -> ParsedFile | None:
    """Return the verdict on a tree entry that must not be read as a manifest, None if it may be.

    `mode` is Git's, `size` in bytes, `head` the first bytes if they are known: so a source can ask
    before it reads a file. Nothing is ever followed.
    """
    found = _refusal(path, mode, size, head)
    return None if found is None else ParsedFile(path=path, findings=(found,), parseable=False)


def _refusal(path: str, mode: str, size: int, head: bytes) -> Finding | None:
    if _UNSAFE_IN_PATH.search(path):
        message = "the path holds control characters or is not UTF-8"
        return finding(rules.BAD_PATH, path, message, "rename the file")
    if mode in _NOT_FOLLOWED:
        return finding(_NOT_FOLLOWED[mode][0], path, *_NOT_FOLLOWED[mode][1:])
    if mode not in REGULAR_MODES:
        return finding(rules.UNREADABLE, path, f"this is no regular file (mode {shown(mode)})")
    if size > MAX_FILE_BYTES:
        message = f"the file has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        return finding(rules.TOO_LARGE, path, message, "split it into several files")
    if head.startswith(_LFS):
        message = "this is a Git LFS pointer, not the manifest itself"
        return finding(rules.LFS_POINTER, path, message, "take manifests out of Git LFS")
    return None


_NOT_FOLLOWED: Final = {
    "120000": (rules.SYMLINK, "symbolic links are not followed", "commit the file itself"),
    "160000": (rules.SUBMODULE, "submodules are not followed", "make it a source of its own"),
}


@dataclass(frozen=True, slots=True)
class Inspected:
    """A parsed file with what only its text can tell: its documents, and what each was judged to be."""

    parsed: ParsedFile
    stream: Stream
    verdicts: Sequence[Verdict] = ()


def parse(path: str, data: bytes, *, mode: str = "100644", context: Context = NOTHING) -> ParsedFile:
    """Read one manifest file. `mode` is Git's; whatever is wrong becomes a finding.

    `path` is that from the root of the source; tasks are composed with the layers of `context` that bear upon it.
    """
    unread = _unread(path, data, mode)
    return unread or quick.parse(path, data, context) or inspect(path, data, mode=mode, context=context).parsed


def inspect(
    path: str,
    data: bytes,
    *,
    mode: str = "100644",
    context: Context = NOTHING,
    below: str | None = None,
    each: bool = False,
) -> Inspected:
    """Do what `parse` does, and keep the documents.

    `below` is the path from the root of the source where that is another than the file is called by. With `each`, and
    no environment in the context, tasks are judged in every environment that they name as well.
    """
    unread = _unread(path, data, mode)
    if unread is not None:
        return Inspected(unread, Stream("", [], []))
    text, problem = loader.decode(data)
    if problem is not None:
        stream = Stream(text, [], [])
        found = placed(path, stream, problem)
        return Inspected(ParsedFile(path=path, findings=(found,), parseable=False), stream)
    stream = loader.load(text)
    at = path if below is None else below
    verdicts = [judge(document, at, context, each=each) for document in stream.documents]
    _refuse_duplicates(stream, verdicts)
    return Inspected(_summed_up(path, stream, verdicts), stream, verdicts)


def _unread(path: str, data: bytes, mode: str) -> ParsedFile | None:
    return refused(path, mode=mode, size=len(data), head=data[:256])


def _summed_up(path: str, stream: Stream, verdicts: Sequence[Verdict]) -> ParsedFile:
    findings = [placed(path, stream, problem) for problem in stream.problems]
    tasks: list[TaskDefinition] = []
    others: list[Definition] = []
    broken: list[tuple[str, str]] = []
    for document, verdict in zip(stream.documents, verdicts, strict=True):
        findings += [placed(path, stream, problem, verdict) for problem in verdict.problems]
        if not verdict.broken and verdict.value is not None:
            one = declared(path, verdict.value, stream.place(verdict.name_at)[0], document.index)
            if isinstance(one, TaskDefinition):
                tasks.append(one)
            else:
                others.append(one)
        elif verdict.name and TASK_NAME.fullmatch(verdict.name) and verdict.kind not in LATER_KINDS:
            # Of a kind that is not known it may be any of them: none may be removed on its account.
            broken += [(kind, verdict.name) for kind in NOUNS if verdict.kind == kind or verdict.kind not in NOUNS]
    if not stream.documents and not findings:
        message = "the file declares nothing"
        findings.append(finding(rules.EMPTY_FILE, path, message, "remove it, or write a manifest"))
    return ParsedFile(
        path=path,
        tasks=tuple(tasks),
        broken_names=tuple(dict.fromkeys(name for kind, name in broken if kind == "Task")),
        others=tuple(others),
        broken_others=tuple(dict.fromkeys(one for one in broken if one[0] != "Task")),
        findings=tuple(limited(path, findings)),
        parseable=not stream.problems and all(verdict.identified for verdict in verdicts),
        documents=len(stream.documents),
    )


def _refuse_duplicates(stream: Stream, verdicts: Iterable[Verdict]) -> None:
    """Refuse every document of a name that stands in the file more than once: neither wins by its place."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.name and verdict.kind in NOUNS:
            groups.setdefault((verdict.kind, verdict.name), []).append(verdict)
    for (kind, name), group in groups.items():
        for verdict in group if len(group) > 1 else ():
            other = group[0] if verdict is not group[0] else group[1]
            line, column = stream.place(other.name_at)
            message = f"the {NOUNS[kind]} {quoted(name)} is declared in this file at {line}:{column} too"
            start, end = verdict.name_at, verdict.name_at + len(name)
            verdict.problems.append(Problem(rules.DUPLICATE_NAME, message, start, end, _ONE_NAME, "/metadata/name"))


_ONE_NAME: Final = "rename one of them, or remove it"


def duplicate(
    task: TaskDefinition | Definition,
    other: TaskDefinition | Definition,
    column: int | None = None,
    other_column: int | None = None,
) -> Finding:
    """Say that another file declares the same name; columns are those of the names, if known."""
    kind = task.kind if isinstance(task, Definition) else "Task"
    place = f"{shown(other.path, 4096)}:{other.line}"
    place += f":{other_column}" if other_column else ""
    message = f"the {NOUNS[kind]} {quoted(task.name)} is declared at {place} too"
    return Finding(
        severity=rules.DUPLICATE_NAME.severity,
        code=rules.DUPLICATE_NAME.code,
        path=task.path,
        line=task.line,
        column=column,
        end_line=task.line if column else None,
        end_column=column + len(task.name) if column else None,
        pointer="/metadata/name",
        kind=kind,
        name=task.name,
        message=message,
        hint=_ONE_NAME,
        url=DOCS_URL + rules.DUPLICATE_NAME.code.lower(),
    )


def placed(path: str, stream: Stream, problem: Problem, verdict: Verdict | None = None) -> Finding:
    """Make a finding of a problem in the text of a file."""
    line, column = stream.place(problem.start)
    end_line, end_column = stream.place(max(problem.start, problem.end))
    return Finding(
        severity=problem.rule.severity,
        code=problem.rule.code,
        path=path,
        line=line,
        column=column,
        end_line=end_line,
        end_column=end_column,
        pointer=None if problem.pointer is None else concealed(problem.pointer),
        kind=shown(verdict.kind) if verdict and verdict.kind else None,
        name=shown(verdict.name, 128) if verdict and verdict.name else None,
        message=problem.message,
        hint=problem.hint,
        url=DOCS_URL + problem.rule.code.lower(),
    )


def limited(path: str | None, findings: list[Finding], most: int = rules.MAX_FINDINGS_A_FILE) -> list[Finding]:
    """Return findings in the order of the texts: at most `most`, errors before warnings, then how many more.

    The last is about `path`; None for the file of the first that is left out.
    """
    found = sorted(findings, key=_order)
    if len(found) <= most:
        return found
    worst_first = sorted(found, key=lambda one: one.severity is not Severity.ERROR)
    shown_ones, hidden = worst_first[:most], worst_first[most:]
    message = f"{len(hidden)} more findings are not shown"
    more = finding(rules.MORE_FINDINGS, hidden[0].path if path is None else path, message, severity=hidden[0].severity)
    return [*sorted(shown_ones, key=_order), more]


def _order(one: Finding) -> tuple[str, int, int, str]:
    return one.path, one.line or 0, one.column or 0, one.code
