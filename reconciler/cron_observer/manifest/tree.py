"""Validate files and folders offline, as the reconciler would."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from cron_observer.manifest import rules
from cron_observer.manifest.document import located
from cron_observer.manifest.files import (
    MAX_FILE_BYTES,
    Inspected,
    duplicate,
    finding,
    inspect,
    is_manifest,
    limited,
    placed,
    refused,
)
from cron_observer.manifest.layers import limit, may_bear
from cron_observer.manifest.projects import beyond, holding, misplaced, second, too_many
from cron_observer.manifest.references import Declared, crossings
from cron_observer.manifest.roots import Roots
from cron_observer.manifest.scalars import shown
from cron_observer.manifest.values import Fault
from cron_observer.model import DEFAULTS, PROJECT, Context, Definition, Finding, Severity, TaskDefinition

MAX_FINDINGS: Final = 1000  # of one run; the rest is counted


@dataclass(frozen=True, slots=True)
class Outline:
    """One document of a file: its first line, and what it declares, as far as that can be read."""

    line: int
    kind: str | None = None
    name: str | None = None


@dataclass(slots=True)
class Report:
    """What validating came to. `documents` counts those read, broken ones included."""

    findings: list[Finding] = field(default_factory=list)
    documents: int = 0
    files: int = 0
    #: Lines of the files that have findings of their own, for excerpts.
    texts: dict[str, list[str]] = field(default_factory=dict)
    #: The documents of every file that was looked at, by its path.
    outlines: dict[str, list[Outline]] = field(default_factory=dict)
    #: The root of the repository, where paths are those from the current folder; None where they need no other form.
    root: Path | None = None

    def count(self, severity: Severity) -> int:
        """Return how many findings are this bad."""
        return sum(1 for one in self.findings if one.severity is severity)


def validate_tree(root: Path, now: datetime | None = None) -> Report:
    """Validate every manifest below a folder, or one file."""
    return validate_paths([root], now=now)


def validate_paths(
    paths: Sequence[Path],
    texts: Sequence[tuple[str, bytes]] = (),
    now: datetime | None = None,
    *,
    environment: str | None = None,
) -> Report:
    """Validate files, folders and `texts` (name, content) as one set, with the calendar files that they name.

    A file that is named is read whatever its name; in folders, those that `is_manifest` accepts.
    Symbolic links are never followed below a folder that is named. Without a folder, names that lead nowhere are
    only noted: the other manifests are not known. Raises `OSError` for no file.

    Tasks are judged with the Defaults and the Project that bear upon them, also those that stand above what is named.
    They are judged as they are in `environment`; without one, by themselves and in each environment that they name.
    """

    report = Report()
    run = Run(report, now)
    for path in paths:
        run.take(path)
    for name, data in texts:
        run.read(name, data)
    run.judge(environment)
    run.compare()
    report.findings = limited(None, report.findings, MAX_FINDINGS)
    return report


def outlined(seen: Inspected) -> list[Outline]:
    """Return the documents of a file in their order, broken ones included."""
    return [
        Outline(
            seen.stream.place(document.start)[0],
            shown(verdict.kind) if verdict.kind else None,
            shown(verdict.name, 128) if verdict.name else None,
        )
        for document, verdict in zip(seen.stream.documents, seen.verdicts, strict=True)
    ]


def _kind(one: TaskDefinition | Definition) -> str:
    return one.kind if isinstance(one, Definition) else "Task"


class Run:
    """The files of one run, as far as comparing them needs."""

    def __init__(self, report: Report, now: datetime | None) -> None:
        self.report = report
        self.now = now
        self.folders: list[Path] = []
        self.found: list[tuple[TaskDefinition | Definition, int]] = []  # with the column of the name
        self.broken: set[tuple[str, str]] = set()
        self.seen: dict[str, Inspected] = {}
        self.paths: list[str] = []
        self.known: set[str] = set()  # the same, as whole paths
        self.texts: dict[str, bytes] = {}
        self.contexts: dict[Path, Context] = {}
        self.places: dict[str, tuple[str, Context]] = {}  # path from the root, and what a file is read with

    def take(self, path: Path) -> None:
        """Read a file, or every manifest below a folder."""
        if not path.is_dir():
            self._open(path)
            return
        self.folders.append(path)
        for folder, folders, names in os.walk(path, onerror=self._closed):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = Path(folder).relative_to(path)
            for name in sorted(names):
                if is_manifest((below / name).as_posix()):
                    self._open(Path(folder) / name)

    def _closed(self, error: OSError) -> None:
        self._unreadable(Path(error.filename).as_posix(), error)

    def _unreadable(self, name: str, error: OSError) -> None:
        message = f"this cannot be read: {error.strerror}"
        self.report.findings.append(finding(rules.UNREADABLE, name, message))

    def _open(self, path: Path) -> None:
        name = path.as_posix()
        whole = os.path.abspath(name)  # noqa: PTH100 - links are not followed
        if whole in self.known:
            return
        self.known.add(whole)
        self.paths.append(name)
        self.report.files += 1
        self.report.outlines[name] = []
        try:
            status = path.lstat()
            mode = "120000" if stat.S_ISLNK(status.st_mode) else "100644"
            if not stat.S_ISREG(status.st_mode) and mode == "100644":
                mode = f"{status.st_mode:o}"
            unread = refused(name, mode=mode, size=status.st_size)
            data = path.read_bytes() if unread is None else b""
        except OSError as error:
            self._unreadable(name, error)
            return
        if unread is not None:
            self.report.findings += unread.findings
        else:
            self.texts[name] = data

    def read(self, name: str, data: bytes) -> None:
        """Take a text that is no file of a tree."""
        self.report.files += 1
        self.texts[name] = data

    def judge(self, environment: str | None) -> None:
        """Judge all that was read, layers first."""
        roots = Roots(self.folders)
        suspects = [(name, data) for name, data in self.texts.items() if may_bear(data)]
        layers: dict[Path, list[Definition]] = {}
        for name, data in [*suspects, *roots.above(self.texts)]:
            below, root, fit = roots.below(name), roots.root(name), roots.may_hold_project(name)
            for one in inspect(name, data, below=below).parsed.others:
                if one.kind == DEFAULTS or (one.kind == PROJECT and fit):
                    layers.setdefault(root, []).append(replace(one, path=below))
        alone = Context(environment=environment)
        self.contexts = {root: replace(alone, layers=holding(several)) for root, several in layers.items()}
        for name, data in self.texts.items():
            if layers:
                self._judge(name, data, roots.below(name), self.contexts.get(roots.root(name), alone))
            else:
                self._judge(name, data, name, alone)

    def _judge(self, name: str, data: bytes, below: str, context: Context) -> None:
        seen = inspect(name, data, context=context, below=below, each=True)
        self.places[name] = below, context
        report, parsed = self.report, seen.parsed
        report.documents += parsed.documents
        report.findings += parsed.findings
        report.outlines[name] = outlined(seen)
        if parsed.findings and len(data) <= MAX_FILE_BYTES:
            report.texts[name] = data.decode("utf-8-sig", "replace").split("\n")
        declared: list[TaskDefinition | Definition] = [*parsed.tasks, *parsed.others]
        for one in declared:
            column = seen.stream.place(seen.verdicts[one.document].name_at)[1]
            self.found.append((one, column))
            self.seen[name] = seen
        self.broken |= {("Task", broken) for broken in parsed.broken_names} | set(parsed.broken_others)

    def compare(self) -> None:
        """Find what no single file shows: tasks declared twice, paths that some systems cannot tell apart."""
        folded: dict[str, str] = {}
        for path in self.paths:
            same = folded.setdefault(path.casefold(), path)
            if same != path:
                message = f"differs from {shown(same, 4096)} only by case; some systems cannot hold both"
                found = finding(rules.PATHS_DIFFER_BY_CASE, path, message, "rename one of them")
                self.report.findings.append(found)
        groups: dict[tuple[str, str], list[tuple[TaskDefinition | Definition, int]]] = {}
        for one, column in self.found:
            groups.setdefault((_kind(one), one.name), []).append((one, column))
        for group in groups.values():
            for one, column in group if len(group) > 1 else ():
                other, other_column = group[1] if one is group[0][0] else group[0]
                self.report.findings.append(duplicate(one, other, column, other_column))
        self._cross()

    def _cross(self) -> None:
        """Find what is wrong with the documents together."""
        roots = Roots(self.folders)
        others = [one for one, _ in self.found if isinstance(one, Definition)]
        calendars = {one.name: one for one in others if one.kind == "Calendar"}
        rooted = {name: replace(one, path=roots.below(one.path)) for name, one in calendars.items()}
        declared = Declared(
            tasks=[one for one, _ in self.found if isinstance(one, TaskDefinition)],
            calendars=rooted,
            groups={one.name: one for one in others if one.kind == "TaskGroup"},
            broken=self.broken,
            whole=bool(self.folders),
        )
        for one, fault in crossings(declared, roots.calendar_files(rooted.values()), self.now):
            shown_one = calendars[one.name] if isinstance(one, Definition) and one.kind == "Calendar" else one
            self._note(shown_one, fault)

        for one, fault in self._layered(roots):
            self._note(one, fault)

    def _layered(self, roots: Roots) -> Iterator[tuple[TaskDefinition | Definition, Fault]]:
        """Yield what is wrong with Projects, and what they have against the number of tasks."""
        by_root: dict[Path, list[Definition]] = {}
        for one, _ in self.found:
            if isinstance(one, Definition) and one.kind == PROJECT:
                if roots.may_hold_project(one.path):
                    by_root.setdefault(roots.root(one.path), []).append(one)
                else:
                    yield one, misplaced(one)
        for several in by_root.values():
            for one in several if len(several) > 1 else ():
                yield one, second(one, next(other for other in several if other is not one))
        for root, context in self.contexts.items():
            if (most := limit(context.layers)) is not None:
                tasks = [one for one, _ in self.found if isinstance(one, TaskDefinition)]
                ours = [one for one in tasks if roots.root(one.path) == root]
                yield from ((one, too_many(most)) for one in beyond(ours, most))

    def _note(self, one: TaskDefinition | Definition, fault: Fault) -> None:
        seen = self.seen[one.path]
        root, verdict = seen.stream.documents[one.document].root, seen.verdicts[one.document]
        for problem in located([fault], root) if root is not None else ():
            self.report.findings.append(placed(one.path, seen.stream, problem, verdict))
            self.report.texts.setdefault(one.path, seen.stream.text.split("\n"))
