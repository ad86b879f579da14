"""What the formats have in common: a finding's words on one line, and who it is when lines move."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from cron_observer.model import Finding

_MOST: Final = 2000  # characters of a message


def message_of(finding: Finding) -> str:
    """Return the message on one line, safe to show."""
    from cron_observer.manifest.scalars import shown

    return shown(finding.message, _MOST)


def hint_of(finding: Finding) -> str | None:
    """Return the hint on one line, safe to show; None where there is none."""
    from cron_observer.manifest.scalars import shown

    return shown(finding.hint, _MOST) if finding.hint else None


def fingerprints(findings: Iterable[Finding], *, placed: bool = False) -> Iterator[tuple[Finding, str]]:
    """Yield each finding with what it is known by from one run to the next: 32 hexadecimal digits, each once.

    It is made of code, kind, name and pointer, so that a finding stays the same when its lines move; of what has no
    name, and with `placed` of all, the path counts too. Of equal ones each gets its number.
    """
    seen: Counter[tuple[str | None, ...]] = Counter()
    for one in findings:
        who = (one.code, one.kind, one.name, one.pointer, one.path if placed or one.name is None else None)
        seen[who] += 1
        words = [*(word or "" for word in who), str(seen[who])]
        raw = "\0".join(words).encode("utf-8", "surrogatepass")
        yield one, hashlib.sha256(raw).hexdigest()[:32]
