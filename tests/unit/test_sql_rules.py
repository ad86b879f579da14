"""Every SQL text of the store obeys the rules that let the schema outgrow one machine and survive a pooler."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import TextClause

import cron_observer.store
from cron_observer.store.tables import metadata

STATEMENT = re.compile(r"(WITH|SELECT|INSERT INTO|UPDATE|DELETE FROM|MERGE|LOCK|SET|LISTEN|NOTIFY|CREATE|ALTER|DROP)\b")
TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:ONLY\s+)?(\w+)")
WRITES = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\b")
VOLATILE = re.compile(
    r"\b(now|clock_timestamp|statement_timestamp|random|gen_random_uuid|nextval|uuidv\d)\s*\(", re.IGNORECASE
)
SESSION = re.compile(
    r"\bset_config\b|\bpg_(try_)?advisory_(un)?lock(_shared)?\b|\bLISTEN\b|\bNOTIFY\b|\bMERGE\b|\bpg_notify\b"
    r"|\bSET\s+(SESSION\b|(?!LOCAL\b)(app|role|timezone|statement_timeout|lock_timeout)\b)",
    re.IGNORECASE,
)
ONE_TENANT = re.compile(r"\btenant_id = (:\w+|%\(\w+\)s|CAST\(:\w+ AS uuid\))")

#: Statements that may do without a tenant, and why.
TENANTLESS = {
    "tenants._ALL_IDS": "the loops learn which tenants there are",
    "engine.clock": "reads the clock",
    "keys._FIND": "a secret says whose it is",
    "health._REVISION": "the schema belongs to nobody",
}

#: Statements that touch the session, and why that does no harm.
HINTS = {
    "wakeups._TELL": "a hint that may be lost: the tick finds what it tells of",
    "wakeups._HEAR": "on a connection of its own, beside the pool; behind a pooler nothing comes",
}

#: Modules whose statements are no work of the running product: they make databases and schemas, as the administrator.
MAKERS = {"migrate", "bootstrap"}


class Statement(NamedTuple):
    """One SQL text and where it stands."""

    place: str
    sql: str


def bare(sql: str) -> str:
    """Return a statement without comments, literals and surplus blanks."""
    sql = re.sub(r"--[^\n]*", " ", sql)
    return " ".join(re.sub(r"'[^']*'", "''", sql).split())


def module_constants() -> Iterator[Statement]:
    """Find the statements that stand as constants of the store's modules, whole as they are run."""
    for info in pkgutil.walk_packages(cron_observer.store.__path__, "cron_observer.store."):
        if ".migrations" in info.name or info.name.rpartition(".")[2] in MAKERS:
            continue
        module = importlib.import_module(info.name)
        short = info.name.removeprefix("cron_observer.store.")
        for name, value in vars(module).items():
            text = value.text if isinstance(value, TextClause) else value
            if isinstance(text, str) and not name.startswith("__") and STATEMENT.match(bare(text)):
                yield Statement(f"{short}.{name}", bare(text))


def inline_texts() -> Iterator[Statement]:
    """Find the statements that stand inside of functions."""
    for path in sorted(Path(cron_observer.store.__path__[0]).rglob("*.py")):
        if "migrations" in path.parts or path.stem in MAKERS:
            continue
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            documentation = ast.get_docstring(function, clean=False)
            for node in ast.walk(function):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and node.value != documentation
                    and STATEMENT.match(bare(node.value))
                    and "SET LOCAL" not in node.value
                ):
                    yield Statement(f"{path.stem}.{function.name}", bare(node.value))


def tables_of(sql: str) -> set[str]:
    """Return our tables that a statement names."""
    return set(TABLE.findall(sql)) & set(metadata.tables)


def violations(statement: Statement) -> list[str]:
    """Return the rules that a statement breaks."""
    place, sql = statement
    found = []
    if tables_of(sql) and place not in TENANTLESS and "tenant_id" not in sql:
        found.append("names a table and no tenant_id")
    if WRITES.search(sql) and VOLATILE.search(sql):
        found.append("writes what a volatile function says instead of a parameter")
    if SESSION.search(sql) and place not in HINTS:
        found.append("touches the session, or uses what Citus or a pooler refuses")
    if re.search(r"\bFOR (NO KEY )?(UPDATE|SHARE)\b", sql) and not ONE_TENANT.search(sql):
        found.append("locks rows without naming one tenant")
    return found


@pytest.mark.parametrize("statement", list(module_constants()), ids=lambda statement: statement.place)
def test_statements_obey(statement: Statement) -> None:
    """No statement of the store breaks a rule."""
    assert violations(statement) == [], statement.sql


def test_statements_stand_as_constants() -> None:
    """SQL stands in named constants, where the lint sees it whole; only the clock is read inline."""
    assert {statement.place for statement in inline_texts()} == {"engine.clock"}


def test_the_lint_sees_the_store() -> None:
    """The statements are found: the hot ones by name, and many others."""
    places = {statement.place for statement in module_constants()}
    assert len(places) > 50
    assert {"plan_rows._ADD_SLOTS", "executions.candidates._DUE_IN_QUEUES", "tenants._ALL_IDS"} <= places


def test_exceptions_exist() -> None:
    """Every exception from the rules names a statement that is there."""
    places = {statement.place for statement in (*module_constants(), *inline_texts())}
    assert set(TENANTLESS) | set(HINTS) <= places


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM executions WHERE status = 'PENDING'",
        "UPDATE executions SET finished_at = now() WHERE tenant_id = :tenant_id",
        "INSERT INTO executions (tenant_id, id) VALUES (:tenant_id, gen_random_uuid())",
        "SELECT set_config('app.tenant_ids', :ids, true)",
        "SELECT pg_advisory_lock(42)",
        "SET app.tenant_ids = ''",
        "MERGE INTO tasks USING wanted ON true WHEN MATCHED THEN DO NOTHING",
        "NOTIFY due",
        "SELECT e.id FROM executions e JOIN v ON v.tenant_id = e.tenant_id FOR UPDATE SKIP LOCKED",
    ],
)
def test_broken_statements_are_caught(sql: str) -> None:
    """Each rule catches a statement that breaks it."""
    assert violations(Statement("broken", bare(sql)))
