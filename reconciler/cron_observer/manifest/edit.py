"""Change values inside a YAML text and touch nothing else: comments, quotes, order, layout stay. Pure.

What cannot be done as a small edit raises `CannotEdit`; the caller then writes a larger part anew.
Whether an edit did what it should is not decided here: the caller reads the result again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from cron_observer.manifest import render
from cron_observer.manifest.body import same
from cron_observer.manifest.nodes import Node

_COLON: Final = re.compile(r"[ \t]*:")


class CannotEdit(Exception):  # noqa: N818 - never leaves this room
    """There is no small edit that does this."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` in the place of ``[start:end]``."""

    start: int
    end: int
    text: str


class Editor:
    """Collects the edits of one text."""

    def __init__(self, text: str, root: Node, step: int = 2) -> None:
        self.text = text
        self.root = root  #: the document; it is never written anew as one value
        self.step = step  #: columns by which the document indents
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.edits: list[Edit] = []

    def result(self) -> str:
        """Return the edited text; raise `CannotEdit` when edits meet."""
        pieces, at = [], 0
        for edit in sorted(self.edits, key=lambda one: (one.start, one.end > one.start)):
            if edit.start < at:
                raise CannotEdit
            pieces += [self.text[at : edit.start], edit.text]
            at = edit.end
        return "".join([*pieces, self.text[at:]])

    # -- what changes -------------------------------------------------------------------------------------

    def change(self, node: Node, new: Any, *, flow: bool = False) -> None:
        """Make the value of a node `new`: by small edits inside it, or if there are none, by writing it anew."""
        if same(node.value, new):
            return
        before = len(self.edits)
        try:
            self._change_inside(node, new, flow=flow or node.style in ("{", "["))
        except CannotEdit:
            if node is self.root:
                raise
            del self.edits[before:]
            self.replace(node, new, flow=flow)

    def _change_inside(self, node: Node, new: Any, *, flow: bool) -> None:
        old = node.value
        if isinstance(old, dict) and isinstance(new, dict) and old.keys() & new.keys():
            (self._flow_mapping if flow else self._block_mapping)(node, new)
        elif isinstance(old, list) and isinstance(new, list) and old and new:
            self._list(node, new, flow=flow)
        else:
            raise CannotEdit

    def replace(self, node: Node, new: Any, *, flow: bool = False, block: bool = False) -> None:
        """Write a value anew, on one line or (`block`, or where it is long) as an indented block."""
        text = render.flow(new, self._quotes(node))
        large = isinstance(new, dict | list) and bool(new)
        in_block = node.style in (":", "-")
        block = large and not flow and (block or in_block or len(text) > render.SHORT) and node.key_start >= 0
        if not block and not large:
            text = self._scalar(node, new, flow=flow)
        end = node.start + len(self.text[node.start : self._content_end(node)].rstrip("\r\n"))
        if node.key_start < 0:  # the item of a list, or the document itself
            self.edits.append(Edit(node.start, end, text))
            return
        colon = self._colon(node)
        indent = self._column(node.key_start) + self.step
        lines = render.block(new, indent, self.step) if block else []
        if in_block:
            line_end = self._after_line(colon)
            if not block:
                self.edits.append(Edit(colon, colon, " " + text))
            self.edits.append(Edit(line_end, self._end_of_lines(node), self._joined(lines, line_end)))
        elif block:
            self.edits.append(Edit(colon, max(colon, end), ""))
            self._insert(self._end_of_lines(node), lines)
        elif node.end == node.start:  # nothing stands there yet
            self.edits.append(Edit(colon, colon, " " + text))
        else:
            self.edits.append(Edit(node.start, end, text))

    def _scalar(self, node: Node, new: Any, *, flow: bool) -> str:
        if isinstance(new, dict | list):
            return render.flow(new)
        if isinstance(new, str) and node.style in ("|", ">") and render.is_literal(new):
            indent = (self._column(node.key_start) if node.key_start >= 0 else self._column(node.start)) + self.step
            return self.newline.join(render.literal(new, indent))
        style = node.style if node.style in ("'", '"') else ""
        return render.scalar(new, flow=flow, style=style)

    # -- mappings -----------------------------------------------------------------------------------------

    def _block_mapping(self, node: Node, new: Mapping[str, Any]) -> None:
        kept: Node | None = None
        for key, child in node.entries.items():
            if key in new:
                self.change(child, new[key])
                kept = child
            elif self._begins_line(child.key_start):
                self.edits.append(Edit(self._line_start(child.key_start), self._end_of_lines(child), ""))
            else:
                raise CannotEdit
        if kept is None:
            raise CannotEdit
        added = {key: value for key, value in new.items() if key not in node.entries}
        if added:
            indent = self._column(next(iter(node.entries.values())).key_start)
            self._insert(self._end_of_lines(kept), render.block(added, indent, self.step))

    def _flow_mapping(self, node: Node, new: Mapping[str, Any]) -> None:
        children = list(node.entries.values())
        keep = [key in new for key in node.entries]
        for child, key in zip(children, node.entries, strict=True):
            if key in new:
                self.change(child, new[key], flow=True)
        self._cut([(child.key_start, child.end) for child in children], keep)
        style = self._quotes(node)
        added = {key: value for key, value in new.items() if key not in node.entries}
        last = max(index for index, kept in enumerate(keep) if kept)
        for key, value in added.items():
            name = render.scalar(key, flow=True, key=True, style=style)
            at = children[last].end
            self.edits.append(Edit(at, at, f", {name}: {render.flow(value, style)}"))

    # -- lists --------------------------------------------------------------------------------------------

    def _list(self, node: Node, new: list[Any], *, flow: bool) -> None:
        old_keys = [_canonical(value) for value in node.value]
        new_keys = [_canonical(value) for value in new]
        keep = [True] * len(old_keys)
        added: list[tuple[int, list[Any]]] = []
        for tag, i1, i2, j1, j2 in SequenceMatcher(None, old_keys, new_keys, autojunk=False).get_opcodes():
            if tag == "equal":
                continue
            common = min(i2 - i1, j2 - j1)
            for offset in range(common):
                self.change(node.items[i1 + offset], new[j1 + offset], flow=flow)
            keep[i1 + common : i2] = [False] * (i2 - i1 - common)
            if j2 - j1 > common:
                added.append((i1 + common, new[j1 + common : j2]))
        if not any(keep):
            raise CannotEdit
        if flow:
            self._cut([(item.start, item.end) for item in node.items], keep)
        for index, values in added:
            (self._add_flow if flow else self._add_block)(node, index, values)
        if not flow:
            for item, kept in zip(node.items, keep, strict=True):
                if not kept:
                    dash = self._dash(node, item)
                    if not self._begins_line(dash):
                        raise CannotEdit
                    self.edits.append(Edit(self._line_start(dash), self._end_of_lines(item), ""))

    def _add_flow(self, node: Node, index: int, values: list[Any]) -> None:
        texts = [render.flow(value, self._quotes(node)) for value in values]
        if index < len(node.items):
            at = node.items[index].start
            self.edits.append(Edit(at, at, "".join(f"{text}, " for text in texts)))
        else:
            at = node.items[-1].end
            self.edits.append(Edit(at, at, "".join(f", {text}" for text in texts)))

    def _add_block(self, node: Node, index: int, values: list[Any]) -> None:
        indent = self._column(node.start)
        if index < len(node.items):
            dash = self._dash(node, node.items[index])
            if not self._begins_line(dash):
                raise CannotEdit
            at = self._line_start(dash)
        else:
            at = self._end_of_lines(node.items[-1])
        self._insert(at, render.block(values, indent, self.step))

    def _dash(self, node: Node, item: Node) -> int:
        """Return where the dash of an item stands: in the column of the list, at or above the item."""
        column = self._column(node.start)
        line = self._line_start(item.start)
        while line >= 0:
            at = line + column
            if self.text[at : at + 1] == "-" and at <= item.start:
                return at
            if line == 0:
                break
            line = self._line_start(line - 1)
        raise CannotEdit

    # -- places -------------------------------------------------------------------------------------------

    def _cut(self, spans: list[tuple[int, int]], keep: list[bool]) -> None:
        """Remove parts of a flow collection together with the commas that they leave behind."""
        if not any(keep):
            raise CannotEdit
        last = max(index for index, kept in enumerate(keep) if kept)
        for index in range(last):
            if not keep[index]:
                self.edits.append(Edit(spans[index][0], spans[index + 1][0], ""))
        if last + 1 < len(spans):
            self.edits.append(Edit(spans[last][1], spans[-1][1], ""))

    def _insert(self, at: int, lines: list[str]) -> None:
        self.edits.append(Edit(at, at, self._joined(lines, at)))

    def _joined(self, lines: list[str], at: int) -> str:
        if not lines:
            return ""
        text = self.newline.join(lines)
        return self.newline + text if at and self.text[at - 1] != "\n" else text + self.newline

    def _quotes(self, node: Node) -> str:
        """Return the quotes of a flow collection written as JSON, so that what is added looks alike."""
        keys = [self.text[child.key_start] for child in node.entries.values()]
        return '"' if keys and all(key == '"' for key in keys) and node.style == "{" else ""

    def _colon(self, node: Node) -> int:
        found = _COLON.match(self.text, node.key_end)
        if found is None:
            raise CannotEdit
        return found.end()

    def _content_end(self, node: Node) -> int:
        """Return where a value ends, without the blank lines that follow a block text."""
        while node.children and node.style in (":", "-"):
            node = next(reversed(node.entries.values())) if node.entries else node.items[-1]
        kept = "+" in self.text[node.start : node.start + 3]  # the blank lines belong to the text
        if node.style in ("|", ">") and not kept:
            return node.start + len(self.text[node.start : node.end].rstrip())
        return node.end

    def _end_of_lines(self, node: Node) -> int:
        """Return the beginning of the line after a value."""
        end = self._content_end(node)
        return end if self.text[end - 1 : end] == "\n" else self._after_line(end)

    def _after_line(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end + 1

    def _line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def _begins_line(self, at: int) -> bool:
        return not self.text[self._line_start(at) : at].strip()

    def _column(self, at: int) -> int:
        return at - self._line_start(at)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
