"""Mutants by their lines: a line of the product is replaced in memory, everywhere the product has it."""

from __future__ import annotations
import __future__

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Mutant(NamedTuple):
    """A line that is changed: of the function or the statement `name` of `module`, `old` becomes `new`."""

    module: str
    name: str
    old: str
    new: str

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        """Break the product, for as long as `patch` lasts."""
        module = importlib.import_module(f"cron_observer.{self.module}")
        owner, name = module, self.name
        if "." in name:
            kind, _, name = name.partition(".")
            owner = getattr(module, kind)
        broken = inspect.getattr_static(owner, name)
        if isinstance(broken, str):
            _replaced(self, broken)
            patch.setattr(owner, name, broken.replace(self.old, self.new))
            return
        function = inspect.unwrap(broken.__func__ if isinstance(broken, classmethod | staticmethod) else broken)
        source = _replaced(self, textwrap.dedent(inspect.getsource(function)))
        made: dict[str, Any] = {}
        flags = __future__.annotations.compiler_flag
        exec(compile(source, f"<mutant of {self.module}>", "exec", flags), module.__dict__, made)  # noqa: S102
        _everywhere(patch, owner, name, getattr(owner, name), made[name])


def _replaced(mutant: Mutant, text: str) -> str:
    assert text.count(mutant.old) == 1, f"{mutant.module}.{mutant.name} does not say so once: {mutant.old}"
    return text.replace(mutant.old, mutant.new)


def _everywhere(patch: pytest.MonkeyPatch, owner: Any, name: str, old: Callable[..., Any], new: Any) -> None:
    """Put `new` in the place of `old` wherever a module of the product, or of the tests, has it by a name."""
    patch.setattr(owner, name, new)
    for module in list(sys.modules.values()):
        if not str(getattr(module, "__name__", "")).startswith(("cron_observer", "integration", "unit", "support")):
            continue
        for known, value in list(vars(module).items()):
            if value is old:
                patch.setattr(module, known, new)
