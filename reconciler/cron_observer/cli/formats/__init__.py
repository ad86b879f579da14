"""Findings, written for whoever reads them: people, scripts, code scanners, test viewers and forges.

Each format is a module with one function from a `Report` to its text. What comes from a file is escaped in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from cron_observer.manifest import Report

#: The formats of findings, by the word that `--format` takes.
FORMATS: Final = ("text", "json", "sarif", "junit", "github", "gitlab")

_MODULES: Final[Mapping[str, str]] = {"json": "as_json"}


def write(form: str, report: Report) -> str:
    """Return the findings of a report in one of `FORMATS`; ends with a line feed unless it is empty."""
    module = import_module(f"cron_observer.cli.formats.{_MODULES.get(form, form)}")
    return cast("Callable[[Report], str]", module.write)(report)
