"""The types for TypeScript are those of the description of the API, and the example that uses them works."""

from __future__ import annotations

import hashlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.documents import ROOT
from support.sdk_server import TOKEN, serving

FOLDER = ROOT / "clients" / "typescript"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "typescript"))

RUN = """
const { Client } = require(process.argv[1] + "/client.js");
const { workOnce } = require(process.argv[1] + "/example.js");
workOnce(new Client(process.argv[2], process.argv[3]), "a/b").then((run) => console.log(run.status));
"""


def test_the_types_are_of_this_description() -> None:
    """The first line of the types names the description that they were made from; that needs no Node."""
    first = (FOLDER / "types.d.ts").read_text(encoding="utf-8").partition("\n")[0]
    seen = hashlib.sha256((ROOT / "schemas" / "openapi.json").read_bytes()).hexdigest()
    assert first.rpartition(" ")[2] == seen, "run scripts/typescript"


def test_the_types_are_generated_and_the_example_works(tmp_path: Path) -> None:
    """Made anew they are the same, client and example agree with them, and the example completes a run."""
    if shutil.which("npx") is None:
        pytest.skip("there is no Node here")
    check = [sys.executable, str(ROOT / "scripts" / "typescript"), "--check", str(tmp_path)]
    checked = subprocess.run(check, capture_output=True, text=True)
    if checked.returncode == SCRIPT["UNAVAILABLE"]:
        pytest.skip("the packages of Node cannot be had here")
    assert (checked.returncode, checked.stdout) == (0, "")
    with serving() as server:
        due = server.add_due("a/b")
        done = subprocess.run(
            ["node", "-e", RUN, str(tmp_path), server.url, TOKEN], capture_output=True, text=True, timeout=60
        )
        assert (done.stderr, done.stdout) == ("", "FINISHED\n")
        assert due["result"] == {"exported": 3}
        assert server.messages() == ["for 2026-03-29T02:30:00"]
