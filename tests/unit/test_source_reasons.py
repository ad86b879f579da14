"""The words for what is wrong with a source: each is explained to whoever meets it."""

from __future__ import annotations

import re

from cron_observer.source import failures
from support.documents import ROOT, section

#: Reasons that end a command, the start or the pass, and never become a condition.
UNSEEN = {"AddressRefused", "DemoFailed", "RefRefused", "RepositoryBroken", "Stopped"}


def test_every_reason_is_documented() -> None:
    """Each word that the code says is a row of the page about sources, and each row is a word of the code."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "reconciler/cron_observer").rglob("*.py"))
    said = set(re.findall(r'\breason="([A-Z]\w+)", *(?:\n *)?permanent=', code)) | {"CertificateRefused"}
    said |= {one.reason for one in failures._MEANINGS}
    page = section((ROOT / "docs/reference/sources.md").read_text(encoding="utf-8"), "Why a source cannot be read")
    listed = set(
        re.findall(r"`([A-Z][A-Za-z]+)`", "\n".join(row.split("|")[1] for row in page.splitlines() if row[:1] == "|"))
    )
    assert said - UNSEEN - listed == set()
    assert listed - said == set()
