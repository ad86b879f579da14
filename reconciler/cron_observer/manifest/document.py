"""Judge one document: is it a manifest, of which kind, and what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cron_observer.manifest import composed, rules, schemas, semantics, validate
from cron_observer.manifest.nodes import Document, Node, find, pointer
from cron_observer.manifest.rules import Problem
from cron_observer.manifest.scalars import shown
from cron_observer.manifest.values import Fault, Path, discreet
from cron_observer.model import API_VERSION, TASK_NAME, Context, Definition, Severity, TaskDefinition

#: Kinds of the manifest format that this version does not read. A document of them declares nothing that it knows.
LATER_KINDS: Final = frozenset({"NotificationChannel", "AlertRule"})

#: What documents are read with by themselves.
NOTHING: Final = Context()


@dataclass(slots=True)
class Verdict:
    """What one document declares, and its problems."""

    problems: list[Problem] = field(default_factory=list)
    kind: str | None = None
    name: str | None = None  #: as written, if it is a text
    name_at: int = 0  #: offset of the name, or of the document where there is none
    value: Mapping[str, Any] | None = None  #: the whole document, when it is valid, with the composed spec of a task
    identified: bool = True  #: False when it may declare a task whose name cannot be known

    @property
    def broken(self) -> bool:
        """Tell whether the document must not be applied."""
        return any(problem.rule.severity is Severity.ERROR for problem in self.problems)


def judge(document: Document, path: str = "", context: Context = NOTHING, *, each: bool = False) -> Verdict:
    """Say what a loaded document of the file `path` declares, and everything that is wrong with it.

    A task is judged with what bears upon it; with `each` in every environment that it names, if the context has none.
    """
    verdict = Verdict(list(document.problems), name_at=document.start)
    root = document.root
    if root is None or not isinstance(root.value, dict):
        verdict.identified = document.readable
        if document.readable and not verdict.problems:
            verdict.problems.append(_shape(document, root))
        return verdict
    _identify(verdict, root)
    if not document.readable:
        verdict.identified = False
        return verdict
    if isinstance(root.value.get("sops"), dict):
        at = root.entries["sops"]
        hint = "leave manifests readable and reference secrets by name"
        message = "the file is encrypted with sops"
        verdict.problems.append(Problem(rules.ENCRYPTED, message, at.key_start, at.key_end, hint, "/sops"))
        return verdict
    envelope, whole = _envelope(root.value), root.value
    if envelope is not None:
        faults = [envelope]
    elif composed.concerned(whole, path, context):
        faults, whole = composed.examine(whole, path, context, each=each)
    else:
        faults = examine(whole)
    verdict.problems.extend(located(discreet(faults), root))
    if not verdict.broken:
        verdict.value = whole
    return verdict


def examine(value: dict[str, Any]) -> list[Fault]:
    """Return everything that is wrong with the value of a document whose kind is known."""
    faults = validate.check(schemas.KINDS[value["apiVersion"], value["kind"]], value)
    return [*faults, *semantics.check(value, {fault.path for fault in faults})]


def declared(path: str, value: Mapping[str, Any], line: int, document: int) -> TaskDefinition | Definition:
    """Return what a valid document, whose spec is composed, declares.

    `line` is that of its name, `document` its position in the file.
    """
    metadata, kind = value["metadata"], value["kind"]
    if kind != "Task":
        return Definition(
            kind=kind,
            name=metadata["name"],
            spec=schemas.effective(value["spec"], kind),
            transfer_from=metadata.get("transferFrom"),
            path=path,
            line=line,
            document=document,
        )
    return TaskDefinition(
        name=metadata["name"],
        spec=schemas.effective(value["spec"]),
        renamed_from=metadata.get("renamedFrom"),
        transfer_from=metadata.get("transferFrom"),
        labels=metadata.get("labels", {}),
        annotations=metadata.get("annotations", {}),
        path=path,
        line=line,
        document=document,
    )


def _shape(document: Document, root: Node | None) -> Problem:
    start, end = document.start, min(document.start + 3, document.end)
    if root is None or root.value is None:
        return Problem(rules.EMPTY_DOCUMENT, "the document is empty", start, end, "remove it")
    got = validate.type_of(root.value)
    message = f"a manifest is a mapping with apiVersion and kind; this is {got}"
    return Problem(rules.NOT_A_MAPPING, message, root.start, root.end, _IGNORE)


_IGNORE: Final = "if this file is no manifest, leave it out with the source's `ignore` setting"


def _identify(verdict: Verdict, root: Node) -> None:
    """Find out which task the document means, even when the rest of it is wrong."""
    value = root.value
    kind = value.get("kind")
    verdict.kind = kind if isinstance(kind, str) else None
    node = find(root, "/metadata/name")
    if node is not None and isinstance(node.value, str):
        verdict.name, verdict.name_at = node.value, node.start
    if verdict.kind in LATER_KINDS or not value.keys() & {"apiVersion", "kind", "metadata", "spec"}:
        return
    verdict.identified = verdict.name is not None and TASK_NAME.fullmatch(verdict.name) is not None


def _envelope(value: Mapping[str, Any]) -> Fault | None:
    for name in ("apiVersion", "kind"):
        if name not in value:
            message = f'the field "{name}" is missing, so this is no manifest'
            near = validate.suggest(name, list(value))
            hint = f'rename "{near}" to "{name}"' if near else f"add it; {_IGNORE}"
            return Fault(rules.NOT_A_MANIFEST, (name,), message, hint, within=())
    version, kind = value["apiVersion"], value["kind"]
    if (version, kind) in schemas.KINDS if isinstance(version, str) and isinstance(kind, str) else False:
        return None
    if version != API_VERSION:
        message = f"expected {API_VERSION}, got {validate.type_of(version)}"
        return Fault(rules.UNKNOWN_VERSION, ("apiVersion",), message, f"write apiVersion: {API_VERSION}")
    known = [name for _, name in schemas.KINDS]
    if isinstance(kind, str) and kind in LATER_KINDS:
        message = f"this version does not read the kind {kind}"
    else:
        message = f"expected {', '.join(known)}; got {validate.type_of(kind)}"
    near = validate.suggest(kind, known) if isinstance(kind, str) else None
    hint = f'did you mean "{near}"?' if near else f"known kinds: {', '.join(known)}"
    return Fault(rules.UNKNOWN_KIND, ("kind",), message, hint)


def located(faults: Iterable[Fault], root: Node) -> list[Problem]:
    """Give faults their places in the text. What follows from a value refused by the loader is left out."""
    problems = []
    for fault in faults:
        node, exact = _nearest(root, fault.path)
        if node.refused:
            continue
        start, end = _span(node, exact and not fault.on_key)
        problems.append(Problem(fault.rule, fault.sentence(), start, end, fault.hint, pointer(fault.path)))
    return problems


def _nearest(root: Node, path: Path) -> tuple[Node, bool]:
    """Return the node at `path`, or the last one on the way to it and False."""
    node = root
    for part in path:
        if isinstance(part, int):
            inner = node.items[part] if part < len(node.items) else None
        else:
            inner = node.entries.get(part)
        if inner is None:
            return node, False
        node = inner
    return node, True


def _span(node: Node, whole: bool) -> tuple[int, int]:
    """Return what to underline: a scalar itself where `whole`, else the key, else the first character."""
    if whole and node.children is None and node.end > node.start:
        return node.start, node.end
    if node.key_start >= 0:
        return node.key_start, node.key_end
    if node.children is None:
        return node.start, node.end
    return node.start, node.start + 1


def quoted(name: str) -> str:
    """Write a name for a message."""
    return f'"{shown(name)}"'
