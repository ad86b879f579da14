"""Which entries of a source are not read at all, and what is said of them. Pure."""

from __future__ import annotations

from cron_observer import manifest
from cron_observer.manifest import rules
from cron_observer.manifest.files import finding
from cron_observer.model import ParsedFile
from cron_observer.source.spec import UNNAMABLE, UNREADABLE, Entry


def refused(entry: Entry, data: bytes) -> ParsedFile | None:
    """Return the verdict on an entry that must not even be parsed; None for one that may be."""
    found = None
    if entry.mode == UNNAMABLE:
        message = "the path holds control characters or is not UTF-8"
        found = finding(rules.BAD_PATH, entry.path, message, "rename the file")
    elif entry.mode == UNREADABLE:
        hint = "let the reconciler's account read it"
        found = finding(rules.UNREADABLE, entry.path, "the file may not be read", hint)
    if found is not None:
        return ParsedFile(path=entry.path, findings=(found,), parseable=False)
    return manifest.refused(entry.path, mode=entry.mode, size=entry.size or len(data), head=data[:256])
