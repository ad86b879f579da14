"""Find the smallest change of a manifest's text that makes a refused change of the API. Pure.

Small edits are tried first, larger rewrites after them; each result is read again with the loader, and
the first one that means exactly what was asked for wins. Writing the document anew always does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from cron_observer import errors
from cron_observer.manifest import render, rules
from cron_observer.manifest.body import ABSENT, same
from cron_observer.manifest.diff import unified
from cron_observer.manifest.document import NOTHING
from cron_observer.manifest.edit import CannotEdit, Editor
from cron_observer.manifest.loader import load
from cron_observer.manifest.nodes import Document, Node, Stream, find, parts, pointer
from cron_observer.manifest.overrides import meaning, overriding
from cron_observer.model import API_VERSION, Context, Severity

Change = tuple[str, Any]

#: The path of a file in its source, and what it is read with.
_Place = tuple[str, Context]

_CATCHUP_POLICY: Final = ("spec", "catchup", "policy")
_CATCHUP_WINDOW: Final = ("spec", "catchup", "window")
_METADATA: Final = ("name", "labels", "annotations")


def patch(
    text: str,
    path: str,
    document: int,
    *,
    changes: Sequence[Change] = (),
    delete: bool = False,
    requested: Mapping[str, Any] | None = None,
    mode: str = "100644",
    context: Context = NOTHING,
) -> str:
    """Return the unified diff of a manifest's text that makes `changes`, as ``git apply`` takes it.

    A change is (pointer, new value), with `DELETE` to remove the field. Pointers are those of the API's body
    (``/timeout``, ``/labels/team``) or of the document (``/spec/timeout``, ``/metadata/labels/team``).
    `delete` removes the document, and the file with its last one.

    `requested` is the whole body that was refused, with its `name`. It is needed only where the text cannot
    be read or no longer holds that task: the document is then found by this name, or written from it.
    `context` is what the file is read with: a value that a layer gives is overridden in the spec, one that the
    environment's patch gives is changed there.
    Raises `ValueError` when the text has no such document to change and `requested` is not given, `InvalidSpec`
    when a change holds what no manifest can hold. Nothing to change or to remove gives an empty diff.
    """
    if delete:
        return unified(path, text, _removed(text, document, requested), mode=mode)
    return unified(path, text, _changed(text, document, changes, requested, (path, context)), mode=mode)


# -- removing ---------------------------------------------------------------------------------------------


def _removed(text: str, index: int, requested: Mapping[str, Any] | None) -> str | None:
    """Return the text without one document, None when no other is left."""
    stream = _load(text)
    target = _target(stream, index, requested)
    if target is None:
        return text  # it is gone already
    others = [other for other in stream.documents if other is not target]
    if not any(other.root is not None and other.root.value is not None for other in others):
        return None
    offset = len(text) - len(stream.text)
    head, tail = text[: target.start + offset], text[target.end + offset :]
    first = stream.text[target.start :].split("\n", 1)[0]
    if not target.marked and first.startswith("#") and "schema" in first:
        head += first + "\n"  # the line that tells editors the schema speaks for the whole file
    result = head + tail
    if _same_documents(_load(result), others):
        return result
    kept = (stream.text[other.start : other.end] for other in others)
    return "".join(content if content.startswith("---") else f"---\n{content}" for content in kept)


# -- changing ---------------------------------------------------------------------------------------------


def _changed(
    text: str, index: int, changes: Sequence[Change], requested: Mapping[str, Any] | None, place: _Place
) -> str:
    stream = _load(text)
    target = _target(stream, index, requested)
    if target is None or target.root is None or not target.readable or not isinstance(target.root.value, dict):
        if requested is None:
            raise ValueError(f"document {index} cannot be read, and what it should hold was not given")
        return _written(text, stream, target, requested, place)
    wanted = _wanted(target.root.value, changes, place)
    if same(wanted, target.root.value):
        return text
    others = [other for other in stream.documents if other is not target]
    offset = len(text) - len(stream.text)
    for attempt in _attempts(stream, target, wanted):
        try:
            result = attempt()
        except CannotEdit:
            continue
        read = _load(result)
        if len(read.documents) == len(stream.documents) and _holds(read.documents[target.index], wanted, place):
            del read.documents[target.index]
            if _same_documents(read, others):
                return text[:offset] + result
    raise errors.InvalidSpec(
        "The change cannot be written into the manifest.", hint="control characters and huge numbers are refused"
    )


def _load(text: str) -> Stream:
    return load(text.removeprefix("\ufeff"))


def _target(stream: Stream, index: int, requested: Mapping[str, Any] | None) -> Document | None:
    """Return the document at `index`, or where the file has moved on, the one of the requested name."""
    found = stream.documents[index] if index < len(stream.documents) else None
    if found is not None and any(problem.rule is rules.DIRECTIVE for problem in found.problems):
        found = None  # whatever is written into it is refused for the line above it
    name = (requested or {}).get("name")
    if name is None or (found is not None and _name(found) in (name, None)):
        return found
    return next((other for other in stream.documents if _name(other) == name), None)


def _name(document: Document) -> Any:
    node = find(document.root, "/metadata/name")
    return None if node is None else node.value


def _attempts(stream: Stream, target: Document, wanted: dict[str, Any]) -> Iterator[Callable[[], str]]:
    """Yield ways to make the text mean `wanted`, the smallest first."""
    root = target.root
    assert root is not None  # noqa: S101 - for the type checker; the caller has looked
    step = _step(root, stream.text)

    def small() -> str:
        editor = Editor(stream.text, root, step)
        editor.change(root, wanted)
        return editor.result()

    def rewritten(*paths: tuple[str, ...]) -> Callable[[], str]:
        def write() -> str:
            editor = Editor(stream.text, root, step)
            for path in paths:
                node, new = find(root, pointer(path)), _get(wanted, path)
                if node is None or new is ABSENT:
                    raise CannotEdit
                if not same(node.value, new):
                    editor.replace(node, new, flow=_in_flow(root, path), block=True)
            return editor.result()

        return write

    yield small
    for path in _enclosing(root.value, wanted):
        yield rewritten(path)
    yield rewritten(("metadata",), ("spec",))
    yield lambda: _anew(stream.text, target, wanted)


def _in_flow(root: Node, path: tuple[str, ...]) -> bool:
    """Tell whether a value stands inside braces."""
    nodes = (find(root, pointer(path[:length])) for length in range(len(path)))
    return any(node is not None and node.style in ("{", "[") for node in nodes)


def _enclosing(old: Any, new: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the paths of the mappings that enclose every difference, the smallest first."""
    if isinstance(old, dict) and isinstance(new, dict):
        differing = [key for key in {**old, **new} if not same(old.get(key, ABSENT), new.get(key, ABSENT))]
        if len(differing) == 1 and differing[0] in old and differing[0] in new:
            yield from _enclosing(old[differing[0]], new[differing[0]], (*at, differing[0]))
    if at:
        yield at


