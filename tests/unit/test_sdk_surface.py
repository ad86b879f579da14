"""The SDK is small from outside: every public name is there, and nothing beside Python is needed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import cron_observer_sdk as co

PACKAGE = Path(co.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))


def test_every_public_name_exists() -> None:
    """What ``__all__`` promises can be imported, and ``dir`` shows it."""
    assert all(getattr(co, name).__name__ for name in co.__all__)
    assert set(co.__all__) <= set(dir(co))


def test_unknown_names_are_unknown() -> None:
    """A typing error is an AttributeError, as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'tsk'"):
        _ = co.tsk  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_modules_import_python_and_themselves_only(module: Path) -> None:
    """No module imports anything that is not in the standard library."""
    for node in ast.walk(ast.parse(module.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            root = name.partition(".")[0]
            assert root in sys.stdlib_module_names | {"cron_observer_sdk"}, name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_modules_are_written_in_python_3_9(module: Path) -> None:
    """No module uses syntax that came after Python 3.9."""
    ast.parse(module.read_text(), feature_version=(3, 9))
