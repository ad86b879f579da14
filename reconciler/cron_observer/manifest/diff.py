"""Write the difference of two texts as ``git apply`` takes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

#: Unchanged lines around each change; what Git writes and `git apply` expects.
CONTEXT: Final = 3

_Op = tuple[str, int, int, int, int]


def unified(path: str, old: str, new: str | None, *, mode: str = "100644") -> str:
    """Return the unified diff that turns `old` into `new`; `new` None deletes the file, empty `old` makes it.

    Lines end with LF alone, as in Git: a carriage return belongs to the line.
    Two equal texts give an empty diff.
    """
    if new == old:
        return ""
    before, after = _lines(old), _lines(new or "")
    old_name, new_name = _quoted(f"a/{path}"), _quoted(f"b/{path}")
    head = f"diff --git {old_name} {new_name}\n"
    if new is None:
        head += f"deleted file mode {mode}\n"
    elif not old:
        head += f"new file mode {mode}\n"
    if not before and not after:
        return head
    head += f"--- {_name(old_name) if old else '/dev/null'}\n"
    head += f"+++ {_name(new_name) if new is not None else '/dev/null'}\n"
    return head + "".join(_hunks(before, after))


def _lines(text: str) -> list[str]:
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _hunks(before: list[str], after: list[str]) -> Iterator[str]:
    for group in _grouped(_operations(before, after)):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n"
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                yield from (_line(" ", line) for line in before[i1:i2])
            else:
                yield from (_line("-", line) for line in before[i1:i2])
                yield from (_line("+", line) for line in after[j1:j2])


def _operations(before: list[str], after: list[str]) -> list[_Op]:
    """Compare only what lies between the common beginning and the common end: files are long, edits short."""
    head, most = 0, min(len(before), len(after))
    while head < most and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < most - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    i_end, j_end = len(before) - tail, len(after) - tail
    matcher = SequenceMatcher(None, before[head:i_end], after[head:j_end], autojunk=False)
    operations: list[_Op] = [("equal", 0, head, 0, head)] if head else []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        operations.append((tag, i1 + head, i2 + head, j1 + head, j2 + head))
    if tail:
        operations.append(("equal", i_end, len(before), j_end, len(after)))
    return operations


def _grouped(operations: list[_Op]) -> Iterator[list[_Op]]:
    """Cut the operations into hunks, with `CONTEXT` lines around each."""
    group: list[_Op] = []
    for index, (tag, i1, i2, j1, j2) in enumerate(operations):
        if tag != "equal":
            group.append((tag, i1, i2, j1, j2))
            continue
        first, last = index == 0, index == len(operations) - 1
        if first:
            i1, j1 = max(i1, i2 - CONTEXT), max(j1, j2 - CONTEXT)  # noqa: PLW2901
        elif last:
            i2, j2 = min(i2, i1 + CONTEXT), min(j2, j1 + CONTEXT)  # noqa: PLW2901
        elif i2 - i1 > 2 * CONTEXT:
            yield [*group, (tag, i1, i1 + CONTEXT, j1, j1 + CONTEXT)]
            group = []
            i1, j1 = i2 - CONTEXT, j2 - CONTEXT  # noqa: PLW2901
        group.append((tag, i1, i2, j1, j2))
    if group:
        yield group


def _range(start: int, end: int) -> str:
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _line(sign: str, line: str) -> str:
    return sign + line if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"


def _quoted(name: str) -> str:
    """Write a path as Git does: in C's quotes when it holds quotes, backslashes or control characters."""
    if not re.search(r'["\\\x00-\x1f\x7f]', name):
        return name
    escapes = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(c, f"\\{ord(c):03o}" if ord(c) < 32 or c == "\x7f" else c) for c in name) + '"'


def _name(name: str) -> str:
    """Close a name with blanks by a tab: what follows would be taken for a date."""
    return name + "\t" if " " in name and not name.startswith('"') else name
