"""The main job: push a manifest, see it run, break it, remove it; with real processes, a real repository, a browser."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import COMMAND, Product, Repository, clean_environment, manifest, running, until

LINES = 400


@pytest.fixture
def product(tmp_path: Path) -> Iterator[tuple[Product, Repository]]:
    """The product with an empty repository."""
    repository = Repository(tmp_path)
    with running(tmp_path / "data", "--no-demo", "--repo", str(repository.bare)) as started:
        yield started, repository


def claim(product: Product, **more: Any) -> dict[str, Any]:
    """Wait for one execution by plain HTTP."""

    def once() -> Any:
        reply = product.ask("POST", "sdk/claims", {"worker": "acceptance", "wait_seconds": 20, **more})
        assert reply.status == 200, reply
        return reply.body["executions"]

    (execution,) = until(once, "a claim")
    assert isinstance(execution, dict)
    return execution


def send_lines(product: Product, execution: dict[str, Any], first: int, count: int, *, zipped: bool = False) -> int:
    """Send numbered lines and return where the log goes on."""
    entries = [{"level": "INFO", "message": f"line {n}"} for n in range(first, first + count)]
    body = json.dumps({"fence": execution["fence"], "first_seq": first, "entries": entries}).encode()
    headers = {"Content-Encoding": "gzip"} if zipped else {}
    path = f"sdk/executions/{execution['id']}/logs"
    reply = product.ask("POST", path, gzip.compress(body) if zipped else body, **headers)
    assert reply.status == 202, reply
    next_seq: int = reply.body["next_seq"]
    return next_seq


def test_push_run_break_remove(product: tuple[Product, Repository]) -> None:
    """A pushed manifest runs and leads back to its line; broken, it keeps its last good version; removed, it stops."""
    server, repository = product
    commit = repository.push("Export the invoices", {"tasks/export.yaml": manifest("export", "every: 2s")})
    until(lambda: server.task("export"), "the task")

    execution = claim(server)
    assert execution["definition"] == {
        "source": "main",
        "commit": commit,
        "path": "tasks/export.yaml",
        "line": 4,
        "generation": 1,
    }
    assert send_lines(server, execution, 0, LINES) == LINES
    assert send_lines(server, execution, 0, LINES, zipped=True) == LINES, "a repeated request stores nothing twice"
    assert send_lines(server, execution, LINES, 1000 - LINES, zipped=True) == 1000
    done = {"fence": execution["fence"], "outcome": "finished", "result": {"invoices": 12}}
    reply = server.ask("POST", f"sdk/executions/{execution['id']}/complete", done)
    assert (reply.status, reply.body["status"]) == (200, "FINISHED")

    read = server.get(f"executions/{execution['id']}")
    assert (read["status"], read["result"]) == ("FINISHED", {"invoices": 12})
    log = server.get(f"executions/{execution['id']}/logs?limit=1000")
    assert [item["message"] for item in log["items"]] == [f"line {n}" for n in range(1000)]
    assert server.ask("GET", f"executions/{execution['id']}/logs.txt").body.count("line 999") == 1
    types = [event["type"] for event in server.get(f"executions/{execution['id']}/events")["items"]]
    assert types[0], types[-1] == ("claimed", "finished")

    broken = manifest("export", "every: 2s", "    timezone: Europe/Berln\n")
    second = repository.push("Break it", {"tasks/export.yaml": broken})
    source = until(
        lambda: (
            (found := server.get("sources/main"))["observed_commit"] == second
            and server.get("sources/main/runs")["items"][0]["findings"]
            and found
        ),
        "the finding",
    )
    finding = server.get("sources/main/runs")["items"][0]["findings"][0]
    place = (finding["path"], finding["line"], finding["column"])
    assert place == ("tasks/export.yaml", 8, 15)
    assert "Europe/Berlin" in (finding["hint"] or "") + finding["message"]
    assert source["applied_commit"] is not None
    task = server.task("export")
    assert task is not None
    assert (task["sync"], task["status"], task["owner"]["commit"]) == ("KEPT_LAST_GOOD", "ACTIVE", commit)
    assert claim(server)["definition"]["commit"] == commit, "the last good version keeps running"

    said = validate(repository.work)
    assert said.returncode == 1
    assert "tasks/export.yaml:8:15" in said.stdout

    repository.push("Remove it", {"tasks/export.yaml": None})
    waiting = until(lambda: (found := server.get("sources/main"))["plan_hash"] and found, "the removal waits")
    assert [(one["name"], one["reason"]) for one in waiting["held"]] == [("export", "empty_tree")]
    approval = {"plan_hash": waiting["plan_hash"], "reason": "it was the only one"}
    assert server.ask("POST", "sources/main/approvals", approval).status == 201
    until(lambda: (server.task("export") or {}).get("status") == "REMOVED", "the removal")
    assert server.get("projects/default/tasks")["items"] == []
    assert server.get("executions?task=export&limit=1")["items"], "history stays"

    repository.git("revert", "--no-edit", "HEAD", "HEAD~1")
    repository.git("push", "--quiet", "origin", "main")
    again = until(lambda: (found := server.task("export")) and found["status"] == "ACTIVE" and found, "the restoration")
    assert again["uid"] == task["uid"]
    claim(server)


def validate(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``cron-observer validate`` on a folder."""
    command = [*COMMAND, "validate", "."]
    return subprocess.run(
        command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False, timeout=60
    )


