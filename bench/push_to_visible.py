"""Push to visible: from the end of `git push` to the task being readable through the API.

Goal: p95 of the pushes under 2 s with a local repository. The limit of the same run is git alone: `git ls-remote`
plus fetching one commit into a bare mirror.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from common import Product, Repository, arguments, manifest, percentile, product, show, verdict

GOAL_MS = 2000.0


def git_alone(repository: Repository, mirror: Path) -> float:
    """Return the seconds that git needs by itself to see and fetch the newest commit."""
    began = time.perf_counter()
    subprocess.run(["git", "ls-remote", str(repository.bare), "refs/heads/main"], check=True, capture_output=True)
    fetch = ["git", "-C", str(mirror), "fetch", "--quiet", "--no-tags", str(repository.bare), "+refs/heads/*:refs/x/*"]
    subprocess.run(fetch, check=True, capture_output=True)
    return time.perf_counter() - began


def push_once(running: Product, repository: Repository, number: int) -> float:
    """Push one more task and return the seconds until the API shows it."""
    name = f"task-{number:03}"
    repository.push(f"Add {name}", {f"tasks/{name}.yaml": manifest(name)})
    pushed = time.perf_counter()
    while running.task(name) is None:
        if time.perf_counter() - pushed > 30:
            raise SystemExit(f"{name} never became visible")
        time.sleep(0.005)
    return time.perf_counter() - pushed


def main() -> None:
    """Push, look, compare."""
    asked = arguments(__doc__ or "", pushes=20)
    with product() as (running, repository):
        mirror = repository.bare.with_name("mirror.git")
        subprocess.run(["git", "init", "--quiet", "--bare", str(mirror)], check=True)
        seen, floor = [], []
        for number in range(asked.pushes):
            seen.append(push_once(running, repository, number))
            floor.append(git_alone(repository, mirror))
        figures = show("push to visible", seen)
        show("git alone (ls-remote and fetch)", floor)
        verdict("push to visible, p95", figures["p95"], GOAL_MS, percentile(floor, 0.95) * 1000, "git alone, p95")


if __name__ == "__main__":
    main()
