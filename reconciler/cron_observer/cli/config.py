"""``cron-observer config``: what is set, and by whom."""

from __future__ import annotations

import json
from pathlib import Path

import rich_click as click

from cron_observer.cli import options


@click.group()
def config() -> None:
    """Show every setting and where its value came from."""


@config.command()
@click.option("--origin", is_flag=True, help="Also say where each value came from.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="How to print.")
@click.option("--config", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Settings file.")
def show(origin: bool, form: str, file: Path | None) -> None:
    """Print the settings as they are in force; passwords are blotted out."""
    rows = options.load(config=file).shown()
    if form == "json":
        shown = [
            {"name": name, "value": value} | ({"origin": source} if origin else {}) for name, value, source in rows
        ]
        click.echo(json.dumps(shown, indent=2))
        return
    width = max(len(name) for name, _, _ in rows)
    for name, value, source in rows:
        click.echo(f"{name:{width}}  {value or '—'}" + (f"  ({source})" if origin else ""))