def _anew(text: str, target: Document, value: Mapping[str, Any]) -> str:
    """Return the text with a document written anew; its first comments stay."""
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text[target.start : target.end].split("\n")
    head: list[str] = []
    if target.marked:
        lines.pop(0)
        head.append("---")
    while lines and lines[0].lstrip().startswith("#"):
        head.append(lines.pop(0).rstrip("\r"))
    body = newline.join([*head, *render.block(value, 0)]) + newline
    before = text[: target.start]
    if before and not before.endswith("\n"):
        before += newline
    return before + body + text[target.end :]


def _written(text: str, stream: Stream, target: Document | None, requested: Mapping[str, Any], place: _Place) -> str:
    """Return the text with the document of a task written from what was requested of it."""
    value = _document(requested, place)
    if target is not None:
        offset = len(text) - len(stream.text)
        return text[:offset] + _anew(stream.text, target, value)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [*(["---"] if stream.documents else []), *render.block(value, 0)]
    gap = newline if text and not text.endswith("\n") else ""
    return text + gap + newline.join(lines) + newline


def _document(requested: Mapping[str, Any], place: _Place) -> dict[str, Any]:
    """Make the shortest document that means a body of the API."""
    metadata = {key: requested[key] for key in _METADATA if requested.get(key)}
    spec = copy.deepcopy({key: value for key, value in requested.items() if key not in _METADATA})
    document = {"apiVersion": API_VERSION, "kind": "Task", "metadata": metadata, "spec": spec}
    for path in list(render.leaves(spec)):
        if path[0] != "payload" or path == ("payload",):
            document = _without_needless(document, ("spec", *path), place)
    return document


