"""Findings, written for whoever reads them: people, scripts, code scanners, test viewers and forges.

Each format is a module with one function from a `Report` to its text. What comes from a file is escaped in all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from cron_observer.manifest import Report

#: The formats of findings, by the word that `--format` takes.
FORMATS: Final = ("text", "json", "sarif", "junit", "github", "gitlab")

#: The formats that forges show at the lines of files.
_ROOTED: Final = ("sarif", "github", "gitlab")

_MODULES: Final[Mapping[str, str]] = {"json": "as_json"}


def write(form: str, report: Report) -> str:
    """Return the findings of a report in one of `FORMATS`; ends with a line feed unless it is empty."""
    module = import_module(f"cron_observer.cli.formats.{_MODULES.get(form, form)}")
    asked = _rooted(report, report.root) if form in _ROOTED and report.root is not None else report
    return cast("Callable[[Report], str]", module.write)(asked)


def _rooted(report: Report, root: Path) -> Report:
    """Return the same with paths from the root of the repository, where forges look for lines."""
    return replace(report, findings=[replace(one, path=_from(root, one.path)) for one in report.findings])


def _from(root: Path, path: str) -> str:
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) and os.path.lexists(path) else path
