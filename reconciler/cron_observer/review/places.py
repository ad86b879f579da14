"""Where a finding about a document stands in its text, and the lines around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cron_observer.manifest.files import DOCS_URL, Inspected, inspect
from cron_observer.manifest.nodes import find
from cron_observer.model import Finding
from cron_observer.review.sides import Side


class Places:
    """The texts of one side, read again with their places where somebody asks."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._known: dict[str, Inspected] = {}

    def placed(self, finding: Finding) -> Finding:
        """Return a finding of a plan with columns and a link; one that has them already is what it is."""
        url = finding.url or DOCS_URL + finding.code.lower()
        if finding.column is not None or finding.pointer is None or finding.path not in self._side.files:
            return replace(finding, url=url)
        seen = self._inspected(finding.path)
        for verdict, document in zip(seen.verdicts, seen.stream.documents, strict=True):
            if verdict.name != finding.name or verdict.kind != finding.kind or document.root is None:
                continue
            node, pointer = None, finding.pointer
            while node is None and pointer:
                node = find(document.root, pointer)
                pointer = pointer.rpartition("/")[0]
            if node is None:
                continue
            start, end = (node.start, node.end) if node.children is None else (node.key_start, node.key_end)
            line, column = seen.stream.place(max(start, 0))
            end_line, end_column = seen.stream.place(max(end, start, 0))
            return replace(finding, line=line, column=column, end_line=end_line, end_column=end_column, url=url)
        return replace(finding, url=url)

    def texts(self, findings: Sequence[Finding]) -> dict[str, list[str]]:
        """Return the lines of the files that have findings."""
        paths = {one.path for one in findings if one.path in self._side.files and one.column}
        return {path: self._inspected(path).stream.text.split("\n") for path in sorted(paths)}

    def _inspected(self, path: str) -> Inspected:
        if path not in self._known:
            data = self._side.content(path)
            self._known[path] = inspect(path, data, context=self._side.context)
        return self._known[path]
