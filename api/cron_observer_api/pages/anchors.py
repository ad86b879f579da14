"""The ids under which things stand on pages. Pure."""

from __future__ import annotations


def anchor(path: str) -> str:
    """Return the id under which a file stands on its source's page."""
    return "f-" + "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in path)
