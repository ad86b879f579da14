"""Read YAML strictly, with the place of every key and value; the only room that knows a YAML library.

Only libyaml's event stream is used, never its constructors: no tag can build an object, no alias can
explode, no nesting can exhaust a stack. What is wrong is returned as a `Problem`; nothing is raised.

Documents are told apart by their markers before they are parsed: ``---`` in the first column is a marker
wherever it stands in valid YAML. So a document that cannot be read does not take its neighbours with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from cron_observer.manifest import rules, syntax
from cron_observer.manifest.nodes import Document, Node, Stream, pointer
from cron_observer.manifest.rules import Problem
from cron_observer.manifest.scalars import (
    MAX_DEPTH,
    MAX_KEY_CHARACTERS,
    MAX_NODES,
    Refusal,
    check_key,
    check_text,
    has_bidi,
    resolve,
    shown,
)

MAX_DOCUMENTS: Final = 200  # documents of one file
MAX_PROBLEMS: Final = 200  # of one document; beyond it we stop reading, nobody mends more at a time

_MARKER: Final = re.compile(r"^(---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_CONTENT: Final = re.compile(r"^[ \t]*[^#\s]", re.MULTILINE)
_RAW_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)")

#: The classes of events that build values, for who asks each event for its own.
ALIAS, SCALAR, MAPPING, SEQUENCE = AliasEvent, ScalarEvent, MappingStartEvent, SequenceStartEvent
ENDS: Final = (MappingEndEvent, SequenceEndEvent)

_Event = Any  # the library's stubs say that marks may be missing; from libyaml they never are

if not yaml.__with_libyaml__:  # pragma: no cover - depends on the installation
    raise ImportError("PyYAML was built without libyaml; install a wheel of it, or libyaml before building it")


def decode(data: bytes) -> tuple[str, Problem | None]:
    """Return the text of a file without its byte order mark, and what keeps it from being read."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "", Problem(rules.NOT_UTF8, "the file is UTF-16 or UTF-32", 0, 0, "save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        message = f"byte {error.start} (0x{data[error.start]:02x}) is not UTF-8"
        return before, Problem(rules.NOT_UTF8, message, len(before), len(before), "save the file as UTF-8")
    found = _RAW_CONTROL.search(text)
    if found is None:
        return text, None
    message = f"the file holds the character U+{ord(found[0]):04X}, which no manifest may hold"
    hint = 'remove it; where it is meant, write it escaped in double quotes ("\\u2028")'
    if found[0] == "\r":
        message, hint = "a carriage return without a line feed", "end lines with LF or CRLF"
    return text, Problem(rules.CONTROL_IN_FILE, message, found.start(), found.end(), hint)


def load(text: str) -> Stream:
    """Read every document of a text that `decode` found nothing wrong with."""
    stream = Stream(text, [], [])
    directives: list[Problem] = []  # of the document that follows
    for start, end, marked in chunks(text):
        content = text[start:end]
        if not marked:
            first = _CONTENT.search(content)
            if first is None:
                continue  # only comments
            if first[0] == "%":
                at = start + first.end() - 1
                directives.append(syntax.directive(at, text.find("\n", at)))
                continue
        if len(stream.documents) == MAX_DOCUMENTS:
            message = f"the file has more than {MAX_DOCUMENTS} documents"
            hint = "split it into several files"
            stream.problems.append(Problem(rules.TOO_MANY_DOCUMENTS, message, start, start + 3, hint))
            break
        document = Document(len(stream.documents), start, end, marked, problems=directives)
        directives = []
        stream.documents.append(document)
        _Reader(text, document).read(content)
    stream.problems += directives
    return stream


def chunks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Yield where each document begins and ends, its marker with it, and whether it has one."""
    start, marked = 0, False
    for marker in _MARKER.finditer(text):
        yield start, marker.start(), marked
        marked = marker[1] == "---"
        start = marker.start() if marked else marker.end()
    yield start, len(text), marked


def events(content: str) -> Iterator[_Event]:
    """Yield libyaml's events for the text of one document. Raises whatever libyaml does."""
    return iter(yaml.CSafeLoader(content).get_event, None)