def test_a_refused_write_says_what_to_do_in_git(product: tuple[Product, Repository], tmp_path: Path) -> None:
    """A PUT on a manifest-owned task answers 409 with path, line, commit, and a patch that git applies."""
    server, repository = product
    text = manifest("export", 'cron: "0 2 * * *"  # at night', "  timeout: 30m\n")
    commit = repository.push("Add export", {"tasks/export.yaml": text})
    task = until(lambda: server.task("export"), "the task")
    wanted = {**task["spec"], "timeout": "45m", "schedule": {**task["spec"]["schedule"], "cron": "0 3 * * *"}}
    reply = server.ask("PUT", "projects/default/tasks/export", wanted)

    assert (reply.status, reply.body["code"]) == (409, "manifest_owned")
    owner = reply.body["owner"]
    assert (owner["path"], owner["line"], owner["commit"]) == ("tasks/export.yaml", 4, commit)
    assert {one["pointer"] for one in reply.body["conflicts"]} == {"/timeout", "/schedule/cron"}
    patch = tmp_path / "change.patch"
    patch.write_text(reply.body["patch"])
    repository.git("apply", str(patch))
    repository.push("Do what the API said", {})
    until(lambda: (server.task("export") or {})["spec"]["timeout"] == "45m", "the change")
    assert server.ask("PUT", "projects/default/tasks/export", wanted).status == 200, (
        "what changes nothing is no conflict"
    )


def test_a_killed_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """After kill -9 of the whole start, its children are gone and the next start goes on with the data."""
    repository = Repository(tmp_path)
    repository.push("Add a task", {"a.yaml": manifest("kept")})
    with running(tmp_path / "data", "--no-demo", "--repo", str(repository.bare)) as first:
        until(lambda: first.task("kept"), "the task")
        token = first.token
        first.process.kill()
        first.process.wait()
        until(lambda: not children_of(tmp_path / "data"), "the end of every child")
    with running(tmp_path / "data", "--no-demo", "--repo", str(repository.bare)) as second:
        assert second.token == token
        assert second.task("kept") is not None
        assert second.ask("GET", "projects/default/tasks").body["items"][0]["name"] == "kept"


def children_of(data_dir: Path) -> list[str]:
    """Return the command lines that name the data folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(data_dir) in line:
            found.append(line)
    return found


def test_it_outlives_its_server(product: tuple[Product, Repository]) -> None:
    """When PostgreSQL itself is killed, the start brings it back, and everything goes on with the data."""
    server, repository = product
    repository.push("Add a task", {"a.yaml": manifest("kept")})
    until(lambda: server.task("kept"), "the task")
    postmaster = int((server.data_dir / "pg" / "cluster" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    until(lambda: "starting it again" in server.log.read_text(), "the notice")
    until(lambda: server.ask("GET", "/readyz", token=None).status == 200, "ready again")
    repository.push("Add another", {"b.yaml": manifest("another")})
    until(lambda: server.task("another"), "the next task")
    assert server.task("kept") is not None


def test_a_busy_port_is_said(tmp_path: Path) -> None:
    """When the port is taken the next free one is used and said; Ctrl-C ends with 0 and keeps the data."""
    with running(tmp_path / "one", "--no-demo") as first:
        port = int(first.url.rpartition(":")[2])
        log = tmp_path / "two.out"
        with log.open("wb") as output:
            second = subprocess.Popen(
                [*COMMAND, "up", "--data-dir", str(tmp_path / "two"), "--port", str(port), "--no-demo"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                cwd=tmp_path,
            )
        try:
            until(lambda: "Ready in" in log.read_text(), "the second one")
        finally:
            second.send_signal(signal.SIGINT)
            assert second.wait(30) == 0
        said = log.read_text()
        assert f"Port {port} is busy" in said
        assert "The data is kept in" in said
        assert (tmp_path / "two" / "pg").is_dir()
