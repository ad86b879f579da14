"""A pull request, played from the branch to the commit status: real processes, a real forge's protocols."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from support.forge_server import ForgeServer, forge_server
from support.forges import SECRET, body, signed
from support.git_servers import forge
from support.processes import COMMAND, Product, Repository, clean_environment, manifest, running, until

SETTINGS = """\
base_url = "https://cron.example.org"

[[sources]]
name = "main"
url = "{url}"
ref = "main"
environment = "prod"
poll_seconds = 3600
provider = "gitea"
secret_ref = "env:HOOK_SECRET"
status_ref = "env:STATUS_TOKEN"
forge_url = "{api}"
"""


def check(repository: Repository, *arguments: str) -> tuple[int, str]:
    """Run a command of the product in the clone, as a job of the forge does; return exit code and output."""
    ran = subprocess.run(
        [*COMMAND, *arguments], cwd=repository.work, env=clean_environment(), capture_output=True, text=True
    )
    return ran.returncode, ran.stdout


def wake(product: Product, commit: str) -> None:
    """Deliver the webhook of a push, signed as the forge does."""
    raw = body("gitea", after=commit)
    reply = product.ask(
        "POST", "/hooks/git/gitea/main", raw, token=None, **{"Content-Type": "application/json", **signed("gitea", raw)}
    )
    assert reply.status == 202, reply


def applied(product: Product, commit: str) -> dict[str, Any] | None:
    """Return the source when this commit is in force."""
    source: dict[str, Any] = product.get("sources/main")
    return source if source["applied_commit"] == commit else None


def status_of(api: ForgeServer, commit: str) -> str | None:
    """Return the newest state that the forge was told of a commit."""
    states = [one.body["state"] for one in api.got if one.path.endswith(commit)]
    return states[-1] if states else None


def test_from_the_branch_to_the_commit_status(tmp_path: Path) -> None:
    """A broken branch is stopped by its findings, a good one shows what it will do, and the merge does just that."""
    repository = Repository(tmp_path)
    served = tmp_path / "served/acme"
    served.mkdir(parents=True)
    (served / "tasks.git").symlink_to(repository.bare)
    first = repository.push("Begin", {"tasks/export.yaml": manifest("export", 'cron: "0 2 * * *"')})
    with forge(tmp_path / "served") as web, forge_server() as api:
        settings = tmp_path / "cron-observer.toml"
        settings.write_text(SETTINGS.format(url=web.url("acme/tasks.git"), api=api.url))
        secrets = {"HOOK_SECRET": SECRET, "STATUS_TOKEN": "token-of-the-forge"}
        with running(tmp_path / "data", "--config", str(settings), "--no-demo", **secrets) as product:
            until(lambda: applied(product, first), "the first commit is applied")

            _break_the_branch(repository)
            _mend_the_branch(repository)
            merge = _merge(repository)
            wake(product, merge)
            source = until(lambda: applied(product, merge), "the merge is applied")

            assert source["conditions"]["Ready"]["status"] == "True"
            export, sweep = product.task("export"), product.task("sweep")
            assert export is not None
            assert sweep is not None
            assert export["spec"]["schedule"]["cron"] == "30 2 * * *"
            assert export["generation"] == 2
            assert (sweep["owner"]["path"], sweep["owner"]["line"]) == ("tasks/sweep.yaml", 4)
            assert sweep["owner"]["author"] == "Ada Example"
            until(lambda: status_of(api, merge) == "success", "the forge is told of the merge")
            told = next(one for one in api.got if one.path.endswith(merge))
            assert told.path == f"/api/v1/repos/acme/tasks/statuses/{merge}"
            assert told.body["context"] == "cron-observer/prod/main"
            assert told.headers["authorization"] == "token token-of-the-forge"
            assert told.body["target_url"] == "https://cron.example.org/sync/main"
        assert "token-of-the-forge" not in product.log.read_text()
        assert SECRET not in product.log.read_text()


def _break_the_branch(repository: Repository) -> None:
    """Change one task, add a broken one, and see the annotations that a pull request would show."""
    repository.git("checkout", "--quiet", "-b", "later")
    (repository.work / "tasks/export.yaml").write_text(manifest("export", 'cron: "30 2 * * *"'))
    (repository.work / "tasks/sweep.yaml").write_text(manifest("sweep", 'cron: "61 * * * *"'))
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message", "Export later, sweep too")
    code, said = check(repository, "validate", "--format", "github")
    assert code == 1
    assert re.search(r"^::error file=tasks/sweep\.yaml,line=7,.*title=CO3004", said, re.MULTILINE), said
    code, said = check(repository, "plan", "--base", "main", "--format", "text")
    assert code == 1
    assert "sweep" in said


def _mend_the_branch(repository: Repository) -> None:
    """Mend it, and see what the merge will do."""
    (repository.work / "tasks/sweep.yaml").write_text(manifest("sweep", "every: 6h"))
    repository.git("commit", "--quiet", "--all", "--message", "Mend the minute")
    assert check(repository, "validate", "--strict")[0] == 0
    code, said = check(repository, "plan", "--base", "main", "--format", "markdown", "--detailed-exitcode")
    assert code == 2
    for word in ("export", "sweep", "0 2 * * *", "30 2 * * *"):
        assert word in said, said
    assert os.environ.get("GITHUB_STEP_SUMMARY") is None


def _merge(repository: Repository) -> str:
    """Merge the branch as a forge does, and push."""
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge pull request 1", "later")
    repository.git("push", "--quiet", "origin", "main")
    return repository.git("rev-parse", "HEAD").strip()