class _Stop(Exception):  # noqa: N818 - control flow inside this module
    """The document cannot be read further; the problem is recorded."""


class _Frame:
    """A mapping or list that is being read, and the key that waits for its value."""

    __slots__ = ("drop", "key", "key_end", "key_start", "mapping", "node", "waiting")

    def __init__(self, node: Node, mapping: bool) -> None:
        self.node = node
        self.mapping = mapping
        self.waiting = False  # a key was read, its value comes next
        self.drop = False  # that value belongs to a key that was refused
        self.key = ""
        self.key_start = self.key_end = 0


class _Reader:
    """Builds the nodes of one document from libyaml's events. Iterative."""

    def __init__(self, text: str, document: Document) -> None:
        self.text = text
        self.document = document
        self.base = document.start
        self.stack: list[_Frame] = []
        self.nodes = 0

    def read(self, content: str) -> None:
        """Fill in the document; whatever libyaml raises becomes a problem of it."""
        try:
            self._read(yaml.CSafeLoader(content))
        except _Stop:
            self.document.readable = False
        except Exception as error:  # noqa: BLE001 - libyaml raises ValueError and others beside YAMLError
            self.document.readable = False
            self.document.problems.append(syntax.explain(error, self.text, self.base))

    def _read(self, parser: yaml.CSafeLoader) -> None:
        begun = False
        while True:
            event: _Event = parser.get_event()
            kind = type(event)
            if kind is ScalarEvent:
                self._scalar(event)
            elif isinstance(event, CollectionStartEvent):
                self._open(event)
            elif kind is AliasEvent:
                self._alias(event)
            elif kind is DocumentStartEvent:
                if begun:
                    at = self.base + event.start_mark.index
                    self._problem(rules.SYNTAX, "the document has ended before this", at, at + 1, stop=True)
                begun = True
            elif kind is StreamEndEvent:
                return
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                self._close(event)

    def _problem(
        self, rule: rules.Rule, message: str, start: int, end: int, hint: str | None = None, *, stop: bool = False
    ) -> None:
        problems = self.document.problems
        problems.append(Problem(rule, message, start, end, hint, self._pointer()))
        if stop or len(problems) >= MAX_PROBLEMS:
            raise _Stop

    def _pointer(self) -> str:
        path: list[str | int] = []
        for frame in self.stack:
            last = frame is self.stack[-1]
            if not frame.mapping:  # only in the last one the item is not attached yet
                path.append(len(frame.node.items) - (not last))
            elif frame.waiting or not last:
                path.append(frame.key[:MAX_KEY_CHARACTERS])
        return pointer(path)

    def _count(self, start: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            message = f"the document has more than {MAX_NODES} keys and values"
            self._problem(rules.TOO_MANY_NODES, message, start, start + 1, stop=True)

    def _properties(self, event: _Event, start: int, end: int) -> bool:
        """Refuse anchor and tag; tell whether there was one."""
        if event.anchor is not None:
            hint = "write the value out where it is needed"
            self._problem(rules.ANCHOR, "anchors are not allowed", start, end, hint)
        tag = getattr(event, "tag", None)
        if tag is not None:
            hint = "remove the tag; quote the value if text is meant"
            name = shown(tag.replace("tag:yaml.org,2002:", "!!"))
            self._problem(rules.TAG, f"the tag {name} is not allowed", start, end, hint)
        return event.anchor is not None or tag is not None

    def _scalar(self, event: _Event) -> None:
        start, end = self.base + event.start_mark.index, self.base + event.end_mark.index
        self._count(start)
        refused = False
        if event.anchor is not None or event.tag is not None:
            refused = self._properties(event, start, end)
        frame = self.stack[-1] if self.stack else None
        if frame is not None and frame.mapping and not frame.waiting:
            self._key(frame, event, start, end)
            return
        style = event.style or ""
        node = Node(event.value, start, end, style)
        try:
            check_text(event.value)
            if not style:
                node.value = resolve(event.value)
        except Refusal as refusal:
            refused = True
            node.value = None
            self._problem(refusal.rule, refusal.message, start, end, refusal.hint)
        if has_bidi(event.value):
            message = "the text holds characters that change the direction of what a reader sees"
            self._problem(rules.BIDI, message, start, end, "remove them, or write them escaped")
        node.refused = refused
        self._attach(node)

    def _key(self, frame: _Frame, event: _Event, start: int, end: int) -> None:
        text: str = event.value
        frame.waiting, frame.drop = True, False
        frame.key, frame.key_start, frame.key_end = text, start, end
        try:
            check_key(text)
            if not event.style:
                _check_plain_key(text)
        except Refusal as refusal:
            frame.drop = True
            self._problem(refusal.rule, refusal.message, start, end, refusal.hint)
            return
        first = frame.node.entries.get(text)
        if first is not None:
            frame.drop = True
            line = self.text.count("\n", 0, first.key_start) + 1
            column = first.key_start - self.text.rfind("\n", 0, first.key_start)
            message = f'the key "{shown(text)}" is here for the second time; the first is at {line}:{column}'
            self._problem(rules.DUPLICATE_KEY, message, start, end, "keep one of them")

    def _alias(self, event: _Event) -> None:
        start, end = self.base + event.start_mark.index, self.base + event.end_mark.index
        self._count(start)
        if syntax.looks_like_cron(self.text, start):
            self.document.problems.append(syntax.quote_cron(self.text, start))
            raise _Stop
        frame = self.stack[-1] if self.stack else None
        hint = "write the value out where it is needed; quote it if text is meant"
        self._problem(rules.ANCHOR, "aliases are not allowed", start, end, hint)
        if frame is not None and frame.mapping and not frame.waiting:
            frame.waiting = frame.drop = True
            return
        node = Node(None, start, end, "")
        node.refused = True
        self._attach(node)

    def _open(self, event: _Event) -> None:
        start, end = self.base + event.start_mark.index, self.base + event.end_mark.index
        self._count(start)
        refused = self._properties(event, start, end)
        if len(self.stack) >= MAX_DEPTH:
            message = f"mappings and lists are nested more than {MAX_DEPTH} deep"
            self._problem(rules.TOO_DEEP, message, start, start + 1, stop=True)
        mapping = isinstance(event, MappingStartEvent)
        node = Node({} if mapping else [], start, end, _STYLES[mapping, bool(event.flow_style)])
        node.children = {} if mapping else []
        node.refused = refused
        frame = self.stack[-1] if self.stack else None
        if frame is not None and frame.mapping and not frame.waiting:
            self._problem(rules.KEY_NOT_TEXT, "a mapping or list cannot be a key", start, end, "use a text")
            frame.waiting = frame.drop = True
        else:
            self._attach(node)
        self.stack.append(_Frame(node, mapping))

    def _attach(self, node: Node) -> None:
        if not self.stack:
            self.document.root = node
            return
        frame = self.stack[-1]
        parent = frame.node
        if not frame.mapping:
            parent.items.append(node)
            parent.value.append(node.value)
            return
        frame.waiting = False
        if not frame.drop:
            node.key_start, node.key_end = frame.key_start, frame.key_end
            parent.entries[frame.key] = node
            parent.value[frame.key] = node.value

    def _close(self, event: _Event) -> None:
        node = self.stack.pop().node
        if node.style in ("{", "["):
            node.end = self.base + event.end_mark.index
        else:  # libyaml says where the next thing begins; we want where the last one ended
            last = next(reversed(node.entries.values()), None) if node.style == ":" else node.items[-1]
            node.end = last.end if last is not None else node.start


def _check_plain_key(text: str) -> None:
    if not isinstance(resolve(text), str):
        raise Refusal(rules.KEY_NOT_TEXT, f"the key {shown(text) or '(empty)'} is not text", "quote it")
    if text == "<<":
        raise Refusal(rules.MERGE_KEY, "merge keys are not allowed", "write the fields out")


_STYLES: Final = {(True, True): "{", (False, True): "[", (True, False): ":", (False, False): "-"}
