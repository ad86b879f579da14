"""What looks like a secret in a file is told in no message, in no excerpt and in no format."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from cron_observer.cli.formats import FORMATS
from cron_observer.cli.validate import validate
from cron_observer.manifest.excerpts import discreet
from cron_observer.manifest.scalars import shown
from cron_observer.reconcile.remarks import excerpt
from support.manifests import task

TOKEN = "ghp_" + "0aZ9" * 9
LATE = "  schedule: {every: 1m}\n"

BROKEN = {
    "cron": f'  schedule: {{cron: "{TOKEN} * * * *"}}\n',
    "macro": f'  schedule: {{cron: "@{TOKEN}"}}\n',
    "zone": f'  schedule: {{cron: "@daily", timezone: {TOKEN}}}\n',
    "group": f"  group: {TOKEN}\n" + LATE,
    "overlap": f"  overlap: {TOKEN}\n" + LATE,
    "field": f"  {TOKEN}: 1\n" + LATE,
    "long field": f"  {'x' * 30} {TOKEN}: 1\n" + LATE,
    "tag": f"  description: !{TOKEN} x\n" + LATE,
    "directive": LATE + f"---\n%{TOKEN}\n",
    "syntax": LATE + f'  payload: {{url: "https://me:{TOKEN}@host/"\n',
    "named": LATE + "  payload: {PASSWORD: hunter2\n",
    "quoted": LATE + '  payload: {"apiToken" : "hunter2", : }\n',
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_nothing_that_is_printed_holds_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, form: str
) -> None:
    """Whatever is wrong beside it, a secret is in no format of the findings, in no spelling."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(task(broken))
    said = CliRunner().invoke(validate, ["--format", form])
    assert said.exit_code == 1, said.output
    assert "hunter2" not in said.output
    assert TOKEN[4:].lower() not in said.output.lower()


def test_a_text_is_shown_without_its_tokens() -> None:
    """A token goes before a text is cut off, so that no part of it is left."""
    assert shown(f"curl {TOKEN} x", 30) == "curl *** x"
    assert shown("https://me:pw@host/x") == "***host/x"


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        (f"  - {TOKEN}", True),
        ("  PASSWORD: hunter2", True),
        ("x: {dbPassword : 'hunter2'}", True),
        ("api-key: abc", True),
        ("PASSWORD: ${DB}", False),
        ("password:", False),
        ("tokens: 5", False),
        ("keyboard: abc", False),
        ("name: nightly", False),
    ],
)
def test_lines_that_may_hold_a_secret_are_left_out_of_excerpts(line: str, hidden: bool) -> None:
    """A line is empty where it holds a token, or a value beside a word for secrets; a reference is none."""
    assert discreet([line], []) == ["" if hidden else line]


def test_neighbours_in_stored_excerpts_are_discreet() -> None:
    """What the database keeps around a finding holds no secret either."""
    lines = discreet(["spec:", "  payload:", "    PASSWORD: hunter2", "  tiemout: 5m"], [])
    told = excerpt(lines, 4)
    assert told is not None
    assert "tiemout" in told
    assert "hunter2" not in told