# -- what is wanted ---------------------------------------------------------------------------------------


def _wanted(old: dict[str, Any], changes: Sequence[Change], place: _Place) -> dict[str, Any]:
    """Apply changes to the value of a document, and leave out what would say nothing."""
    paths = [(_path(name), value) for name, value in changes]
    named = dict(paths)
    if named.get(_CATCHUP_POLICY) == "all" and not named.keys() & {_CATCHUP_POLICY[:2], _CATCHUP_WINDOW}:
        # The default of the window depends on the policy: what was meant so far is written out.
        window = _get(meaning(old, *place)["spec"], _CATCHUP_WINDOW[1:])
        paths += [] if window is ABSENT else [(_CATCHUP_WINDOW, window)]
    paths = overriding(old, paths, *place)
    wanted: dict[str, Any] = copy.deepcopy(old)
    for path, value in paths:
        _set(wanted, path, value)
    for path, value in paths:
        if value is not ABSENT and _get(old, path) is ABSENT:
            wanted = _without_needless(wanted, path, place)
        for length in range(len(path) - 1, 1, -1):  # mappings that a removal has left empty
            parent = path[:length]
            if _get(wanted, parent) == {} and not same(_get(old, parent), {}):
                wanted = _without_needless(wanted, parent, place)
    return wanted


def _path(name: str) -> tuple[str, ...]:
    path = tuple(parts(name))
    if not path or path[0] in ("spec", "metadata"):
        return path
    return ("metadata", *path) if path[0] in _METADATA else ("spec", *path)


def _without_needless(document: dict[str, Any], path: tuple[str, ...], place: _Place) -> dict[str, Any]:
    """Return the document without a field that changes nothing, or as it is."""
    if _get(document, path) is ABSENT:
        return document
    shorter = copy.deepcopy(document)
    _set(shorter, path, ABSENT)
    parent = path[:-1]
    if len(parent) > 1 and _get(shorter, parent) == {}:
        _set(shorter, parent, ABSENT)
    return shorter if same(meaning(shorter, *place), meaning(document, *place)) else document


def _get(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        else:
            return ABSENT
    return value


def _set(value: dict[str, Any], path: tuple[str, ...], new: Any) -> None:
    """Put a value in its place, or remove what is there; mappings on the way are made."""
    holder: Any = value
    for part in path[:-1]:
        inner = holder[int(part)] if isinstance(holder, list) else holder.get(part)
        if not isinstance(inner, dict | list):
            if new is ABSENT:
                return
            inner = {}
            holder[int(part) if isinstance(holder, list) else part] = inner
        holder = inner
    last = path[-1]
    if isinstance(holder, list):
        at = len(holder) if last == "-" else int(last)
        holder[at : at + 1] = [] if new is ABSENT else [copy.deepcopy(new)]
    elif new is ABSENT:
        holder.pop(last, None)
    else:
        holder[last] = copy.deepcopy(new)


# -- reading back -----------------------------------------------------------------------------------------


def _holds(document: Document, wanted: dict[str, Any], place: _Place) -> bool:
    """Tell whether a document was read without fault and means what is wanted."""
    sound = not any(problem.rule.severity is Severity.ERROR for problem in document.problems)
    root = document.root
    if not sound or not document.readable or root is None:
        return False
    return same(meaning(root.value, *place), meaning(wanted, *place))


def _same_documents(stream: Stream, others: Sequence[Document]) -> bool:
    """Tell whether exactly these documents are left, unchanged."""
    if len(stream.documents) != len(others):
        return False
    return all(
        one.readable == other.readable and same(_value(one), _value(other))
        for one, other in zip(stream.documents, others, strict=True)
    )


def _value(document: Document) -> Any:
    return None if document.root is None else document.root.value


def _step(root: Node, text: str) -> int:
    """Return by how many columns the document indents; 2 where it does not show."""
    for node in root.entries.values():
        if node.style == ":" and node.entries:
            start = next(iter(node.entries.values())).key_start
            return max(1, start - text.rfind("\n", 0, start) - 1)
    return 2
