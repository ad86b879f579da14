"""``cron-observer up``: everything on this machine in one command; `./start` prepares for it and runs it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rich_click as click

from cron_observer.cli import options
from cron_observer.errors import SettingsError


@click.command()
@click.option("--repo", help="Git repository (a path or a URL) or a plain folder with your manifests.")
@click.option("--host", help="Address to listen on. Default 127.0.0.1.")
@click.option("--port", type=click.IntRange(1, 65_535), help="Port. Default 8475, else the next free one.")
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="Default ./.cron-observer")
@click.option("--database-url", help="A PostgreSQL of yours instead of the embedded one.")
@click.option("--no-demo", is_flag=True, help="No demo repository and no demo worker.")
@click.option("--reset", is_flag=True, help="Throw all data away first.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
def up(repo: str | None, no_demo: bool, reset: bool, config: Path | None, **flags: Any) -> None:
    """Run everything on this machine until Ctrl-C. Data is kept."""
    from cron_observer import __version__
    from cron_observer import up as tree_module
    from cron_observer.demo import make_repository
    from cron_observer.settings import SourceSettings

    began = time.monotonic()
    if shutil.which("git") is None:
        raise SettingsError("git is not installed", hint="install your system's package git")
    settings = options.load(_absolute(flags), config)
    data = settings.data_dir.absolute()
    if reset:
        _reset(data)
    data.mkdir(parents=True, exist_ok=True)
    print(f"\n  Cron Observer {__version__}\n", flush=True)  # noqa: T201  the command's own output

    demo = not no_demo and repo is None and not settings.sources
    sources = list(settings.sources)
    if repo is not None:
        url = repo if "://" in repo or (":" in repo.partition("/")[0]) else str(Path(repo).absolute())
        sources = [SourceSettings(name="main", url=url, project=settings.project, poll_seconds=_poll(url))]
    elif demo:
        made = make_repository(data / "demo")
        tree_module.say("✓", "Demo repository", f"{data / 'demo'}{' (new)' if made else ''}")
        sources = [
            SourceSettings(name="main", url=str(data / "demo"), project=settings.project, poll_seconds=_poll("/"))
        ]

    stopped: list[int] = []
    tree = tree_module.Tree()
    with ExitStack() as stack:
        admin_url = tree_module.database(settings, tree, stack)
        tree_module.on_signal(stopped)
        listening = stack.enter_context(tree_module.listen(settings.host, settings.port))
        port: int = listening.getsockname()[1]
        if port != settings.port:
            tree_module.say("!", f"Port {settings.port} is busy", f"using {port}")
        settings = tree_module.in_force(settings, admin_url, port, data, sources)
        url = tree_module.url_of(settings)
        token_file, runtime = data / "dev.env", data / options.RUNTIME
        made_token = tree_module.prepare(admin_url, settings, token_file)
        tree_module.write_runtime(settings, runtime)
        try:
            tree.children = tree_module.serving(runtime, listening)
            for child in tree.children:
                child.start()
            if tree_module.wait_ready(url, tree, stopped):
                if demo:
                    # Not before: a worker that meets a closed door says so.
                    tree.children.append(tree_module.demo_worker(token_file))
                _report(url, token_file, made_token, data, demo, time.monotonic() - began)
                tree_module.supervise(tree, stopped)
        finally:
            tree_module.stop(tree)
            runtime.unlink(missing_ok=True)
    print(f"\n  Stopped. The data is kept in {data}\n", flush=True)  # noqa: T201


def _absolute(flags: dict[str, Any]) -> dict[str, Any]:
    """Make the data folder absolute: children run wherever they like."""
    data_dir = flags.get("data_dir")
    return {**flags, "data_dir": data_dir.absolute()} if data_dir is not None else flags


def _poll(url: str) -> float:
    """Return how often a source given on the command line is looked at: often where that costs nothing."""
    return 1.0 if url.startswith("/") else 10.0


def _reset(data: Path) -> None:
    """Remove what we put into the data folder, and nothing else that may lie there."""
    from cron_observer.postgres import erase

    erase(data / "pg")
    for name in ("demo", "demo.making", "mirrors"):
        shutil.rmtree(data / name, ignore_errors=True)
    for name in ("dev.env", options.RUNTIME, "cursor.key"):
        (data / name).unlink(missing_ok=True)


def _report(url: str, token_file: Path, made: bool, data: Path, demo: bool, seconds: float) -> None:
    """Say where to look and what to do next."""
    where = os.path.relpath(token_file) if token_file.is_relative_to(Path.cwd()) else str(token_file)
    lines = [
        "",
        f"  Ready in {seconds:.1f} s",
        "",
        f"  Web       {url}",
        f"  API       {url}/api/v1      description  {url}/api/v1/openapi.json",
        f"  Token     in {where}{' (new)' if made else ''}; load it with:  set -a; . {where}; set +a",
    ]
    if demo:
        lines += [
            f"  Demo      {data / 'demo'} is a Git repository: edit a manifest, commit, and the page follows",
            "            your own:  ./start --repo ../my-crons",
        ]
    lines += ["  Stop      Ctrl-C (the data stays) · start clean: ./start --reset", ""]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
