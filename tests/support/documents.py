"""What the project's Markdown says: fenced blocks, links, sections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n]*\n(?P<text>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^()\s]+(?:\([^()\s]*\))?)\)|!\[[^\]\n]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block and the line of its first line of text."""

    language: str
    text: str
    line: int


def documents() -> list[Path]:
    """Return every Markdown file of the project that people read."""
    folders = ("docs", "manifests-example", "sdk", "deploy", "bench")
    below = (path for folder in folders for path in (ROOT / folder).rglob("*.md") if "node_modules" not in path.parts)
    return sorted([*ROOT.glob("*.md"), *below])


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document in their order."""
    return [
        Block(found["language"], found["text"], text.count("\n", 0, found.start("text")) + 1)
        for found in _FENCE.finditer(text)
    ]


def prose(text: str) -> str:
    """Return a document without fenced blocks and code spans, line by line as it was."""
    without = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", lambda found: "\n" * found[0].count("\n"), without)


def links(text: str) -> Iterator[str]:
    """Yield the targets of a document's links and pictures."""
    without = _FENCE.sub("", text)
    for found in _LINK.finditer(without):
        yield found[1] or found[2]


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as forges make them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (name := slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found


def section(text: str, heading: str) -> str:
    """Return what stands below a heading of the second level."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section {heading!r}"
    return found[1]
